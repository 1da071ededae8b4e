#include "runtime/kernels/native/quantize_row.h"

#include <algorithm>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/quantize_row.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

RowQuantization QuantizationOfRow(const float* x, int64_t columns) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto smallest = hn::Zero(d);
  auto largest = hn::Zero(d);
  const auto widen = [&](auto v) HWY_ATTR {
    smallest = hn::Min(smallest, v);
    largest = hn::Max(largest, v);
  };
  int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) widen(hn::LoadU(d, x + i));
  // Zeros fill the last vector; 0 belongs to the range anyway.
  if (i < columns) widen(hn::LoadN(d, x + i, static_cast<size_t>(columns - i)));
  return QuantizationOfRange(hn::ReduceMin(d, smallest), hn::ReduceMax(d, largest));
}

RowQuantization QuantizeRowImpl(const float* x, int64_t columns, int8_t* codes) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const RowQuantization row = QuantizationOfRow(x, columns);
  const auto zero_point = static_cast<float>(row.zero_point);
  const auto lowest = hn::Set(d, -128.0F - zero_point);
  const auto highest = hn::Set(d, 127.0F - zero_point);
  const auto multiplier = hn::Set(d, row.multiplier);
  const auto shift = hn::Set(hn::RebindToSigned<decltype(d)>(), row.zero_point);
  const auto code = [&](auto v) HWY_ATTR {
    const auto clamped = hn::Max(hn::Min(hn::Mul(v, multiplier), highest), lowest);
    return hn::DemoteTo(d8, hn::Add(hn::NearestInt(clamped), shift));
  };
  int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) hn::StoreU(code(hn::LoadU(d, x + i)), d8, codes + i);
  const auto rest = static_cast<size_t>(columns - i);
  if (rest != 0) hn::StoreN(code(hn::LoadN(d, x + i, rest)), d8, codes + i, rest);
  return row;
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(QuantizeRowImpl);

RowQuantization QuantizeRow(const float* x, int64_t columns, int8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(QuantizeRowImpl)(x, columns, codes);
}

}  // namespace taskpress
#endif  // HWY_ONCE
