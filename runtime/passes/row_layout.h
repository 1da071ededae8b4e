// Tensors of any rank as [tokens, rows, columns], the form in which row programs see them.
#ifndef TASKPRESS_RUNTIME_PASSES_ROW_LAYOUT_H_
#define TASKPRESS_RUNTIME_PASSES_ROW_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "schema/shape.h"

namespace taskpress {

// Distances in elements; 0 repeats.
struct RowStrides {
  int64_t token = 0;
  int64_t row = 0;
  int64_t column = 1;
  bool operator==(const RowStrides&) const = default;
};

struct RowLayout {
  int64_t rows = 1;
  int64_t columns = 1;
  std::vector<RowStrides> operands;
};

// How many leading dimensions of `shape` hold the tokens; nothing when they do not multiply to `tokens`. 0 for one token.
std::optional<size_t> TokenDimensions(const Shape& shape, int64_t tokens);

// The result of an elementwise operator of shape `out`, operands[0] of the layout, and what is broadcast to it. Nothing when the tokens are
// not its leading dimensions or when one token would need more than rows and columns.
std::optional<RowLayout> BroadcastLayout(int64_t tokens, const Shape& out, std::span<const Shape> operands);

struct SliceLayout {
  RowLayout layout;    // operands: out, x
  int64_t offset = 0;  // elements of x before the first one
};
// A slice that takes all tokens of x.
std::optional<SliceLayout> LayoutOfSlice(int64_t tokens, const Shape& out, const Shape& x, std::span<const int32_t> begin);

// A dense tensor whose rows are its last dimension.
std::optional<RowLayout> DenseRows(int64_t tokens, const Shape& shape);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PASSES_ROW_LAYOUT_H_
