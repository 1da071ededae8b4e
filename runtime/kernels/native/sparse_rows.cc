#include "runtime/kernels/native/sparse_rows.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "runtime/kernels/packed_int4.h"

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/sparse_rows.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>
// And this one after it.
#include "runtime/kernels/native/byte_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR

void MultiplyUnitImpl(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values) {
  MultiplyUnitPlain(product, unit, rows, values);
}

int64_t FindNonZerosImpl(const float* values, int64_t count, int64_t room, uint16_t* found) {
  int64_t size = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] == 0.0F) continue;
    if (size == room) return room + 1;
    found[size++] = static_cast<uint16_t>(i);
  }
  return size;
}

#else

inline constexpr int64_t kLanes = hn::MaxLanes(Bytes());
inline constexpr size_t kRowsAtOnce = 4;

// Two sums of each row: a product takes several cycles before the next can be added to the same sum.
template <size_t kRows>
using RowSums = IntVector[kRows][2];
template <size_t kRows>
using RowPointers = const int8_t* [kRows];

template <size_t... kRow>
HWY_INLINE void AddNibbles(ByteVector pairs, const RowPointers<sizeof...(kRow)>& codes, int64_t at, RowSums<sizeof...(kRow)>& sums,
                           std::index_sequence<kRow...> /*rows*/) {
  const auto low = LowNibbles(pairs);
  const auto high = HighNibbles(pairs);
  ((sums[kRow][0] = AddNibbleProducts(low, hn::LoadU(SignedBytes(), codes[kRow] + at), sums[kRow][0])), ...);
  ((sums[kRow][1] = AddNibbleProducts(high, hn::LoadU(SignedBytes(), codes[kRow] + at + kSplitColumns / 2), sums[kRow][1])), ...);
}

template <size_t... kRow>
HWY_INLINE void AddBytes(ByteVector weights, const RowPointers<sizeof...(kRow)>& codes, int64_t at, RowSums<sizeof...(kRow)>& sums,
                         std::index_sequence<kRow...> /*rows*/) {
  ((sums[kRow][0] = hn::SumOfMulQuadAccumulate(Ints(), weights, hn::LoadU(SignedBytes(), codes[kRow] + at), sums[kRow][0])), ...);
}

// Weights plus their offset. What is not there becomes 0 minus the offset, and meets codes that are 0.
template <int kBits>
HWY_INLINE ByteVector LoadWeights(const uint8_t* from, int64_t bytes) {
  const auto offset = hn::Set(Bytes(), kBits == 4 ? 0x88 : 0x80);
  return hn::Xor(bytes >= kLanes ? hn::LoadU(Bytes(), from) : hn::LoadN(Bytes(), from, static_cast<size_t>(bytes)), offset);
}

// Units are asked for in ascending order, with few gaps.
HWY_INLINE void FetchRow(const uint8_t* weights, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += 64) hwy::Prefetch(weights + byte);
}

// sums [kRows] of stored weights, offset included, times codes.
template <int kBits, size_t kRows>
HWY_NOINLINE void SumRows(const uint8_t* weights, int64_t bytes, const RowPointers<kRows>& codes, int32_t* sums) {
  constexpr auto kIndices = std::make_index_sequence<kRows>();
  RowSums<kRows> vectors;
  [&]<size_t... kRow>(std::index_sequence<kRow...>) HWY_ATTR { ((vectors[kRow][0] = vectors[kRow][1] = hn::Zero(Ints())), ...); }(kIndices);
  for (int64_t byte = 0; byte < bytes; byte += kLanes) {
    const auto loaded = LoadWeights<kBits>(weights + byte, bytes - byte);
    if constexpr (kBits == 4) {
      // 64 bytes of weights are 128 columns.
      AddNibbles(loaded, codes, byte / (kSplitColumns / 2) * kSplitColumns + byte % (kSplitColumns / 2), vectors, kIndices);
    } else {
      AddBytes(loaded, codes, byte, vectors, kIndices);
    }
  }
  [&]<size_t... kRow>(std::index_sequence<kRow...>)
      HWY_ATTR { ((sums[kRow] = hn::ReduceSum(Ints(), hn::Add(vectors[kRow][0], vectors[kRow][1]))), ...); }(kIndices);
}

// Any number of rows up to kRowsAtOnce; the last one fills up what is missing.
template <int kBits>
HWY_INLINE void SumSome(const uint8_t* weights, int64_t bytes, RowPointers<kRowsAtOnce>& codes, size_t count, int32_t* sums) {
  if (count == 1) return SumRows<kBits, 1>(weights, bytes, {codes[0]}, sums);
  if (count == 2) return SumRows<kBits, 2>(weights, bytes, {codes[0], codes[1]}, sums);
  for (size_t i = count; i < kRowsAtOnce; ++i) codes[i] = codes[i - 1];
  SumRows<kBits, kRowsAtOnce>(weights, bytes, codes, sums);
}

