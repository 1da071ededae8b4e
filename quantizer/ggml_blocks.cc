#include "quantizer/ggml_blocks.h"

#include <cstring>

#include "schema/base/half.h"

// Highway compiles this file once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantizer/ggml_blocks.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

const uint8_t* Bytes(const std::byte* from) { return reinterpret_cast<const uint8_t*>(from); }
float Half(const std::byte* from) { return F16ToFloat(LoadLittle<uint16_t>(from)); }

// out = scale * codes - minimum. Without a minimum nothing is subtracted, so that a negative zero stays one.
template <size_t kCount, bool kHasMinimum>
void Scale(const int8_t* codes, float scale, float minimum, float* out) {
  const hn::CappedTag<float, 16> floats;
  const hn::RebindToSigned<decltype(floats)> ints;
  const hn::Rebind<int8_t, decltype(floats)> bytes;
  const auto scales = hn::Set(floats, scale);
  const auto minimums = hn::Set(floats, minimum);
  for (size_t i = 0; i < kCount; i += hn::Lanes(floats)) {
    auto values = hn::Mul(scales, hn::ConvertTo(floats, hn::PromoteTo(ints, hn::LoadU(bytes, codes + i))));
    if constexpr (kHasMinimum) values = hn::Sub(values, minimums);
    hn::StoreU(values, floats, out + i);
  }
}
template <size_t kCount>
void Scale(const int8_t* codes, float scale, float* out) {
  Scale<kCount, false>(codes, scale, 0, out);
}

// The low and the high halves of kCount bytes, `extra` (one byte per byte and half, or null) added and `offset` subtracted.
template <size_t kCount>
void SplitNibbles(const uint8_t* packed, const uint8_t* extra_low, const uint8_t* extra_high, uint8_t offset, int8_t* low, int8_t* high) {
  const hn::CappedTag<uint8_t, kCount> bytes;
  const hn::RebindToSigned<decltype(bytes)> codes;
  const auto offsets = hn::Set(bytes, offset);
  const auto mask = hn::Set(bytes, uint8_t{0x0F});
  for (size_t i = 0; i < kCount; i += hn::Lanes(bytes)) {
    const auto both = hn::LoadU(bytes, packed + i);
    auto first = hn::And(both, mask);
    auto second = hn::ShiftRight<4>(both);
    if (extra_low != nullptr) {
      first = hn::Or(first, hn::LoadU(bytes, extra_low + i));
      second = hn::Or(second, hn::LoadU(bytes, extra_high + i));
    }
    hn::StoreU(hn::BitCast(codes, hn::Sub(first, offsets)), codes, low + i);
    hn::StoreU(hn::BitCast(codes, hn::Sub(second, offsets)), codes, high + i);
  }
}

// out[i] = value where bit `bit` of in[i] is set, else 0
void SpreadBit(const uint8_t* in, int bit, uint8_t value, uint8_t* out) {
  const hn::CappedTag<uint8_t, 32> bytes;
  const auto mask = hn::Set(bytes, static_cast<uint8_t>(1U << bit));
  for (size_t i = 0; i < 32; i += hn::Lanes(bytes)) {
    const auto is_set = hn::Eq(hn::And(hn::LoadU(bytes, in + i), mask), mask);
    hn::StoreU(hn::IfThenElseZero(is_set, hn::Set(bytes, value)), bytes, out + i);
  }
}

// out[i] = two bits of in[i] from `kShift` on, moved to bits 4 and 5
template <int kShift>
void TwoBits(const uint8_t* in, uint8_t* out) {
  const hn::CappedTag<uint8_t, 32> bytes;
  const auto mask = hn::Set(bytes, uint8_t{3});
  for (size_t i = 0; i < 32; i += hn::Lanes(bytes)) {
    const auto bits = hn::And(hn::ShiftRight<kShift>(hn::LoadU(bytes, in + i)), mask);
    hn::StoreU(hn::ShiftLeft<4>(bits), bytes, out + i);
  }
}

void Q8_0(const std::byte* block, float* out) { Scale<32>(reinterpret_cast<const int8_t*>(block + 2), Half(block), out); }

void Q4_0(const std::byte* block, float* out) {
  int8_t codes[32];
  SplitNibbles<16>(Bytes(block + 2), nullptr, nullptr, 8, codes, codes + 16);
  Scale<32>(codes, Half(block), out);
}

