// Products of unsigned and signed bytes on vectors of a fixed length, for loops that are compiled once per instruction set. Included after
// hwy/highway.h by files that are their own HWY_TARGET_INCLUDE. There is nothing for processors with vectors of unknown length.

// Per-target include guard.
#if defined(TASKPRESS_RUNTIME_KERNELS_NATIVE_BYTE_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TASKPRESS_RUNTIME_KERNELS_NATIVE_BYTE_PRODUCTS_INL_H_
#undef TASKPRESS_RUNTIME_KERNELS_NATIVE_BYTE_PRODUCTS_INL_H_
#else
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_BYTE_PRODUCTS_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR

namespace hn = hwy::HWY_NAMESPACE;

using Ints = hn::CappedTag<int32_t, 16>;
using Pairs = hn::Repartition<uint16_t, Ints>;
using Shorts = hn::Repartition<int16_t, Ints>;
using Bytes = hn::Repartition<uint8_t, Ints>;
using SignedBytes = hn::Repartition<int8_t, Ints>;
using Floats = hn::RebindToFloat<Ints>;
using IntVector = hn::Vec<Ints>;
using ByteVector = hn::Vec<Bytes>;
using SignedByteVector = hn::Vec<SignedBytes>;
using FloatVector = hn::Vec<Floats>;

// The same four codes in every lane.
HWY_INLINE SignedByteVector FourCodes(const int8_t* codes) {
  int32_t four;
  std::memcpy(&four, codes, sizeof(four));
  return hn::BitCast(SignedBytes(), hn::Set(Ints(), four));
}

HWY_INLINE ByteVector LowNibbles(ByteVector pairs) { return hn::And(pairs, hn::Set(Bytes(), 0x0F)); }
HWY_INLINE ByteVector HighNibbles(ByteVector pairs) {
  return LowNibbles(hn::BitCast(Bytes(), hn::ShiftRight<4>(hn::BitCast(Pairs(), pairs))));
}

// sums + weights * codes, four products to a lane. Weights are nibbles: two of the products fit 16 bits.
HWY_INLINE IntVector AddNibbleProducts(ByteVector weights, SignedByteVector codes, IntVector sums) {
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL && HWY_TARGET <= HWY_SSSE3
  const auto pairs = hn::SatWidenMulPairwiseAdd(Shorts(), weights, codes);
  return hn::Add(sums, hn::WidenMulPairwiseAdd(Ints(), pairs, hn::Set(Shorts(), 1)));
#else
  return hn::SumOfMulQuadAccumulate(Ints(), weights, codes, sums);
#endif
}

// Rounded once, also where the processor has no such instruction.
HWY_INLINE FloatVector FusedMultiplyAdd(FloatVector a, FloatVector b, FloatVector c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  constexpr size_t kFloats = hn::MaxLanes(Floats());
  HWY_ALIGN float lanes[3][kFloats];
  hn::Store(a, Floats(), lanes[0]);
  hn::Store(b, Floats(), lanes[1]);
  hn::Store(c, Floats(), lanes[2]);
  for (size_t i = 0; i < kFloats; ++i) lanes[0][i] = std::fma(lanes[0][i], lanes[1][i], lanes[2][i]);
  return hn::Load(Floats(), lanes[0]);
#endif
}

#endif

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
