#include "runtime/kernels/native/sparse_columns.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/kernels/packed_int4.h"

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/sparse_columns.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>
// And this one after it.
#include "runtime/kernels/native/byte_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR

void MultiplyColumnsImpl(const ColumnProduct& product, const ActiveColumns& active, const ActiveColumns& /*next*/, float row_scale,
                         int64_t first, int64_t count, float* result) {
  MultiplyColumnsPlain(product, active, row_scale, first, count, result);
}

#else

inline constexpr int64_t kPieceBytes = ColumnMatrixShape::kPieceBytes;
inline constexpr int64_t kByteLanes = hn::MaxLanes(Bytes());
inline constexpr int64_t kIntLanes = hn::MaxLanes(Ints());
inline constexpr int64_t kBlocks = kByteLanes / 16;  // that shuffles keep apart

// Of channels whose nibbles are low and high in the bytes 4i to 4i + 3 of every block of 16.
struct Quarter {
  IntVector low;
  IntVector high;
};

// Four interleaved columns.
HWY_INLINE void AddColumns(ByteVector four, SignedByteVector codes, Quarter& sums) {
  sums.low = AddNibbleProducts(LowNibbles(four), codes, sums.low);
  sums.high = AddNibbleProducts(HighNibbles(four), codes, sums.high);
}

HWY_INLINE ByteVector LowerPairs(ByteVector a, ByteVector b) {
  return hn::BitCast(Bytes(), hn::InterleaveLower(hn::BitCast(Pairs(), a), hn::BitCast(Pairs(), b)));
}
HWY_INLINE ByteVector UpperPairs(ByteVector a, ByteVector b) {
  return hn::BitCast(Bytes(), hn::InterleaveUpper(Pairs(), hn::BitCast(Pairs(), a), hn::BitCast(Pairs(), b)));
}

// Channels 8 * quarter to 8 * quarter + 7 of every 32.
HWY_INLINE void StoreQuarter(const Quarter& sums, int64_t quarter, int32_t* to) {
  HWY_ALIGN int32_t first[4 * kBlocks];
  HWY_ALIGN int32_t second[4 * kBlocks];
  hn::Store(hn::InterleaveLower(Ints(), sums.low, sums.high), Ints(), first);
  hn::Store(hn::InterleaveUpper(Ints(), sums.low, sums.high), Ints(), second);
  for (int64_t block = 0; block < kBlocks; ++block) {
    std::memcpy(to + 32 * block + 8 * quarter, first + 4 * block, 16);
    std::memcpy(to + 32 * block + 8 * quarter + 4, second + 4 * block, 16);
  }
}

// What comes next lies here and there in a strip: fetched column by column while this row is added up.
HWY_INLINE void Fetch(const uint8_t* pieces, const ActiveColumns& next, int64_t first) {
  for (int64_t i = first; i < first + 4; ++i) hwy::Prefetch(pieces + next.columns[i] * kPieceBytes);
}

// sums [2 * kByteLanes] of stored weights, offset included. pieces: the first column's bytes of these channels.
HWY_INLINE void SumVector(const uint8_t* pieces, const ActiveColumns& active, const ActiveColumns& next, int32_t* sums) {
  const IntVector zero = hn::Zero(Ints());
  Quarter quarter0{.low = zero, .high = zero};
  Quarter quarter1 = quarter0;
  Quarter quarter2 = quarter0;
  Quarter quarter3 = quarter0;
  const auto load = [&](int64_t i) HWY_ATTR { return hn::LoadU(Bytes(), pieces + active.columns[i] * kPieceBytes); };
  for (int64_t i = 0; i < active.count; i += 4) {
    if (i < next.count) Fetch(pieces, next, i);
    const auto column0 = load(i);
    const auto column1 = load(i + 1);
    const auto column2 = load(i + 2);
    const auto column3 = load(i + 3);
    const auto lower01 = hn::InterleaveLower(Bytes(), column0, column1);
    const auto upper01 = hn::InterleaveUpper(Bytes(), column0, column1);
    const auto lower23 = hn::InterleaveLower(Bytes(), column2, column3);
    const auto upper23 = hn::InterleaveUpper(Bytes(), column2, column3);
    const auto codes = FourCodes(active.codes + i);
    AddColumns(LowerPairs(lower01, lower23), codes, quarter0);
    AddColumns(UpperPairs(lower01, lower23), codes, quarter1);
    AddColumns(LowerPairs(upper01, upper23), codes, quarter2);
    AddColumns(UpperPairs(upper01, upper23), codes, quarter3);
  }
  StoreQuarter(quarter0, 0, sums);
  StoreQuarter(quarter1, 1, sums);
  StoreQuarter(quarter2, 2, sums);
  StoreQuarter(quarter3, 3, sums);
}

