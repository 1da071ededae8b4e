// Our own fast loops for what XNNPACK lacks or does slowly (moving data, lookups) and for what the XNNPACK we link rounds differently from
// the one in the CPU clients (elementwise functions, means of rows, products with narrow f32 matrices).
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_NATIVE_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_NATIVE_H_

#include "runtime/kernels/step.h"

namespace taskpress {

// Null when there is no native kernel for the operator. kGraphShape, kKernelUnsupported.
Result<StepPtr> MakeNativeStep(const OpContext& context);

// EMBEDDING_LOOKUP in a table of floats that is read row by row when it is asked (OpContext::streamed_rows). kGraphShape.
Result<StepPtr> MakeStreamedLookup(const OpContext& context);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_NATIVE_H_
