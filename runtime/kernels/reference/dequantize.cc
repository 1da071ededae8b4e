// DEQUANTIZE of f16 constants. The Executor folds these before the first run, so this runs at creation only.
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"
#include "schema/base/half.h"

namespace taskpress::reference {

Result<StepPtr> MakeDequantize(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  if (x.shape != context.out().shape) return context.Malformed("input and output differ in shape");
  if (x.type != DType::kF16 || context.out().type != DType::kF32) return context.Unsupported("only f16 to f32");
  return MakeStep([count = x.elements, from = x.as<uint16_t>(), to = context.out().out<float>()] {
    for (int64_t i = 0; i < count; ++i) to[i] = F16ToFloat(from[i]);
  });
}

}  // namespace taskpress::reference
