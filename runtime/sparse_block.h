// What the steps of a sparse feed-forward block know of its matrices and tensors (sparse_feed_forward.h).
#ifndef TASKPRESS_RUNTIME_SPARSE_BLOCK_H_
#define TASKPRESS_RUNTIME_SPARSE_BLOCK_H_

#include <cstdint>
#include <vector>

#include "runtime/kernels/native/sparse_columns.h"
#include "runtime/kernels/native/sparse_rows.h"
#include "runtime/kernels/step.h"
#include "runtime/tensor_buffer.h"
#include "runtime/xnnpack_kernels.h"
#include "schema/base/checked_math.h"

namespace taskpress {

struct SparseBlock {
  QuantizedInput input;         // of W_up
  const float* gate = nullptr;  // [tokens, units]
  int64_t units = 0;
  UnitProduct up;  // without activations
  ColumnProduct down;
  float* out = nullptr;  // [tokens, channels]
};

// Lays arrays out one behind the other in memory that comes later.
class WorkspaceLayout {
 public:
  template <typename T>
  uint64_t Add(int64_t count) {
    const uint64_t offset = bytes_;
    bytes_ += AlignUp(static_cast<uint64_t>(count) * sizeof(T) + kTensorPadding, kTensorAlignment);
    return offset;
  }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  uint64_t bytes_ = 0;
};

// Several tokens. dense: what runs instead when they leave too many units open.
StepPtr MakeSparseTokens(const SparseBlock& block, int64_t tokens, std::vector<StepPtr> dense, const ThreadPool& threads);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SPARSE_BLOCK_H_
