// Functions of one float on vectors, rounded as the CPU clients round them.
//
// With int8 activations a difference in the last bit of a float now and then turns a rounding, and everything after it is another (equally
// good) run of the model. So that a bundle speaks here as it will speak in the client, these follow the arithmetic of XNNPACK as LiteRT
// 2.3 carries it (2026) instead of that of the library we link (2024): the same approximations, the same order of operations, multiplied
// and added in one rounding where it does so. tests/interop (case ops) holds them to the client bit for bit.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_ELEMENTWISE_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_ELEMENTWISE_H_

#include <cstdint>

namespace taskpress {

// out[i] = f(x[i]); in place is allowed. Bounds are against float64.
void GeluTanh(const float* x, float* out, int64_t count);              // 1e-6
void Tanh(const float* x, float* out, int64_t count);                  // 5e-7
void SquareRoot(const float* x, float* out, int64_t count);            // 3 units in the last place; x >= 0
void ReciprocalSquareRoot(const float* x, float* out, int64_t count);  // 3 units in the last place; x >= 0
void Sine(const float* x, float* out, int64_t count);                  // 5e-7 for |x| <= 32768
void Cosine(const float* x, float* out, int64_t count);                // 5e-7 for |x| <= 32768

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_ELEMENTWISE_H_
