#include "runtime/kernels/native/packed_fully_connected.h"

#include <algorithm>

#include "runtime/kernels/native/packed_product.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_kernels.h"
#include "runtime/xnnpack_packed_weights.h"

namespace taskpress {
namespace {

// Products that are as much work as one element of an elementwise function.
constexpr int64_t kProductsPerElement = 16;
// Activations that stay in a core's second cache while all weights pass by, once for so many rows. A tile of weights fits there too.
constexpr int64_t kRowBlockBytes = int64_t{384} << 10;

int64_t RowsOfBlock(int64_t in) { return std::max<int64_t>(1, kRowBlockBytes / (kTileRows * PackedRowLength(in))) * kTileRows; }

Result<const std::byte*> PackedWeightsOf(const OpContext& context, const PackedMatrixShape& shape) {
  const std::byte* weights = context.in(1).data;
  const PackedWeights::NativeMatrix matrix{.weights = weights, .bits = shape.bits, .in = shape.in, .out = shape.out};
  return context.packed_weights->Native(matrix, shape.bytes(), [&](std::byte* packed) {
    context.threads.ForEachBlock(shape.tiles(), kTileChannels * shape.in,
                                 [&](int64_t first, int64_t count) { PackTiles(shape, weights, first, count, packed); });
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
  product.scales = weights.scales;
  if (context.has_input(2)) product.bias = context.in(2).as<float>();
  product.rows = shape.rows;
  product.codes = PackedCodesOf(*input);
  product.row = PackedRowsOf(*input);
  product.result = context.out().out<float>();
  return MakeStep([product, threads = &context.threads] {
    const int64_t tiles = product.shape.tiles();
    const int64_t block = RowsOfBlock(product.shape.in);
    const int64_t blocks = (product.rows + block - 1) / block;
    const int64_t products = std::min(block, product.rows) * product.shape.in * kTileChannels;
    threads->ForEachBlock(blocks * tiles, std::max<int64_t>(1, products / kProductsPerElement), [&](int64_t first, int64_t count) {
      while (count > 0) {
        const int64_t row = first / tiles * block;
        const int64_t together = std::min(count, tiles - first % tiles);  // of one block of rows
        MultiplyTiles(product, row, std::min(block, product.rows - row), first % tiles, together);
        first += together;
        count -= together;
      }
    });
  });
}

}  // namespace taskpress
