#include "converter/bpe_oracle.h"

#include <queue>
#include <string>

#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"

namespace taskpress {
namespace {

uint64_t PairKey(int32_t left, int32_t right) { return (static_cast<uint64_t>(left) << 32) | static_cast<uint32_t>(right); }

// Cuts `text` at the tokens of `table`, leftmost and longest first.
template <typename OnText, typename OnToken>
void SplitAtTokens(const MarkerTable& table, std::string_view text, OnText on_text, OnToken on_token) {
  size_t begin = 0;
  size_t position = 0;
  while (position < text.size()) {
    const MarkerTable::Match match = table.LongestAt(text.substr(position));
    if (match.length == 0) {
      position += FirstUtf8Char(text.substr(position)).length;
      continue;
    }
    if (position > begin) on_text(text.substr(begin, position - begin));
    on_token(match.id);
    position += match.length;
    begin = position;
  }
  if (begin < text.size()) on_text(text.substr(begin));
}

}  // namespace

BpeOracle::BpeOracle(const FastTokenizer& fast) : fast_(&fast) {
  merges_.reserve(fast.merges.size());
  for (size_t rank = 0; rank < fast.merges.size(); ++rank) {
    const FastTokenizer::Merge& merge = fast.merges[rank];
    merges_.emplace(PairKey(merge.left, merge.right), RankedMerge{static_cast<int32_t>(rank), merge.result});
  }
  for (const FastTokenizer::AddedToken& token : fast.added_tokens) {
    const std::string& text = fast.vocabulary[static_cast<size_t>(token.id)];
    if (token.normalized) {
      normalized_tokens_.Add(EscapeSpaces(text), token.id);
    } else {
      raw_tokens_.Add(text, token.id);
    }
  }
  raw_tokens_.Prepare();
  normalized_tokens_.Prepare();
}

const BpeOracle::RankedMerge* BpeOracle::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int32_t> BpeOracle::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  SplitAtTokens(raw_tokens_, text, [&](std::string_view segment) { EncodeSegment(segment, ids); }, [&](int32_t id) { ids.push_back(id); });
  return ids;
}

void BpeOracle::EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const {
  const std::string normalized = EscapeSpaces(text);
  SplitAtTokens(
      normalized_tokens_, normalized, [&](std::string_view segment) { EncodeNormalized(segment, ids); },
      [&](int32_t id) { ids.push_back(id); });
}

void BpeOracle::EncodeNormalized(std::string_view normalized, std::vector<int32_t>& ids) const { Merge(StartSymbols(normalized), ids); }

// `tokenizers`, models/bpe/model.rs, merge_word: characters of the vocabulary, else bytes, else the unknown token. A pending unknown token
// is written only before the next known character, not before bytes.
std::vector<int32_t> BpeOracle::StartSymbols(std::string_view normalized) const {
  std::vector<int32_t> symbols;
  bool unknown_pending = false;
  while (!normalized.empty()) {
    const std::string character(normalized.substr(0, FirstUtf8Char(normalized).length));
    normalized.remove_prefix(character.size());
    if (const int32_t id = fast_->FindInModel(character); id >= 0) {
      if (unknown_pending) symbols.push_back(fast_->unknown_id);
      unknown_pending = false;
      symbols.push_back(id);
    } else if (fast_->byte_fallback) {
      for (const char byte : character) symbols.push_back(fast_->byte_ids[static_cast<uint8_t>(byte)]);
    } else {
      if (unknown_pending && !fast_->fuse_unknown) symbols.push_back(fast_->unknown_id);
      unknown_pending = true;
    }
  }
  if (unknown_pending) symbols.push_back(fast_->unknown_id);
  return symbols;
}

// `tokenizers`, models/bpe/word.rs, merge_all: the best-ranked pair first, the leftmost among equals. A queued pair whose symbols changed
// since is still merged when the new pair has the same result.
void BpeOracle::Merge(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id;
    int previous;
    int next;  // -1: none
    bool gone;
  };
  struct Candidate {
    int32_t rank;
    int position;
    int32_t result;
    bool operator>(const Candidate& other) const { return std::pair{rank, position} > std::pair{other.rank, other.position}; }
  };
  std::vector<Symbol> word;
  word.reserve(symbols.size());
  const int size = static_cast<int>(symbols.size());
  for (int i = 0; i < size; ++i) word.push_back({symbols[static_cast<size_t>(i)], i - 1, i + 1 < size ? i + 1 : -1, false});
  const auto at = [&word](int position) -> Symbol& { return word[static_cast<size_t>(position)]; };

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](int left) {
    if (left < 0 || at(left).next < 0) return;
    const RankedMerge* merge = FindMerge(at(left).id, at(at(left).next).id);
    if (merge != nullptr) queue.push({merge->rank, left, merge->result});
  };
  for (int i = 0; i < size; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = at(top.position);
    if (left.gone || left.next < 0) continue;
    Symbol& right = at(left.next);
    const RankedMerge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->result != top.result) continue;
    left.id = top.result;
    right.gone = true;
    left.next = right.next;
    if (right.next >= 0) at(right.next).previous = top.position;
    consider(left.previous);
    consider(top.position);
  }
  for (const Symbol& symbol : word) {
    if (!symbol.gone) ids.push_back(symbol.id);
  }
}

}  // namespace taskpress