void Q5_0(const std::byte* block, float* out) {
  const auto bits = LoadLittle<uint32_t>(block + 2);
  uint8_t fifth[32];
  for (size_t i = 0; i < 32; ++i) fifth[i] = static_cast<uint8_t>(((bits >> i) & 1U) << 4);
  int8_t codes[32];
  SplitNibbles<16>(Bytes(block + 6), fifth, fifth + 16, 16, codes, codes + 16);
  Scale<32>(codes, Half(block), out);
}

void ScaleGroup(const std::byte* block, size_t group, const int8_t* codes, float* out) {
  const auto [scale, minimum] = UnpackScaleAndMinimum(block + 4, group);
  Scale<32, true>(codes, Half(block) * static_cast<float>(scale), Half(block + 2) * static_cast<float>(minimum), out);
}

void Q4_K(const std::byte* block, float* out) {
  int8_t codes[64];
  for (size_t pair = 0; pair < 4; ++pair) {
    SplitNibbles<32>(Bytes(block + 16 + 32 * pair), nullptr, nullptr, 0, codes, codes + 32);
    ScaleGroup(block, 2 * pair, codes, out + 64 * pair);
    ScaleGroup(block, 2 * pair + 1, codes + 32, out + 64 * pair + 32);
  }
}

void Q5_K(const std::byte* block, float* out) {
  int8_t codes[64];
  uint8_t fifth[64];
  for (size_t pair = 0; pair < 4; ++pair) {
    const auto bit = static_cast<int>(2 * pair);
    SpreadBit(Bytes(block + 16), bit, 16, fifth);
    SpreadBit(Bytes(block + 16), bit + 1, 16, fifth + 32);
    SplitNibbles<32>(Bytes(block + 48 + 32 * pair), fifth, fifth + 32, 0, codes, codes + 32);
    ScaleGroup(block, 2 * pair, codes, out + 64 * pair);
    ScaleGroup(block, 2 * pair + 1, codes + 32, out + 64 * pair + 32);
  }
}

void Q6_K(const std::byte* block, float* out) {
  const float scale = Half(block + 208);
  const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
  int8_t codes[128];
  uint8_t high[128];
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* low_bits = Bytes(block + 64 * half);
    const uint8_t* high_bits = Bytes(block + 128 + 32 * half);
    TwoBits<0>(high_bits, high);
    TwoBits<2>(high_bits, high + 32);
    TwoBits<4>(high_bits, high + 64);
    TwoBits<6>(high_bits, high + 96);
    SplitNibbles<32>(low_bits, high, high + 64, 32, codes, codes + 64);
    SplitNibbles<32>(low_bits + 32, high + 32, high + 96, 32, codes + 32, codes + 96);
    for (size_t group = 0; group < 8; ++group) {
      Scale<16>(codes + 16 * group, scale * static_cast<float>(scales[8 * half + group]), out + 128 * half + 16 * group);
    }
  }
}

template <void (*kBlock)(const std::byte*, float*), size_t kValues, size_t kBytes>
void EachBlock(ByteView blocks, std::span<float> out) {
  const std::byte* from = blocks.data();
  for (size_t i = 0; i < out.size(); i += kValues, from += kBytes) kBlock(from, out.data() + i);
}

void Dequantize(GgmlType type, ByteView blocks, std::span<float> out) {
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(out.data(), blocks.data(), out.size_bytes());
      return;
    case GgmlType::kF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = Half(blocks.data() + 2 * i);
      return;
    case GgmlType::kBF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = Bf16ToFloat(LoadLittle<uint16_t>(blocks.data() + 2 * i));
      return;
    case GgmlType::kQ8_0:
      return EachBlock<Q8_0, 32, 34>(blocks, out);
    case GgmlType::kQ4_0:
      return EachBlock<Q4_0, 32, 18>(blocks, out);
    case GgmlType::kQ5_0:
      return EachBlock<Q5_0, 32, 22>(blocks, out);
    case GgmlType::kQ4_K:
      return EachBlock<Q4_K, 256, 144>(blocks, out);
    case GgmlType::kQ5_K:
      return EachBlock<Q5_K, 256, 176>(blocks, out);
    case GgmlType::kQ6_K:
      return EachBlock<Q6_K, 256, 210>(blocks, out);
  }
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {
namespace {

HWY_EXPORT(Dequantize);

}  // namespace

void DequantizeGgml(GgmlType type, ByteView blocks, std::span<float> out) { HWY_DYNAMIC_DISPATCH(Dequantize)(type, blocks, out); }

}  // namespace taskpress
#endif  // HWY_ONCE
