// How XNNPACK turns a row of floats into int8 before it multiplies with integer weights ("qd8": dynamic, asymmetric, one scale per row).
//
// From XNNPACK, src/xnnpack/quantization.h and the convert operator, as LiteRT 2.3 runs them: values are multiplied by 255 / (max - min)
// itself, where XNNPACK at 4ea82e5 took the reciprocal of the scale, which can be another float. All in float32, in this order of
// operations: another order flips roundings, and a flipped rounding changes everything after it.
#ifndef TASKPRESS_RUNTIME_KERNELS_ROW_QUANTIZATION_H_
#define TASKPRESS_RUNTIME_KERNELS_ROW_QUANTIZATION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace taskpress {

// Half to even. NaN, which only damaged weights produce, becomes 0 instead of undefined behaviour.
inline int32_t RoundHalfToEven(float value) { return std::isnan(value) ? 0 : static_cast<int32_t>(std::nearbyintf(value)); }

struct RowQuantization {
  float multiplier = 1.0F;  // code = round(multiplier * x) + zero_point
  float scale = 1.0F;       // x is about scale * (code - zero_point)
  int32_t zero_point = 0;
};

// Of a row whose values, and 0, lie in [smallest, largest].
inline RowQuantization QuantizationOfRange(float smallest, float largest) {
  constexpr float kLowest = -128.0F;
  constexpr float kHighest = 127.0F;
  const float multiplier = smallest == largest ? 1.0F : (kHighest - kLowest) / (largest - smallest);
  const float descaled_smallest = smallest * multiplier;
  const float descaled_largest = largest * multiplier;
  // Of both ends, the one that is represented with less error decides.
  const float from_low = kLowest + descaled_smallest;
  const float from_high = kHighest + descaled_largest;
  const float zero_point = from_low + from_high > 0.0F ? kLowest - descaled_smallest : kHighest - descaled_largest;
  return {.multiplier = multiplier, .scale = 1.0F / multiplier, .zero_point = RoundHalfToEven(std::clamp(zero_point, kLowest, kHighest))};
}

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_ROW_QUANTIZATION_H_
