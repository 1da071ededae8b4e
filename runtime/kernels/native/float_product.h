// Products with f32 and f16 matrices that are read where they lie.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_FLOAT_PRODUCT_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_FLOAT_PRODUCT_H_

#include <cstdint>

namespace taskpress {

struct FloatProduct {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;                   // channels
  const float* floats = nullptr;     // [out, in], or
  const uint16_t* halves = nullptr;  // [out, in] f16, each widened exactly
  const float* bias = nullptr;       // [out] or null
  const float* x = nullptr;          // [rows, in]
  float* result = nullptr;           // [rows, out]
};

// The results of channels [first, first + count), all rows. Products are exact in float64 and so are summed; only the order of the sum is
// not the reference kernel's. Before the one rounding to float32 both are within in * 2^-52 * sum |x w| of each other.
void MultiplyChannels(const FloatProduct& product, int64_t first, int64_t count);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_FLOAT_PRODUCT_H_
