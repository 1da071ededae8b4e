// Products with f32 matrices of few columns (the routers and coefficients of AltUp), added up in the order of the CPU clients (see
// elementwise.h for why): one sum per result, from the first product to the last. The XNNPACK we link adds four partial sums for matrices
// narrower than its tile.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_NARROW_MATMUL_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_NARROW_MATMUL_H_

#include <cstdint>

namespace taskpress {

struct NarrowMatMulShape {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
};

// Narrower than the widest tile of XNNPACK's f32 kernels (32 with AVX-512).
inline constexpr int64_t kNarrow = 32;

// out [rows, out] = x [rows, in] weights [in, out] + bias [out], which may be null. kTensorPadding bytes behind the weights are read.
void NarrowMatMul(const NarrowMatMulShape& shape, const float* x, const float* weights, const float* bias, float* out);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_NARROW_MATMUL_H_
