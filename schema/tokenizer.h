// The tokenizer of a bundle: a SentencePiece model behind one header, checked before the library sees it.
#ifndef TASKPRESS_SCHEMA_TOKENIZER_H_
#define TASKPRESS_SCHEMA_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// What a piece is, numbered as in the SentencePiece file.
enum class PieceKind : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

class Tokenizer {
 public:
  // Serialized SentencePiece ModelProto. The bytes are validated first (FORMATS, tokenizer): sizes, piece rules, finite scores.
  static Result<Tokenizer> FromModel(ByteView model_proto);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  [[nodiscard]] int32_t vocab_size() const;
  // No start token is added; control pieces in the text (such as <start_of_turn>) become their ids, the longest first, as Hugging Face
  // tokenizers do with added tokens. Safe to call from several threads. kNotUtf8, kTextTooLong.
  [[nodiscard]] Result<std::vector<int32_t>> Encode(std::string_view text) const;
  // Control pieces print nothing. kTokenOutOfRange.
  [[nodiscard]] Result<std::string> Decode(std::span<const int32_t> ids) const;
  [[nodiscard]] std::optional<int32_t> FindPiece(std::string_view piece) const;
  // The piece as stored, "▁the". `id` must be in range.
  [[nodiscard]] std::string Piece(int32_t id) const;
  [[nodiscard]] bool IsControl(int32_t id) const { return Kind(id) == PieceKind::kControl; }
  [[nodiscard]] bool IsByte(int32_t id) const { return Kind(id) == PieceKind::kByte; }
  [[nodiscard]] PieceKind Kind(int32_t id) const;

  struct State;

 private:
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Turns ids into text piece by piece for streaming: holds back incomplete UTF-8 from byte pieces. The tokenizer must outlive it.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // The text that became certain with this token; may be empty. kTokenOutOfRange.
  Result<std::string> Push(int32_t id);
  // What is left at the end (invalid bytes become U+FFFD).
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_bytes_;
};

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TOKENIZER_H_
