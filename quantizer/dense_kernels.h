// The inner loops of dense linear algebra in float32: once for the machine's vector unit, once plainly.
//
// Matrices are worked on in panels: 32 columns (or rows), stored [depth][32], so that one step of depth is one or a few vectors. Every
// element of a result is one chain of fused multiply-adds in ascending depth, whatever the width of the vectors: all instruction sets, and
// the plain twin with std::fma, give the same bits. Where a CPU has no fused multiply-add it is computed from doubles, exactly and slowly.
#ifndef TASKPRESS_QUANTIZER_DENSE_KERNELS_H_
#define TASKPRESS_QUANTIZER_DENSE_KERNELS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace taskpress {

inline constexpr int64_t kPanelWidth = 32;
// A sum over more than this is cut: each part is summed from zero and added to the result, in order.
inline constexpr int64_t kMaxDepth = 256;

enum class Accumulate { kAdd, kSubtract };

struct DenseKernels {
  // c[i][j] +- = sum over k < depth of a[k][i] * b[k][j].   a, b: [depth][32]; c: 32 rows of 32, c_stride floats apart
  void (*multiply)(const float* a, const float* b, int64_t depth, float* c, int64_t c_stride, Accumulate how);
  // c[j] += sum over n < count of values[n] * b[at[n]][j].   b: [.][32]; c: [32]. The same bits as `multiply` with zeros left out.
  void (*multiply_sparse)(const float* values, const uint16_t* at, int64_t count, const float* b, float* c);
  // x := x * inverse of the transpose of l, one column after the other.   l: lower triangle [n, n], l_stride apart; x: [n][32]
  void (*solve)(const float* l, int64_t l_stride, int64_t n, float* x);
  // f[c] += l[c] * e for c < n.   l: [n]; e: [32]; f: [n][32]
  void (*outer_add)(const float* l, const float* e, int64_t n, float* f);
  // codes[i] = round-half-even(values[i] / scales[i]), clamped to [lo, hi], as floats; all [32].
  void (*round)(const float* values, const float* scales, float lo, float hi, float* codes);
};

const DenseKernels& VectorDenseKernels();
const DenseKernels& PlainDenseKernels();

// `multiply` for a corner of c that has only `rows` rows and `columns` columns; panels are padded, c is not.
inline void MultiplyCorner(const DenseKernels& kernels, const float* a, const float* b, int64_t depth, float* c, int64_t c_stride,
                           int64_t rows, int64_t columns, Accumulate how) {
  if (rows >= kPanelWidth && columns >= kPanelWidth) {
    kernels.multiply(a, b, depth, c, c_stride, how);
    return;
  }
  // Zeros around the corner's own numbers: the same chain of operations as without the detour.
  std::array<float, kPanelWidth * kPanelWidth> whole{};
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) whole[static_cast<size_t>(i * kPanelWidth + j)] = c[i * c_stride + j];
  }
  kernels.multiply(a, b, depth, whole.data(), kPanelWidth, how);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) c[i * c_stride + j] = whole[static_cast<size_t>(i * kPanelWidth + j)];
  }
}

// Row and column (row >= column) of the number-th tile of a lower triangle, counted row by row.
[[nodiscard]] constexpr std::pair<int64_t, int64_t> LowerTile(int64_t number) {
  int64_t row = 0;
  while (number > row) number -= ++row;
  return {row, number};
}

[[nodiscard]] constexpr int64_t NumPanels(int64_t columns) { return (columns + kPanelWidth - 1) / kPanelWidth; }

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_DENSE_KERNELS_H_
