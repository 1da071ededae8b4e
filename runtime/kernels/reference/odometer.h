// Walks the index space of a small fixed number of dimensions, last dimension fastest.
#ifndef TASKPRESS_RUNTIME_KERNELS_REFERENCE_ODOMETER_H_
#define TASKPRESS_RUNTIME_KERNELS_REFERENCE_ODOMETER_H_

#include <array>
#include <cstdint>
#include <span>

#include "runtime/kernels/op_shapes.h"

namespace taskpress::reference {

// Calls body(index) for every index below `dims` (all >= 1).
template <typename Body>
void ForEachIndex(std::span<const int64_t> dims, Body body) {
  std::array<int64_t, kMaxRank> index{};
  while (true) {
    body(std::span<const int64_t>(index.data(), dims.size()));
    size_t i = dims.size();
    while (i > 0 && ++index[i - 1] == dims[i - 1]) index[--i] = 0;
    if (i == 0) return;
  }
}

// The distance from the first element that `index` stands for.
inline int64_t OffsetOf(std::span<const int64_t> index, std::span<const int64_t> strides) {
  int64_t offset = 0;
  for (size_t i = 0; i < index.size(); ++i) offset += index[i] * strides[i];
  return offset;
}

}  // namespace taskpress::reference

#endif  // TASKPRESS_RUNTIME_KERNELS_REFERENCE_ODOMETER_H_
