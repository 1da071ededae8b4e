#include "converter/model_files.h"

#include "converter/gguf_model.h"
#include "converter/tokenizer_files.h"

namespace taskpress {
namespace {

class FolderModelFiles final : public ModelFiles {
 public:
  FolderModelFiles(std::shared_ptr<const Checkpoint> checkpoint, std::filesystem::path folder)
      : checkpoint_(std::move(checkpoint)), folder_(std::move(folder)) {}

  [[nodiscard]] std::shared_ptr<const Checkpoint> checkpoint() const override { return checkpoint_; }
  Result<TextConfig> ReadConfig() const override { return ReadTextConfig(folder_ / "config.json"); }
  Result<SharedBytes> ReadTokenizer() const override { return LoadTokenizerModel(folder_); }
  Result<ChatFiles> ReadChat() const override { return ReadChatFiles(folder_); }

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
