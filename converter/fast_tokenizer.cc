#include "converter/fast_tokenizer.h"

#include <optional>
#include <unordered_set>

#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"

namespace taskpress {
namespace {

constexpr size_t kMaxMerges = 1 << 21;

// A member of an object; null when it is absent, as `tokenizers` reads it.
const Json& Member(const Json& object, const char* name) {
  static const Json& null = *new Json();
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

bool IsFalseOrAbsent(const Json& value) { return value.is_null() || value == false; }
bool IsEmptyOrAbsent(const Json& value) { return value.is_null() || value == ""; }
bool IsString(const Json& value, std::string_view text) { return value.is_string() && value.get_ref<const std::string&>() == text; }

// J4.
bool ReplacesSpaces(const Json& step) {
  return step.is_object() && IsString(Member(step, "type"), "Replace") && Member(step, "pattern") == Json{{"String", " "}} &&
         IsString(Member(step, "content"), kEscapedSpace);
}

Status CheckNormalizer(const Json& normalizer) {
  if (ReplacesSpaces(normalizer)) return {};
  if (normalizer.is_object() && IsString(Member(normalizer, "type"), "Sequence")) {
    const Json& steps = Member(normalizer, "normalizers");
    if (steps.is_array() && steps.size() == 1 && ReplacesSpaces(steps[0])) return {};
  }
  return Fail(ErrorCode::kTokenizerUnsupported, "J4: normalizer {}; supported is the replacement of \" \" by U+2581 and nothing else",
              normalizer.dump().substr(0, 200));
}

// J5.
Status CheckPreTokenizer(const Json& pre_tokenizer) {
  if (pre_tokenizer.is_null()) return {};
  if (pre_tokenizer.is_object() && IsString(Member(pre_tokenizer, "type"), "Split") &&
      Member(pre_tokenizer, "pattern") == Json{{"String", " "}} && IsFalseOrAbsent(Member(pre_tokenizer, "invert"))) {
    return {};
  }
  return Fail(ErrorCode::kTokenizerUnsupported, "J5: pre_tokenizer {}; supported is none, or a split at \" \"",
              pre_tokenizer.dump().substr(0, 200));
}

// J2.
Status CheckModel(const Json& model) {
  if (!model.is_object() || !IsString(Member(model, "type"), "BPE")) {
    return Fail(ErrorCode::kTokenizerUnsupported, "J2: model.type {}; supported is BPE",
                model.is_object() ? Member(model, "type").dump().substr(0, 60) : "is missing");
  }
  if (!Member(model, "dropout").is_null() || !IsEmptyOrAbsent(Member(model, "continuing_subword_prefix")) ||
      !IsEmptyOrAbsent(Member(model, "end_of_word_suffix")) || !IsFalseOrAbsent(Member(model, "ignore_merges"))) {
    return Fail(ErrorCode::kTokenizerUnsupported,
                "J2: model.dropout, continuing_subword_prefix, end_of_word_suffix and ignore_merges must be off");
  }
  return {};
}

Result<int32_t> ReadId(const Json& value, std::string_view what) {
  if (!value.is_number_integer() || value < 0 || value >= kMaxPieces) {
    return Fail(ErrorCode::kTokenizerJson, "J3: id {} of {}, expected 0..{}", value.dump().substr(0, 40), what, kMaxPieces - 1);
  }
  return value.get<int32_t>();
}

// Puts a text at its id. An added token may repeat an entry of the model's vocabulary.
Status PlaceEntry(std::vector<std::optional<std::string>>& entries, const std::string& text, int32_t id) {
  if (text.empty() || text.size() > kMaxPieceBytes || text.find('\0') != std::string::npos) {
    return Fail(ErrorCode::kTokenizerJson, "J3: entry {} has {} bytes or contains a NUL, expected 1..{}", id, text.size(), kMaxPieceBytes);
  }
  const auto index = static_cast<size_t>(id);
  if (index >= entries.size()) entries.resize(index + 1);
  if (entries[index] && *entries[index] != text) {
    return Fail(ErrorCode::kTokenizerJson, "J3: id {} is both \"{}\" and \"{}\"", id, *entries[index], text);
  }
  entries[index] = text;
  return {};
}

Status ReadVocabulary(const Json& vocab, std::vector<std::optional<std::string>>& entries, FastTokenizer& out) {
  if (!vocab.is_object() || vocab.empty() || vocab.size() > static_cast<size_t>(kMaxPieces)) {
    return Fail(ErrorCode::kTokenizerJson, "J1: model.vocab must be an object of 1..{} entries", kMaxPieces);
  }
  out.model_ids.reserve(vocab.size());
  for (const auto& [text, value] : vocab.items()) {
    const int32_t id = TRY(ReadId(value, "model.vocab"));
    if (static_cast<size_t>(id) < entries.size() && entries[static_cast<size_t>(id)]) {
      return Fail(ErrorCode::kTokenizerJson, "J3: id {} is both \"{}\" and \"{}\"", id, *entries[static_cast<size_t>(id)], text);
    }
    TRY(PlaceEntry(entries, text, id));
    out.model_ids.emplace(text, id);
  }
  return {};
}

// J3, J6.
Status ReadAddedTokens(const Json& tokens, std::vector<std::optional<std::string>>& entries, FastTokenizer& out) {
  if (tokens.is_null()) return {};
  if (!tokens.is_array() || tokens.size() > static_cast<size_t>(kMaxPieces)) {
    return Fail(ErrorCode::kTokenizerJson, "J1: added_tokens must be an array of at most {} entries", kMaxPieces);
  }
  for (const Json& token : tokens) {
    if (!token.is_object() || !Member(token, "content").is_string()) {
      return Fail(ErrorCode::kTokenizerJson, "J3: added token without content: {}", token.dump().substr(0, 100));
    }
    const auto& text = token["content"].get_ref<const std::string&>();
    const int32_t id = TRY(ReadId(Member(token, "id"), "added_tokens"));
    if (const int32_t model_id = out.FindInModel(text); model_id != FastTokenizer::kNoId && model_id != id) {
      return Fail(ErrorCode::kTokenizerJson, "J3: \"{}\" is {} in model.vocab and {} in added_tokens", text, model_id, id);
    }
    TRY(PlaceEntry(entries, text, id));
    for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
      if (!IsFalseOrAbsent(Member(token, flag))) {
        return Fail(ErrorCode::kTokenizerUnsupported, "J6: added token {} \"{}\" has {}; a SentencePiece model cannot express it", id, text,
                    flag);
      }
    }
    // `tokenizers` gives an absent flag its default: special false, normalized = not special.
    const bool special = Member(token, "special") == true;
    const Json& normalized = Member(token, "normalized");
    out.added_tokens.push_back({id, special, normalized.is_boolean() ? normalized.get<bool>() : !special});
  }
  return {};
}

Status FinishVocabulary(std::vector<std::optional<std::string>>& entries, FastTokenizer& out) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(entries.size());
  for (size_t id = 0; id < entries.size(); ++id) {
    if (!entries[id]) return Fail(ErrorCode::kTokenizerJson, "J3: no entry has id {}, though ids go up to {}", id, entries.size() - 1);
    if (!seen.insert(*entries[id]).second) return Fail(ErrorCode::kTokenizerJson, "J3: \"{}\" has two ids, one is {}", *entries[id], id);
  }
  out.vocabulary.reserve(entries.size());
  for (std::optional<std::string>& entry : entries) out.vocabulary.push_back(*std::move(entry));
  return {};
}

// The halves of a merge: ["a", "b"], or "a b" in older files.
Result<std::pair<std::string, std::string>> ReadHalves(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair{merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::pair{text.substr(0, space), text.substr(space + 1)};
    }
  }
  return Fail(ErrorCode::kTokenizerJson, "J7: merge {} is neither [\"a\", \"b\"] nor \"a b\"", merge.dump().substr(0, 100));
}

