#include "converter/tokenizer_json.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <vector>

#include "converter/fast_tokenizer.h"
#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"

namespace taskpress {
namespace {

// "bos_token": "<bos>" or {"content": "<bos>", ...}, or null.
std::optional<std::string> TokenName(const Json& config, const char* key) {
  if (!config.is_object() || !config.contains(key)) return std::nullopt;
  const Json& value = config[key];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) return value["content"].get<std::string>();
  return std::nullopt;
}

Result<SpecialPieces> FindSpecialIds(const FastTokenizer& fast, const Json* config) {
  std::unordered_map<std::string_view, int32_t> added;
  for (const FastTokenizer::AddedToken& token : fast.added_tokens) added.emplace(fast.vocabulary[static_cast<size_t>(token.id)], token.id);
  SpecialPieces ids{.unknown = fast.unknown_id};
  for (const auto& [key, gemma_name, id] : {std::tuple{"bos_token", "<bos>", &ids.bos}, std::tuple{"eos_token", "<eos>", &ids.eos},
                                            std::tuple{"pad_token", "<pad>", &ids.pad}}) {
    const std::optional<std::string> name = config != nullptr ? TokenName(*config, key) : gemma_name;
    if (!name) continue;
    const auto found = added.find(*name);
    if (found != added.end()) {
      *id = found->second;
    } else if (config != nullptr) {
      return Fail(ErrorCode::kTokenizerJson, "tokenizer_config.json: {} \"{}\" is not an added token of tokenizer.json", key, *name);
    }
  }
  return ids;
}

// Clients find a marker such as <start_of_turn> in a text only when it is user-defined; control pieces are never found by SentencePiece. So
// only the tokens that a client adds by id are control pieces.
std::vector<PieceKind> ChooseKinds(const FastTokenizer& fast, const SpecialPieces& special, const std::vector<float>& scores) {
  std::vector<PieceKind> kinds(fast.vocabulary.size(), PieceKind::kNormal);
  const auto kind_of = [&kinds](int32_t id) -> PieceKind& { return kinds[static_cast<size_t>(id)]; };
  for (size_t id = 0; id < kinds.size(); ++id) {
    const std::string& text = fast.vocabulary[id];
    const bool is_character = FirstUtf8Char(text).length == text.size();
    // An entry that no merge produces is never reached by tokenizer.json. SentencePiece would reach it; unused pieces it takes apart again.
    if (!is_character && scores[id] > 0) kinds[id] = PieceKind::kUnused;
  }
  for (const FastTokenizer::AddedToken& token : fast.added_tokens) {
    // Added tokens are looked for before spaces become U+2581, user-defined pieces after. Runs of U+2581 are added tokens of Gemma, but
    // runs of spaces reach them by merging.
    const bool spells_spaces = fast.vocabulary[static_cast<size_t>(token.id)].contains(kEscapedSpace);
    if (!spells_spaces || scores[static_cast<size_t>(token.id)] > 0) kind_of(token.id) = PieceKind::kUserDefined;
  }
  if (fast.byte_fallback) {
    for (const int32_t id : fast.byte_ids) kind_of(id) = PieceKind::kByte;
  }
  for (const int32_t id : {special.bos, special.eos, special.pad}) {
    if (id >= 0) kind_of(id) = PieceKind::kControl;
  }
  kind_of(fast.unknown_id) = PieceKind::kUnknown;
  return kinds;
}

// SentencePiece merges the pair whose result has the highest score: minus the rank of the first merge that produces it. Positive marks
// entries without a merge.
std::vector<float> ScoresOfMerges(const FastTokenizer& fast) {
  std::vector<float> scores(fast.vocabulary.size(), 1.0F);
  for (size_t rank = 0; rank < fast.merges.size(); ++rank) {
    float& score = scores[static_cast<size_t>(fast.merges[rank].result)];
    if (score > 0) score = -static_cast<float>(rank);  // exact: ranks stay below 2^21
  }
  return scores;
}

}  // namespace

Result<std::string> RebuildSentencePieceModel(const Json& tokenizer_json, const Json* tokenizer_config) {
  const FastTokenizer fast = TRY(ReadFastTokenizer(tokenizer_json));
  const SpecialPieces special = TRY(FindSpecialIds(fast, tokenizer_config));
  const std::vector<float> scores = ScoresOfMerges(fast);
  const std::vector<PieceKind> kinds = ChooseKinds(fast, special, scores);
  const float lowest = -static_cast<float>(fast.merges.size());
  SentencePieceModel model;
  for (size_t id = 0; id < fast.vocabulary.size(); ++id) {
    SentencePieceModel::SentencePiece& piece = *model.add_pieces();
    piece.set_piece(fast.vocabulary[id]);
    piece.set_score(scores[id] > 0 ? lowest : scores[id]);
    piece.set_type(static_cast<int32_t>(kinds[id]));
  }
  if (fast.byte_fallback) {
    for (size_t byte = 0; byte < 256; ++byte) {
      model.mutable_pieces(fast.byte_ids[byte])->set_piece(PieceOfByte(static_cast<uint8_t>(byte)));
    }
  }
  FillBpeSpecs(model, special, fast.byte_fallback);
  return model.SerializeAsString();
}

}  // namespace taskpress
