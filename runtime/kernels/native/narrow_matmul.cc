#include "runtime/kernels/native/narrow_matmul.h"

#include <algorithm>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/narrow_matmul.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Vectors = hn::CappedTag<float, 16>;

// One vector of results for each of four rows, so that four chains of dependent additions are under way. Lanes beyond the matrix compute
// with whatever follows it and are not stored.
struct Tile {
  const NarrowMatMulShape& shape;
  const float* x;        // [rows, in], the first row of the tile
  const float* weights;  // [in, out], the first column of the tile
  const float* bias;     // [out] from the first column, or null
  float* out;            // [rows, out], the first result of the tile
  int64_t rows;          // 1 to 4
  int64_t columns;       // at most a vector

  void Run() const {
    const Vectors d;
    const auto initial = bias == nullptr ? hn::Zero(d) : hn::LoadN(d, bias, static_cast<size_t>(columns));
    auto sum0 = initial;
    auto sum1 = initial;
    auto sum2 = initial;
    auto sum3 = initial;
    // Rows that are not there are the last one again.
    const float* x1 = Row(1);
    const float* x2 = Row(2);
    const float* x3 = Row(3);
    for (int64_t i = 0; i < shape.in; ++i) {
      const auto w = hn::LoadU(d, weights + i * shape.out);
      sum0 = hn::MulAdd(hn::Set(d, x[i]), w, sum0);
      sum1 = hn::MulAdd(hn::Set(d, x1[i]), w, sum1);
      sum2 = hn::MulAdd(hn::Set(d, x2[i]), w, sum2);
      sum3 = hn::MulAdd(hn::Set(d, x3[i]), w, sum3);
    }
    const auto count = static_cast<size_t>(columns);
    hn::StoreN(sum0, d, out, count);
    if (rows > 1) hn::StoreN(sum1, d, out + shape.out, count);
    if (rows > 2) hn::StoreN(sum2, d, out + 2 * shape.out, count);
    if (rows > 3) hn::StoreN(sum3, d, out + 3 * shape.out, count);
  }

  [[nodiscard]] const float* Row(int64_t row) const { return x + std::min(row, rows - 1) * shape.in; }
};

void MatMul(const NarrowMatMulShape& shape, const float* x, const float* weights, const float* bias, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Vectors()));
  constexpr int64_t kRows = 4;
  for (int64_t row = 0; row < shape.rows; row += kRows) {
    for (int64_t column = 0; column < shape.out; column += lanes) {
      Tile{.shape = shape,
           .x = x + row * shape.in,
           .weights = weights + column,
           .bias = bias == nullptr ? nullptr : bias + column,
           .out = out + row * shape.out + column,
           .rows = std::min(kRows, shape.rows - row),
           .columns = std::min(lanes, shape.out - column)}
          .Run();
    }
  }
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MatMul);

void NarrowMatMul(const NarrowMatMulShape& shape, const float* x, const float* weights, const float* bias, float* out) {
  HWY_DYNAMIC_DISPATCH(MatMul)(shape, x, weights, bias, out);
}

}  // namespace taskpress
#endif  // HWY_ONCE
