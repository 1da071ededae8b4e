#include "quantizer/row_kernels.h"

#include <algorithm>
#include <bit>

// Highway compiles this file once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantizer/row_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Four vectors of floats make one vector of bytes.
using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToSigned<Floats>;
using Shorts = hn::RepartitionToNarrow<Ints>;
using Bytes = hn::RepartitionToNarrow<Shorts>;

uint32_t MaxMagnitudeBits(std::span<const float> values) {
  const Floats floats;
  const Ints ints;  // magnitudes are positive as int32, and every target compares those
  const size_t lanes = hn::Lanes(floats);
  const auto magnitude = hn::Set(ints, 0x7fffffff);
  auto max0 = hn::Zero(ints);
  auto max1 = hn::Zero(ints);
  size_t i = 0;
  for (; i + 2 * lanes <= values.size(); i += 2 * lanes) {
    max0 = hn::Max(max0, hn::And(hn::BitCast(ints, hn::LoadU(floats, values.data() + i)), magnitude));
    max1 = hn::Max(max1, hn::And(hn::BitCast(ints, hn::LoadU(floats, values.data() + i + lanes)), magnitude));
  }
  auto bits = static_cast<uint32_t>(hn::ReduceMax(ints, hn::Max(max0, max1)));
  return std::max(bits, PlainRowKernels().max_magnitude_bits(values.subspan(i)));
}

// round-half-even(value / scale) of two vectors, saturated to int16, in order.
template <class Vector>
HWY_INLINE auto EncodeTwo(const float* values, Vector scale) {
  const Floats floats;
  const auto low = hn::NearestInt(hn::Div(hn::LoadU(floats, values), scale));
  const auto high = hn::NearestInt(hn::Div(hn::LoadU(floats, values + hn::Lanes(floats)), scale));
  return hn::OrderedDemote2To(Shorts(), low, high);
}

// The codes of four vectors.
template <class Vector>
HWY_INLINE auto EncodeFour(const float* values, Vector scale, int16_t lowest, int16_t highest) {
  const Shorts shorts;
  const auto low = hn::Set(shorts, lowest);
  const auto high = hn::Set(shorts, highest);
  const auto first = hn::Clamp(EncodeTwo(values, scale), low, high);
  const auto second = hn::Clamp(EncodeTwo(values + hn::Lanes(shorts), scale), low, high);
  return hn::OrderedDemote2To(Bytes(), first, second);
}

void EncodeInt8(std::span<const float> values, float scale, ByteSpan packed) {
  const Bytes bytes;
  const size_t step = hn::Lanes(bytes);
  const auto scales = hn::Set(Floats(), scale);
  size_t i = 0;
  for (; i + step <= values.size(); i += step) {
    hn::StoreU(EncodeFour(values.data() + i, scales, -kInt8Limit, kInt8Limit), bytes, reinterpret_cast<int8_t*>(packed.data() + i));
  }
  PlainRowKernels().encode_int8(values.subspan(i), scale, packed.subspan(i));
}

void EncodeInt4(std::span<const float> values, float scale, ByteSpan packed) {
  const hn::RepartitionToWide<hn::RebindToUnsigned<Bytes>> pairs;  // one uint16 holds the codes of one packed byte
  const hn::Rebind<uint8_t, decltype(pairs)> nibbles;
  const size_t step = hn::Lanes(Bytes());
  const auto scales = hn::Set(Floats(), scale);
  const auto even = hn::Set(pairs, 0x0F);
  const auto odd = hn::Set(pairs, 0xF0);
  size_t i = 0;
  for (; i + step <= values.size(); i += step) {
    const auto codes = hn::BitCast(pairs, EncodeFour(values.data() + i, scales, kInt4Lowest, kInt4Limit));
    const auto both = hn::Or(hn::And(codes, even), hn::And(hn::ShiftRight<4>(codes), odd));
    hn::StoreU(hn::TruncateTo(nibbles, both), nibbles, reinterpret_cast<uint8_t*>(packed.data() + i / 2));
  }
  PlainRowKernels().encode_int4(values.subspan(i), scale, packed.subspan(i / 2));
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {
namespace {

HWY_EXPORT(MaxMagnitudeBits);
HWY_EXPORT(EncodeInt8);
HWY_EXPORT(EncodeInt4);

}  // namespace

const RowKernels& VectorRowKernels() {
  static constexpr RowKernels kKernels = {
      [](std::span<const float> values) { return HWY_DYNAMIC_DISPATCH(MaxMagnitudeBits)(values); },
      [](std::span<const float> values, float scale, ByteSpan packed) { HWY_DYNAMIC_DISPATCH(EncodeInt8)(values, scale, packed); },
      [](std::span<const float> values, float scale, ByteSpan packed) { HWY_DYNAMIC_DISPATCH(EncodeInt4)(values, scale, packed); },
  };
  return kKernels;
}

}  // namespace taskpress
#endif  // HWY_ONCE
