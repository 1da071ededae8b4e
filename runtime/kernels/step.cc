#include "runtime/kernels/step.h"

#include <format>

namespace taskpress {
namespace {

void Append(std::string& text, std::span<const BoundTensor* const> tensors) {
  std::string_view separator;
  for (const BoundTensor* tensor : tensors) {
    text += separator;
    text += tensor == nullptr ? "-" : Format("{} {} {}", NameOf(tensor->type), ToString(tensor->shape), tensor->name);
    separator = ", ";
  }
}

}  // namespace

std::string OpContext::Describe() const {
  std::string text = Format("{}: op {} {}(", subgraph, index, NameOf(op.kind));
  Append(text, inputs);
  text += ") -> ";
  Append(text, outputs);
  return text;
}

std::unexpected<Error> OpContext::Malformed(std::string_view reason) const {
  return Fail(ErrorCode::kGraphShape, "{}: {}", Describe(), reason);
}

std::unexpected<Error> OpContext::Unsupported(std::string_view reason) const {
  return Fail(ErrorCode::kKernelUnsupported, "{}: {}", Describe(), reason);
}

}  // namespace taskpress
