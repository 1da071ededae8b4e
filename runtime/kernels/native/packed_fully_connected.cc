#include "runtime/kernels/native/packed_fully_connected.h"

#include <algorithm>
#include <string>

#include "runtime/kernels/native/packed_product.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_kernels.h"
#include "runtime/xnnpack_packed_weights.h"

namespace taskpress {
namespace {

// Weights that stay in a core's second cache while tile after tile of rows passes by.
constexpr int64_t kChunkBytes = int64_t{256} << 10;

// The product in pieces that threads take: one tile of rows, some tiles of channels.
void MultiplyAll(const PackedProduct& product, const ThreadPool& threads) {
  const int64_t tiles = product.shape.tiles();
  const int64_t row_tiles = (product.rows + kTileRows - 1) / kTileRows;
  const int64_t chunk = row_tiles == 1 ? 1 : std::clamp<int64_t>(kChunkBytes / product.shape.tile_bytes(), 1, tiles);
  const int64_t pieces = (tiles + chunk - 1) / chunk * row_tiles;
  const int64_t products = std::min(kTileRows, product.rows) * product.shape.in * chunk * kTileChannels;
  threads.ForEachBlock(pieces, std::max<int64_t>(1, products / kProductsPerElement), [&](int64_t first, int64_t count) {
    for (int64_t piece = first; piece < first + count; ++piece) {
      const int64_t row_tile = piece % row_tiles;
      const int64_t row = row_tile * kTileRows;
      const int64_t tile = piece / row_tiles * chunk;
      // Each tile of rows fetches its part of the next weights.
      const int64_t next = std::min(tile + chunk, tiles) * product.shape.tile_bytes();
      const int64_t part = std::min(chunk * product.shape.tile_bytes(), static_cast<int64_t>(product.shape.bytes()) - next) / row_tiles;
      MultiplyTiles(product, row, std::min(kTileRows, product.rows - row), tile, std::min(chunk, tiles - tile),
                    {product.weights + next + row_tile * part, static_cast<size_t>(row_tiles == 1 ? 0 : part)});
    }
  });
}

// Scales and bias are read where they lie.
Result<const std::byte*> PackedWeightsOf(const OpContext& context, const PackedMatrixShape& shape) {
  const BoundTensor& weights = context.in(1);
  const PackedWeights::Matrix matrix{
      .bytes = {weights.data, NumBytes(weights.type, weights.shape).value_or(0)}, .in = shape.in, .out = shape.out};
  const std::string layout = Format("packed_matrix {}, i{}", kPackedMatrixLayout, shape.bits);
  return context.packed_weights->Packed(layout, matrix, shape.bytes(), [&](ByteSpan packed) -> Status {
    context.threads.ForEachBlock(shape.tiles(), kTileChannels * shape.in,
                                 [&](int64_t first, int64_t count) { PackTiles(shape, weights.data, first, count, packed.data()); });
    return {};
  });
}

}  // namespace

Result<StepPtr> MakePackedFullyConnected(const OpContext& context) {
  if (context.op.kind != OpKind::kFullyConnected) return nullptr;
  const FullyConnectedShape shape = TRY(CheckFullyConnected(context));
  const BoundTensor& weights = context.in(1);
  const QuantizedInput* input = context.quantized_input;
  if (input == nullptr || !input->packed || context.packed_weights == nullptr || !weights.is_constant()) return nullptr;
  if (weights.block_size > 0 || shape.in > kMaxIntegerColumns) return nullptr;
  PackedProduct product{.shape = {.bits = weights.type == DType::kI4 ? 4 : 8, .in = shape.in, .out = shape.out}};
  product.weights = TRY(PackedWeightsOf(context, product.shape));
  if (context.seldom) context.packed_weights->Rest({product.weights, product.shape.bytes()});
  product.scales = weights.scales;
  if (context.has_input(2)) product.bias = context.in(2).as<float>();
  product.rows = shape.rows;
  product.codes = PackedCodesOf(*input);
  product.row = PackedRowsOf(*input);
  product.result = context.out().out<float>();
  return MakeStep([product, threads = &context.threads] { MultiplyAll(product, *threads); });
}

}  // namespace taskpress
