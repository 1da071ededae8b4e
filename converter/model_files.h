// All that a conversion reads of a model, wherever it is kept: a Hugging Face folder (weights in safetensors or ONNX), or one GGUF file.
#ifndef TASKPRESS_CONVERTER_MODEL_FILES_H_
#define TASKPRESS_CONVERTER_MODEL_FILES_H_

#include <filesystem>
#include <memory>
#include <vector>

#include "converter/chat_metadata.h"
#include "converter/checkpoint.h"
#include "converter/text_config.h"
#include "schema/base/error.h"
#include "schema/byte_source.h"

namespace taskpress {

class ModelFiles {
 public:
  ModelFiles() = default;
  virtual ~ModelFiles() = default;
  ModelFiles(const ModelFiles&) = delete;
  ModelFiles& operator=(const ModelFiles&) = delete;

  [[nodiscard]] virtual std::shared_ptr<const Checkpoint> checkpoint() const = 0;
  virtual Result<TextConfig> ReadConfig() const = 0;
  // A SentencePiece ModelProto, checked and, where it had to be rebuilt, proven equal to what it was rebuilt from.
  virtual Result<SharedBytes> ReadTokenizer() const = 0;
  virtual Result<ChatFiles> ReadChat() const = 0;
  // Every file that any of the above reads.
  [[nodiscard]] virtual std::vector<std::filesystem::path> files() const = 0;
};

// Weights are found and their headers checked; nothing else is read. A folder, or a .safetensors, .onnx or .gguf file; of the first three
// the folder holds the other files. kFileNotFound, and what OpenSafetensorsCheckpoint, OpenOnnxCheckpoint and OpenGgufModel return.
Result<std::unique_ptr<ModelFiles>> OpenModelFiles(const std::filesystem::path& path);

// By its name alone: something OpenModelFiles() would look into, and no bundle.
bool IsCheckpointPath(const std::filesystem::path& path);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_MODEL_FILES_H_
