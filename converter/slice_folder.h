// A MatFormer slice as an ordinary Hugging Face folder, to be loaded by transformers or converted later.
#ifndef TASKPRESS_CONVERTER_SLICE_FOLDER_H_
#define TASKPRESS_CONVERTER_SLICE_FOLDER_H_

#include <cstdint>
#include <filesystem>
#include <string>

#include "schema/base/error.h"

namespace taskpress {

struct SliceFolderOptions {
  std::string slice = "e4b";             // see ResolveSlice()
  bool replace = false;                  // files of the same names that are in the output folder
  uint64_t shard_bytes = 5'000'000'000;  // of tensors in one file, as transformers has it
};

struct SliceFolder {
  int64_t text_parameters = 0;
  int64_t effective_parameters = 0;
  uint64_t tensor_bytes = 0;
  int64_t shards = 0;
};

// Writes config.json, model-*.safetensors and their index, in the types of the checkpoint, and copies what else the checkpoint's folder
// holds (tokenizer, generation config, chat template, processor). Deterministic. kUsage when `checkpoint` is no folder, kSlice, kConfig*,
// kSafetensorsDType for tensors that are no floats, kOutputExists.
Result<SliceFolder> WriteSliceFolder(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                                     const SliceFolderOptions& options);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_SLICE_FOLDER_H_
