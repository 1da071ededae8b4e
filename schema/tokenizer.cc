#include "schema/tokenizer.h"

#include <sentencepiece_processor.h>

#include <exception>
#include <unordered_map>
#include <utility>

#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"
#include "schema/tokenizer_markers.h"

namespace taskpress {
namespace {

// SentencePiece needs about 100 bytes of memory for each byte it is given at once. Line breaks and markers divide a text, so ordinary text
// never comes near this.
constexpr size_t kMaxStretchBytes = 16 << 20;

}  // namespace

struct Tokenizer::State {
  struct Entry {
    std::string piece;
    PieceKind kind = PieceKind::kNormal;
  };

  sentencepiece::SentencePieceProcessor library;
  std::vector<Entry> entries;
  std::unordered_map<std::string_view, int32_t> ids;  // views into entries
  // SentencePiece takes user-defined pieces out of a text itself, but treats control pieces and the unknown piece as ordinary text. Hugging
  // Face tokenizers take all of them out in one pass, leftmost and longest first, and so do we. A unigram model weighs user-defined pieces
  // against others; there they are left to the library.
  MarkerTable control{false};
  MarkerTable user_defined{true};
  bool cut_at_user_defined = true;

  Status EncodeStretch(std::string_view text, std::vector<int32_t>& ids_out) const;
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::FromModel(ByteView model_proto) {
  const SentencePieceModel model = TRY(ReadSentencePieceModel(model_proto));
  auto state = std::make_unique<State>();
  state->entries.reserve(static_cast<size_t>(model.pieces_size()));
  state->ids.reserve(static_cast<size_t>(model.pieces_size()));
  for (int id = 0; id < model.pieces_size(); ++id) {
    const SentencePieceModel::SentencePiece& piece = model.pieces(id);
    const auto kind = static_cast<PieceKind>(piece.type());
    state->entries.push_back({piece.piece(), kind});
    state->ids.emplace(state->entries.back().piece, id);
    if (kind == PieceKind::kControl || kind == PieceKind::kUnknown) state->control.Add(piece.piece(), id);
    if (kind == PieceKind::kUserDefined) state->user_defined.Add(piece.piece(), id);
  }
  state->cut_at_user_defined = model.trainer_spec().model_type() == kBpeModel;
  state->control.Prepare();
  state->user_defined.Prepare();
  try {
    const sentencepiece::util::Status loaded = state->library.LoadFromSerializedProto(model.SerializeAsString());
    if (!loaded.ok()) return Fail(ErrorCode::kTokenizerModel, "SentencePiece refuses the model: {}", loaded.ToString());
  } catch (const std::exception& problem) {
    return Fail(ErrorCode::kTokenizerModel, "SentencePiece refuses the model: {}", problem.what());
  }
  return Tokenizer(std::move(state));
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->entries.size()); }

Status Tokenizer::State::EncodeStretch(std::string_view text, std::vector<int32_t>& ids_out) const {
  if (text.empty()) return {};
  if (text.size() > kMaxStretchBytes) {
    return Fail(ErrorCode::kTextTooLong, "{} bytes of text without a control piece, at most {} are tokenized at once", text.size(),
                kMaxStretchBytes);
  }
  try {
    std::vector<int> stretch;
    const sentencepiece::util::Status encoded = library.Encode(text, &stretch);
    if (!encoded.ok()) return Fail(ErrorCode::kTokenizerModel, "SentencePiece cannot tokenize the text: {}", encoded.ToString());
    ids_out.insert(ids_out.end(), stretch.begin(), stretch.end());
  } catch (const std::exception& problem) {
    return Fail(ErrorCode::kTokenizerModel, "SentencePiece cannot tokenize the text: {}", problem.what());
  }
  return {};
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text) const {
  if (const size_t valid = ValidUtf8Prefix(text); valid != text.size()) {
    return Fail(ErrorCode::kNotUtf8, "byte {} of the text is not UTF-8", valid);
  }
  std::vector<int32_t> ids;
  size_t stretch_begin = 0;
  size_t position = 0;
  while (position < text.size()) {
    const std::string_view rest = text.substr(position);
    MarkerTable::Match marker = state_->user_defined.LongestAt(rest);
    bool cut = state_->cut_at_user_defined;
    if (const MarkerTable::Match control = state_->control.LongestAt(rest); control.length >= marker.length) {
      marker = control;
      cut = true;
    }
    if (marker.length > 0 && cut) {
      TRY(state_->EncodeStretch(text.substr(stretch_begin, position - stretch_begin), ids));
      ids.push_back(marker.id);
      stretch_begin = position + marker.length;
    }
    position += marker.length > 0 ? marker.length : FirstUtf8Char(rest).length;
  }
  TRY(state_->EncodeStretch(text.substr(stretch_begin), ids));
  return ids;
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids) const {
  StreamingDecoder decoder(*this);
  std::string text;
  for (const int32_t id : ids) text += TRY(decoder.Push(id));
  return text + decoder.Finish();
}

std::optional<int32_t> Tokenizer::FindPiece(std::string_view piece) const {
  const auto found = state_->ids.find(piece);
  if (found == state_->ids.end()) return std::nullopt;
  return found->second;
}

std::string Tokenizer::Piece(int32_t id) const { return state_->entries[static_cast<size_t>(id)].piece; }

PieceKind Tokenizer::Kind(int32_t id) const { return state_->entries[static_cast<size_t>(id)].kind; }

namespace {

// Moves the characters that are complete from `bytes` to the result. A byte that cannot be part of a character becomes U+FFFD; an
// incomplete character at the end stays, unless nothing follows.
std::string TakeCompleteCharacters(std::string& bytes, bool nothing_follows) {
  std::string text;
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const Utf8Char first = FirstUtf8Char(rest);
    if (first.state == Utf8State::kIncomplete && !nothing_follows) break;
    const bool complete = first.state == Utf8State::kComplete;
    text += complete ? rest.substr(0, first.length) : kReplacementCharacter;
    rest.remove_prefix(complete ? first.length : 1);
  }
  bytes.erase(0, bytes.size() - rest.size());
  return text;
}

}  // namespace

Result<std::string> StreamingDecoder::Push(int32_t id) {
  if (id < 0 || id >= tokenizer_->vocab_size()) {
    return Fail(ErrorCode::kTokenOutOfRange, "token {}, the vocabulary has 0..{}", id, tokenizer_->vocab_size() - 1);
  }
  switch (tokenizer_->Kind(id)) {
    case PieceKind::kControl:
    case PieceKind::kUnknown:
      return std::string();
    case PieceKind::kByte:
      pending_bytes_.push_back(static_cast<char>(ByteOfPiece(tokenizer_->Piece(id)).value_or(0)));
      return TakeCompleteCharacters(pending_bytes_, false);
    case PieceKind::kNormal:
    case PieceKind::kUserDefined:
    case PieceKind::kUnused:
      break;
  }
  return TakeCompleteCharacters(pending_bytes_, true) + UnescapeSpaces(tokenizer_->Piece(id));
}

std::string StreamingDecoder::Finish() { return TakeCompleteCharacters(pending_bytes_, true); }

}  // namespace taskpress
