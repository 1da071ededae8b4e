// Products of quantized activations with packed i4 and i8 matrices (packed_matrix.h): blocks of rows and channels whose sums stay in
// registers, with the processor's products of bytes where it has them.
//
// Activations are laid out to match: tiles of up to 12 rows, [in / 64][rows of the tile][64] int8, so that what a step of the product reads
// of all rows lies together. A tile of one row is the row itself, padded with zeros.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_PRODUCT_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_PRODUCT_H_

#include <cstdint>
#include <span>

#include "runtime/kernels/native/packed_matrix.h"

namespace taskpress {

inline constexpr int64_t kTileRows = 12;
inline constexpr int64_t kStripColumns = 64;  // of a row that lie together

// int8 values of one row in a tile.
[[nodiscard]] constexpr int64_t PackedRowLength(int64_t in) { return (in + kStripColumns - 1) / kStripColumns * kStripColumns; }

struct PackedRow {
  float scale = 0.0F;      // RowQuantization::scale
  int32_t zero_point = 0;  // RowQuantization::zero_point
  int32_t sum = 0;         // of the codes
};

// codes [rows, in] of a tile, rows at most kTileRows -> packed [PackedRowLength(in) * rows], and the sums of `parameters` [rows].
void PackRows(const int8_t* codes, int64_t rows, int64_t in, int8_t* packed, PackedRow* parameters);

struct PackedProduct {
  PackedMatrixShape shape;
  const std::byte* weights = nullptr;  // PackTiles
  std::span<const float> scales;       // one, or [out]
  const float* bias = nullptr;         // [out] or null
  int64_t rows = 0;
  const int8_t* codes = nullptr;   // tiles of kTileRows rows one after the other, the last one perhaps with fewer
  const PackedRow* row = nullptr;  // [rows]
  float* result = nullptr;         // [rows, out]
};
// What channel c of row r becomes: fma(row scale * sum, scale, bias), where sum is that of weight * (code - zero point) over the columns.

// The results of rows [first_row, first_row + rows) in channels of tiles [first_tile, first_tile + tiles); first_row is a multiple of
// kTileRows. The sums are exact integers, so the result is that of the reference kernel bit for bit, on every CPU.
// `ahead`: weights that will be read next, fetched into the second cache meanwhile.
void MultiplyTiles(const PackedProduct& product, int64_t first_row, int64_t rows, int64_t first_tile, int64_t tiles,
                   std::span<const std::byte> ahead = {});

// The same in plain loops: oracle, and what runs on processors with vectors of unknown length.
void MultiplyTilesPlain(const PackedProduct& product, int64_t first_row, int64_t rows, int64_t first_tile, int64_t tiles);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_PRODUCT_H_
