#include "runtime/kernels/reference/reference.h"

namespace taskpress {

Result<StepPtr> MakeReferenceStep(const OpContext& context) {
  switch (context.op.kind) {
    case OpKind::kAdd:
    case OpKind::kSub:
    case OpKind::kMul:
    case OpKind::kMinimum:
    case OpKind::kMaximum:
      return reference::MakeBinary(context);
    case OpKind::kSquare:
    case OpKind::kSqrt:
    case OpKind::kRsqrt:
    case OpKind::kTanh:
    case OpKind::kRelu:
    case OpKind::kGelu:
    case OpKind::kCos:
    case OpKind::kSin:
      return reference::MakeUnary(context);
    case OpKind::kCast:
      return reference::MakeCast(context);
    case OpKind::kMean:
      return reference::MakeMean(context);
    case OpKind::kSoftmax:
      return reference::MakeSoftmax(context);
    case OpKind::kSlice:
      return reference::MakeSlice(context);
    case OpKind::kReshape:
      return reference::MakeReshape(context);
    case OpKind::kTranspose:
      return reference::MakeTranspose(context);
    case OpKind::kConcatenation:
      return reference::MakeConcatenation(context);
    case OpKind::kGather:
      return reference::MakeGather(context);
    case OpKind::kFullyConnected:
      return reference::MakeFullyConnected(context);
    case OpKind::kBatchMatMul:
      return reference::MakeBatchMatMul(context);
    case OpKind::kDynamicUpdateSlice:
      return reference::MakeDynamicUpdateSlice(context);
    case OpKind::kEmbeddingLookup:
      return reference::MakeEmbeddingLookup(context);
    case OpKind::kDequantize:
      return reference::MakeDequantize(context);
  }
  return context.Unsupported("unknown operator");
}

}  // namespace taskpress
