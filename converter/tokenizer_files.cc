#include "converter/tokenizer_files.h"

#include <optional>
#include <string>

#include "converter/fast_tokenizer.h"
#include "converter/tokenizer_json.h"
#include "converter/tokenizer_proof.h"
#include "schema/base/mapped_file.h"
#include "schema/tokenizer.h"

namespace taskpress {
namespace {

template <typename T>
Result<T> Named(Result<T> result, const std::filesystem::path& file) {
  if (!result) return std::unexpected(WithContext(std::move(result).error(), file.string()));
  return result;
}

bool Exists(const std::filesystem::path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

Result<SharedBytes> CopyModel(const std::filesystem::path& model_file, const std::filesystem::path& json_file) {
  const std::shared_ptr<const MappedFile> mapped = TRY(MappedFile::Open(model_file));
  const Tokenizer tokenizer = TRY(Named(Tokenizer::FromModel(mapped->bytes()), model_file));
  if (Exists(json_file)) {
    const Json json = TRY(ReadJsonFile(json_file, kTokenizerJsonLimits));
    const FastTokenizer fast = TRY(Named(ReadFastTokenizer(json), json_file));
    TRY(Named(CompareVocabularies(tokenizer, fast, ExtraEntries::kAllowed), json_file));
  }
  return MakeMappedSource(mapped, 0, mapped->size());
}

Result<SharedBytes> RebuildModel(const std::filesystem::path& json_file, const std::filesystem::path& config_file) {
  const Json json = TRY(ReadJsonFile(json_file, kTokenizerJsonLimits));
  std::optional<Json> config;
  if (Exists(config_file)) config = TRY(ReadJsonFile(config_file));
  const std::string model = TRY(Named(RebuildSentencePieceModel(json, config ? &*config : nullptr), json_file));
  const Tokenizer tokenizer = TRY(Named(Tokenizer::FromModel(AsBytes(model)), json_file));
  TRY(Named(ProveTokenizersEqual(tokenizer, json), json_file));
  return MakeMemorySource(AsBytes(model));
}

}  // namespace

Result<SharedBytes> LoadTokenizerModel(const std::filesystem::path& checkpoint_folder) {
  const std::filesystem::path model_file = checkpoint_folder / "tokenizer.model";
  const std::filesystem::path json_file = checkpoint_folder / "tokenizer.json";
  if (Exists(model_file)) return CopyModel(model_file, json_file);
  if (Exists(json_file)) return RebuildModel(json_file, checkpoint_folder / "tokenizer_config.json");
  return Fail(ErrorCode::kTokenizerMissing, "{}: neither tokenizer.model nor tokenizer.json is there", checkpoint_folder.string());
}

}  // namespace taskpress
