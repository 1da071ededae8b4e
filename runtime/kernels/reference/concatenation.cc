// CONCATENATION along any axis.
#include <cstring>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeConcatenation(const OpContext& context) {
  ConcatenationShape shape = TRY(CheckConcatenation(context));
  std::vector<const std::byte*> inputs;
  for (const BoundTensor* input : context.inputs) inputs.push_back(input->data);
  return MakeStep([shape = std::move(shape), inputs = std::move(inputs), out = context.out().writable] {
    std::byte* next = out;
    for (int64_t outer = 0; outer < shape.outer; ++outer) {
      for (size_t i = 0; i < inputs.size(); ++i) {
        const size_t bytes = shape.chunk_bytes[i];
        std::memcpy(next, inputs[i] + static_cast<size_t>(outer) * bytes, bytes);
        next += bytes;
      }
    }
  });
}

}  // namespace taskpress::reference
