#include "runtime/kernels/native/packed_product.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/packed_product.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>
// And this one after it.
#include "runtime/kernels/native/byte_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR

void MultiplyTilesImpl(const PackedProduct& product, int64_t first_row, int64_t rows, int64_t first_tile, int64_t tiles,
                       std::span<const std::byte> /*ahead*/) {
  MultiplyTilesPlain(product, first_row, rows, first_tile, tiles);
}

#else

inline constexpr int64_t kLanes = hn::MaxLanes(Ints());  // channels of a vector of sums
inline constexpr int64_t kVectorBytes = kLanes * 4;
// Channels whose sums are in registers at a time: two vectors.
inline constexpr int64_t kChannels = 2 * kLanes;
// x86 before AVX-512 has 16 registers, everything else here 32.
inline constexpr bool kFewRegisters = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3;
inline constexpr size_t kRegisterRows = kFewRegisters ? 4 : static_cast<size_t>(kTileRows);

// What the loops below walk over: one pair of vectors of a tile's channels, some rows of a tile.
struct Walk {
  const uint8_t* weights;
  const int8_t* codes;
  int64_t strip_stride;  // of codes
  int64_t columns;
  const std::byte* ahead;  // what is fetched meanwhile
  int64_t ahead_lines;     // for each strip of codes
};

// Into the second cache: the first one holds the activations.
HWY_INLINE const std::byte* FetchAhead(const std::byte* from, int64_t lines) {
  constexpr int64_t kLine = 64;
  for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(from + i * kLine, 0, 2);
  return from + lines * kLine;
}

// sums[row][vector] of products of stored weights, that is with their offset. What is done to every row is spelled out by the compiler (an
// index_sequence, not a loop), or it would not keep the sums in registers.
template <size_t kRows>
using Sums = IntVector[kRows][2];
template <size_t kRows>
using RowIndices = std::make_index_sequence<kRows>;

template <size_t... kRow>
HWY_INLINE void SetZero(Sums<sizeof...(kRow)>& sums, std::index_sequence<kRow...> /*rows*/) {
  ((sums[kRow][0] = sums[kRow][1] = hn::Zero(Ints())), ...);
}

template <size_t... kRow>
HWY_INLINE void AddSums(const Sums<sizeof...(kRow)>& from, Sums<sizeof...(kRow)>& sums, std::index_sequence<kRow...> /*rows*/) {
  ((sums[kRow][0] = hn::Add(sums[kRow][0], from[kRow][0])), ...);
  ((sums[kRow][1] = hn::Add(sums[kRow][1], from[kRow][1])), ...);
}

HWY_INLINE void AddRow(ByteVector weights0, ByteVector weights1, const int8_t* codes, IntVector (&sums)[2]) {
  const auto four = FourCodes(codes);
  sums[0] = hn::SumOfMulQuadAccumulate(Ints(), weights0, four, sums[0]);
  sums[1] = hn::SumOfMulQuadAccumulate(Ints(), weights1, four, sums[1]);
}

template <size_t... kRow>
HWY_INLINE void AddFour(ByteVector weights0, ByteVector weights1, const int8_t* codes, Sums<sizeof...(kRow)>& sums,
                        std::index_sequence<kRow...> /*rows*/) {
  (AddRow(weights0, weights1, codes + kRow * kStripColumns, sums[kRow]), ...);
}

// Rows of which there are so few that their sums fit the registers twice.
inline constexpr bool FitTwice(size_t rows) { return 2 * rows <= kRegisterRows; }

// Eight columns. A product takes several cycles before the next can be added to the same sum: few rows have too few sums to fill the time,
// so they get two of each.
template <int kBits, size_t kRows>
HWY_INLINE void AddEight(const uint8_t* weights, const int8_t* codes, Sums<kRows>& sums, Sums<kRows>& others) {
  const auto bytes0 = hn::LoadU(Bytes(), weights);
  const auto bytes1 = hn::LoadU(Bytes(), weights + kVectorBytes);
  Sums<kRows>& high = FitTwice(kRows) ? others : sums;
  if constexpr (kBits == 4) {
    AddFour(LowNibbles(bytes0), LowNibbles(bytes1), codes, sums, RowIndices<kRows>());
    AddFour(HighNibbles(bytes0), HighNibbles(bytes1), codes + 4, high, RowIndices<kRows>());
  } else {
    AddFour(bytes0, bytes1, codes, sums, RowIndices<kRows>());
    const uint8_t* next = weights + PackedMatrixShape::kGroupBytes;
    AddFour(hn::LoadU(Bytes(), next), hn::LoadU(Bytes(), next + kVectorBytes), codes + 4, high, RowIndices<kRows>());
  }
}

