// RESHAPE: the same bytes. The plan makes most of them views; this copies the rest (an output of the graph has its own memory).
#include <cstring>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeReshape(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  if (x.type != context.out().type) return context.Malformed("input and output differ in type");
  if (x.elements != context.out().elements) return context.Malformed("input and output differ in size");
  const size_t bytes = static_cast<size_t>(x.elements) * TRY(ElementBytes(context, x));
  return MakeStep([bytes, from = x.data, to = context.out().writable] { std::memmove(to, from, bytes); });
}

}  // namespace taskpress::reference
