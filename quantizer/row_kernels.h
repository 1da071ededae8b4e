// The inner loops of quantization, over one row: once for the machine's vector unit (Highway picks it when the program runs), once plainly.
// Both give the same bits on every machine: maxima are taken over integers, IEEE division is correctly rounded, nothing is summed.
#ifndef TASKPRESS_QUANTIZER_ROW_KERNELS_H_
#define TASKPRESS_QUANTIZER_ROW_KERNELS_H_

#include <cstdint>
#include <span>

#include "schema/base/bytes.h"

namespace taskpress {

inline constexpr int kInt4Limit = 7;
inline constexpr int kInt4Lowest = -8;
inline constexpr int kInt8Limit = 127;

struct RowKernels {
  // The largest |value| as the bits of a float. Magnitudes order as their bits do, infinity and NaN above everything finite, so one
  // pass finds both the maximum and whether all is well. 0 for an empty row.
  uint32_t (*max_magnitude_bits)(std::span<const float> values);
  // code = round-half-even(value / scale), clamped to [-127, 127] and [-8, 7]. Values finite, scale normal and positive.
  //   packed: [values.size()] bytes
  void (*encode_int8)(std::span<const float> values, float scale, ByteSpan packed);
  //   packed: [values.size() / 2] bytes as in schema/int_packing.h; an even number of values
  void (*encode_int4)(std::span<const float> values, float scale, ByteSpan packed);
};

const RowKernels& VectorRowKernels();
const RowKernels& PlainRowKernels();

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_ROW_KERNELS_H_
