#include "quantizer/dense_kernels.h"

#include <hwy/cache_control.h>

// Arrays of vectors do not exist for vectors of unknown length; NEON serves those CPUs.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
// Highway compiles this file once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantizer/dense_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Floats>;
constexpr int64_t kLanes = hn::MaxLanes(Floats());
constexpr int64_t kVectors = kPanelWidth / kLanes;  // per step of depth
// Rows whose sums are in registers at once: 16 accumulators of 32 registers, 8 of 16.
constexpr int64_t kRows = kLanes >= 16 ? 8 : kLanes >= 8 ? 2 : 1;

#if !HWY_NATIVE_FMA
// a * b is exact in double. Its sum with c is rounded to odd, so that the second rounding, to float, is the only one that shows (Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
template <class DoubleVector>
HWY_INLINE DoubleVector SumRoundedToOdd(DoubleVector product, DoubleVector c) {
  const hn::DFromV<DoubleVector> doubles;
  const hn::RebindToSigned<decltype(doubles)> words;
  const auto sum = hn::Add(product, c);
  const auto of_c = hn::Sub(sum, product);
  const auto error = hn::Add(hn::Sub(product, hn::Sub(sum, of_c)), hn::Sub(c, of_c));
  const auto zero = hn::Zero(doubles);
  // Comparisons and not !=: where the sum is infinite the error is NaN and nothing is to be done.
  const auto inexact = hn::Or(hn::Lt(error, zero), hn::Gt(error, zero));
  const auto bits = hn::BitCast(words, sum);
  const auto even = hn::Eq(hn::And(bits, hn::Set(words, 1)), hn::Zero(words));
  const auto inward = hn::Xor(hn::Lt(error, zero), hn::Lt(sum, zero));
  const auto step = hn::IfThenElse(hn::RebindMask(words, inward), hn::Set(words, -1), hn::Set(words, 1));
  const auto nudged = hn::Add(bits, hn::IfThenElseZero(hn::And(hn::RebindMask(words, inexact), even), step));
  return hn::BitCast(doubles, nudged);
}
#endif

// a * b + c with one rounding.
HWY_INLINE Vector Fused(Vector a, Vector b, Vector c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  const Floats floats;
  const hn::RepartitionToWide<Floats> doubles;
  const hn::Half<Floats> half;
  const auto low = SumRoundedToOdd(hn::Mul(hn::PromoteLowerTo(doubles, a), hn::PromoteLowerTo(doubles, b)), hn::PromoteLowerTo(doubles, c));
  const auto high =
      SumRoundedToOdd(hn::Mul(hn::PromoteUpperTo(doubles, a), hn::PromoteUpperTo(doubles, b)), hn::PromoteUpperTo(doubles, c));
  return hn::Combine(floats, hn::DemoteTo(half, high), hn::DemoteTo(half, low));
#endif
}

// Rows [first, first + kRows) of the result.
HWY_INLINE void MultiplyRows(const float* a, const float* b, int64_t depth, float* c, int64_t c_stride, Accumulate how) {
  const Floats d;
  Vector sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) sums[i][v] = hn::Zero(d);
  }
  for (int64_t k = 0; k < depth; ++k, a += kPanelWidth, b += kPanelWidth) {
    Vector right[kVectors];
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, b + v * kLanes);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kRows; ++i) {
      const Vector left = hn::Set(d, a[i]);
#pragma GCC unroll 8
      for (int64_t v = 0; v < kVectors; ++v) sums[i][v] = Fused(left, right[v], sums[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) {
      float* out = c + i * c_stride + v * kLanes;
      const Vector old = hn::LoadU(d, out);
      hn::StoreU(how == Accumulate::kAdd ? hn::Add(old, sums[i][v]) : hn::Sub(old, sums[i][v]), d, out);
    }
  }
}

