// GELU, tanh form, on vectors.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_GELU_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_GELU_H_

#include <cstdint>

namespace taskpress {

// out[i] = gelu(x[i]). Within 1e-6 of float64 plus 4 units in the last place. In place is allowed.
void GeluTanh(const float* x, float* out, int64_t count);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_GELU_H_
