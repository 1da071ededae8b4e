// tokenizer.model, read and validated by us before SentencePiece sees it.
//
// The packaged SentencePiece 0.2.0 trusts its models (CVE-2026-1260; upstream issues 1263, 1265, 1267, 1269): a crafted one reads and
// writes out of bounds, exhausts the stack or aborts. What passes here cannot reach those paths. FORMATS, tokenizer, K1..K15.
#ifndef TASKPRESS_SCHEMA_SENTENCEPIECE_MODEL_H_
#define TASKPRESS_SCHEMA_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/sentencepiece_model.pb.h"
#include "schema/tokenizer.h"

namespace taskpress {

using SentencePieceModel = sentencepiece_wire::ModelProto;

// TrainerSpec.model_type as stored.
inline constexpr int32_t kUnigramModel = 1;
inline constexpr int32_t kBpeModel = 2;

// How SentencePiece stores a space: U+2581.
inline constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";

inline constexpr uint64_t kMaxTokenizerModelBytes = 64 << 20;
inline constexpr int kMaxPieces = 1 << 20;
inline constexpr size_t kMaxPieceBytes = 4096;
inline constexpr uint64_t kMaxBytesOfAllPieces = 16 << 20;

// Parsed, every rule checked, and everything the rules do not speak of removed, so that serializing the result gives a model that is safe
// to hand on. kTokenizerModel, kTokenizerKind.
Result<SentencePieceModel> ReadSentencePieceModel(ByteView bytes);

// Ids of the pieces with a duty; -1: none.
struct SpecialPieces {
  int32_t unknown = -1;
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t pad = -1;
};
// The settings of a model made anew, as Gemma's have them: byte-pair encoding, and no normalization but spaces written as U+2581. The
// model has its pieces already.
void FillBpeSpecs(SentencePieceModel& model, const SpecialPieces& special, bool byte_fallback);

// "<0x0A>" -> 10. Nothing for any other spelling.
[[nodiscard]] std::optional<uint8_t> ByteOfPiece(std::string_view piece);
[[nodiscard]] std::string PieceOfByte(uint8_t byte);
// The text a piece stands for: U+2581 becomes a space.
[[nodiscard]] std::string UnescapeSpaces(std::string_view piece);
[[nodiscard]] std::string EscapeSpaces(std::string_view text);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_SENTENCEPIECE_MODEL_H_
