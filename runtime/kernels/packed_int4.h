// Two signed 4-bit integers per byte: element 2i in the low nibble, 2i+1 in the high one, rows back to back (TFLite's INT4).
#ifndef TASKPRESS_RUNTIME_KERNELS_PACKED_INT4_H_
#define TASKPRESS_RUNTIME_KERNELS_PACKED_INT4_H_

#include <cstddef>
#include <cstdint>

namespace taskpress {

[[nodiscard]] inline int32_t Int4At(const std::byte* packed, int64_t element) {
  const auto byte = static_cast<uint8_t>(packed[element / 2]);
  const uint32_t nibble = element % 2 == 0 ? byte & 0xFU : byte >> 4U;
  return static_cast<int32_t>(nibble ^ 8U) - 8;  // two's complement
}

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_PACKED_INT4_H_
