#include "runtime/kernels/native/integer_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/integer_product.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

#ifndef TASKPRESS_INTEGER_PRODUCT_ONCE
#define TASKPRESS_INTEGER_PRODUCT_ONCE
namespace taskpress {

// The longest vector of int16 that is used: planes are padded to its length on every CPU.
inline constexpr int64_t kPlaneLanes = 32;

inline int64_t PlaneLength(int64_t in, int bits) {
  const int64_t per_lane = 16 / bits;
  const int64_t lanes = (in + per_lane - 1) / per_lane;
  return (lanes + kPlaneLanes - 1) / kPlaneLanes * kPlaneLanes;
}

}  // namespace taskpress
#endif  // TASKPRESS_INTEGER_PRODUCT_ONCE

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Shorts = hn::CappedTag<int16_t, kPlaneLanes>;
using Ints = hn::RepartitionToWide<Shorts>;
using Bytes = hn::Repartition<uint8_t, Shorts>;

// Sums of kRows rows of activations with one row of weights; each vector of weights is loaded and shifted once for all rows.
template <int kBits, int kRows>
class Dots {
 public:
  Dots(const int16_t* planes, int64_t in)
      : planes_(planes), plane_length_(PlaneLength(in, kBits)), row_length_(plane_length_ * kPerLane), bytes_((in * kBits + 7) / 8) {}

  // sums [kRows]
  HWY_INLINE void Run(const std::byte* weights, int32_t* sums) const {
    const Shorts d16;
    const Bytes d8;
    const Ints d32;
    const auto* from = reinterpret_cast<const uint8_t*>(weights);
    const auto step = static_cast<int64_t>(hn::Lanes(d8));
    auto sum0 = hn::Zero(d32);
    auto sum1 = hn::Zero(d32);
    auto sum2 = hn::Zero(d32);
    auto sum3 = hn::Zero(d32);
    int64_t i = 0;
    for (; i + step <= bytes_; i += step) AddProducts(hn::BitCast(d16, hn::LoadU(d8, from + i)), i / 2, sum0, sum1, sum2, sum3);
    if (i < bytes_) {
      HWY_ALIGN uint8_t rest[2 * kPlaneLanes] = {};
      std::memcpy(rest, from + i, static_cast<size_t>(bytes_ - i));  // the mapping may end behind the row
      AddProducts(hn::BitCast(d16, hn::Load(d8, rest)), i / 2, sum0, sum1, sum2, sum3);
    }
    sums[0] = hn::ReduceSum(d32, sum0);
    if constexpr (kRows > 1) {
      sums[1] = hn::ReduceSum(d32, sum1);
      sums[2] = hn::ReduceSum(d32, sum2);
      sums[3] = hn::ReduceSum(d32, sum3);
    }
  }

 private:
  static_assert(kRows == 1 || kRows == 4);
  static constexpr int kPerLane = 16 / kBits;

  template <typename W, typename S>
  HWY_INLINE void AddProducts(W weights, int64_t lane, S& sum0, S& sum1, S& sum2, S& sum3) const {
    AddPlane<0>(weights, lane, sum0, sum1, sum2, sum3);
    AddPlane<1>(weights, lane, sum0, sum1, sum2, sum3);
    if constexpr (kPerLane == 4) {
      AddPlane<2>(weights, lane, sum0, sum1, sum2, sum3);
      AddPlane<3>(weights, lane, sum0, sum1, sum2, sum3);
    }
  }

  template <int kPlane, typename W, typename S>
  HWY_INLINE void AddPlane(W weights, int64_t lane, S& sum0, S& sum1, S& sum2, S& sum3) const {
    const auto one = hn::ShiftRight<16 - kBits>(hn::ShiftLeft<16 - kBits*(kPlane + 1)>(weights));
    const int16_t* codes = planes_ + kPlane * plane_length_ + lane;
    AddRow(one, codes, sum0);
    if constexpr (kRows > 1) {
      AddRow(one, codes + row_length_, sum1);
      AddRow(one, codes + 2 * row_length_, sum2);
      AddRow(one, codes + 3 * row_length_, sum3);
    }
  }

  template <typename W, typename S>
  static HWY_INLINE void AddRow(W weights, const int16_t* codes, S& sum) {
    sum = hn::Add(sum, hn::WidenMulPairwiseAdd(Ints(), weights, hn::LoadU(Shorts(), codes)));
  }

  const int16_t* planes_;
  int64_t plane_length_;
  int64_t row_length_;
  int64_t bytes_;  // of a row of weights
};

template <int kBits, int kRows>
void MultiplyRows(const IntegerProduct& product, int64_t row, int64_t first, int64_t count) {
  const Dots<kBits, kRows> dots(product.planes + row * PlanesLength(product.in, kBits), product.in);
  const int64_t row_bytes = (product.in * kBits + 7) / 8;
  for (int64_t channel = first; channel < first + count; ++channel) {
    int32_t sums[kRows];
    dots.Run(product.weights + channel * row_bytes, sums);
    const float scale = product.scales[product.scales.size() == 1 ? 0 : static_cast<size_t>(channel)];
    const float bias = product.bias == nullptr ? 0.0F : product.bias[channel];
    for (int64_t i = 0; i < kRows; ++i) {
      const float scaled = static_cast<float>(sums[i]) * product.row_scales[row + i];
      product.result[(row + i) * product.out + channel] = std::fma(scaled, scale, bias);
    }
  }
}

