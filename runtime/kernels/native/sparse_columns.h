// Products with an i4 matrix of which few columns are needed: the matrix is stored by columns, and a column whose activation is zero is not
// read.
//
// The matrix [out, in] is cut into strips of 128 channels; a strip holds its piece of every column, one after the other, so that what many
// rows of activations read of a strip stays in the cache. A piece is 64 bytes: nibbles of the strip's channels plus 8, channel 2i in the
// low nibble of byte i. Pieces of four columns, interleaved, are operands of the processors' products of bytes, an unsigned and a signed
// one; what the offset adds to a sum is a multiple of the sum of the activations and is taken off at the end.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_COLUMNS_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_COLUMNS_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace taskpress {

// Changes whenever the bytes above do: part of the name of what is kept in files.
inline constexpr uint32_t kColumnLayout = 2;
inline constexpr int64_t kStripChannels = 128;

struct ColumnMatrixShape {
  int64_t in = 0;  // at most kMaxSparseColumns
  int64_t out = 0;
  [[nodiscard]] int64_t strips() const { return (out + kStripChannels - 1) / kStripChannels; }
  static constexpr int64_t kPieceBytes = kStripChannels / 2;
  // Of a column's nibbles in a strip.
  [[nodiscard]] int64_t PieceOffset(int64_t strip, int64_t column) const { return (strip * in + column) * kPieceBytes; }
  [[nodiscard]] uint64_t bytes() const { return static_cast<uint64_t>(strips() * in * kPieceBytes); }
};
inline constexpr int64_t kMaxSparseColumns = 65536;

// Columns [first, first + count) of `weights` [out, in], i4 as TFLite stores them, `in` even. Channels that fill up the last strip have
// weights 0.
void PackColumns(const ColumnMatrixShape& shape, const std::byte* weights, int64_t first, int64_t count, std::byte* packed);

// Activations of one row that are not zero, minus the zero point. A difference that is no int8 stands there as several, with the same
// column; the count is a multiple of 4.
struct ActiveColumns {
  const uint16_t* columns = nullptr;  // [count]
  const int8_t* codes = nullptr;      // [count]
  int64_t count = 0;
  int32_t code_sum = 0;
};
// How long the lists of `count` activations are at most.
[[nodiscard]] constexpr int64_t MostActive(int64_t count) { return 3 * count + 3; }
// units [count]: the columns of codes [count]. `columns` and `listed_codes` have room for MostActive(count).
ActiveColumns ListActive(const uint16_t* units, const int8_t* codes, int64_t count, int32_t zero_point, uint16_t* columns,
                         int8_t* listed_codes);

struct ColumnProduct {
  ColumnMatrixShape shape;
  const std::byte* packed = nullptr;  // PackColumns
  std::span<const float> scales;      // one, or [out]
  const float* bias = nullptr;        // [out] or null
};
// result [out]: of channels in strips [first, first + count), fma(row_scale * sum, scale, bias), where sum is that of code * weight over
// the active columns. The sums are exact integers. `next`: what will be asked of the same strips after that, if known.
void MultiplyColumns(const ColumnProduct& product, const ActiveColumns& active, const ActiveColumns& next, float row_scale, int64_t first,
                     int64_t count, float* result);
// The same in plain loops.
void MultiplyColumnsPlain(const ColumnProduct& product, const ActiveColumns& active, float row_scale, int64_t first, int64_t count,
                          float* result);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_COLUMNS_H_
