#include "runtime/kernels/native/packed_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace taskpress {
namespace {

// Groups of a row that are packed before the next row's: their places in the tile stay in the first cache until all rows have been there.
constexpr int64_t kGroupsAtOnce = 32;

// abcd -> 0a0b0c0d, digits being nibbles.
uint32_t SpreadNibbles(uint32_t four) {
  four = (four | four << 8U) & 0x00FF00FFU;
  return (four | four << 4U) & 0x0F0F0F0FU;
}

int32_t SumOfBytes(uint32_t four) {
  return static_cast<int32_t>((four & 0xFFU) + (four >> 8U & 0xFFU) + (four >> 16U & 0xFFU) + (four >> 24U));
}

// One group of one channel: its four bytes in the tile, and the sum of what was stored, offsets included.
struct Group {
  uint32_t bytes;
  int32_t sum;
};

// The eight nibbles in `four`, first columns lowest.
Group PackNibbles(uint32_t four) {
  const uint32_t nibbles = four ^ 0x88888888U;  // two's complement plus 8
  const uint32_t low = SpreadNibbles(nibbles & 0xFFFFU);
  const uint32_t high = SpreadNibbles(nibbles >> 16U);
  return {.bytes = low | high << 4U, .sum = SumOfBytes(low + high)};
}

Group PackBytes(uint32_t four) {
  const uint32_t bytes = four ^ 0x80808080U;
  return {.bytes = bytes, .sum = SumOfBytes(bytes)};
}

// Little endian, like the formats of weights.
uint32_t Load32(const std::byte* from, int64_t bytes) {
  uint32_t four = 0;
  std::memcpy(&four, from, static_cast<size_t>(bytes));
  return four;
}

template <Group (*kPack)(uint32_t)>
void PackTile(const PackedMatrixShape& shape, const std::byte* weights, int64_t channels, std::byte* tile) {
  const int64_t row_bytes = (shape.in * shape.bits + 7) / 8;
  std::array<int32_t, kTileChannels> sums{};
  for (int64_t first = 0; first < shape.groups(); first += kGroupsAtOnce) {
    const int64_t end = std::min(first + kGroupsAtOnce, shape.groups());
    for (int64_t channel = 0; channel < kTileChannels; ++channel) {
      const std::byte* row = weights + channel * row_bytes;
      std::byte* to = tile + PackedMatrixShape::kSumBytes + channel * 4;
      int32_t sum = 0;
      for (int64_t group = first; group < end; ++group) {
        const int64_t bytes = channel < channels ? std::clamp<int64_t>(row_bytes - 4 * group, 0, 4) : 0;
        const Group packed = kPack(bytes == 4 ? Load32(row + 4 * group, 4) : Load32(row + 4 * group, bytes));
        std::memcpy(to + group * PackedMatrixShape::kGroupBytes, &packed.bytes, 4);
        sum += packed.sum;
      }
      sums[static_cast<size_t>(channel)] += sum;
    }
  }
  for (int32_t& sum : sums) sum -= static_cast<int32_t>(shape.groups() * shape.group_columns()) * shape.offset();
  std::memcpy(tile, sums.data(), sizeof(sums));
}

}  // namespace

void PackTiles(const PackedMatrixShape& shape, const std::byte* weights, int64_t first, int64_t count, std::byte* packed) {
  const int64_t row_bytes = (shape.in * shape.bits + 7) / 8;
  for (int64_t tile = first; tile < first + count; ++tile) {
    const int64_t channel = tile * kTileChannels;
    const auto pack = shape.bits == 4 ? &PackTile<PackNibbles> : &PackTile<PackBytes>;
    pack(shape, weights + channel * row_bytes, std::min(kTileChannels, shape.out - channel), packed + tile * shape.tile_bytes());
  }
}

}  // namespace taskpress
