// ADD, SUB, MUL, MINIMUM, MAXIMUM, SQUARE, RELU and GELU in its erf form.
#include <limits>
#include <optional>

#include "runtime/kernels/op_shapes.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_handles.h"

namespace taskpress {
namespace {

xnn_binary_operator BinaryOf(OpKind kind) {
  if (kind == OpKind::kAdd) return xnn_binary_add;
  if (kind == OpKind::kSub) return xnn_binary_subtract;
  if (kind == OpKind::kMul) return xnn_binary_multiply;
  return kind == OpKind::kMinimum ? xnn_binary_minimum : xnn_binary_maximum;
}

xnn_unary_operator UnaryOf(OpKind kind) {
  if (kind == OpKind::kSquare) return xnn_unary_square;
  if (kind == OpKind::kRelu) return xnn_unary_clamp;
  return xnn_unary_gelu;
}

}  // namespace

Result<StepPtr> MakeXnnBinary(const OpContext& context) {
  TRY(CheckBroadcast(context));
  if (context.out().type != DType::kF32) return nullptr;
  const BoundTensor& a = context.in(0);
  const BoundTensor& b = context.in(1);
  pthreadpool* threads = context.threads.HandleFor(context.out().elements);
  const std::vector<size_t> dims_a = XnnDims(a.shape);
  const std::vector<size_t> dims_b = XnnDims(b.shape);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_binary_elementwise_nd(BinaryOf(context.op.kind), xnn_datatype_fp32, nullptr, nullptr, nullptr, 0, &created));
  XnnOperator op(created);
  TRY_XNN(context, xnn_reshape_binary_elementwise_nd(op.get(), dims_a.size(), dims_a.data(), dims_b.size(), dims_b.data(), threads));
  TRY_XNN(context, xnn_setup_binary_elementwise_nd(op.get(), a.data, b.data, context.out().writable));
  return std::make_unique<XnnStep>(std::move(op), threads);
}

Result<StepPtr> MakeXnnUnary(const OpContext& context) {
  TRY(CheckUnary(context));
  if (context.op.kind == OpKind::kGelu && context.attributes<GeluAttributes>().approximate) return nullptr;
  const BoundTensor& x = context.in(0);
  pthreadpool* threads = context.threads.HandleFor(x.elements);
  xnn_unary_params params{};
  params.clamp = {.min = 0.0F, .max = std::numeric_limits<float>::infinity()};
  const xnn_unary_params* used_params = context.op.kind == OpKind::kRelu ? &params : nullptr;
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_unary_elementwise_nc(UnaryOf(context.op.kind), xnn_datatype_fp32, xnn_datatype_fp32, used_params, nullptr,
                                                   nullptr, 0, &created));
  XnnOperator op(created);
  const auto count = static_cast<size_t>(x.elements);
  TRY_XNN(context, xnn_reshape_unary_elementwise_nc(op.get(), /*batch_size=*/1, count, count, count, threads));
  TRY_XNN(context, xnn_setup_unary_elementwise_nc(op.get(), x.data, context.out().writable));
  return std::make_unique<XnnStep>(std::move(op), threads);
}

}  // namespace taskpress
