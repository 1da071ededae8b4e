#include "schema/tokenizer_markers.h"

#include <algorithm>

#include "schema/sentencepiece_model.h"

namespace taskpress {

void MarkerTable::Prepare() {
  std::ranges::sort(markers_, {}, &Marker::text);
  by_first_byte_.fill({});
  for (size_t i = 0; i < markers_.size(); ++i) {
    Range& range = by_first_byte_[static_cast<uint8_t>(markers_[i].text[0])];
    if (range.end == 0) range.begin = i;
    range.end = i + 1;
  }
}

// All markers of `range` agree in their first `depth` bytes; keeps those whose next byte is `byte`.
MarkerTable::Range MarkerTable::Narrow(Range range, size_t depth, char byte) const {
  const auto next_byte = [depth](const Marker& marker) {
    return marker.text.size() > depth ? static_cast<int>(static_cast<uint8_t>(marker.text[depth])) : -1;
  };
  const auto first = markers_.begin() + static_cast<ptrdiff_t>(range.begin);
  const auto last = markers_.begin() + static_cast<ptrdiff_t>(range.end);
  const auto found = std::ranges::equal_range(first, last, static_cast<int>(static_cast<uint8_t>(byte)), {}, next_byte);
  return {static_cast<size_t>(found.begin() - markers_.begin()), static_cast<size_t>(found.end() - markers_.begin())};
}

MarkerTable::Match MarkerTable::LongestAt(std::string_view text) const {
  Match best;
  Range range;
  size_t depth = 0;
  for (size_t position = 0; position < text.size(); ++position) {
    const std::string_view bytes = spaces_escaped_ && text[position] == ' ' ? kEscapedSpace : text.substr(position, 1);
    for (const char byte : bytes) {
      range = depth == 0 ? by_first_byte_[static_cast<uint8_t>(byte)] : Narrow(range, depth, byte);
      ++depth;
      if (range.begin == range.end) return best;
    }
    // Texts are unique and sorted, so one that ends here is the first of the range.
    const Marker& first = markers_[range.begin];
    if (first.text.size() == depth) best = {first.id, position + 1};
  }
  return best;
}

}  // namespace taskpress
