#include "runtime/xnnpack_kernels.h"

#include "runtime/xnnpack_handles.h"
#include "schema/base/hash.h"

namespace taskpress {

std::string_view NameOf(xnn_status status) {
  switch (status) {
    case xnn_status_success:
      return "success";
    case xnn_status_uninitialized:
      return "not initialised";
    case xnn_status_invalid_parameter:
      return "invalid parameter";
    case xnn_status_invalid_state:
      return "invalid state";
    case xnn_status_unsupported_parameter:
      return "unsupported parameter";
    case xnn_status_unsupported_hardware:
      return "unsupported hardware";
    case xnn_status_out_of_memory:
      return "out of memory";
    case xnn_status_reallocation_required:
      return "reallocation required";
    case xnn_status_deprecated:
      return "deprecated";
  }
  return "unknown status";
}

Status CheckXnn(xnn_status status, const OpContext& context, std::string_view call) {
  if (status == xnn_status_success) return {};
  const ErrorCode code = status == xnn_status_out_of_memory ? ErrorCode::kOutOfMemory : ErrorCode::kXnnpackFailed;
  return Fail(code, "{}: {}: {}", context.Describe(), call.substr(0, call.find('(')), NameOf(status));
}

std::vector<size_t> XnnDims(std::span<const int64_t> dims) {
  std::vector<size_t> sizes;
  for (const int64_t dim : dims) sizes.push_back(static_cast<size_t>(dim));
  return sizes;
}

Status XnnStep::Run() {
  const xnn_status status = xnn_run_operator(op_.get(), threads_);
  if (status == xnn_status_success) return {};
  return Fail(ErrorCode::kXnnpackFailed, "XNNPACK: {}", NameOf(status));
}

Status InitializeXnnpack() {
  static const xnn_status status = xnn_initialize(/*allocator=*/nullptr);
  if (status == xnn_status_success) return {};
  return Fail(ErrorCode::kXnnpackFailed, "xnn_initialize: {}", NameOf(status));
}

std::string XnnpackBuild() {
  return Sha256Hex(
      {static_cast<const std::byte*>(xnn_experimental_get_build_identifier_data()), xnn_experimental_get_build_identifier_size()});
}

Result<StepPtr> MakeXnnpackStep(const OpContext& context) {
  switch (context.op.kind) {
    case OpKind::kAdd:
    case OpKind::kSub:
    case OpKind::kMul:
    case OpKind::kMinimum:
    case OpKind::kMaximum:
      return MakeXnnBinary(context);
    case OpKind::kSquare:
    case OpKind::kRelu:
    case OpKind::kGelu:
      return MakeXnnUnary(context);
    case OpKind::kMean:
      return MakeXnnMean(context);
    case OpKind::kSoftmax:
      return MakeXnnSoftmax(context);
    case OpKind::kTranspose:
      return MakeXnnTranspose(context);
    case OpKind::kFullyConnected:
      return MakeXnnFullyConnected(context);
    case OpKind::kBatchMatMul:
      return MakeXnnBatchMatMul(context);
    case OpKind::kSqrt:
    case OpKind::kRsqrt:
    case OpKind::kTanh:
    case OpKind::kCos:
    case OpKind::kSin:
    case OpKind::kCast:
    case OpKind::kSlice:
    case OpKind::kReshape:
    case OpKind::kConcatenation:
    case OpKind::kGather:
    case OpKind::kDynamicUpdateSlice:
    case OpKind::kEmbeddingLookup:
    case OpKind::kDequantize:
      return nullptr;
  }
  return nullptr;
}

}  // namespace taskpress
