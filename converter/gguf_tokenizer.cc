#include <algorithm>
#include <optional>

#include "converter/fast_tokenizer.h"
#include "converter/gguf_model.h"
#include "converter/tokenizer_proof.h"
#include "schema/base/text.h"
#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"
#include "schema/tokenizer.h"

// V9 is a rule of FORMATS.md, section GGUF.
namespace taskpress {
namespace {

struct Piece {
  std::string text;
  float score = 0;
  PieceKind kind = PieceKind::kNormal;
};

Result<const GgufArray*> RequireArray(const GgufFile& gguf, std::string_view key) {
  const auto* array = gguf.FindAs<GgufArray>(key);
  if (array == nullptr) return Fail(ErrorCode::kGgufHeader, "no array \"{}\"", key);
  return array;
}

Result<std::vector<Piece>> ReadPieces(const GgufFile& gguf) {
  const GgufArray& texts = *TRY(RequireArray(gguf, "tokenizer.ggml.tokens"));
  const GgufArray& scores = *TRY(RequireArray(gguf, "tokenizer.ggml.scores"));
  const GgufArray& kinds = *TRY(RequireArray(gguf, "tokenizer.ggml.token_type"));
  if (texts.size() != scores.size() || texts.size() != kinds.size()) {
    return Fail(ErrorCode::kGgufHeader, "{} tokens, {} scores and {} token types", texts.size(), scores.size(), kinds.size());
  }
  std::vector<Piece> pieces;
  pieces.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto* text = std::get_if<std::string_view>(&texts[i]);
    const auto* score = std::get_if<double>(&scores[i]);
    const auto* kind = std::get_if<int64_t>(&kinds[i]);
    if (text == nullptr || score == nullptr || kind == nullptr || *kind < 1 || *kind > 6) {
      return Fail(ErrorCode::kGgufHeader, "token {}: a text, a float32 score and a type from 1 to 6 are needed", i);
    }
    // Spaces of user-defined pieces are stored as spaces, those of others as U+2581.
    pieces.push_back({.text = EscapeSpaces(*text), .score = static_cast<float>(*score), .kind = static_cast<PieceKind>(*kind)});
  }
  return pieces;
}

Result<int32_t> SpecialId(const GgufFile& gguf, std::string_view key, size_t vocab_size) {
  const GgufValue* value = gguf.Find(key);
  if (value == nullptr) return FastTokenizer::kNoId;
  const auto* id = std::get_if<uint64_t>(value);
  if (id == nullptr || *id >= vocab_size) return Fail(ErrorCode::kGgufHeader, "\"{}\" is no id of a token", key);
  return static_cast<int32_t>(*id);
}

Result<SpecialPieces> ReadSpecialIds(const GgufFile& gguf, size_t vocab_size) {
  SpecialPieces ids;
  ids.unknown = TRY(SpecialId(gguf, "tokenizer.ggml.unknown_token_id", vocab_size));
  ids.bos = TRY(SpecialId(gguf, "tokenizer.ggml.bos_token_id", vocab_size));
  ids.eos = TRY(SpecialId(gguf, "tokenizer.ggml.eos_token_id", vocab_size));
  ids.pad = TRY(SpecialId(gguf, "tokenizer.ggml.padding_token_id", vocab_size));
  return ids;
}

// The number of spaces that a piece is made of, 0 when there is anything else in it.
size_t CountSpaces(std::string_view text) {
  size_t count = 0;
  for (; text.starts_with(kEscapedSpace); ++count) text.remove_prefix(kEscapedSpace.size());
  return text.empty() ? count : 0;
}

// V9. Clients find a marker such as <start_of_turn> in a text only when it is user-defined, so only what they add by id stays control. Runs
// of spaces are reached by merging in Hugging Face's tokenizers, before everything else and the shorter first, where a user-defined piece
// would take as many as it can.
void ReviseKinds(const SpecialPieces& special, std::vector<Piece>& pieces) {
  float highest = 0;
  size_t longest = 0;
  for (const Piece& piece : pieces) {
    highest = std::max(highest, piece.score);
    longest = std::max(longest, CountSpaces(piece.text));
  }
  for (Piece& piece : pieces) {
    if (piece.kind == PieceKind::kControl) piece.kind = PieceKind::kUserDefined;
    const size_t spaces = CountSpaces(piece.text);
    if (piece.kind != PieceKind::kUserDefined || spaces < 2) continue;
    piece.kind = PieceKind::kNormal;
    piece.score = highest + 1 + static_cast<float>(longest - spaces);
  }
  for (const int32_t id : {special.bos, special.eos, special.pad}) {
    if (id >= 0) pieces[static_cast<size_t>(id)].kind = PieceKind::kControl;
  }
}

// The encoder that the proof runs: SentencePiece's merging written as merges of pairs. The pair whose result has the highest score goes
// first; among equal scores the earlier piece.
FastTokenizer ToMerges(const std::vector<Piece>& pieces, const SpecialPieces& special) {
  FastTokenizer fast;
  fast.unknown_id = special.unknown;
  fast.fuse_unknown = true;
  fast.byte_ids.fill(FastTokenizer::kNoId);
  std::vector<int32_t> by_score;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const Piece& piece = pieces[i];
    fast.vocabulary.push_back(piece.text);
    if (piece.kind == PieceKind::kByte) {
      fast.byte_fallback = true;
      if (const std::optional<uint8_t> byte = ByteOfPiece(piece.text)) fast.byte_ids[*byte] = id;
    } else if (piece.kind == PieceKind::kNormal) {
      fast.model_ids.emplace(piece.text, id);
      by_score.push_back(id);
    } else {
      fast.added_tokens.push_back(
          {.id = id, .special = piece.kind != PieceKind::kUserDefined, .normalized = piece.text.contains(kEscapedSpace)});
    }
  }
  std::ranges::stable_sort(by_score, std::ranges::greater{}, [&](int32_t id) { return pieces[static_cast<size_t>(id)].score; });
  for (const int32_t id : by_score) {
    const std::string& text = pieces[static_cast<size_t>(id)].text;
    for (size_t cut = FirstUtf8Char(text).length; cut < text.size(); cut += FirstUtf8Char(std::string_view(text).substr(cut)).length) {
      const int32_t left = fast.FindInModel(text.substr(0, cut));
      const int32_t right = fast.FindInModel(text.substr(cut));
      if (left >= 0 && right >= 0) fast.merges.push_back({.left = left, .right = right, .result = id});
    }
  }
  return fast;
}