void Multiply(const float* a, const float* b, int64_t depth, float* c, int64_t c_stride, Accumulate how) {
  // Rows of c lie pages apart; their lines are on the way while the sums are made.
  for (int64_t i = 0; i < kPanelWidth; ++i) {
    hwy::Prefetch(c + i * c_stride);
    hwy::Prefetch(c + i * c_stride + kPanelWidth / 2);
    hwy::Prefetch(c + i * c_stride + kPanelWidth - 1);
  }
  for (int64_t i = 0; i < kPanelWidth; i += kRows) MultiplyRows(a + i, b, depth, c + i * c_stride, c_stride, how);
}

void MultiplySparse(const float* values, const uint16_t* at, int64_t count, const float* b, float* c) {
  const Floats d;
  Vector sums[kVectors];
#pragma GCC unroll 8
  for (int64_t v = 0; v < kVectors; ++v) sums[v] = hn::Zero(d);
  for (int64_t n = 0; n < count; ++n) {
    const Vector left = hn::Set(d, values[n]);
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) sums[v] = Fused(left, hn::LoadU(d, b + at[n] * kPanelWidth + v * kLanes), sums[v]);
  }
#pragma GCC unroll 8
  for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(hn::Add(hn::LoadU(d, c + v * kLanes), sums[v]), d, c + v * kLanes);
}

void Solve(const float* l, int64_t l_stride, int64_t n, float* x) {
  const Floats d;
  for (int64_t column = 0; column < n; ++column) {
    const float* row = l + column * l_stride;
    float* out = x + column * kPanelWidth;
    Vector rest[kVectors];
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) rest[v] = hn::LoadU(d, out + v * kLanes);
    for (int64_t k = 0; k < column; ++k) {
      const Vector left = hn::Set(d, -row[k]);
#pragma GCC unroll 8
      for (int64_t v = 0; v < kVectors; ++v) rest[v] = Fused(left, hn::LoadU(d, x + k * kPanelWidth + v * kLanes), rest[v]);
    }
    const Vector pivot = hn::Set(d, row[column]);
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(hn::Div(rest[v], pivot), d, out + v * kLanes);
  }
}

void OuterAdd(const float* l, const float* e, int64_t n, float* f) {
  const Floats d;
  Vector right[kVectors];
#pragma GCC unroll 8
  for (int64_t v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, e + v * kLanes);
  for (int64_t c = 0; c < n; ++c) {
    const Vector left = hn::Set(d, l[c]);
    float* out = f + c * kPanelWidth;
#pragma GCC unroll 8
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(Fused(left, right[v], hn::LoadU(d, out + v * kLanes)), d, out + v * kLanes);
  }
}

void Round(const float* values, const float* scales, float lo, float hi, float* codes) {
  const Floats d;
  for (int64_t i = 0; i < kPanelWidth; i += kLanes) {
    const Vector quotient = hn::Div(hn::LoadU(d, values + i), hn::LoadU(d, scales + i));
    hn::StoreU(hn::Clamp(hn::Round(quotient), hn::Set(d, lo), hn::Set(d, hi)), d, codes + i);
  }
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {
namespace {

HWY_EXPORT(Multiply);
HWY_EXPORT(MultiplySparse);
HWY_EXPORT(Solve);
HWY_EXPORT(OuterAdd);
HWY_EXPORT(Round);

}  // namespace

const DenseKernels& VectorDenseKernels() {
  static constexpr DenseKernels kKernels = {
      [](const float* a, const float* b, int64_t depth, float* c, int64_t c_stride, Accumulate how) {
        HWY_DYNAMIC_DISPATCH(Multiply)(a, b, depth, c, c_stride, how);
      },
      [](const float* values, const uint16_t* at, int64_t count, const float* b, float* c) {
        HWY_DYNAMIC_DISPATCH(MultiplySparse)(values, at, count, b, c);
      },
      [](const float* l, int64_t l_stride, int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(Solve)(l, l_stride, n, x); },
      [](const float* l, const float* e, int64_t n, float* f) { HWY_DYNAMIC_DISPATCH(OuterAdd)(l, e, n, f); },
      [](const float* values, const float* scales, float lo, float hi, float* codes) {
        HWY_DYNAMIC_DISPATCH(Round)(values, scales, lo, hi, codes);
      },
  };
  return kKernels;
}

}  // namespace taskpress
#endif  // HWY_ONCE
