// Products with an i4 matrix of which few columns are needed: the matrix is stored by columns, and a column whose activation is zero is not
// read.
//
// Column j is one piece of memory: nibbles of all channels, two per byte as TFLite packs them (channel 2i in the low nibble), padded with
// zeros to whole strips. A 16-bit lane of a vector holds four channels; shifting yields one of the four in every lane. Products of a weight
// and an activation minus its zero point are at most 8 * 255, so that sixteen of them fit 16 bits.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_COLUMNS_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_COLUMNS_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace taskpress {

// Changes whenever the bytes above do: part of the name of what is kept in files.
inline constexpr uint32_t kColumnLayout = 1;
inline constexpr int64_t kStripChannels = 128;

struct ColumnMatrixShape {
  int64_t in = 0;
  int64_t out = 0;
  [[nodiscard]] int64_t strips() const { return (out + kStripChannels - 1) / kStripChannels; }
  [[nodiscard]] int64_t column_bytes() const { return strips() * kStripChannels / 2; }
  [[nodiscard]] uint64_t bytes() const { return static_cast<uint64_t>(in * column_bytes()); }
};

// Columns [first, first + count) of `weights` [out, in], i4 as TFLite stores them, `in` even.
void PackColumns(const ColumnMatrixShape& shape, const std::byte* weights, int64_t first, int64_t count, std::byte* packed);

// One activation that is not zero.
struct ActiveColumn {
  int32_t column = 0;
  int32_t code = 0;  // minus the zero point: -255 to 255
};

// sums [128 strips] of code * weight over the active columns, for channels of strips [first, first + count). Exact integers.
void SumColumns(const ColumnMatrixShape& shape, const std::byte* packed, std::span<const ActiveColumn> active, int64_t first, int64_t count,
                int32_t* sums);
// The same in plain loops.
void SumColumnsPlain(const ColumnMatrixShape& shape, const std::byte* packed, std::span<const ActiveColumn> active, int64_t first,
                     int64_t count, int32_t* sums);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_SPARSE_COLUMNS_H_
