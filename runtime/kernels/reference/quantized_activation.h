// A row of activations as int8, one value at a time.
#ifndef TASKPRESS_RUNTIME_KERNELS_REFERENCE_QUANTIZED_ACTIVATION_H_
#define TASKPRESS_RUNTIME_KERNELS_REFERENCE_QUANTIZED_ACTIVATION_H_

#include <algorithm>
#include <cstdint>
#include <span>

#include "runtime/kernels/row_quantization.h"

namespace taskpress::reference {

inline RowQuantization QuantizationOfRow(std::span<const float> row) {
  const auto [low, high] = std::minmax_element(row.begin(), row.end());
  return QuantizationOfRange(std::min(0.0F, *low), std::max(0.0F, *high));
}

// Rounded to even before the zero point is added.
inline int32_t QuantizeActivation(float value, const RowQuantization& row) {
  const auto zero_point = static_cast<float>(row.zero_point);
  const float clamped = std::clamp(value * row.multiplier, -128.0F - zero_point, 127.0F - zero_point);
  return RoundHalfToEven(clamped) + row.zero_point;
}

}  // namespace taskpress::reference

#endif  // TASKPRESS_RUNTIME_KERNELS_REFERENCE_QUANTIZED_ACTIVATION_H_
