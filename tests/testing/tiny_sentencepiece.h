// A SentencePiece model small enough to break in every place: special pieces, markers, 256 bytes, a few merges.
#ifndef TASKPRESS_TESTS_TESTING_TINY_SENTENCEPIECE_H_
#define TASKPRESS_TESTS_TESTING_TINY_SENTENCEPIECE_H_

#include <string>
#include <string_view>

#include "schema/sentencepiece_model.h"

namespace taskpress::testing {

inline void AddPiece(SentencePieceModel& model, std::string_view text, float score, PieceKind kind) {
  SentencePieceModel::SentencePiece& piece = *model.add_pieces();
  piece.set_piece(std::string(text));
  piece.set_score(score);
  piece.set_type(static_cast<int32_t>(kind));
}

// 0 <pad>, 1 <eos>, 2 <bos>, 3 <unk>, 4 <turn>, 5 "\n", 6 "the", 7 "[END]", 8..263 bytes, then merges and characters.
inline SentencePieceModel TinyModel() {
  SentencePieceModel model;
  for (const char* control : {"<pad>", "<eos>", "<bos>"}) AddPiece(model, control, 0, PieceKind::kControl);
  AddPiece(model, "<unk>", 0, PieceKind::kUnknown);
  for (const char* marker : {"<turn>", "\n", "the", "[END]"}) AddPiece(model, marker, 0, PieceKind::kUserDefined);
  for (int byte = 0; byte < 256; ++byte) AddPiece(model, PieceOfByte(static_cast<uint8_t>(byte)), 0, PieceKind::kByte);
  float score = 0;
  for (const char* merged : {"ab", "\u2581ab", "abc", "\u2581\u2581"}) AddPiece(model, merged, score--, PieceKind::kNormal);
  for (const char* character : {"\u2581", "a", "b", "c", "é"}) AddPiece(model, character, score--, PieceKind::kNormal);
  model.mutable_trainer_spec()->set_model_type(kBpeModel);
  model.mutable_trainer_spec()->set_byte_fallback(true);
  model.mutable_trainer_spec()->set_unk_id(3);
  model.mutable_trainer_spec()->set_bos_id(2);
  model.mutable_trainer_spec()->set_eos_id(1);
  model.mutable_trainer_spec()->set_pad_id(0);
  model.mutable_normalizer_spec()->set_name("identity");
  model.mutable_normalizer_spec()->set_add_dummy_prefix(false);
  model.mutable_normalizer_spec()->set_remove_extra_whitespaces(false);
  return model;
}

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_TINY_SENTENCEPIECE_H_
