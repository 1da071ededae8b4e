#include "tests/testing/synthetic_tokenizer.h"

#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {
namespace {

// Field numbers and enumerators of sentencepiece_model.proto (SentencePiece 0.2.0).
enum class PieceType : uint32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6 };
constexpr uint32_t kBpe = 2;
enum WireType : uint32_t { kVarint = 0, kLengthDelimited = 2, kFixed32 = 5 };

struct Piece {
  std::string text;
  PieceType type = PieceType::kNormal;
};

// Writes one message in protobuf's wire format. By hand, so that the file is no product of the code that will read it.
class Message {
 public:
  void Add(uint32_t field, uint32_t value) {
    AddVarint(field << 3 | kVarint);
    AddVarint(value);
  }
  void Add(uint32_t field, float value) {
    AddVarint(field << 3 | kFixed32);
    bytes_.resize(bytes_.size() + sizeof(value));
    std::memcpy(bytes_.data() + bytes_.size() - sizeof(value), &value, sizeof(value));
  }
  void Add(uint32_t field, std::string_view value) {
    AddVarint(field << 3 | kLengthDelimited);
    AddVarint(static_cast<uint32_t>(value.size()));
    bytes_ += value;
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  void AddVarint(uint32_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7f) | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, SentencePiece's visible space
constexpr int64_t kMinPieces = 512;
constexpr int64_t kMaxPieces = 500'000;
constexpr int64_t kFirstByte = 107;
constexpr int64_t kFirstOrdinary = kFirstByte + 256;

std::string Control(int64_t id) {
  constexpr auto kFirst = std::to_array<std::string_view>({"<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"});
  if (id < std::ssize(kFirst)) return std::string(kFirst[static_cast<size_t>(id)]);
  if (id == 105) return "<start_of_turn>";
  if (id == 106) return "<end_of_turn>";
  return Format("<unused{}>", id - std::ssize(kFirst));
}

// Characters, then pairs, triples and quadruples, each longer piece one character longer than a piece before it, so that merging reaches
// it.
std::vector<std::string> OrdinaryPieces(size_t count) {
  std::vector<std::string> pieces = {std::string(kSpace), "\n", "\t"};
  std::vector<std::string> printable;
  for (char c = '!'; c <= '~'; ++c) printable.emplace_back(1, c);
  pieces.insert(pieces.end(), printable.begin(), printable.end());
  std::vector<std::string> heads = printable;
  heads.emplace_back(kSpace);
  for (const std::string& head : heads) {
    for (const std::string& tail : printable) pieces.push_back(head + tail);
  }
  std::vector<std::string> words;
  for (char c = 'a'; c <= 'z'; ++c) words.emplace_back(std::string(kSpace) + c);
  for (char a = 'a'; a <= 'z'; ++a) {
    for (char b = 'a'; b <= 'z'; ++b) words.push_back({a, b});
  }
  while (pieces.size() < count) {
    std::vector<std::string> longer;
    for (const std::string& word : words) {
      for (char c = 'a'; c <= 'z'; ++c) longer.push_back(word + c);
    }
    pieces.insert(pieces.end(), longer.begin(), longer.end());
    words = std::move(longer);
  }
  pieces.resize(count);
  return pieces;
}

std::vector<Piece> Vocabulary(int64_t count) {
  std::vector<Piece> pieces;
  for (int64_t id = 0; id < kFirstByte; ++id) {
    const PieceType type = id < 3 ? PieceType::kControl : id == 3 ? PieceType::kUnknown : PieceType::kUserDefined;
    pieces.push_back({Control(id), type});
  }
  for (int byte = 0; byte < 256; ++byte) pieces.push_back({Format("<0x{:02X}>", byte), PieceType::kByte});
  for (std::string& text : OrdinaryPieces(static_cast<size_t>(count - kFirstOrdinary)))
    pieces.push_back({std::move(text), PieceType::kNormal});
  constexpr size_t kImage = 255'999;
  constexpr size_t kAudio = 256'000;
  if (pieces.size() > kImage) pieces[kImage] = {"<start_of_image>", PieceType::kUserDefined};
  if (pieces.size() > kAudio) pieces[kAudio] = {"<start_of_audio>", PieceType::kUserDefined};
  return pieces;
}

std::string TrainerSpec(int64_t pieces) {
  Message spec;
  spec.Add(3, kBpe);                           // model_type
  spec.Add(4, static_cast<uint32_t>(pieces));  // vocab_size
  spec.Add(35, 1U);                            // byte_fallback
  spec.Add(40, 3U);                            // unk_id
  spec.Add(41, 2U);                            // bos_id
  spec.Add(42, 1U);                            // eos_id
  spec.Add(43, 0U);                            // pad_id
  spec.Add(45, std::string_view("<unk>"));     // unk_piece and so on
  spec.Add(46, std::string_view("<bos>"));
  spec.Add(47, std::string_view("<eos>"));
  spec.Add(48, std::string_view("<pad>"));
  return spec.bytes();
}

std::string NormalizerSpec() {
  Message spec;
  spec.Add(1, std::string_view("identity"));  // name
  spec.Add(3, 0U);                            // add_dummy_prefix
  spec.Add(4, 0U);                            // remove_extra_whitespaces
  spec.Add(5, 1U);                            // escape_whitespaces
  return spec.bytes();
}

}  // namespace

Result<std::string> SyntheticTokenizerModel(int64_t pieces) {
  if (pieces < kMinPieces || pieces > kMaxPieces) {
    return Fail(ErrorCode::kTokenizerModel, "a synthetic tokenizer has {} to {} pieces, not {}", kMinPieces, kMaxPieces, pieces);
  }
  Message model;
  int64_t id = 0;
  for (const Piece& piece : Vocabulary(pieces)) {
    Message entry;
    entry.Add(1, piece.text);
    // Merges are made in the order of their scores.
    entry.Add(2, piece.type == PieceType::kNormal ? static_cast<float>(kFirstOrdinary - id) : 0.0F);
    entry.Add(3, static_cast<uint32_t>(piece.type));
    model.Add(1, entry.bytes());
    ++id;
  }
  model.Add(2, TrainerSpec(pieces));
  model.Add(3, NormalizerSpec());
  return model.bytes();
}

}  // namespace taskpress
