// DYNAMIC_UPDATE_SLICE: a copy of the operand with `update` written at `start`, moved back so far that it fits (TFLite's clamping).
#include <algorithm>
#include <cstring>

#include "runtime/kernels/reference/odometer.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeDynamicUpdateSlice(const OpContext& context) {
  TRY(CheckDynamicUpdateSlice(context));
  const BoundTensor& operand = context.in(0);
  const BoundTensor& update = context.in(1);
  const size_t bytes = TRY(ElementBytes(context, operand));
  const size_t total = static_cast<size_t>(operand.elements) * bytes;
  return MakeStep([bytes, total, dims = operand.shape, update_dims = update.shape, strides = DenseStrides(operand.shape),
                   operand = operand.data, update = update.data, start = context.in(2).as<int32_t>(), out = context.out().writable] {
    if (out != operand) std::memcpy(out, operand, total);  // the plan lets them share memory when nobody reads the operand again
    int64_t first = 0;
    for (size_t i = 0; i < dims.size(); ++i) {
      first += std::clamp<int64_t>(start[i], 0, dims[i] - update_dims[i]) * strides[i];
    }
    const std::byte* next = update;
    ForEachIndex(update_dims, [&](std::span<const int64_t> index) {
      std::memcpy(out + static_cast<size_t>(first + OffsetOf(index, strides)) * bytes, next, bytes);
      next += bytes;
    });
  });
}

}  // namespace taskpress::reference
