#include "converter/model_files.h"

#include <array>

#include "converter/gguf_model.h"
#include "converter/tokenizer_files.h"

namespace taskpress {
namespace {

// The files beside the weights that ReadTextConfig, LoadTokenizerModel and ReadChatFiles look for.
constexpr auto kCompanions = std::to_array<std::string_view>(
    {"config.json", "tokenizer.model", "tokenizer.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"});

class FolderModelFiles final : public ModelFiles {
 public:
  FolderModelFiles(std::shared_ptr<const Checkpoint> checkpoint, std::filesystem::path folder)
      : checkpoint_(std::move(checkpoint)), folder_(std::move(folder)) {}

  [[nodiscard]] std::shared_ptr<const Checkpoint> checkpoint() const override { return checkpoint_; }
  Result<TextConfig> ReadConfig() const override { return ReadTextConfig(folder_ / "config.json"); }
  Result<SharedBytes> ReadTokenizer() const override { return LoadTokenizerModel(folder_); }
  Result<ChatFiles> ReadChat() const override { return ReadChatFiles(folder_); }

  [[nodiscard]] std::vector<std::filesystem::path> files() const override {
    std::vector<std::filesystem::path> all = checkpoint_->files();
    std::error_code ignored;
    for (const std::string_view name : kCompanions) {
      if (std::filesystem::is_regular_file(folder_ / name, ignored)) all.push_back(folder_ / name);
    }
    return all;
  }

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::filesystem::path folder_;
};

}  // namespace

Result<std::unique_ptr<ModelFiles>> OpenModelFiles(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return Fail(ErrorCode::kFileNotFound, "{}: cannot open the checkpoint: {}", path.string(), error.message());
  }
  if (path.extension() == ".gguf") return OpenGgufModel(path);
  // First of all: what is no checkpoint has no config.json worth complaining about.
  const bool is_onnx = path.extension() == ".onnx";
  std::shared_ptr<const Checkpoint> checkpoint = is_onnx ? TRY(OpenOnnxCheckpoint(path)) : TRY(OpenSafetensorsCheckpoint(path));
  const bool is_folder = std::filesystem::is_directory(status);
  return std::make_unique<FolderModelFiles>(std::move(checkpoint), is_folder ? path : path.parent_path());
}

bool IsCheckpointPath(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path extension = path.extension();
  return std::filesystem::is_directory(path, ignored) || extension == ".safetensors" || extension == ".gguf" || extension == ".onnx";
}

}  // namespace taskpress
