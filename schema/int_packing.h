// 4-bit integers as TFLite and XNNPACK store them: two per byte, the value of even index in the low nibble, two's complement (-8 ... 7).
//
// The nibbles of a tensor follow each other without regard to rows; matrices here have an even number of columns, so every row starts at a
// byte. The high nibble after an odd number of values is zero.
#ifndef TASKPRESS_SCHEMA_INT_PACKING_H_
#define TASKPRESS_SCHEMA_INT_PACKING_H_

#include <cstdint>
#include <span>

#include "schema/base/bytes.h"

namespace taskpress {

[[nodiscard]] constexpr uint64_t PackedInt4Bytes(uint64_t count) { return count / 2 + count % 2; }

// Only the low four bits of each value count.
[[nodiscard]] constexpr std::byte PackInt4Pair(int8_t even, int8_t odd) {
  return static_cast<std::byte>((static_cast<unsigned>(even) & 0xFU) | ((static_cast<unsigned>(odd) & 0xFU) << 4));
}
[[nodiscard]] constexpr int8_t EvenInt4(std::byte pair) {
  return static_cast<int8_t>(static_cast<int8_t>(static_cast<unsigned>(pair) << 4 & 0xF0U) >> 4);
}
[[nodiscard]] constexpr int8_t OddInt4(std::byte pair) { return static_cast<int8_t>(static_cast<int8_t>(pair) >> 4); }

// values: each in [-8, 7]; packed: [PackedInt4Bytes(values.size())].
void PackInt4(std::span<const int8_t> values, ByteSpan packed);
void UnpackInt4(ByteView packed, std::span<int8_t> values);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_INT_PACKING_H_
