// MEAN over any set of axes.
#include <vector>

#include "runtime/kernels/reference/odometer.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeMean(const OpContext& context) {
  const MeanShape mean = TRY(CheckMean(context));
  const BoundTensor& x = context.in(0);
  // Strides of the output seen with the input's dimensions: a reduced axis stays on its element.
  std::vector<int64_t> out_strides(x.shape.size());
  int64_t stride = 1;
  for (size_t i = x.shape.size(); i-- > 0;) {
    out_strides[i] = mean.reduced[i] ? 0 : stride;
    if (!mean.reduced[i]) stride *= x.shape[i];
  }
  std::vector<double> sums(static_cast<size_t>(context.out().elements));
  return MakeStep([shape = x.shape, count = mean.count, out_strides = std::move(out_strides), sums = std::move(sums), x = x.as<float>(),
                   out = context.out().out<float>()]() mutable {
    std::ranges::fill(sums, 0.0);
    const float* next = x;
    ForEachIndex(shape, [&](std::span<const int64_t> index) {
      sums[static_cast<size_t>(OffsetOf(index, out_strides))] += static_cast<double>(*next++);
    });
    for (size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<float>(sums[i] / static_cast<double>(count));
  });
}

}  // namespace taskpress::reference
