// A run of row-wise operators as one step (kernels/native/row_program.h).
#ifndef TASKPRESS_RUNTIME_ROW_REGION_H_
#define TASKPRESS_RUNTIME_ROW_REGION_H_

#include <cstdint>
#include <span>

#include "runtime/kernels/step.h"
#include "runtime/xnnpack_kernels.h"

namespace taskpress {

// The int8 copy of a value that the region makes.
struct RegionCopy {
  const BoundTensor* value = nullptr;
  const QuantizedInput* copy = nullptr;
};

// Operators that IsRowOp (passes/row_ops.h) accepts for `tokens`, in order. Tensors with a local storage (BoundTensor::local_storage) are
// kept in the step's scratch memory. kGraphShape for operators that contradict themselves.
Result<StepPtr> MakeRowRegion(std::span<const OpContext> ops, std::span<const RegionCopy> copies, int64_t tokens,
                              const ThreadPool& threads);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_ROW_REGION_H_
