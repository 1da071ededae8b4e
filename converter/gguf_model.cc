#include "converter/gguf_model.h"

#include "converter/model_family.h"
#include "schema/base/text.h"

namespace taskpress {
namespace {

constexpr std::string_view kTurnEnd = "<end_of_turn>";

Result<const ModelFamily*> FamilyOf(const GgufFile& gguf) {
  const auto* architecture = gguf.FindAs<std::string_view>("general.architecture");
  if (architecture == nullptr) return Fail(ErrorCode::kGgufHeader, "no text \"general.architecture\"");
  if (const ModelFamily* family = FamilyNamed(*architecture)) return family;
  std::string names;
  for (const ModelFamily& family : ModelFamilies()) names += Format("{}{}", names.empty() ? "" : ", ", family.name);
  return Fail(ErrorCode::kModelTypeUnsupported, "general.architecture is \"{}\"; converted are {}", Printable(*architecture), names);
}

Status RefuseParts(const GgufFile& gguf) {
  const GgufValue* count = gguf.Find("split.count");
  if (count == nullptr || *count == GgufValue(uint64_t{1}) || *count == GgufValue(uint64_t{0})) return {};
  return Fail(ErrorCode::kGgufUnsupported, "one part of a split model; merge the parts first (llama-gguf-split --merge)");
}

class GgufModelFiles final : public ModelFiles {
 public:
  GgufModelFiles(MappedGguf gguf, std::shared_ptr<const Checkpoint> checkpoint, TextConfig config)
      : gguf_(std::move(gguf)), checkpoint_(std::move(checkpoint)), config_(std::move(config)) {}

  [[nodiscard]] std::shared_ptr<const Checkpoint> checkpoint() const override { return checkpoint_; }
  Result<TextConfig> ReadConfig() const override { return config_; }

  Result<SharedBytes> ReadTokenizer() const override {
    Result<std::string> model = TokenizerOfGguf(gguf_.contents);
    if (!model) return std::unexpected(WithContext(std::move(model).error(), gguf_.file->path().string()));
    TRY(gguf_.file->CheckUnchanged());
    return MakeMemorySource(AsBytes(*model));
  }

  [[nodiscard]] std::vector<std::filesystem::path> files() const override { return {gguf_.file->path()}; }

  // In the words of the Hugging Face files.
  Result<ChatFiles> ReadChat() const override {
    const GgufFile& gguf = gguf_.contents;
    ChatFiles files;
    files.config = Json::object();
    const GgufValue* adds_start = gguf.Find("tokenizer.ggml.add_bos_token");
    if (adds_start == nullptr || *adds_start == GgufValue(true)) AddId("tokenizer.ggml.bos_token_id", files.config["bos_token_id"]);
    Json& stops = files.config["eos_token_id"] = Json::array();
    for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      Json id;
      AddId(key, id);
      if (!id.is_null()) stops.push_back(std::move(id));
    }
    if (const auto* source = gguf.FindAs<std::string_view>("tokenizer.chat_template")) {
      files.template_source = std::string(*source);
      // llama.cpp takes this piece for the end of a turn whatever the ids say.
      if (source->contains(kTurnEnd)) files.tokenizer_config = Json{{"eos_token", kTurnEnd}};
    }
    return files;
  }

 private:
  void AddId(std::string_view key, Json& out) const {
    if (const auto* id = gguf_.contents.FindAs<uint64_t>(key)) out = *id;
  }

  MappedGguf gguf_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  TextConfig config_;
};

Result<std::unique_ptr<ModelFiles>> Open(const std::shared_ptr<const MappedFile>& file) {
  MappedGguf gguf{.file = file, .contents = {}};
  gguf.contents = TRY(ParseGguf(file->bytes()));
  TRY(RefuseParts(gguf.contents));
  const ModelFamily* family = TRY(FamilyOf(gguf.contents));
  TextConfig config = TRY(ParseTextConfig(TRY(ConfigOfGguf(gguf.contents, *family))));
  std::shared_ptr<const Checkpoint> checkpoint = TRY(MakeGgufCheckpoint(gguf, *family, config.text_vocab_size));
  return std::make_unique<GgufModelFiles>(std::move(gguf), std::move(checkpoint), std::move(config));
}

}  // namespace

Result<std::unique_ptr<ModelFiles>> OpenGgufModel(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  Result<std::unique_ptr<ModelFiles>> model = Open(file);
  if (!model) return std::unexpected(WithContext(std::move(model).error(), path.string()));
  TRY(file->CheckUnchanged());
  return model;
}

}  // namespace taskpress
