#include "quantizer/scale_errors.h"

#include <algorithm>

// Highway compiles this file once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantizer/scale_errors.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kScaleLanes>;

// One value at a vector of scales. Product and sum are rounded apart: a fused multiply-add would give other bits where there is one.
template <bool kWeighted, class V>
HWY_INLINE void AddValue(V magnitude, V limit, V weight, V scale, V inverse, V& error, V& square) {
  const V code = hn::Round(hn::Min(hn::Mul(magnitude, inverse), limit));
  const V rest = hn::Sub(magnitude, hn::Mul(scale, code));
  V rest2 = hn::Mul(rest, rest);
  V code2 = hn::Mul(code, code);
  if constexpr (kWeighted) {
    rest2 = hn::Mul(rest2, weight);
    code2 = hn::Mul(code2, weight);
  }
  error = hn::Add(error, rest2);
  square = hn::Add(square, code2);
}

// One vector of scales, or two, so that the additions do not wait for each other.
template <bool kWeighted, bool kTwo>
HWY_INLINE void MeasureVectors(const RowToScale& row, const float* scales, double* errors, double* squares) {
  const Floats d;
  using V = hn::Vec<Floats>;
  const size_t lanes = hn::Lanes(d);
  const size_t count = kTwo ? 2 * lanes : lanes;
  const V one = hn::Set(d, 1.0F);
  const V scale0 = hn::LoadU(d, scales);
  const V scale1 = kTwo ? hn::LoadU(d, scales + lanes) : one;
  const V inverse0 = hn::Div(one, scale0);
  const V inverse1 = hn::Div(one, scale1);
  HWY_ALIGN float error_sums[2 * kScaleLanes];
  HWY_ALIGN float square_sums[2 * kScaleLanes];
  std::fill_n(errors, count, 0.0);
  std::fill_n(squares, count, 0.0);
  for (size_t begin = 0; begin < row.magnitudes.size(); begin += kValuesPerSum) {
    const size_t end = std::min(begin + kValuesPerSum, row.magnitudes.size());
    V error0 = hn::Zero(d);
    V error1 = hn::Zero(d);
    V square0 = hn::Zero(d);
    V square1 = hn::Zero(d);
    for (size_t j = begin; j < end; ++j) {
      const V magnitude = hn::Set(d, row.magnitudes[j]);
      const V limit = hn::Set(d, row.limits[j]);
      const V weight = kWeighted ? hn::Set(d, row.importance[j]) : one;
      AddValue<kWeighted>(magnitude, limit, weight, scale0, inverse0, error0, square0);
      if constexpr (kTwo) AddValue<kWeighted>(magnitude, limit, weight, scale1, inverse1, error1, square1);
    }
    hn::StoreU(error0, d, error_sums);
    hn::StoreU(square0, d, square_sums);
    if constexpr (kTwo) {
      hn::StoreU(error1, d, error_sums + lanes);
      hn::StoreU(square1, d, square_sums + lanes);
    }
    for (size_t k = 0; k < count; ++k) {
      errors[k] += static_cast<double>(error_sums[k]);
      squares[k] += static_cast<double>(square_sums[k]);
    }
  }
}

template <bool kWeighted>
void MeasureAll(const RowToScale& row, const ScaleErrors& out) {
  const size_t lanes = hn::Lanes(Floats());
  size_t k = 0;
  for (; k + 2 * lanes <= out.scales.size(); k += 2 * lanes) {
    MeasureVectors<kWeighted, true>(row, out.scales.data() + k, out.errors.data() + k, out.squared_codes.data() + k);
  }
  if (k == out.scales.size()) return;  // what is left is a whole vector: kScaleLanes is a multiple of the lanes
  MeasureVectors<kWeighted, false>(row, out.scales.data() + k, out.errors.data() + k, out.squared_codes.data() + k);
}

void MeasureScalesImpl(const RowToScale& row, const ScaleErrors& out) {
  row.importance.empty() ? MeasureAll<false>(row, out) : MeasureAll<true>(row, out);
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MeasureScalesImpl);

void MeasureScales(const RowToScale& row, const ScaleErrors& out) { HWY_DYNAMIC_DISPATCH(MeasureScalesImpl)(row, out); }

}  // namespace taskpress
#endif  // HWY_ONCE
