// Plain loops for every operator: the oracle. Slow on purpose, and the definition of what the fast kernels must compute.
//
// Arithmetic: sums (matrix products, means, softmax) and transcendental functions run in float64 and are rounded to float32 once, at the
// end; additions and multiplications of elements are float32. FULLY_CONNECTED with i8 or i4 weights quantizes its input exactly as XNNPACK
// does, because that rounding is part of the model (quantized_activation.h).
#ifndef TASKPRESS_RUNTIME_KERNELS_REFERENCE_REFERENCE_H_
#define TASKPRESS_RUNTIME_KERNELS_REFERENCE_REFERENCE_H_

#include "runtime/kernels/step.h"

namespace taskpress {

// The reference kernel of any operator. kGraphShape, kKernelUnsupported.
Result<StepPtr> MakeReferenceStep(const OpContext& context);

namespace reference {

Result<StepPtr> MakeBinary(const OpContext& context);
Result<StepPtr> MakeUnary(const OpContext& context);
Result<StepPtr> MakeCast(const OpContext& context);
Result<StepPtr> MakeMean(const OpContext& context);
Result<StepPtr> MakeSoftmax(const OpContext& context);
Result<StepPtr> MakeSlice(const OpContext& context);
Result<StepPtr> MakeReshape(const OpContext& context);
Result<StepPtr> MakeTranspose(const OpContext& context);
Result<StepPtr> MakeConcatenation(const OpContext& context);
Result<StepPtr> MakeGather(const OpContext& context);
Result<StepPtr> MakeFullyConnected(const OpContext& context);
Result<StepPtr> MakeBatchMatMul(const OpContext& context);
Result<StepPtr> MakeDynamicUpdateSlice(const OpContext& context);
Result<StepPtr> MakeEmbeddingLookup(const OpContext& context);
Result<StepPtr> MakeDequantize(const OpContext& context);

}  // namespace reference
}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_REFERENCE_REFERENCE_H_
