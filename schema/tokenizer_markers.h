// Finds the pieces that are taken out of a text whole, before anything is merged: control pieces, the unknown piece, user-defined pieces.
#ifndef TASKPRESS_SCHEMA_TOKENIZER_MARKERS_H_
#define TASKPRESS_SCHEMA_TOKENIZER_MARKERS_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace taskpress {

class MarkerTable {
 public:
  struct Match {
    int32_t id = -1;
    size_t length = 0;  // bytes of the text; 0: nothing starts here
  };

  // With `spaces_escaped`, a space in the text matches U+2581 of a marker: how SentencePiece sees text when it looks for user-defined
  // pieces.
  explicit MarkerTable(bool spaces_escaped) : spaces_escaped_(spaces_escaped) {}

  void Add(std::string_view text, int32_t id) { markers_.push_back({std::string(text), id}); }
  // Call once after the last Add().
  void Prepare();

  // The longest marker at the front of `text`, which must not be empty.
  [[nodiscard]] Match LongestAt(std::string_view text) const;

 private:
  struct Marker {
    std::string text;
    int32_t id;
  };
  struct Range {
    size_t begin = 0;
    size_t end = 0;
  };

  [[nodiscard]] Range Narrow(Range range, size_t depth, char byte) const;

  bool spaces_escaped_;
  std::vector<Marker> markers_;             // sorted by text
  std::array<Range, 256> by_first_byte_{};  // into markers_
};

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TOKENIZER_MARKERS_H_
