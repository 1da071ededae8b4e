#include "schema/sentencepiece_model.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <bitset>
#include <cmath>
#include <unordered_set>
#include <vector>

#include "schema/base/utf8.h"

namespace taskpress {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// SentencePiece's PrefixMatcher looks user-defined pieces up into an array of 64 results and reads past it when more of them are prefixes
// of each other (upstream issue 1267).
constexpr int kMaxNestedUserDefined = 64;

// K1..K3, before the parser allocates anything: a piece costs two bytes in the file and twenty times that in memory.
Status CheckWire(ByteView bytes) {
  if (bytes.size() > kMaxTokenizerModelBytes) {
    return Fail(ErrorCode::kTokenizerModel, "K1: {} bytes, at most {} are read", bytes.size(), kMaxTokenizerModelBytes);
  }
  const uint32_t pieces_tag = WireFormatLite::MakeTag(SentencePieceModel::kPiecesFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  int num_pieces = 0;
  while (const uint32_t tag = input.ReadTag()) {
    if (!WireFormatLite::SkipField(&input, tag)) {
      return Fail(ErrorCode::kTokenizerModel, "K2: not a protobuf message near byte {}; the file is damaged or truncated",
                  input.CurrentPosition());
    }
    if (tag == pieces_tag && ++num_pieces > kMaxPieces) {
      return Fail(ErrorCode::kTokenizerModel, "K3: more than {} pieces", kMaxPieces);
    }
  }
  if (!input.ConsumedEntireMessage()) {
    return Fail(ErrorCode::kTokenizerModel, "K2: not a protobuf message near byte {}", input.CurrentPosition());
  }
  if (num_pieces == 0) return Fail(ErrorCode::kTokenizerModel, "K3: the model has no pieces; is this a tokenizer.model?");
  return {};
}

// K4, K6, K7.
Status CheckPiece(int id, const SentencePieceModel::SentencePiece& piece) {
  const std::string& text = piece.piece();
  if (text.empty() || text.size() > kMaxPieceBytes) {
    return Fail(ErrorCode::kTokenizerModel, "K4: piece {} has {} bytes, expected 1..{}", id, text.size(), kMaxPieceBytes);
  }
  if (!IsValidUtf8(text) || text.find('\0') != std::string::npos) {
    return Fail(ErrorCode::kTokenizerModel, "K4: piece {} is not UTF-8 or contains a NUL", id);
  }
  if (!std::isfinite(piece.score())) return Fail(ErrorCode::kTokenizerModel, "K6: piece {} \"{}\": score {}", id, text, piece.score());
  if (piece.type() < static_cast<int32_t>(PieceKind::kNormal) || piece.type() > static_cast<int32_t>(PieceKind::kByte)) {
    return Fail(ErrorCode::kTokenizerModel, "K7: piece {} \"{}\": type {}, known are 1..6", id, text, piece.type());
  }
  return {};
}

// K5, K8, K9, K10: rules about all pieces together.
Status CheckPieceSet(const SentencePieceModel& model) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(static_cast<size_t>(model.pieces_size()));
  std::bitset<256> bytes;
  uint64_t total_bytes = 0;
  int num_unknown = 0;
  for (int id = 0; id < model.pieces_size(); ++id) {
    const SentencePieceModel::SentencePiece& piece = model.pieces(id);
    if (!seen.insert(piece.piece()).second) {
      return Fail(ErrorCode::kTokenizerModel, "K5: piece {} \"{}\" occurs twice", id, piece.piece());
    }
    total_bytes += piece.piece().size();
    const auto kind = static_cast<PieceKind>(piece.type());
    if (kind == PieceKind::kUnknown) ++num_unknown;
    if (kind != PieceKind::kByte) continue;
    const std::optional<uint8_t> byte = ByteOfPiece(piece.piece());
    if (!byte) return Fail(ErrorCode::kTokenizerModel, "K9: byte piece {} is \"{}\", expected \"<0x00>\"..\"<0xFF>\"", id, piece.piece());
    bytes.set(*byte);
  }
  if (total_bytes > kMaxBytesOfAllPieces) {
    return Fail(ErrorCode::kTokenizerModel, "K4: {} bytes in all pieces, at most {}", total_bytes, kMaxBytesOfAllPieces);
  }
  if (num_unknown != 1) return Fail(ErrorCode::kTokenizerModel, "K8: {} pieces of type UNKNOWN, expected exactly one", num_unknown);
  if (bytes.any() && !bytes.all())
    return Fail(ErrorCode::kTokenizerModel, "K9: {} of 256 byte pieces; expected all or none", bytes.count());
  if (model.trainer_spec().byte_fallback() != bytes.any()) {
    return Fail(ErrorCode::kTokenizerModel, "K10: byte_fallback is {}, but the model has {} byte pieces",
                model.trainer_spec().byte_fallback(), bytes.count());
  }
  return {};
}

// K11, K12, K13.
Status CheckSpecs(const SentencePieceModel& model) {
  const sentencepiece_wire::TrainerSpec& trainer = model.trainer_spec();
  if (trainer.model_type() != kUnigramModel && trainer.model_type() != kBpeModel) {
    return Fail(ErrorCode::kTokenizerKind, "K11: model_type {}, supported are 1 (unigram) and 2 (BPE)", trainer.model_type());
  }
  for (const auto& [name, id] : {std::pair{"unk_id", trainer.unk_id()}, std::pair{"bos_id", trainer.bos_id()},
                                 std::pair{"eos_id", trainer.eos_id()}, std::pair{"pad_id", trainer.pad_id()}}) {
    if (id < -1 || id >= model.pieces_size()) {
      return Fail(ErrorCode::kTokenizerModel, "K12: {} is {}, expected -1..{}", name, id, model.pieces_size() - 1);
    }
  }
  const sentencepiece_wire::NormalizerSpec& normalizer = model.normalizer_spec();
  if (!normalizer.precompiled_charsmap().empty() || !model.denormalizer_spec().precompiled_charsmap().empty()) {
    return Fail(ErrorCode::kTokenizerKind,
                "K13: the model rewrites text (normalizer \"{}\", {} bytes of rules); only identity is supported", normalizer.name(),
                normalizer.precompiled_charsmap().size());
  }
  if (normalizer.add_dummy_prefix() || normalizer.remove_extra_whitespaces() || !normalizer.escape_whitespaces()) {
    return Fail(ErrorCode::kTokenizerKind,
                "K13: add_dummy_prefix {}, remove_extra_whitespaces {}, escape_whitespaces {}; supported is false, false, true",
                normalizer.add_dummy_prefix(), normalizer.remove_extra_whitespaces(), normalizer.escape_whitespaces());
  }
  return {};
}

// K14. Sorted, a text comes right after its longest prefix that is itself in the list, or after longer texts that share it: a stack of open
// prefixes finds every chain in one pass.
Status CheckNesting(const SentencePieceModel& model) {
  std::vector<std::string_view> texts;
  for (const SentencePieceModel::SentencePiece& piece : model.pieces()) {
    if (piece.type() == static_cast<int32_t>(PieceKind::kUserDefined)) texts.emplace_back(piece.piece());
  }
  std::ranges::sort(texts);
  std::vector<std::string_view> open;
  for (const std::string_view text : texts) {
    while (!open.empty() && !text.starts_with(open.back())) open.pop_back();
    open.push_back(text);
    if (open.size() > kMaxNestedUserDefined) {
      return Fail(ErrorCode::kTokenizerModel, "K14: more than {} user-defined pieces are prefixes of \"{}\"", kMaxNestedUserDefined, text);
    }
  }
  return {};
}

// K15.
void RemoveUnknownFields(SentencePieceModel& model) {
  model.mutable_unknown_fields()->clear();
  model.mutable_trainer_spec()->mutable_unknown_fields()->clear();
  model.mutable_normalizer_spec()->mutable_unknown_fields()->clear();
  model.clear_denormalizer_spec();
  for (SentencePieceModel::SentencePiece& piece : *model.mutable_pieces()) piece.mutable_unknown_fields()->clear();
}

}  // namespace

