#include "runtime/kernels/native/row_means.h"

#include <array>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/row_means.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// XNNPACK's accumulators are vectors of the instruction set, up to 16 floats.
using Vectors = hn::CappedTag<float, 16>;

struct Plain {
  // XNNPACK, f32-rsum: 32 partial sums, that is two vectors of 16 floats or four of 8.
  static int64_t Accumulators(int64_t lanes) { return lanes < 16 ? 4 : 2; }
  template <typename V>
  static V Add(V sum, V x) {
    return hn::Add(sum, x);
  }
};

struct Squared {
  // XNNPACK, f32-rsum2: always four; fused with AVX-512 only, its AVX kernel does without FMA.
  static int64_t Accumulators(int64_t /*lanes*/) { return 4; }
  template <typename V>
  static V Add(V sum, V x) {
#if HWY_TARGET <= HWY_AVX3
    return hn::MulAdd(x, x, sum);
#else
    return hn::Add(hn::Mul(x, x), sum);
#endif
  }
};

// Halves are added until one number is left.
template <typename V>
float SumOfLanes(Vectors d, V x) {
  HWY_ALIGN std::array<float, 16> lanes;
  hn::Store(x, d, lanes.data());
  for (size_t half = hn::Lanes(d) / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

template <typename Term>
float SumOfRow(const float* x, int64_t columns) {
  const Vectors d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t accumulators = Term::Accumulators(lanes);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  auto sum2 = hn::Zero(d);
  auto sum3 = hn::Zero(d);
  const auto next = [&](auto& sum) HWY_ATTR {
    sum = Term::Add(sum, hn::LoadU(d, x));
    x += lanes;
    columns -= lanes;
  };
  while (columns >= accumulators * lanes) {
    next(sum0);
    next(sum1);
    if (accumulators == 2) continue;
    next(sum2);
    next(sum3);
  }
  if (columns >= lanes) next(sum0);
  if (columns >= lanes) next(sum1);
  if (columns >= lanes) next(sum2);
  auto sum = hn::Add(hn::Add(sum0, sum2), hn::Add(sum1, sum3));
  if (columns > 0) sum = Term::Add(sum, hn::LoadN(d, x, static_cast<size_t>(columns)));
  return SumOfLanes(d, sum);
}

template <typename Term>
void Means(const float* x, float* out, int64_t rows, int64_t columns) {
  const float part = 1.0F / static_cast<float>(columns);
  for (int64_t row = 0; row < rows; ++row) out[row] = SumOfRow<Term>(x + row * columns, columns) * part;
}

void PlainMeans(const float* x, float* out, int64_t rows, int64_t columns) { Means<Plain>(x, out, rows, columns); }
void SquaredMeans(const float* x, float* out, int64_t rows, int64_t columns) { Means<Squared>(x, out, rows, columns); }

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(PlainMeans);
HWY_EXPORT(SquaredMeans);

void MeansOfRows(const float* x, float* out, int64_t rows, int64_t columns) { HWY_DYNAMIC_DISPATCH(PlainMeans)(x, out, rows, columns); }
void MeansOfSquaresOfRows(const float* x, float* out, int64_t rows, int64_t columns) {
  HWY_DYNAMIC_DISPATCH(SquaredMeans)(x, out, rows, columns);
}

}  // namespace taskpress
#endif  // HWY_ONCE
