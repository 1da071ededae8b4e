// Single elements of packed int4 tensors (schema/int_packing.h), rows back to back.
#ifndef TASKPRESS_RUNTIME_KERNELS_PACKED_INT4_H_
#define TASKPRESS_RUNTIME_KERNELS_PACKED_INT4_H_

#include <cstddef>
#include <cstdint>

#include "schema/int_packing.h"

namespace taskpress {

[[nodiscard]] inline int32_t Int4At(const std::byte* packed, int64_t element) {
  const std::byte pair = packed[element / 2];
  return element % 2 == 0 ? EvenInt4(pair) : OddInt4(pair);
}

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_PACKED_INT4_H_
