// Products of quantized activations with single rows of an i4 or i8 matrix that lies as TFLite stores it: what each row of weights is asked
// for is another few rows of activations.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_ROWS_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/kernels/native/packed_product.h"

namespace taskpress {

// int8 values of one row of activations in the order in which weights are read: as they are for i8; for i4 in strips, first the even
// columns, which are low nibbles, then the odd ones. Padded with zeros.
inline constexpr int64_t kSplitColumns = 128;
[[nodiscard]] constexpr int64_t SplitRowLength(int64_t in) { return (in + kSplitColumns - 1) / kSplitColumns * kSplitColumns; }
void SplitRow(const int8_t* codes, int64_t in, int bits, int8_t* split);

struct UnitProduct {
  int bits = 0;    // of a weight: 4 or 8
  int64_t in = 0;  // at most kMaxIntegerColumns; even for i4, so that rows are whole bytes
  int64_t out = 0;
  const std::byte* weights = nullptr;  // [out, in] packed, exactly these bytes are read
  std::span<const float> scales;       // one, or [out]
  const float* bias = nullptr;         // [out] or null
  const int8_t* codes = nullptr;       // rows of SplitRowLength(in)
  const int8_t* ones = nullptr;        // [SplitRowLength(in)] SplitRow of ones
  const PackedRow* row = nullptr;      // what goes with each row of codes
};
// values[i]: fma(row scale * sum, scale, bias) of channel `unit` for row rows[i], where sum is that of weight * (code - zero point). The
// sums are exact integers.
void MultiplyUnit(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values);
// The same in plain loops.
void MultiplyUnitPlain(const UnitProduct& product, int64_t unit, std::span<const uint16_t> rows, float* values);

// Indices of values that are not zero, ascending, -> `found`, at most `room` of them. Returns how many there are, or room + 1 when there
// are more.
int64_t FindNonZeros(const float* values, int64_t count, int64_t room, uint16_t* found);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_ROWS_H_
