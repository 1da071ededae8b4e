// TRANSPOSE with any permutation.
#include <cstring>

#include "runtime/kernels/reference/odometer.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeTranspose(const OpContext& context) {
  const std::vector<size_t> permutation = TRY(CheckTranspose(context));
  const BoundTensor& x = context.in(0);
  const size_t bytes = TRY(ElementBytes(context, x));
  const std::vector<int64_t> dense = DenseStrides(x.shape);
  std::vector<int64_t> strides;  // of the input, in the order of the output's dimensions
  for (const size_t dimension : permutation) strides.push_back(dense[dimension]);
  return MakeStep([bytes, strides = std::move(strides), dims = context.out().shape, x = x.data, out = context.out().writable] {
    std::byte* next = out;
    ForEachIndex(dims, [&](std::span<const int64_t> index) {
      std::memcpy(next, x + static_cast<size_t>(OffsetOf(index, strides)) * bytes, bytes);
      next += bytes;
    });
  });
}

}  // namespace taskpress::reference
