#include "runtime/passes/row_layout.h"

#include <algorithm>

#include "runtime/kernels/op_shapes.h"

namespace taskpress {
namespace {

int64_t Product(std::span<const int64_t> dimensions) {
  int64_t product = 1;
  for (const int64_t dimension : dimensions) product *= dimension;
  return product;
}

// Dimensions that every operand walks with one stride become one. sizes [n]; strides [operands][n].
std::optional<RowLayout> Merge(std::span<const int64_t> sizes, const std::vector<std::vector<int64_t>>& strides) {
  struct Merged {
    int64_t size;
    std::vector<int64_t> strides;
  };
  std::vector<Merged> merged;  // the last dimension first
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] == 1) continue;
    std::vector<int64_t> here;
    for (const std::vector<int64_t>& of_operand : strides) here.push_back(of_operand[i]);
    const auto continues = [&](const Merged& inner) {
      for (size_t o = 0; o < here.size(); ++o) {
        if (here[o] != inner.strides[o] * inner.size) return false;
      }
      return true;
    };
    if (!merged.empty() && continues(merged.back())) {
      merged.back().size *= sizes[i];
    } else {
      merged.push_back({.size = sizes[i], .strides = std::move(here)});
    }
  }
  if (merged.size() > 2) return std::nullopt;
  RowLayout layout;
  layout.operands.resize(strides.size());
  if (!merged.empty()) layout.columns = merged[0].size;
  if (merged.size() == 2) layout.rows = merged[1].size;
  for (size_t o = 0; o < strides.size(); ++o) {
    RowStrides& operand = layout.operands[o];
    operand.column = merged.empty() ? 1 : merged[0].strides[o];
    operand.row = merged.size() == 2 ? merged[1].strides[o] : layout.columns * operand.column;
    if (operand.column != 0 && operand.column != 1) return std::nullopt;
  }
  return layout;
}

}  // namespace

std::optional<size_t> TokenDimensions(const Shape& shape, int64_t tokens) {
  int64_t product = 1;
  for (size_t i = 0; i <= shape.size(); ++i) {
    if (product == tokens) return i;
    if (i < shape.size()) product *= shape[i];
  }
  return std::nullopt;
}

std::optional<RowLayout> BroadcastLayout(int64_t tokens, const Shape& out, std::span<const Shape> operands) {
  const std::optional<size_t> split = TokenDimensions(out, tokens);
  if (!split) return std::nullopt;
  const std::span<const int64_t> sizes = std::span(out).subspan(*split);
  std::vector<std::vector<int64_t>> strides;
  std::vector<int64_t> token_strides;
  const auto add = [&](const Shape& shape) {
    const size_t before = shape.size() > sizes.size() ? shape.size() - sizes.size() : 0;
    const int64_t leading = Product(std::span(shape).first(before));
    if (leading != tokens && leading != 1) return false;
    const std::vector<int64_t> dense = DenseStrides(shape);
    std::vector<int64_t> of_operand(sizes.size(), 0);
    for (size_t i = before; i < shape.size(); ++i) {
      const size_t at = i + sizes.size() - shape.size();
      if (shape[i] != sizes[at] && shape[i] != 1) return false;
      if (shape[i] != 1) of_operand[at] = dense[i];
    }
    strides.push_back(std::move(of_operand));
    token_strides.push_back(leading == 1 && tokens != 1 ? 0 : Product(std::span(shape).subspan(before)));
    return true;
  };
  if (!add(out)) return std::nullopt;
  for (const Shape& operand : operands) {
    if (!add(operand)) return std::nullopt;
  }
  std::optional<RowLayout> layout = Merge(sizes, strides);
  if (!layout) return std::nullopt;
  for (size_t o = 0; o < token_strides.size(); ++o) layout->operands[o].token = token_strides[o];
  return layout;
}

std::optional<SliceLayout> LayoutOfSlice(int64_t tokens, const Shape& out, const Shape& x, std::span<const int32_t> begin) {
  const std::optional<size_t> split = TokenDimensions(out, tokens);
  if (!split || x.size() != out.size() || begin.size() != x.size()) return std::nullopt;
  const std::vector<int64_t> dense = DenseStrides(x);
  const std::vector<int64_t> dense_out = DenseStrides(out);
  SliceLayout slice;
  for (size_t i = 0; i < x.size(); ++i) {
    if (begin[i] < 0 || out[i] > x[i] - begin[i]) return std::nullopt;
    if (i < *split && x[i] != out[i]) return std::nullopt;
    slice.offset += begin[i] * dense[i];
  }
  const auto from = static_cast<std::ptrdiff_t>(*split);
  const std::vector<std::vector<int64_t>> strides{{dense_out.begin() + from, dense_out.end()}, {dense.begin() + from, dense.end()}};
  std::optional<RowLayout> layout = Merge(std::span(out).subspan(*split), strides);
  if (!layout) return std::nullopt;
  layout->operands[0].token = Product(std::span(out).subspan(*split));
  layout->operands[1].token = Product(std::span(x).subspan(*split));
  slice.layout = *std::move(layout);
  return slice;
}

std::optional<RowLayout> DenseRows(int64_t tokens, const Shape& shape) {
  const std::optional<size_t> split = TokenDimensions(shape, tokens);
  if (!split || *split >= shape.size()) return std::nullopt;
  RowLayout layout{.rows = Product(std::span(shape).subspan(*split, shape.size() - *split - 1)), .columns = shape.back()};
  layout.operands = {{.token = layout.rows * layout.columns, .row = layout.columns, .column = 1}};
  return layout;
}

}  // namespace taskpress
