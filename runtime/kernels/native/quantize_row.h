// Activations as int8 on vectors.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_QUANTIZE_ROW_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_QUANTIZE_ROW_H_

#include <cstdint>

#include "runtime/kernels/row_quantization.h"

namespace taskpress {

// codes [columns] of x [columns]; columns >= 1. Where the row holds NaN, any codes.
RowQuantization QuantizeRow(const float* x, int64_t columns, int8_t* codes);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_QUANTIZE_ROW_H_
