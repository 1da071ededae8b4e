#include "schema/metadata_lint.h"

#include <algorithm>
#include <cmath>

#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"

namespace taskpress {
namespace {

// The id of a token that is given by id, by text or both.
Result<int32_t> ResolveToken(const TokenText& token, const Tokenizer& tokenizer, std::string_view role) {
  if (token.id == TokenText::kNoTokenId) {
    const std::optional<int32_t> id = tokenizer.FindPiece(token.text);
    if (!id) return Fail(ErrorCode::kMetadataLint, "{} token \"{}\" is not in the vocabulary", role, token.text);
    return *id;
  }
  if (token.id < 0 || token.id >= tokenizer.vocab_size()) {
    return Fail(ErrorCode::kTokenOutOfRange, "{} token {}: the vocabulary has 0..{}", role, token.id, tokenizer.vocab_size() - 1);
  }
  if (!token.text.empty() && token.text != tokenizer.Piece(token.id)) {
    return Fail(ErrorCode::kMetadataLint, "{} token {} is written \"{}\", the tokenizer calls it \"{}\"", role, token.id, token.text,
                tokenizer.Piece(token.id));
  }
  return token.id;
}

// "table" and "Ende" would be words of an answer; "<end_of_turn>" and "[END]" are not.
bool IsWord(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char first = FirstUtf8Char(text);
    const bool is_letter_or_digit = first.code_point >= 0x80 || std::isalnum(static_cast<int>(first.code_point)) != 0;
    if (first.state != Utf8State::kComplete || !is_letter_or_digit) return false;
    text.remove_prefix(first.length);
  }
  return true;
}

Status LintStopToken(int32_t id, const Tokenizer& tokenizer) {
  const std::string piece = tokenizer.Piece(id);
  const std::string text = UnescapeSpaces(piece);
  const std::string_view trimmed = Trim(text);
  if (trimmed.empty()) {
    return Fail(ErrorCode::kStopTokenLint, "stop token {} is white space ({} bytes): answers would end at the first line break or space",
                id, text.size());
  }
  switch (tokenizer.Kind(id)) {
    case PieceKind::kByte:
      return Fail(ErrorCode::kStopTokenLint, "stop token {} is the byte piece {}: answers would end inside a character", id, piece);
    case PieceKind::kNormal:
    case PieceKind::kUnused:
      return Fail(ErrorCode::kStopTokenLint, "stop token {} is \"{}\", ordinary text of the vocabulary", id, piece);
    case PieceKind::kUnknown:
      return Fail(ErrorCode::kStopTokenLint, "stop token {} is the unknown piece \"{}\"", id, piece);
    case PieceKind::kUserDefined:
      if (IsWord(trimmed)) return Fail(ErrorCode::kStopTokenLint, "stop token {} is the word \"{}\"", id, piece);
      return {};
    case PieceKind::kControl:
      return {};
  }
  return {};
}

Status LintSampler(const SamplerSettings& sampler) {
  if (sampler.k < 1) return Fail(ErrorCode::kMetadataLint, "sampler: k is {}, expected at least 1 (greedy is k = 1)", sampler.k);
  if (!(sampler.p > 0.0F && sampler.p <= 1.0F)) return Fail(ErrorCode::kMetadataLint, "sampler: p is {}, expected 0 < p <= 1", sampler.p);
  if (!(sampler.temperature > 0.0F) || !std::isfinite(sampler.temperature)) {
    return Fail(ErrorCode::kMetadataLint, "sampler: temperature is {}, expected a positive number (greedy is k = 1)", sampler.temperature);
  }
  return {};
}

}  // namespace

Status LintMetadata(const BundleMetadata& metadata, const Tokenizer& tokenizer) {
  if (!metadata.start_token) {
    return Fail(ErrorCode::kMetadataLint, "no start token: clients would leave out <bos> and the model answers worse without any error");
  }
  const int32_t start = TRY(ResolveToken(*metadata.start_token, tokenizer, "start"));
  if (metadata.stop_tokens.empty()) return Fail(ErrorCode::kMetadataLint, "no stop tokens: clients refuse the bundle or never stop");
  for (const TokenText& token : metadata.stop_tokens) {
    const int32_t id = TRY(ResolveToken(token, tokenizer, "stop"));
    if (id == start) return Fail(ErrorCode::kStopTokenLint, "stop token {} \"{}\" is the start token", id, tokenizer.Piece(id));
    TRY(LintStopToken(id, tokenizer));
  }
  return LintSampler(metadata.sampler);
}

}  // namespace taskpress