template <int kBits, size_t kRows>
HWY_INLINE void AddQuads(const Walk& walk, Sums<kRows>& sums) {
  constexpr int64_t kBytes = PackedMatrixShape::kGroupBytes * kBits / 4;  // of eight columns
  Sums<kRows> others;
  SetZero(others, RowIndices<kRows>());
  const uint8_t* weights = walk.weights;
  const int8_t* strip = walk.codes;
  const std::byte* ahead = walk.ahead;
  for (int64_t column = 0; column < walk.columns; column += kStripColumns, strip += walk.strip_stride) {
    ahead = FetchAhead(ahead, walk.ahead_lines);
    const int8_t* const end = strip + std::min(walk.columns - column, kStripColumns);
    for (const int8_t* codes = strip; codes < end; codes += 8, weights += kBytes) AddEight<kBits, kRows>(weights, codes, sums, others);
  }
  if constexpr (FitTwice(kRows)) AddSums(others, sums, RowIndices<kRows>());
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL && HWY_TARGET <= HWY_SSSE3
using ShortVector = hn::Vec<Shorts>;

HWY_INLINE void AddRowPairs(ByteVector weights0, ByteVector weights1, const int8_t* codes, ShortVector (&sums)[2]) {
  const auto four = FourCodes(codes);
  sums[0] = hn::Add(sums[0], hn::SatWidenMulPairwiseAdd(Shorts(), weights0, four));
  sums[1] = hn::Add(sums[1], hn::SatWidenMulPairwiseAdd(Shorts(), weights1, four));
}

template <size_t... kRow>
HWY_INLINE void AddPairs(ByteVector weights0, ByteVector weights1, const int8_t* codes, ShortVector (&sums)[sizeof...(kRow)][2],
                         std::index_sequence<kRow...> /*rows*/) {
  (AddRowPairs(weights0, weights1, codes + kRow * kStripColumns, sums[kRow]), ...);
}

HWY_INLINE void Widen(const ShortVector (&pairs)[2], IntVector (&sums)[2]) {
  const auto ones = hn::Set(Shorts(), 1);
  sums[0] = hn::Add(sums[0], hn::WidenMulPairwiseAdd(Ints(), pairs[0], ones));
  sums[1] = hn::Add(sums[1], hn::WidenMulPairwiseAdd(Ints(), pairs[1], ones));
}

// Up to 32 columns: 8 products are added up before the sums are widened.
template <size_t... kRow>
HWY_INLINE void AddNibbles(const uint8_t* weights, const int8_t* codes, int64_t columns, Sums<sizeof...(kRow)>& sums,
                           std::index_sequence<kRow...> rows) {
  ShortVector pairs[sizeof...(kRow)][2];
  ((pairs[kRow][0] = pairs[kRow][1] = hn::Zero(Shorts())), ...);
  for (int64_t i = 0; i < columns; i += 8, weights += PackedMatrixShape::kGroupBytes, codes += 8) {
    const auto bytes0 = hn::LoadU(Bytes(), weights);
    const auto bytes1 = hn::LoadU(Bytes(), weights + kVectorBytes);
    AddPairs(LowNibbles(bytes0), LowNibbles(bytes1), codes, pairs, rows);
    AddPairs(HighNibbles(bytes0), HighNibbles(bytes1), codes + 4, pairs, rows);
  }
  (Widen(pairs[kRow], sums[kRow]), ...);
}

template <size_t kRows>
HWY_INLINE void AddAllNibbles(const Walk& walk, Sums<kRows>& sums) {
  constexpr int64_t kAtOnce = 32;  // columns, half of a strip
  const uint8_t* weights = walk.weights;
  for (int64_t column = 0; column < walk.columns; column += kAtOnce, weights += kAtOnce / 8 * PackedMatrixShape::kGroupBytes) {
    const int8_t* codes = walk.codes + column / kStripColumns * walk.strip_stride + column % kStripColumns;
    AddNibbles(weights, codes, std::min(kAtOnce, walk.columns - column), sums, RowIndices<kRows>());
  }
}
#endif

// Where the results of a walk belong.
struct Block {
  const PackedProduct& product;
  int64_t row;  // the first
  int64_t channel;
  const int32_t* weight_sums;  // of these channels
};

// What all rows of a block need to know of its channels.
struct Channels {
  IntVector weight_sums[2];
  FloatVector scales[2];
  FloatVector bias[2];
  int64_t count;  // that exist
};

HWY_INLINE FloatVector LoadSome(const float* from, int64_t count) {
  return count >= kLanes ? hn::LoadU(Floats(), from) : hn::LoadN(Floats(), from, static_cast<size_t>(std::max<int64_t>(count, 0)));
}

HWY_INLINE Channels LoadChannels(const Block& block) {
  const PackedProduct& product = block.product;
  Channels channels;
  channels.count = std::min(product.shape.out - block.channel, kChannels);
  channels.weight_sums[0] = hn::LoadU(Ints(), block.weight_sums);
  channels.weight_sums[1] = hn::LoadU(Ints(), block.weight_sums + kLanes);
  channels.bias[0] = channels.bias[1] = hn::Zero(Floats());
  if (product.bias != nullptr) {
    channels.bias[0] = LoadSome(product.bias + block.channel, channels.count);
    channels.bias[1] = LoadSome(product.bias + block.channel + kLanes, channels.count - kLanes);
  }
  if (product.scales.size() == 1) {
    channels.scales[0] = channels.scales[1] = hn::Set(Floats(), product.scales[0]);
  } else {
    channels.scales[0] = LoadSome(product.scales.data() + block.channel, channels.count);
    channels.scales[1] = LoadSome(product.scales.data() + block.channel + kLanes, channels.count - kLanes);
  }
  return channels;
}

// (stored - offset) * (code - zero point) = stored * code - offset * code - weight * zero point; what overflows comes back.
HWY_INLINE FloatVector ResultOf(IntVector sum, const Channels& channels, size_t vector, const PackedRow& row, int32_t offset) {
  const auto correction = hn::Mul(channels.weight_sums[vector], hn::Set(Ints(), -row.zero_point));
  const auto exact = hn::Add(hn::Add(sum, correction), hn::Set(Ints(), -offset * row.sum));
  const auto scaled = hn::Mul(hn::ConvertTo(Floats(), exact), hn::Set(Floats(), row.scale));
  return FusedMultiplyAdd(scaled, channels.scales[vector], channels.bias[vector]);
}

HWY_INLINE void StoreRow(const Block& block, const Channels& channels, size_t index, const IntVector (&sums)[2]) {
  const PackedProduct& product = block.product;
  const int64_t row = block.row + static_cast<int64_t>(index);
  const PackedRow& parameters = product.row[row];
  const auto first = ResultOf(sums[0], channels, 0, parameters, product.shape.offset());
  const auto second = ResultOf(sums[1], channels, 1, parameters, product.shape.offset());
  float* to = product.result + row * product.shape.out + block.channel;
  if (channels.count == kChannels) {
    hn::StoreU(first, Floats(), to);
    hn::StoreU(second, Floats(), to + kLanes);
  } else {
    hn::StoreN(first, Floats(), to, static_cast<size_t>(std::min(channels.count, kLanes)));
    if (channels.count > kLanes) hn::StoreN(second, Floats(), to + kLanes, static_cast<size_t>(channels.count - kLanes));
  }
}

template <size_t... kRow>
HWY_INLINE void StoreRows(const Block& block, const Sums<sizeof...(kRow)>& sums, std::index_sequence<kRow...> /*rows*/) {
  const Channels channels = LoadChannels(block);
  (StoreRow(block, channels, kRow, sums[kRow]), ...);
}

template <int kBits, size_t kRows>
HWY_NOINLINE void MultiplyBlock(const Block& block, const Walk& walk) {
  Sums<kRows> sums;
  SetZero(sums, RowIndices<kRows>());
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL && HWY_TARGET <= HWY_SSSE3
  if constexpr (kBits == 4) {
    AddAllNibbles<kRows>(walk, sums);
  } else {
    AddQuads<kBits, kRows>(walk, sums);
  }
#else
  AddQuads<kBits, kRows>(walk, sums);
#endif
  StoreRows(block, sums, RowIndices<kRows>());
}

using BlockFunction = void (*)(const Block&, const Walk&);

// By the number of rows, from 1.
template <int kBits, size_t... kIndex>
constexpr std::array<BlockFunction, sizeof...(kIndex)> BlockFunctions(std::index_sequence<kIndex...>) {
  return {&MultiplyBlock<kBits, kIndex + 1>...};
}

// One tile of channels, one tile of rows.
template <int kBits>
void MultiplyTile(const PackedProduct& product, int64_t tile, int64_t first_row, int64_t rows, std::span<const std::byte> ahead) {
  static constexpr auto kFunctions = BlockFunctions<kBits>(std::make_index_sequence<kRegisterRows>());
  const std::byte* packed = product.weights + tile * product.shape.tile_bytes();
  const auto* sums = reinterpret_cast<const int32_t*>(packed);
  const auto* weights = reinterpret_cast<const uint8_t*>(packed + PackedMatrixShape::kSumBytes);
  const int8_t* codes = product.codes + first_row * PackedRowLength(product.shape.in);
  constexpr auto kStep = static_cast<int64_t>(kRegisterRows);
  for (int64_t row = 0; row < rows; row += kStep) {
    const int64_t count = std::min(kStep, rows - row);
    for (int64_t channel = 0; channel < std::min(kTileChannels, product.shape.out - tile * kTileChannels); channel += kChannels) {
      const Block block{
          .product = product, .row = first_row + row, .channel = tile * kTileChannels + channel, .weight_sums = sums + channel};
      const Walk walk{
          .weights = weights + channel * 4,
          .codes = codes + row * kStripColumns,
          .strip_stride = rows * kStripColumns,
          .columns = product.shape.in,
          .ahead = ahead.data(),
          .ahead_lines = row == 0 && channel == 0 ? static_cast<int64_t>(ahead.size()) / 64 * kStripColumns / product.shape.in : 0};
      kFunctions[static_cast<size_t>(count - 1)](block, walk);
    }
  }
}

// Rows outside: a tile of activations stays in the first cache while weights stream by in one piece.
void MultiplyTilesImpl(const PackedProduct& product, int64_t first_row, int64_t rows, int64_t first_tile, int64_t tiles,
                       std::span<const std::byte> ahead) {
  const size_t part = ahead.size() / static_cast<size_t>(tiles);
  for (int64_t row = first_row; row < first_row + rows; row += kTileRows) {
    const int64_t count = std::min(kTileRows, product.rows - row);
    for (int64_t tile = first_tile; tile < first_tile + tiles; ++tile) {
      const std::span some = ahead.subspan(static_cast<size_t>(tile - first_tile) * part, part);
      product.shape.bits == 4 ? MultiplyTile<4>(product, tile, row, count, some) : MultiplyTile<8>(product, tile, row, count, some);
    }
  }
}

#endif

// Plain loops that the compiler turns into vectors of each instruction set.
void PackRowsImpl(const int8_t* codes, int64_t rows, int64_t in, int8_t* packed, PackedRow* parameters) {
  for (int64_t row = 0; row < rows; ++row) {
    const int8_t* from = codes + row * in;
    int32_t sum = 0;
    for (int64_t i = 0; i < in; ++i) sum += from[i];
    parameters[row].sum = sum;
    for (int64_t i = 0; i < in; i += kStripColumns) {
      int8_t* to = packed + i * rows + row * kStripColumns;
      const int64_t count = std::min(kStripColumns, in - i);
      std::memcpy(to, from + i, static_cast<size_t>(count));
      std::memset(to + count, 0, static_cast<size_t>(kStripColumns - count));
    }
  }
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MultiplyTilesImpl);
HWY_EXPORT(PackRowsImpl);

void MultiplyTiles(const PackedProduct& product, int64_t first_row, int64_t rows, int64_t first_tile, int64_t tiles,
                   std::span<const std::byte> ahead) {
  HWY_DYNAMIC_DISPATCH(MultiplyTilesImpl)(product, first_row, rows, first_tile, tiles, ahead);
}

void PackRows(const int8_t* codes, int64_t rows, int64_t in, int8_t* packed, PackedRow* parameters) {
  HWY_DYNAMIC_DISPATCH(PackRowsImpl)(codes, rows, in, packed, parameters);
}

}  // namespace taskpress
#endif  // HWY_ONCE
