// How XNNPACK turns a row of floats into int8 before it multiplies with integer weights ("qd8": dynamic, asymmetric, one scale per row).
//
// From XNNPACK at 4ea82e5, src/xnnpack/quantization.h and the convert operator. All in float32, in this order of operations: another order
// flips roundings, and a flipped rounding changes everything after it.
#ifndef TASKPRESS_RUNTIME_KERNELS_REFERENCE_QUANTIZED_ACTIVATION_H_
#define TASKPRESS_RUNTIME_KERNELS_REFERENCE_QUANTIZED_ACTIVATION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace taskpress::reference {

// Half to even. NaN, which only damaged weights produce, becomes 0 instead of undefined behaviour.
inline int32_t RoundHalfToEven(float value) { return std::isnan(value) ? 0 : static_cast<int32_t>(std::nearbyintf(value)); }

struct RowQuantization {
  float scale = 1.0F;  // x is about scale * (q - zero_point)
  int32_t zero_point = 0;
};

inline RowQuantization QuantizationOfRow(std::span<const float> row) {
  const auto [low, high] = std::minmax_element(row.begin(), row.end());
  const float smallest = std::min(0.0F, *low);
  const float largest = std::max(0.0F, *high);
  constexpr float kLowest = -128.0F;
  constexpr float kHighest = 127.0F;
  const float inverse = smallest == largest ? 1.0F : (kHighest - kLowest) / (largest - smallest);
  const float descaled_smallest = smallest * inverse;
  const float descaled_largest = largest * inverse;
  // Of both ends, the one that is represented with less error decides.
  const float from_low = kLowest + descaled_smallest;
  const float from_high = kHighest + descaled_largest;
  const float zero_point = from_low + from_high > 0.0F ? kLowest - descaled_smallest : kHighest - descaled_largest;
  return {.scale = 1.0F / inverse, .zero_point = RoundHalfToEven(std::clamp(zero_point, kLowest, kHighest))};
}

// Rounded to even before the zero point is added.
inline int32_t QuantizeActivation(float value, const RowQuantization& row) {
  const float multiplier = 1.0F / row.scale;
  const auto zero_point = static_cast<float>(row.zero_point);
  const float clamped = std::clamp(value * multiplier, -128.0F - zero_point, 127.0F - zero_point);
  return RoundHalfToEven(clamped) + row.zero_point;
}

}  // namespace taskpress::reference

#endif  // TASKPRESS_RUNTIME_KERNELS_REFERENCE_QUANTIZED_ACTIVATION_H_
