// FULLY_CONNECTED with constant i4 and i8 weights, one scale per channel or one for all, by packed_product.h.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_FULLY_CONNECTED_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_FULLY_CONNECTED_H_

#include "runtime/kernels/step.h"

namespace taskpress {

// Null when the operator is none of these, or its input has no packed copy. kGraphShape, kOutOfMemory.
Result<StepPtr> MakePackedFullyConnected(const OpContext& context);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_FULLY_CONNECTED_H_
