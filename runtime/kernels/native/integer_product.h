// Products of quantized activations with i8 and i4 matrices that are read where they lie: nothing is repacked.
//
// A 16-bit lane of a loaded vector holds n neighbours of a row of weights, n = 2 for i8 and 4 for i4. Shifting to the left and back
// yields one of the n in every lane, so the activations are laid out to match: n planes, plane p holding elements p, p + n, p + 2n, ...
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_INTEGER_PRODUCT_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_INTEGER_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/kernels/row_quantization.h"

namespace taskpress {

struct IntegerProduct {
  int bits = 0;  // of a weight: 4 or 8
  int64_t rows = 0;
  int64_t in = 0;                      // at most 65536: 255 * 128 per product, sums fit int32; even for i4, so that rows are whole bytes
  int64_t out = 0;                     // channels
  const std::byte* weights = nullptr;  // [out, in] packed, exactly these bytes are read
  std::span<const float> scales;       // one, or [out], or [out, in / block_size]
  int64_t block_size = 0;              // of i4: a multiple of 32 columns that share a scale, or 0
  const float* bias = nullptr;         // [out] or null
  const int16_t* planes = nullptr;     // [rows, PlanesLength(in, bits)], see FillPlanes
  const float* row_scales = nullptr;   // [rows] RowQuantization::scale
  float* result = nullptr;             // [rows, out]
};
// What channel c of row r becomes: fma(row scale * sum, scale, bias), or with blocks row scale * (sum0 * scale0 + sum1 * scale1 + ...) +
// bias, rounded after every operation.

// int16 values of one row of activations: all planes, each padded with zeros to whole vectors.
int64_t PlanesLength(int64_t in, int bits);

// codes [in] of a row, minus its zero point: what PlanesLength counts, `planes` is overwritten.
void FillPlanes(std::span<const int8_t> codes, int32_t zero_point, int bits, int16_t* planes);

// The results of channels [first, first + count), all rows. The sums are exact integers, so the result is that of the reference kernel bit
// for bit, on every CPU.
void MultiplyChannels(const IntegerProduct& product, int64_t first, int64_t count);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_INTEGER_PRODUCT_H_
