// BATCH_MATMUL with either operand transposed and broadcast batch dimensions; sums in float64.
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {

Result<StepPtr> MakeBatchMatMul(const OpContext& context) {
  BatchMatMulShape shape = TRY(CheckBatchMatMul(context));
  const auto attributes = context.attributes<BatchMatMulAttributes>();
  return MakeStep([shape = std::move(shape), attributes, a = context.in(0).as<float>(), b = context.in(1).as<float>(),
                   out = context.out().out<float>()] {
    const auto [m, k, n] = std::tuple(shape.m, shape.k, shape.n);
    for (int64_t batch = 0; batch < shape.batch; ++batch) {
      const float* left = a + shape.a_index[static_cast<size_t>(batch)] * m * k;
      const float* right = b + shape.b_index[static_cast<size_t>(batch)] * k * n;
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t column = 0; column < n; ++column) {
          double sum = 0.0;
          for (int64_t i = 0; i < k; ++i) {
            const float x = left[attributes.adj_x ? i * m + row : row * k + i];
            const float y = right[attributes.adj_y ? column * k + i : i * n + column];
            sum += static_cast<double>(x) * static_cast<double>(y);
          }
          out[(batch * m + row) * n + column] = static_cast<float>(sum);
        }
      }
    }
  });
}

}  // namespace taskpress::reference
