// FULLY_CONNECTED with constant weights that stay where they are (Kernels::kInPlace): a mapped file is multiplied without a copy of it.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_IN_PLACE_FULLY_CONNECTED_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_IN_PLACE_FULLY_CONNECTED_H_

#include "runtime/kernels/step.h"

namespace taskpress {

// Integer weights: the reference kernel's results bit for bit, unless a row of the input holds NaN. f32 weights, and f16 ones that the
// graph dequantizes (OpContext::halves): see float_product.h for the bound. Null for operators and weights that it does not cover: weights
// that are computed, int4 rows that share a byte. kGraphShape, kKernelUnsupported.
Result<StepPtr> MakeInPlaceFullyConnected(const OpContext& context);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_IN_PLACE_FULLY_CONNECTED_H_
