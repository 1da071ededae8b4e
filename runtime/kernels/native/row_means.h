// Means of rows, added up in the order of the CPU clients (see elementwise.h for why).
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_ROW_MEANS_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_ROW_MEANS_H_

#include <cstdint>

namespace taskpress {

// x [rows, columns] -> out [rows]. columns >= 1.
void MeansOfRows(const float* x, float* out, int64_t rows, int64_t columns);
// The means of x^2.
void MeansOfSquaresOfRows(const float* x, float* out, int64_t rows, int64_t columns);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_ROW_MEANS_H_
