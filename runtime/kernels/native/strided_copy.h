// Copies a block of up to six dimensions between two layouts: slices, updates.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_STRIDED_COPY_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_STRIDED_COPY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/kernels/op_shapes.h"

namespace taskpress {

class StridedCopy {
 public:
  // `dims` of the block (at most six, all >= 1); strides in elements of source and destination, the last one 1 in both.
  StridedCopy(std::span<const int64_t> dims, std::span<const int64_t> from_strides, std::span<const int64_t> to_strides,
              size_t element_bytes);

  // Both point at the block's first element.
  void Run(const std::byte* from, std::byte* to) const;

 private:
  struct Dimension {
    int64_t count = 1;
    int64_t from_stride = 0;  // bytes
    int64_t to_stride = 0;
  };
  void CopyLevel(size_t level, const std::byte* from, std::byte* to) const;

  std::array<Dimension, kMaxRank> dims_;  // outermost first
  size_t levels_ = 0;
  size_t run_bytes_ = 0;  // contiguous in both
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_STRIDED_COPY_H_
