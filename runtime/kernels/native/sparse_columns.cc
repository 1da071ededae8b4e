#include "runtime/kernels/native/sparse_columns.h"

#include <algorithm>

#include "runtime/kernels/packed_int4.h"

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/sparse_columns.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Shorts = hn::CappedTag<int16_t, kStripChannels / 4>;

constexpr size_t kColumnsPerSum = 16;  // whose products fit 16 bits

// Four channels of every lane, kPlane-th first.
template <int kPlane, typename V>
V Plane(V lanes) {
  return hn::ShiftRight<12>(hn::ShiftLeft<12 - 4 * kPlane>(lanes));
}

// The channels of one vector of one strip.
void SumVector(const std::byte* from, int64_t column_bytes, std::span<const ActiveColumn> active, int32_t* sums) {
  const Shorts d;
  const hn::Repartition<uint8_t, Shorts> d8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  std::fill_n(sums, 4 * lanes, 0);
  HWY_ALIGN int16_t plane0[kStripChannels / 4];
  HWY_ALIGN int16_t plane1[kStripChannels / 4];
  HWY_ALIGN int16_t plane2[kStripChannels / 4];
  HWY_ALIGN int16_t plane3[kStripChannels / 4];
  while (!active.empty()) {
    const std::span<const ActiveColumn> some = active.first(std::min(kColumnsPerSum, active.size()));
    active = active.subspan(some.size());
    auto sum0 = hn::Zero(d);
    auto sum1 = sum0;
    auto sum2 = sum0;
    auto sum3 = sum0;
    for (const ActiveColumn& one : some) {
      const auto four = hn::BitCast(d, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from + one.column * column_bytes)));
      const auto code = hn::Set(d, static_cast<int16_t>(one.code));
      sum0 = hn::Add(sum0, hn::Mul(Plane<0>(four), code));
      sum1 = hn::Add(sum1, hn::Mul(Plane<1>(four), code));
      sum2 = hn::Add(sum2, hn::Mul(Plane<2>(four), code));
      sum3 = hn::Add(sum3, hn::Mul(Plane<3>(four), code));
    }
    hn::Store(sum0, d, plane0);
    hn::Store(sum1, d, plane1);
    hn::Store(sum2, d, plane2);
    hn::Store(sum3, d, plane3);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      sums[4 * lane] += plane0[lane];
      sums[4 * lane + 1] += plane1[lane];
      sums[4 * lane + 2] += plane2[lane];
      sums[4 * lane + 3] += plane3[lane];
    }
  }
}

void SumColumnsImpl(const ColumnMatrixShape& shape, const std::byte* packed, std::span<const ActiveColumn> active, int64_t first,
                    int64_t count, int32_t* sums) {
  const auto channels = 4 * static_cast<int64_t>(hn::Lanes(Shorts()));
  for (int64_t channel = first * kStripChannels; channel < (first + count) * kStripChannels; channel += channels) {
    SumVector(packed + channel / 2, shape.column_bytes(), active, sums + channel);
  }
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(SumColumnsImpl);

void PackColumns(const ColumnMatrixShape& shape, const std::byte* weights, int64_t first, int64_t count, std::byte* packed) {
  // Some columns at a time, so that a row's bytes are used while they are in the cache.
  constexpr int64_t kColumns = 64;
  for (int64_t begin = first; begin < first + count; begin += kColumns) {
    const int64_t end = std::min(begin + kColumns, first + count);
    std::fill(packed + begin * shape.column_bytes(), packed + end * shape.column_bytes(), std::byte{0});
    for (int64_t channel = 0; channel < shape.out; ++channel) {
      const int shift = channel % 2 == 0 ? 0 : 4;
      for (int64_t column = begin; column < end; ++column) {
        const auto nibble = static_cast<unsigned>(Int4At(weights, channel * shape.in + column)) & 0xFU;
        packed[column * shape.column_bytes() + channel / 2] |= static_cast<std::byte>(nibble << shift);
      }
    }
  }
}

void SumColumns(const ColumnMatrixShape& shape, const std::byte* packed, std::span<const ActiveColumn> active, int64_t first, int64_t count,
                int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(SumColumnsImpl)(shape, packed, active, first, count, sums);
}

void SumColumnsPlain(const ColumnMatrixShape& shape, const std::byte* packed, std::span<const ActiveColumn> active, int64_t first,
                     int64_t count, int32_t* sums) {
  for (int64_t channel = first * kStripChannels; channel < (first + count) * kStripChannels; ++channel) {
    sums[channel] = 0;
    for (const ActiveColumn& one : active) sums[channel] += one.code * Int4At(packed + one.column * shape.column_bytes(), channel);
  }
}

}  // namespace taskpress
#endif  // HWY_ONCE
