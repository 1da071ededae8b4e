// MEAN over any but the last dimension alone, SOFTMAX and TRANSPOSE.
#include "runtime/kernels/op_shapes.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_handles.h"

namespace taskpress {

Result<StepPtr> MakeXnnMean(const OpContext& context) {
  const MeanShape mean = TRY(CheckMean(context));
  if (mean.last_axis) return nullptr;  // a native kernel adds up as the client does
  const BoundTensor& x = context.in(0);
  std::vector<int64_t> axes;
  for (size_t i = 0; i < x.shape.size(); ++i) {
    if (mean.reduced[i]) axes.push_back(static_cast<int64_t>(i));
  }
  if (axes.empty()) return nullptr;
  const std::vector<size_t> dims = XnnDims(x.shape);
  pthreadpool* threads = context.threads.HandleFor(x.elements);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_reduce_nd(xnn_reduce_mean, xnn_datatype_fp32, nullptr, nullptr, XNN_FLAG_KEEP_DIMS, &created));
  XnnOperator op(created);
  size_t workspace_bytes = 0;
  size_t workspace_alignment = 0;
  TRY_XNN(context, xnn_reshape_reduce_nd(op.get(), axes.size(), axes.data(), dims.size(), dims.data(), &workspace_bytes,
                                         &workspace_alignment, threads));
  // Workspace is for types that are summed as another type; given one, XNNPACK (4ea82e5) calls a conversion that f32 does not have.
  TRY_XNN(context, xnn_setup_reduce_nd(op.get(), /*workspace=*/nullptr, x.data, context.out().writable));
  return std::make_unique<XnnStep>(std::move(op), threads);
}

Result<StepPtr> MakeXnnSoftmax(const OpContext& context) {
  const RowsShape shape = TRY(CheckSoftmax(context));
  if (context.attributes<SoftmaxAttributes>().beta != 1.0F) return nullptr;
  pthreadpool* threads = context.threads.HandleFor(context.in(0).elements);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_softmax_nc_f32(/*flags=*/0, &created));
  XnnOperator op(created);
  const auto columns = static_cast<size_t>(shape.columns);
  TRY_XNN(context, xnn_reshape_softmax_nc_f32(op.get(), columns, columns, columns, static_cast<size_t>(shape.rows), threads));
  TRY_XNN(context, xnn_setup_softmax_nc_f32(op.get(), context.in(0).as<float>(), context.out().out<float>()));
  return std::make_unique<XnnStep>(std::move(op), threads);
}

Result<StepPtr> MakeXnnTranspose(const OpContext& context) {
  const std::vector<size_t> permutation = TRY(CheckTranspose(context));
  const BoundTensor& x = context.in(0);
  if (InfoOf(x.type).bits != 32 || permutation.empty()) return nullptr;
  const std::vector<size_t> dims = XnnDims(x.shape);
  pthreadpool* threads = context.threads.HandleFor(x.elements);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_transpose_nd_x32(/*flags=*/0, &created));
  XnnOperator op(created);
  TRY_XNN(context, xnn_reshape_transpose_nd_x32(op.get(), dims.size(), dims.data(), permutation.data(), threads));
  TRY_XNN(context, xnn_setup_transpose_nd_x32(op.get(), x.data, context.out().writable));
  return std::make_unique<XnnStep>(std::move(op), threads);
}

}  // namespace taskpress