template <int kBits>
void MultiplyRows(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values) {
  constexpr uint32_t kOffset = kBits == 4 ? 8 : 128;
  const int64_t bytes = product.in * kBits / 8;
  const auto* weights = reinterpret_cast<const uint8_t*>(product.weights) + unit * bytes;
  if (unit + 1 < product.out) FetchRow(weights + bytes, bytes);
  const int64_t length = SplitRowLength(product.in);
  const float scale = product.scales[product.scales.size() == 1 ? 0 : static_cast<size_t>(unit)];
  const float bias = product.bias == nullptr ? 0.0F : product.bias[unit];
  RowPointers<kRowsAtOnce> codes = {product.ones};
  int32_t sums[kRowsAtOnce];
  uint32_t weight_sum = 0;
  // Ones go first, for the sum of the weights.
  size_t ones = 1;
  for (size_t done = 0; done < rows.size() || ones == 1; ones = 0) {
    const size_t count = std::min(kRowsAtOnce - ones, rows.size() - done);
    for (size_t i = 0; i < count; ++i) codes[ones + i] = product.codes + rows[done + i] * length;
    SumSome<kBits>(weights, bytes, codes, ones + count, sums);
    if (ones == 1) weight_sum = static_cast<uint32_t>(sums[0]) - kOffset * static_cast<uint32_t>(product.in);
    for (size_t i = 0; i < count; ++i) {
      const PackedRow& row = product.row[rows[done + i]];
      // What overflows comes back.
      const uint32_t correction = kOffset * static_cast<uint32_t>(row.sum) + weight_sum * static_cast<uint32_t>(row.zero_point);
      const auto exact = static_cast<int32_t>(static_cast<uint32_t>(sums[ones + i]) - correction);
      values[done + i] = __builtin_fmaf(static_cast<float>(exact) * row.scale, scale, bias);
    }
    done += count;
  }
}

void MultiplyUnitImpl(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values) {
  product.bits == 4 ? MultiplyRows<4>(product, unit, rows, values) : MultiplyRows<8>(product, unit, rows, values);
}

int64_t FindNonZerosImpl(const float* values, int64_t count, int64_t room, uint16_t* found) {
  const hn::CappedTag<float, 16> d;
  constexpr auto kStep = static_cast<int64_t>(hn::MaxLanes(d));
  int64_t size = 0;
  for (int64_t i = 0; i < count; i += kStep) {
    const auto vector = count - i >= kStep ? hn::LoadU(d, values + i) : hn::LoadN(d, values + i, static_cast<size_t>(count - i));
    uint64_t bits = 0;  // NaN counts
    hn::StoreMaskBits(d, hn::Not(hn::Eq(vector, hn::Zero(d))), reinterpret_cast<uint8_t*>(&bits));
    if (size + std::popcount(bits) > room) return room + 1;
    for (; bits != 0; bits &= bits - 1) found[size++] = static_cast<uint16_t>(i + std::countr_zero(bits));
  }
  return size;
}

#endif

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MultiplyUnitImpl);
HWY_EXPORT(FindNonZerosImpl);

void SplitRow(const int8_t* codes, int64_t in, int bits, int8_t* split) {
  const int64_t length = SplitRowLength(in);
  if (bits == 8) {
    std::memcpy(split, codes, static_cast<size_t>(in));
    std::memset(split + in, 0, static_cast<size_t>(length - in));
    return;
  }
  for (int64_t strip = 0; strip < length; strip += kSplitColumns) {
    int8_t* const to = split + strip;
    const int64_t pairs = std::clamp<int64_t>((in - strip) / 2, 0, kSplitColumns / 2);
    for (int64_t i = 0; i < pairs; ++i) {
      to[i] = codes[strip + 2 * i];
      to[kSplitColumns / 2 + i] = codes[strip + 2 * i + 1];
    }
    std::fill(to + pairs, to + kSplitColumns / 2, int8_t{0});
    std::fill(to + kSplitColumns / 2 + pairs, to + kSplitColumns, int8_t{0});
  }
}

void MultiplyUnit(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values) {
  HWY_DYNAMIC_DISPATCH(MultiplyUnitImpl)(product, unit, rows, values);
}

void MultiplyUnitPlain(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values) {
  const int64_t length = SplitRowLength(product.in);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int8_t* codes = product.codes + rows[i] * length;
    const PackedRow& row = product.row[rows[i]];
    int32_t sum = 0;
    for (int64_t column = 0; column < product.in; ++column) {
      const int64_t element = unit * product.in + column;
      const bool nibbles = product.bits == 4;
      const int32_t weight = nibbles ? Int4At(product.weights, element) : static_cast<int8_t>(product.weights[element]);
      const int64_t strip = column / kSplitColumns * kSplitColumns;
      const int64_t at = nibbles ? strip + column % 2 * kSplitColumns / 2 + (column - strip) / 2 : column;
      sum += weight * (codes[at] - row.zero_point);
    }
    const float scale = product.scales[product.scales.size() == 1 ? 0 : static_cast<size_t>(unit)];
    values[i] = std::fma(static_cast<float>(sum) * row.scale, scale, product.bias == nullptr ? 0.0F : product.bias[unit]);
  }
}

int64_t FindNonZeros(const float* values, int64_t count, int64_t room, uint16_t* found) {
  return HWY_DYNAMIC_DISPATCH(FindNonZerosImpl)(values, count, room, found);
}

}  // namespace taskpress
#endif  // HWY_ONCE
