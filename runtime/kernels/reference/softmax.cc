// SOFTMAX over the last dimension.
#include <algorithm>
#include <cmath>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeSoftmax(const OpContext& context) {
  const RowsShape shape = TRY(CheckSoftmax(context));
  const auto beta = static_cast<double>(context.attributes<SoftmaxAttributes>().beta);
  return MakeStep([shape, beta, x = context.in(0).as<float>(), out = context.out().out<float>()] {
    for (int64_t row = 0; row < shape.rows; ++row) {
      const float* from = x + row * shape.columns;
      float* to = out + row * shape.columns;
      // Subtracting the maximum keeps every exponent <= 0; a row that is masked throughout becomes uniform instead of 0/0.
      const auto largest = static_cast<double>(*std::max_element(from, from + shape.columns));
      double sum = 0.0;
      for (int64_t i = 0; i < shape.columns; ++i) sum += std::exp(beta * (static_cast<double>(from[i]) - largest));
      for (int64_t i = 0; i < shape.columns; ++i) {
        to[i] = static_cast<float>(std::exp(beta * (static_cast<double>(from[i]) - largest)) / sum);
      }
    }
  });
}

}  // namespace taskpress::reference
