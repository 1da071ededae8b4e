#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/kernels/native/packed_product.h"

namespace taskpress {
namespace {

// The byte of a tile that holds a weight, and the weight in it.
int32_t WeightAt(const PackedMatrixShape& shape, const std::byte* tile, int64_t channel, int64_t column) {
  const int64_t group = column / shape.group_columns();
  const int64_t in_group = column % shape.group_columns();
  const std::byte byte = tile[PackedMatrixShape::kSumBytes + group * PackedMatrixShape::kGroupBytes + channel * 4 + in_group % 4];
  const auto bits = static_cast<uint32_t>(byte);
  const uint32_t stored = shape.bits == 8 ? bits : in_group < 4 ? bits & 0xFU : bits >> 4U;
  return static_cast<int32_t>(stored) - shape.offset();
}

}  // namespace

void MultiplyTilesPlain(const PackedProduct& product, int64_t first_row, int64_t rows, int64_t first_tile, int64_t tiles) {
  const PackedMatrixShape& shape = product.shape;
  const int64_t length = PackedRowLength(shape.in);
  for (int64_t row = first_row; row < first_row + rows; ++row) {
    const int64_t tile_row = row / kTileRows * kTileRows;
    const int64_t tile_rows = std::min(kTileRows, product.rows - tile_row);
    const int8_t* codes = product.codes + tile_row * length + (row - tile_row) * kStripColumns;
    const PackedRow& parameters = product.row[row];
    const int64_t last = std::min((first_tile + tiles) * kTileChannels, shape.out);
    for (int64_t channel = first_tile * kTileChannels; channel < last; ++channel) {
      const std::byte* tile = product.weights + channel / kTileChannels * shape.tile_bytes();
      int32_t sum = 0;
      for (int64_t i = 0; i < shape.in; ++i) {
        const int32_t code = codes[i / kStripColumns * kStripColumns * tile_rows + i % kStripColumns];
        sum += (code - parameters.zero_point) * WeightAt(shape, tile, channel % kTileChannels, i);
      }
      const float scale = product.scales[product.scales.size() == 1 ? 0 : static_cast<size_t>(channel)];
      const float scaled = static_cast<float>(sum) * parameters.scale;
      product.result[row * shape.out + channel] = std::fma(scaled, scale, product.bias == nullptr ? 0.0F : product.bias[channel]);
    }
  }
}

}  // namespace taskpress
