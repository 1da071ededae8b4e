// SLICE; the begin may be computed by the graph.
#include <cstring>

#include "runtime/kernels/reference/odometer.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeSlice(const OpContext& context) {
  SliceShape shape = TRY(CheckSlice(context));
  const BoundTensor& x = context.in(0);
  const size_t bytes = TRY(ElementBytes(context, x));
  return MakeStep([shape = std::move(shape), bytes, dims = x.shape, x = x.data, begin = context.in(1).as<int32_t>(),
                   out = context.out().writable, name = context.out().name]() -> Status {
    int64_t first = 0;
    for (size_t i = 0; i < dims.size(); ++i) {
      if (begin[i] < 0 || begin[i] > dims[i] - shape.size[i]) {
        return Fail(ErrorCode::kRuntimeIndex, "SLICE {}: dimension {} has {} elements, [{}, +{}) was asked for", name, i, dims[i], begin[i],
                    shape.size[i]);
      }
      first += begin[i] * shape.in_strides[i];
    }
    std::byte* next = out;
    ForEachIndex(shape.size, [&](std::span<const int64_t> index) {
      const auto from = static_cast<size_t>(first + OffsetOf(index, shape.in_strides));
      std::memcpy(next, x + from * bytes, bytes);
      next += bytes;
    });
    return {};
  });
}

}  // namespace taskpress::reference
