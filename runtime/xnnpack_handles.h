// XNNPACK's C handles as values with owners, and the Step that runs one operator. Included by xnnpack_*.cc only.
#ifndef TASKPRESS_RUNTIME_XNNPACK_HANDLES_H_
#define TASKPRESS_RUNTIME_XNNPACK_HANDLES_H_

#include <xnnpack.h>

#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/kernels/step.h"
#include "runtime/tensor_buffer.h"

namespace taskpress {

static_assert(kTensorPadding >= XNN_EXTRA_BYTES);

struct DeleteXnnOperator {
  void operator()(xnn_operator* op) const { xnn_delete_operator(op); }
};
using XnnOperator = std::unique_ptr<xnn_operator, DeleteXnnOperator>;

// "invalid parameter"
std::string_view NameOf(xnn_status status);

// kXnnpackFailed with the operator's description, unless `status` is success.
Status CheckXnn(xnn_status status, const OpContext& context, std::string_view call);

// TRY_XNN(context, xnn_reshape_...(...)): returns the error from the enclosing function.
#define TRY_XNN(context, ...) TRY(CheckXnn((__VA_ARGS__), context, #__VA_ARGS__))

// Operators take dimensions as size_t.
std::vector<size_t> XnnDims(std::span<const int64_t> dims);

// Runs an operator that is set up. `threads` is null for work too small to share.
class XnnStep final : public Step {
 public:
  XnnStep(XnnOperator op, pthreadpool* threads) : op_(std::move(op)), threads_(threads) {}
  Status Run() override;

 private:
  XnnOperator op_;
  pthreadpool* threads_;
};

// What an operator expects to find in its scratch memory, where other steps have left their numbers.
enum class Scratch : uint8_t { kAnything, kZeros };

// The same for operators with scratch memory: `bind` sets the operator up once the scratch memory exists.
template <typename BindOperator>
class XnnWorkspaceStep final : public Step {
 public:
  XnnWorkspaceStep(XnnOperator op, pthreadpool* threads, uint64_t workspace_bytes, BindOperator bind, Scratch scratch = Scratch::kAnything)
      : op_(std::move(op)), threads_(threads), workspace_bytes_(workspace_bytes), bind_(std::move(bind)), scratch_(scratch) {}
  [[nodiscard]] uint64_t workspace_bytes() const override { return workspace_bytes_; }
  Status Bind(std::byte* workspace) override {
    workspace_ = workspace;
    return Check(bind_(op_.get(), workspace));
  }
  Status Run() override {
    if (scratch_ == Scratch::kZeros) std::memset(workspace_, 0, workspace_bytes_);
    return Check(xnn_run_operator(op_.get(), threads_));
  }

 private:
  static Status Check(xnn_status status) {
    if (status == xnn_status_success) return {};
    return Fail(ErrorCode::kXnnpackFailed, "XNNPACK: {}", NameOf(status));
  }

  XnnOperator op_;
  pthreadpool* threads_;
  uint64_t workspace_bytes_;
  BindOperator bind_;
  Scratch scratch_;
  std::byte* workspace_ = nullptr;
};

// The families; null when XNNPACK has no operator for these types or shapes.
Result<StepPtr> MakeXnnBinary(const OpContext& context);
Result<StepPtr> MakeXnnUnary(const OpContext& context);
Result<StepPtr> MakeXnnMean(const OpContext& context);
Result<StepPtr> MakeXnnSoftmax(const OpContext& context);
Result<StepPtr> MakeXnnTranspose(const OpContext& context);
Result<StepPtr> MakeXnnFullyConnected(const OpContext& context);
Result<StepPtr> MakeXnnBatchMatMul(const OpContext& context);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_XNNPACK_HANDLES_H_
