// A model to be run, from wherever the command line names it: a bundle, or a checkpoint turned into a float model in memory.
#ifndef TASKPRESS_TOOLS_MODEL_SOURCE_H_
#define TASKPRESS_TOOLS_MODEL_SOURCE_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "converter/folds.h"
#include "runtime/bundle_model.h"
#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/tokenizer.h"

namespace taskpress {

// -t, --kernels, --size, --weight-cache: which model is executed, and how.
struct RunFlags {
  int threads = 0;
  std::string size;  // of an elastic bundle, or a slice of a checkpoint; empty: the active one, or all of it
  std::string kernels = "fast";
  std::vector<std::string> disabled_passes;
  std::string weight_cache;  // a folder, "none", or empty: beside the bundle
};
// `threads`: whether -t is one number; a verb that takes several adds its own.
void AddRunFlags(CLI::App& app, RunFlags& flags, bool threads = true);

struct OpenedModel {
  Session session;
  BundleMetadata metadata;
  Tokenizer tokenizer;
  uint64_t model_bytes = 0;  // of the file, or of the checkpoint's float graphs
  double load_seconds = 0;
  Kernels kernels = Kernels::kXnnpack;
};

struct OpenOptions {
  StepProfile* profile = nullptr;    // what every step is reported to
  std::span<const Fold> folds = {};  // by which a checkpoint's channels are rescaled
};
// A folder or .safetensors is a checkpoint: converted to f32 in memory with this context. Anything else is a bundle. Says on stderr why
// packed weights could not be kept, when they should be.
Result<OpenedModel> OpenModel(const std::filesystem::path& path, const RunFlags& flags, int64_t checkpoint_context,
                              const OpenOptions& open = {});
// How a bundle's channels were rescaled, so that its weights can be told from rounding.
Result<std::vector<Fold>> FoldsOf(const TextModel& model);

// Which model a path and a size (or slice) name, whatever it is called: of a bundle the SHA-256 of its bytes, of a checkpoint that of
// names, shapes and first rows of its tensors (ModelFingerprint).
Result<std::string> ModelIdentity(const std::filesystem::path& path, const std::string& size);

// Token windows of a text, each starting with the start token and at most `length` long, covering the text once.
Result<std::vector<std::vector<int32_t>>> TextWindows(const OpenedModel& model, const std::string& text, int64_t length);
// The whole file as text. kNotUtf8 comes from the tokenizer.
Result<std::string> ReadTextFile(const std::filesystem::path& path);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_MODEL_SOURCE_H_
