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

class Tokenizer {
 public:
  // Serialized SentencePiece ModelProto. The bytes are validated first (FORMATS, tokenizer): sizes, piece rules, finite scores.
  static Result<Tokenizer> FromModel(ByteView model_proto);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  [[nodiscard]] int32_t vocab_size() const;
  // No start token is added; control pieces in the text (such as <start_of_turn>) become their ids.  kNotUtf8.
  [[nodiscard]] Result<std::vector<int32_t>> Encode(std::string_view text) const;
  // Control pieces print nothing. kTokenOutOfRange.
  [[nodiscard]] Result<std::string> Decode(std::span<const int32_t> ids) const;
  [[nodiscard]] std::optional<int32_t> FindPiece(std::string_view piece) const;
  // The piece as stored, "▁the". `id` must be in range.
  [[nodiscard]] std::string Piece(int32_t id) const;
  [[nodiscard]] bool IsControl(int32_t id) const;
  [[nodiscard]] bool IsByte(int32_t id) const;

  struct State;

 private:
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Turns ids into text piece by piece for streaming: holds back incomplete UTF-8 from byte pieces.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // The text that became certain with this token; may be empty.
  Result<std::string> Push(int32_t id);
  // What is left at the end (invalid bytes become U+FFFD).
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_bytes_;
};

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TOKENIZER_H_
