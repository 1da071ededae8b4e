#include "runtime/kernels/native/strided_copy.h"

#include <cstring>

namespace taskpress {

StridedCopy::StridedCopy(std::span<const int64_t> dims, std::span<const int64_t> from_strides, std::span<const int64_t> to_strides,
                         size_t element_bytes) {
  // Dimensions that are dense in both layouts melt into the run.
  int64_t run = 1;
  size_t outer = dims.size();
  while (outer > 0 && (dims[outer - 1] == 1 || (from_strides[outer - 1] == run && to_strides[outer - 1] == run))) run *= dims[--outer];
  const auto bytes = static_cast<int64_t>(element_bytes);
  run_bytes_ = static_cast<size_t>(run * bytes);
  for (size_t i = 0; i < outer && levels_ < dims_.size(); ++i) {  // callers keep to kMaxRank
    if (dims[i] == 1) continue;
    dims_[levels_++] = {.count = dims[i], .from_stride = from_strides[i] * bytes, .to_stride = to_strides[i] * bytes};
  }
}

void StridedCopy::CopyLevel(size_t level, const std::byte* from, std::byte* to) const {
  const Dimension& dim = dims_[level];
  if (level + 1 < levels_ && level + 1 < dims_.size()) {
    for (int64_t i = 0; i < dim.count; ++i) CopyLevel(level + 1, from + i * dim.from_stride, to + i * dim.to_stride);
  } else if (run_bytes_ == sizeof(uint32_t)) {
    // One float at a time (a column of a transposed cache): a copy of known size compiles to two moves.
    for (int64_t i = 0; i < dim.count; ++i) std::memcpy(to + i * dim.to_stride, from + i * dim.from_stride, sizeof(uint32_t));
  } else {
    for (int64_t i = 0; i < dim.count; ++i) std::memcpy(to + i * dim.to_stride, from + i * dim.from_stride, run_bytes_);
  }
}

void StridedCopy::Run(const std::byte* from, std::byte* to) const {
  if (levels_ == 0) {
    std::memcpy(to, from, run_bytes_);
  } else {
    CopyLevel(0, from, to);
  }
}

}  // namespace taskpress