// Some channels from their sums: [first, first + count), count at most a vector's lanes.
HWY_INLINE void FinishVector(const ColumnProduct& product, IntVector sums, float row_scale, int64_t channel, int64_t count, float* result) {
  const auto some = [&](const float* from) HWY_ATTR {
    return count == kIntLanes ? hn::LoadU(Floats(), from) : hn::LoadN(Floats(), from, static_cast<size_t>(count));
  };
  const auto scales = product.scales.size() == 1 ? hn::Set(Floats(), product.scales[0]) : some(product.scales.data() + channel);
  const auto bias = product.bias == nullptr ? hn::Zero(Floats()) : some(product.bias + channel);
  const auto scaled = hn::Mul(hn::ConvertTo(Floats(), sums), hn::Set(Floats(), row_scale));
  const auto y = FusedMultiplyAdd(scaled, scales, bias);
  if (count == kIntLanes) {
    hn::StoreU(y, Floats(), result + channel);
  } else {
    hn::StoreN(y, Floats(), result + channel, static_cast<size_t>(count));
  }
}

void MultiplyColumnsImpl(const ColumnProduct& product, const ActiveColumns& active, const ActiveColumns& next, float row_scale,
                         int64_t first, int64_t count, float* result) {
  const auto correction = hn::Set(Ints(), 8 * active.code_sum);
  for (int64_t strip = first; strip < first + count; ++strip) {
    const auto* pieces = reinterpret_cast<const uint8_t*>(product.packed + product.shape.PieceOffset(strip, 0));
    HWY_ALIGN int32_t sums[kStripChannels];
    for (int64_t byte = 0; byte < kPieceBytes; byte += kByteLanes) SumVector(pieces + byte, active, next, sums + 2 * byte);
    const int64_t channel = strip * kStripChannels;
    const int64_t channels = std::min(kStripChannels, product.shape.out - channel);
    for (int64_t i = 0; i < channels; i += kIntLanes) {
      const auto exact = hn::Sub(hn::Load(Ints(), sums + i), correction);
      FinishVector(product, exact, row_scale, channel + i, std::min(kIntLanes, channels - i), result);
    }
  }
}

#endif

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MultiplyColumnsImpl);

void PackColumns(const ColumnMatrixShape& shape, const std::byte* weights, int64_t first, int64_t count, std::byte* packed) {
  constexpr auto kZeros = std::byte{0x88};  // two weights 0
  // Some columns at a time, so that a row's bytes are used while they are in the cache.
  constexpr int64_t kColumns = 64;
  for (int64_t begin = first; begin < first + count; begin += kColumns) {
    const int64_t end = std::min(begin + kColumns, first + count);
    for (int64_t strip = 0; strip < shape.strips(); ++strip) {
      std::fill(packed + shape.PieceOffset(strip, begin), packed + shape.PieceOffset(strip, end), kZeros);
    }
    for (int64_t channel = 0; channel < shape.out; ++channel) {
      const int shift = channel % 2 == 0 ? 0 : 4;
      std::byte* const strip = packed + shape.PieceOffset(channel / kStripChannels, 0) + channel % kStripChannels / 2;
      for (int64_t column = begin; column < end; ++column) {
        const auto nibble = static_cast<unsigned>(Int4At(weights, channel * shape.in + column)) & 0xFU;
        strip[column * ColumnMatrixShape::kPieceBytes] ^= static_cast<std::byte>(nibble << shift);  // plus 8
      }
    }
  }
}

ActiveColumns ListActive(const uint16_t* units, const int8_t* codes, int64_t count, int32_t zero_point, uint16_t* columns,
                         int8_t* listed_codes) {
  ActiveColumns active{.columns = columns, .codes = listed_codes};
  for (int64_t i = 0; i < count; ++i) {
    int32_t left = codes[i] - zero_point;
    active.code_sum += left;
    while (left != 0) {
      const int32_t part = std::clamp(left, -128, 127);
      columns[active.count] = units[i];
      listed_codes[active.count++] = static_cast<int8_t>(part);
      left -= part;
    }
  }
  for (; active.count % 4 != 0; ++active.count) {
    columns[active.count] = columns[active.count - 1];
    listed_codes[active.count] = 0;
  }
  return active;
}

void MultiplyColumns(const ColumnProduct& product, const ActiveColumns& active, const ActiveColumns& next, float row_scale, int64_t first,
                     int64_t count, float* result) {
  HWY_DYNAMIC_DISPATCH(MultiplyColumnsImpl)(product, active, next, row_scale, first, count, result);
}

void MultiplyColumnsPlain(const ColumnProduct& product, const ActiveColumns& active, float row_scale, int64_t first, int64_t count,
                          float* result) {
  const int64_t end = std::min((first + count) * kStripChannels, product.shape.out);
  for (int64_t channel = first * kStripChannels; channel < end; ++channel) {
    int32_t sum = 0;
    for (int64_t i = 0; i < active.count; ++i) {
      const std::byte* piece = product.packed + product.shape.PieceOffset(channel / kStripChannels, active.columns[i]);
      const auto pair = std::to_integer<int32_t>(piece[channel % kStripChannels / 2]);
      sum += active.codes[i] * ((channel % 2 == 0 ? pair & 0xF : pair >> 4) - 8);
    }
    const float scale = product.scales[product.scales.size() == 1 ? 0 : static_cast<size_t>(channel)];
    result[channel] = std::fma(static_cast<float>(sum) * row_scale, scale, product.bias == nullptr ? 0.0F : product.bias[channel]);
  }
}

}  // namespace taskpress
#endif  // HWY_ONCE
