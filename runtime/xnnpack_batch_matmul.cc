// BATCH_MATMUL of f32 matrices. XNNPACK packs the right operand anew in every run.
#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "runtime/kernels/native/strided_copy.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_handles.h"

namespace taskpress {
namespace {

// The XNNPACK we link (20241108) has f32 kernels that take the products four at a time; CPUs with FMA3 and without AVX-512 get them. A
// right operand [k, n] is packed for them without the padding of a last, incomplete group, and the results are wrong. [n, k] is packed
// right.
constexpr int64_t kGroup = 4;

// Two products of [1, 5] and [5, 2], small whole numbers: whether this CPU's kernels have the flaw.
bool MultipliesIncompleteGroups() {
  constexpr size_t kBatch = 2;
  constexpr size_t kInner = kGroup + 1;
  constexpr size_t kColumns = 2;
  constexpr float kSumOfThrees = 15;
  std::array<float, kBatch * kInner + XNN_EXTRA_BYTES / sizeof(float)> a{};
  std::array<float, kBatch * kInner * kColumns + XNN_EXTRA_BYTES / sizeof(float)> b{};
  std::array<float, kBatch * kColumns> out{};
  std::fill_n(a.begin(), kBatch * kInner, 1.0F);
  std::fill_n(b.begin(), kBatch * kInner * kColumns, 3.0F);
  xnn_operator_t created = nullptr;
  if (xnn_create_batch_matrix_multiply_nc_f32(0, &created) != xnn_status_success) return false;
  const XnnOperator op(created);
  size_t bytes = 0;
  size_t alignment = 0;
  const size_t batch = kBatch;
  if (xnn_reshape_batch_matrix_multiply_nc_f32(created, 1, &batch, &batch, 1, kInner, kColumns, &bytes, &alignment, nullptr) !=
      xnn_status_success) {
    return false;
  }
  const Result<TensorBuffer> workspace = TensorBuffer::Make(bytes + kTensorPadding);
  if (!workspace) return false;
  std::ranges::fill(workspace->bytes(), std::byte{0x40});  // padding that was never written shows: as a float it is 3.0
  return xnn_setup_batch_matrix_multiply_nc_f32(created, workspace->data(), a.data(), b.data(), out.data()) == xnn_status_success &&
         xnn_run_operator(created, nullptr) == xnn_status_success &&
         std::ranges::all_of(out, [](float value) { return value == kSumOfThrees; });
}

bool NeedsTurning(const BatchMatMulShape& shape, bool adj_y) {
  if (adj_y || shape.k % kGroup == 0) return false;
  static const bool sound = MultipliesIncompleteGroups();
  return !sound;
}

// [matrices, k, n] to [matrices, n, k].
StridedCopy Turn(const BatchMatMulShape& shape) {
  const int64_t matrices = std::reduce(shape.batch_dims_b.begin(), shape.batch_dims_b.end(), int64_t{1}, std::multiplies<>());
  const int64_t size = shape.k * shape.n;
  return {std::array{matrices, shape.k, shape.n, int64_t{1}}, std::array{size, shape.n, int64_t{1}, int64_t{1}},
          std::array{size, int64_t{1}, shape.k, int64_t{1}}, sizeof(float)};
}

// The product of a right operand that is turned into scratch memory first.
class TurnedMatMulStep final : public Step {
 public:
  TurnedMatMulStep(XnnOperator op, pthreadpool* threads, uint64_t xnn_bytes, const OpContext& context, const StridedCopy& turn)
      : op_(std::move(op)),
        threads_(threads),
        turned_at_((xnn_bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment),
        turned_bytes_(static_cast<uint64_t>(context.in(1).elements) * sizeof(float)),
        a_(context.in(0).as<float>()),
        b_(context.in(1).data),
        out_(context.out().out<float>()),
        turn_(turn) {}
  [[nodiscard]] uint64_t workspace_bytes() const override { return turned_at_ + turned_bytes_ + kTensorPadding; }
  Status Bind(std::byte* workspace) override {
    turned_ = workspace + turned_at_;
    return Check(xnn_setup_batch_matrix_multiply_nc_f32(op_.get(), workspace, a_, reinterpret_cast<const float*>(turned_), out_));
  }
  Status Run() override {
    turn_.Run(b_, turned_);
    return Check(xnn_run_operator(op_.get(), threads_));
  }

 private:
  static Status Check(xnn_status status) {
    if (status == xnn_status_success) return {};
    return Fail(ErrorCode::kXnnpackFailed, "XNNPACK: {}", NameOf(status));
  }

  XnnOperator op_;
  pthreadpool* threads_;
  uint64_t turned_at_;
  uint64_t turned_bytes_;
  const float* a_;
  const std::byte* b_;
  float* out_;
  StridedCopy turn_;
  std::byte* turned_ = nullptr;
};

}  // namespace

Result<StepPtr> MakeXnnBatchMatMul(const OpContext& context) {
  const BatchMatMulShape shape = TRY(CheckBatchMatMul(context));
  const auto attributes = context.attributes<BatchMatMulAttributes>();
  if (attributes.adj_x) return nullptr;
  const bool turn = NeedsTurning(shape, attributes.adj_y);
  const std::vector<size_t> dims_a = XnnDims(shape.batch_dims_a);
  const std::vector<size_t> dims_b = XnnDims(shape.batch_dims_b);
  pthreadpool* threads = context.threads.HandleFor(shape.batch * shape.m * shape.k * shape.n / kProductsPerElement);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_batch_matrix_multiply_nc_f32(attributes.adj_y || turn ? XNN_FLAG_TRANSPOSE_B : 0, &created));
  XnnOperator op(created);
  size_t bytes = 0;
  size_t alignment = 0;
  TRY_XNN(context, xnn_reshape_batch_matrix_multiply_nc_f32(op.get(), dims_a.size(), dims_a.data(), dims_b.data(),
                                                            static_cast<size_t>(shape.m), static_cast<size_t>(shape.k),
                                                            static_cast<size_t>(shape.n), &bytes, &alignment, threads));
  if (alignment > kTensorAlignment) return nullptr;
  if (turn) return std::make_unique<TurnedMatMulStep>(std::move(op), threads, bytes, context, Turn(shape));
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