SentencePieceModel ToModel(const std::vector<Piece>& pieces, const SpecialPieces& special, bool byte_fallback) {
  SentencePieceModel model;
  for (const Piece& piece : pieces) {
    SentencePieceModel::SentencePiece& out = *model.add_pieces();
    out.set_piece(piece.text);
    out.set_score(piece.score);
    out.set_type(static_cast<int32_t>(piece.kind));
  }
  FillBpeSpecs(model, special, byte_fallback);
  return model;
}

// What would change a text before or after merging and is not rebuilt.
Status CheckFlags(const GgufFile& gguf) {
  const auto* model = gguf.FindAs<std::string_view>("tokenizer.ggml.model");
  if (model == nullptr) return Fail(ErrorCode::kGgufHeader, "no text \"tokenizer.ggml.model\"");
  if (*model != "llama") {
    return Fail(ErrorCode::kTokenizerKind, "tokenizer.ggml.model is \"{}\"; SentencePiece models (\"llama\") are rebuilt",
                Printable(*model));
  }
  const auto* prefix = gguf.FindAs<bool>("tokenizer.ggml.add_space_prefix");
  if (prefix == nullptr || *prefix) {
    return Fail(ErrorCode::kTokenizerUnsupported, "tokenizer.ggml.add_space_prefix is not false, as Gemma's tokenizer has it");
  }
  const auto* strips = gguf.FindAs<bool>("tokenizer.ggml.remove_extra_whitespaces");
  if (strips != nullptr && *strips) return Fail(ErrorCode::kTokenizerUnsupported, "tokenizer.ggml.remove_extra_whitespaces is set");
  const auto* charsmap = gguf.FindAs<GgufArray>("tokenizer.ggml.precompiled_charsmap");
  if (charsmap != nullptr && !charsmap->empty()) {
    return Fail(ErrorCode::kTokenizerUnsupported, "tokenizer.ggml.precompiled_charsmap: a normalizer that is not rebuilt");
  }
  return {};
}

}  // namespace

Result<std::string> TokenizerOfGguf(const GgufFile& gguf) {
  TRY(CheckFlags(gguf));
  std::vector<Piece> pieces = TRY(ReadPieces(gguf));
  const SpecialPieces special = TRY(ReadSpecialIds(gguf, pieces.size()));
  if (special.unknown < 0) return Fail(ErrorCode::kGgufHeader, "no key \"tokenizer.ggml.unknown_token_id\"");
  ReviseKinds(special, pieces);
  pieces[static_cast<size_t>(special.unknown)].kind = PieceKind::kUnknown;
  const FastTokenizer merges = ToMerges(pieces, special);
  std::string model = ToModel(pieces, special, merges.byte_fallback).SerializeAsString();
  const Tokenizer tokenizer = TRY(Tokenizer::FromModel(AsBytes(model)));  // all 256 byte pieces or none, among other rules
  TRY(ProveTokenizersEqual(tokenizer, merges));
  return model;
}

}  // namespace taskpress