// Sums of blocks: a row of weights is a row of short rows, each with its scale. A block is 8 lanes or a multiple of it, so a vector never
// holds parts of two.
template <int kRows>
void MultiplyBlocks(const IntegerProduct& product, int64_t row, int64_t first, int64_t count) {
  const hn::CappedTag<int16_t, 8> d16;
  const hn::RepartitionToWide<decltype(d16)> d32;
  const hn::Repartition<uint8_t, decltype(d16)> d8;
  const int64_t plane_length = PlaneLength(product.in, 4);
  const int64_t row_length = 4 * plane_length;
  const int16_t* planes = product.planes + row * row_length;
  const auto step = static_cast<int64_t>(hn::Lanes(d16));
  const int64_t block_lanes = product.block_size / 4;
  const int64_t blocks = product.in / product.block_size;
  for (int64_t channel = first; channel < first + count; ++channel) {
    const auto* weights = reinterpret_cast<const uint8_t*>(product.weights + channel * product.in / 2);
    const float* scales = product.scales.data() + channel * blocks;
    float totals[kRows] = {};
    for (int64_t block = 0; block < blocks; ++block) {
      auto sum0 = hn::Zero(d32);
      auto sum1 = hn::Zero(d32);
      auto sum2 = hn::Zero(d32);
      auto sum3 = hn::Zero(d32);
      for (int64_t lane = block * block_lanes; lane < (block + 1) * block_lanes; lane += step) {
        const auto four = hn::BitCast(d16, hn::LoadU(d8, weights + 2 * lane));
        const auto add = [&](auto weight, int64_t plane) HWY_ATTR {
          const int16_t* codes = planes + plane * plane_length + lane;
          sum0 = hn::Add(sum0, hn::WidenMulPairwiseAdd(d32, weight, hn::LoadU(d16, codes)));
          if constexpr (kRows > 1) {
            sum1 = hn::Add(sum1, hn::WidenMulPairwiseAdd(d32, weight, hn::LoadU(d16, codes + row_length)));
            sum2 = hn::Add(sum2, hn::WidenMulPairwiseAdd(d32, weight, hn::LoadU(d16, codes + 2 * row_length)));
            sum3 = hn::Add(sum3, hn::WidenMulPairwiseAdd(d32, weight, hn::LoadU(d16, codes + 3 * row_length)));
          }
        };
        add(hn::ShiftRight<12>(hn::ShiftLeft<12>(four)), 0);
        add(hn::ShiftRight<12>(hn::ShiftLeft<8>(four)), 1);
        add(hn::ShiftRight<12>(hn::ShiftLeft<4>(four)), 2);
        add(hn::ShiftRight<12>(four), 3);
      }
      totals[0] += static_cast<float>(hn::ReduceSum(d32, sum0)) * scales[block];
      if constexpr (kRows > 1) {
        totals[1] += static_cast<float>(hn::ReduceSum(d32, sum1)) * scales[block];
        totals[2] += static_cast<float>(hn::ReduceSum(d32, sum2)) * scales[block];
        totals[3] += static_cast<float>(hn::ReduceSum(d32, sum3)) * scales[block];
      }
    }
    const float bias = product.bias == nullptr ? 0.0F : product.bias[channel];
    for (int64_t i = 0; i < kRows; ++i) {
      product.result[(row + i) * product.out + channel] = totals[i] * product.row_scales[row + i] + bias;
    }
  }
}

// Four rows share what is done to a weight; the channels of a call are few enough to stay in the cache for the next four.
template <int kBits>
void MultiplyBits(const IntegerProduct& product, int64_t first, int64_t count) {
  int64_t row = 0;
  for (; row + 4 <= product.rows; row += 4) MultiplyRows<kBits, 4>(product, row, first, count);
  for (; row < product.rows; ++row) MultiplyRows<kBits, 1>(product, row, first, count);
}

void MultiplyAllBlocks(const IntegerProduct& product, int64_t first, int64_t count) {
  int64_t row = 0;
  for (; row + 4 <= product.rows; row += 4) MultiplyBlocks<4>(product, row, first, count);
  for (; row < product.rows; ++row) MultiplyBlocks<1>(product, row, first, count);
}

void MultiplyChannelsImpl(const IntegerProduct& product, int64_t first, int64_t count) {
  if (product.block_size > 0) return MultiplyAllBlocks(product, first, count);
  product.bits == 4 ? MultiplyBits<4>(product, first, count) : MultiplyBits<8>(product, first, count);
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MultiplyChannelsImpl);

int64_t PlanesLength(int64_t in, int bits) { return PlaneLength(in, bits) * (16 / bits); }

void FillPlanes(std::span<const int8_t> codes, int32_t zero_point, int bits, int16_t* planes) {
  const auto in = static_cast<int64_t>(codes.size());
  const int64_t length = PlaneLength(in, bits);
  const int64_t per_lane = 16 / bits;
  std::fill_n(planes, PlanesLength(in, bits), int16_t{0});
  for (int64_t plane = 0; plane < per_lane; ++plane) {
    int16_t* to = planes + plane * length;
    for (int64_t i = plane; i < in; i += per_lane) *to++ = static_cast<int16_t>(codes[static_cast<size_t>(i)] - zero_point);
  }
}

void MultiplyChannels(const IntegerProduct& product, int64_t first, int64_t count) {
  HWY_DYNAMIC_DISPATCH(MultiplyChannelsImpl)(product, first, count);
}

}  // namespace taskpress
#endif  // HWY_ONCE
