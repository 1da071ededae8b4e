// GATHER along any axis, indices computed by the graph.
#include <cstring>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeGather(const OpContext& context) {
  const GatherShape shape = TRY(CheckGather(context));
  return MakeStep([shape, x = context.in(0).data, indices = context.in(1).as<int32_t>(), out = context.out().writable,
                   name = context.out().name]() -> Status {
    std::byte* next = out;
    for (int64_t outer = 0; outer < shape.outer; ++outer) {
      for (int64_t i = 0; i < shape.count; ++i) {
        if (indices[i] < 0 || indices[i] >= shape.axis) {
          return Fail(ErrorCode::kRuntimeIndex, "GATHER {}: index {} is outside [0, {})", name, indices[i], shape.axis);
        }
        std::memcpy(next, x + static_cast<size_t>(outer * shape.axis + indices[i]) * shape.inner_bytes, shape.inner_bytes);
        next += shape.inner_bytes;
      }
    }
    return {};
  });
}

}  // namespace taskpress::reference