Status ReadMerges(const Json& merges, FastTokenizer& out) {
  if (!merges.is_array() || merges.size() > kMaxMerges) {
    return Fail(ErrorCode::kTokenizerJson, "J1: model.merges must be an array of at most {} entries", kMaxMerges);
  }
  std::unordered_set<uint64_t> seen;
  seen.reserve(merges.size());
  out.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    const auto [left, right] = TRY(ReadHalves(merge));
    const FastTokenizer::Merge ids{out.FindInModel(left), out.FindInModel(right), out.FindInModel(left + right)};
    if (ids.left < 0 || ids.right < 0 || ids.result < 0) {
      return Fail(ErrorCode::kTokenizerJson, "J7: merge {} of \"{}\" and \"{}\" is not made of vocabulary entries", out.merges.size(), left,
                  right);
    }
    if (!seen.insert((static_cast<uint64_t>(ids.left) << 32) | static_cast<uint32_t>(ids.right)).second) {
      return Fail(ErrorCode::kTokenizerJson, "J7: merge {} of \"{}\" and \"{}\" occurs twice", out.merges.size(), left, right);
    }
    out.merges.push_back(ids);
  }
  return {};
}

// J2, J8.
Status ReadUnknownHandling(const Json& model, FastTokenizer& out) {
  const Json& unknown = Member(model, "unk_token");
  if (!unknown.is_string()) return Fail(ErrorCode::kTokenizerUnsupported, "J2: model.unk_token is missing; SentencePiece needs one");
  out.unknown_id = out.FindInModel(unknown.get_ref<const std::string&>());
  if (out.unknown_id < 0) return Fail(ErrorCode::kTokenizerJson, "J2: model.unk_token {} is not in model.vocab", unknown.dump());
  out.byte_fallback = Member(model, "byte_fallback") == true;
  out.fuse_unknown = Member(model, "fuse_unk") == true;
  out.byte_ids.fill(FastTokenizer::kNoId);
  if (!out.byte_fallback) {
    if (out.fuse_unknown) return {};
    return Fail(ErrorCode::kTokenizerUnsupported, "J2: neither byte_fallback nor fuse_unk; SentencePiece always fuses unknown characters");
  }
  std::unordered_set<int32_t> in_merges;
  for (const FastTokenizer::Merge& merge : out.merges) in_merges.insert({merge.left, merge.right});
  for (int byte = 0; byte < 256; ++byte) {
    int32_t id = out.FindInModel(PieceOfByte(static_cast<uint8_t>(byte)));
    if (id < 0 && byte < 0x80) {
      id = out.FindInModel(std::string(1, static_cast<char>(byte)));
      if (in_merges.contains(id)) id = FastTokenizer::kNoId;
    }
    if (id < 0) {
      return Fail(ErrorCode::kTokenizerUnsupported, "J8: byte_fallback without an entry for byte 0x{:02X}", static_cast<unsigned>(byte));
    }
    out.byte_ids[static_cast<size_t>(byte)] = id;
  }
  return {};
}

}  // namespace

Result<FastTokenizer> ReadFastTokenizer(const Json& tokenizer_json) {
  if (!tokenizer_json.is_object()) return Fail(ErrorCode::kTokenizerJson, "tokenizer.json is not an object");
  const Json& model = Member(tokenizer_json, "model");
  TRY(CheckModel(model));
  TRY(CheckNormalizer(Member(tokenizer_json, "normalizer")));
  TRY(CheckPreTokenizer(Member(tokenizer_json, "pre_tokenizer")));
  FastTokenizer out;
  std::vector<std::optional<std::string>> entries;
  TRY(ReadVocabulary(Member(model, "vocab"), entries, out));
  TRY(ReadAddedTokens(Member(tokenizer_json, "added_tokens"), entries, out));
  TRY(FinishVocabulary(entries, out));
  TRY(ReadMerges(Member(model, "merges"), out));
  TRY(ReadUnknownHandling(model, out));
  return out;
}

}  // namespace taskpress
