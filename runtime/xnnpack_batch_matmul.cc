// BATCH_MATMUL of f32 matrices. XNNPACK packs the right operand anew in every run.
#include "runtime/kernels/op_shapes.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_handles.h"

namespace taskpress {

Result<StepPtr> MakeXnnBatchMatMul(const OpContext& context) {
  const BatchMatMulShape shape = TRY(CheckBatchMatMul(context));
  const auto attributes = context.attributes<BatchMatMulAttributes>();
  if (attributes.adj_x) return nullptr;
  const std::vector<size_t> dims_a = XnnDims(shape.batch_dims_a);
  const std::vector<size_t> dims_b = XnnDims(shape.batch_dims_b);
  pthreadpool* threads = context.threads.HandleFor(shape.batch * shape.m * shape.k * shape.n / kProductsPerElement);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_batch_matrix_multiply_nc_f32(attributes.adj_y ? XNN_FLAG_TRANSPOSE_B : 0, &created));
  XnnOperator op(created);
  size_t bytes = 0;
  size_t alignment = 0;
  TRY_XNN(context, xnn_reshape_batch_matrix_multiply_nc_f32(op.get(), dims_a.size(), dims_a.data(), dims_b.data(),
                                                            static_cast<size_t>(shape.m), static_cast<size_t>(shape.k),
                                                            static_cast<size_t>(shape.n), &bytes, &alignment, threads));
  if (alignment > kTensorAlignment) return nullptr;
  const auto bind = [a = context.in(0).as<float>(), b = context.in(1).as<float>(), out = context.out().out<float>()](xnn_operator_t matmul,
                                                                                                                     std::byte* workspace) {
    return xnn_setup_batch_matrix_multiply_nc_f32(matmul, workspace, a, b, out);
  };
  // Some kernels of XNNPACK take four rows of the right operand at a time and expect zeros behind the last; what packs a matrix that is not
  // transposed leaves there what it finds (seen with AVX2, version 2024-11-08).
  constexpr int64_t kRowsAtATime = 4;
  const Scratch scratch = !attributes.adj_y && shape.k % kRowsAtATime != 0 ? Scratch::kZeros : Scratch::kAnything;
  return std::make_unique<XnnWorkspaceStep<decltype(bind)>>(std::move(op), threads, bytes, bind, scratch);
}

}  // namespace taskpress