Result<SentencePieceModel> ReadSentencePieceModel(ByteView bytes) {
  TRY(CheckWire(bytes));
  SentencePieceModel model;
  if (!model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Fail(ErrorCode::kTokenizerModel, "K2: not a SentencePiece ModelProto; the file is damaged or truncated");
  }
  if (!model.has_trainer_spec() || !model.has_normalizer_spec()) {
    return Fail(ErrorCode::kTokenizerModel, "K2: trainer_spec or normalizer_spec is missing; the file is truncated");
  }
  for (int id = 0; id < model.pieces_size(); ++id) TRY(CheckPiece(id, model.pieces(id)));
  TRY(CheckPieceSet(model));
  TRY(CheckSpecs(model));
  TRY(CheckNesting(model));
  RemoveUnknownFields(model);
  return model;
}

void FillBpeSpecs(SentencePieceModel& model, const SpecialPieces& special, bool byte_fallback) {
  sentencepiece_wire::TrainerSpec& trainer = *model.mutable_trainer_spec();
  const auto text_of = [&model](int32_t id) { return model.pieces(id).piece(); };
  trainer.set_model_type(kBpeModel);
  trainer.set_vocab_size(model.pieces_size());
  trainer.set_byte_fallback(byte_fallback);
  trainer.set_unk_id(special.unknown);
  trainer.set_unk_piece(text_of(special.unknown));
  trainer.set_bos_id(special.bos);
  if (special.bos >= 0) trainer.set_bos_piece(text_of(special.bos));
  trainer.set_eos_id(special.eos);
  if (special.eos >= 0) trainer.set_eos_piece(text_of(special.eos));
  trainer.set_pad_id(special.pad);
  if (special.pad >= 0) trainer.set_pad_piece(text_of(special.pad));
  sentencepiece_wire::NormalizerSpec& normalizer = *model.mutable_normalizer_spec();
  normalizer.set_name("identity");
  normalizer.set_add_dummy_prefix(false);
  normalizer.set_remove_extra_whitespaces(false);
  normalizer.set_escape_whitespaces(true);
}

std::optional<uint8_t> ByteOfPiece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char digit : piece.substr(3, 2)) {
    if (digit >= '0' && digit <= '9') {
      value = value * 16 + static_cast<unsigned>(digit - '0');
    } else if (digit >= 'A' && digit <= 'F') {
      value = value * 16 + static_cast<unsigned>(digit - 'A') + 10;
    } else {
      return std::nullopt;
    }
  }
  return static_cast<uint8_t>(value);
}

std::string PieceOfByte(uint8_t byte) { return Format("<0x{:02X}>", byte); }

std::string EscapeSpaces(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    if (c == ' ') {
      escaped += kEscapedSpace;
    } else {
      escaped.push_back(c);
    }
  }
  return escaped;
}

std::string UnescapeSpaces(std::string_view piece) {
  std::string text;
  text.reserve(piece.size());
  size_t position = 0;
  while (true) {
    const size_t space = piece.find(kEscapedSpace, position);
    text.append(piece.substr(position, space - position));
    if (space == std::string_view::npos) return text;
    text.push_back(' ');
    position = space + kEscapedSpace.size();
  }
}

}  // namespace taskpress
