#include "runtime/sparse_feed_forward.h"

#include <algorithm>
#include <string>

#include "runtime/kernels/native/integer_product.h"
#include "runtime/kernels/native/quantize_row.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/sparse_block.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_packed_weights.h"
#include "schema/base/mapped_file.h"

namespace taskpress {
namespace {

// One token: threads share its units and its channels.
class SparseToken final : public Step {
 public:
  SparseToken(const SparseBlock& block, const ThreadPool& threads) : block_(block), threads_(threads) {
    up_ = {.bits = block.up.bits, .rows = 1, .in = block.up.in, .out = block.up.out, .weights = block.up.weights};
    up_.scales = block.up.scales;
    up_.bias = block.up.bias;
    planes_at_ = layout_.Add<int16_t>(PlanesLength(up_.in, up_.bits));
    open_at_ = layout_.Add<uint16_t>(block.units);
    values_at_ = layout_.Add<float>(block.units);
    products_at_ = layout_.Add<float>(block.units);
    codes_at_ = layout_.Add<int8_t>(block.units);
    columns_at_ = layout_.Add<uint16_t>(MostActive(block.units));
    listed_at_ = layout_.Add<int8_t>(MostActive(block.units));
  }

  [[nodiscard]] uint64_t workspace_bytes() const override { return layout_.bytes(); }
  Status Bind(std::byte* workspace) override {
    planes_ = reinterpret_cast<int16_t*>(workspace + planes_at_);
    open_ = reinterpret_cast<uint16_t*>(workspace + open_at_);
    values_ = reinterpret_cast<float*>(workspace + values_at_);
    products_ = reinterpret_cast<float*>(workspace + products_at_);
    codes_ = reinterpret_cast<int8_t*>(workspace + codes_at_);
    columns_ = reinterpret_cast<uint16_t*>(workspace + columns_at_);
    listed_ = reinterpret_cast<int8_t*>(workspace + listed_at_);
    return {};
  }

  [[nodiscard]] uint64_t skipped_bytes() const override {
    return static_cast<uint64_t>(closed_units_ * (block_.up.in * block_.up.bits + block_.down.shape.out * 4) / 8);
  }

  Status Run() override {
    const int64_t count = FindNonZeros(block_.gate, block_.units, block_.units, open_);
    closed_units_ = block_.units - count;
    MultiplyUp(count);
    // As the whole row is quantized: the zeros that are not there change neither its range, to which 0 belongs, nor its codes.
    const RowQuantization row = count == 0 ? RowQuantization{} : QuantizeRow(products_, count, codes_);
    const ActiveColumns active = ListActive(open_, codes_, count, row.zero_point, columns_, listed_);
    const int64_t ahead = std::min(kColumnsAhead, active.count);
    const ActiveColumns next{.columns = active.columns + ahead, .codes = active.codes + ahead, .count = active.count - ahead};
    threads_.ForEachBlock(
        block_.down.shape.strips(), kStripChannels * active.count / kProductsPerElement + 1,
        [&](int64_t first, int64_t strips) { MultiplyColumns(block_.down, active, next, row.scale, first, strips, block_.out); });
    return {};
  }

 private:
  static constexpr int64_t kColumnsAhead = 48;  // that are fetched from memory while earlier ones are added up; a multiple of 4
  static constexpr int64_t kUnitsAhead = 2;

  void MultiplyUp(int64_t count) {
    const CodeRows copy = RowsOf(block_.input);
    FillPlanes({copy.codes, static_cast<size_t>(up_.in)}, copy.parameters[0].zero_point, up_.bits, planes_);
    IntegerProduct product = up_;
    product.planes = planes_;
    product.row_scales = &copy.parameters[0].scale;
    product.result = values_;
    threads_.ForEachBlock(count, up_.in / kProductsPerElement + 1, [&](int64_t first, int64_t some) {
      for (int64_t i = first; i < first + some; ++i) {
        if (i + kUnitsAhead < count) FetchUnit(open_[i + kUnitsAhead]);
        MultiplyChannels(product, open_[i], 1);
        products_[i] = block_.gate[open_[i]] * values_[open_[i]];
      }
    });
  }

  void FetchUnit(int64_t unit) const {
    constexpr int64_t kLine = 64;
    const int64_t bytes = up_.in * up_.bits / 8;
    for (int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(up_.weights + unit * bytes + byte);
  }

  SparseBlock block_;
  const ThreadPool& threads_;
  IntegerProduct up_;  // without its row
  WorkspaceLayout layout_;
  uint64_t planes_at_, open_at_, values_at_, products_at_, codes_at_, columns_at_, listed_at_;
  int16_t* planes_ = nullptr;
  int64_t closed_units_ = 0;     // of the last run
  uint16_t* open_ = nullptr;     // units whose gate is open
  float* values_ = nullptr;      // of W_up, by unit
  float* products_ = nullptr;    // as open_
  int8_t* codes_ = nullptr;      // of them
  uint16_t* columns_ = nullptr;  // ListActive
  int8_t* listed_ = nullptr;
};

Result<const std::byte*> PackedColumnsOf(const OpContext& down, const ColumnMatrixShape& shape) {
  const BoundTensor& weights = down.in(1);
  const PackedWeights::Matrix matrix{
      .bytes = {weights.data, static_cast<size_t>(shape.in * shape.out / 2)}, .in = shape.in, .out = shape.out};
  return down.packed_weights->Packed(Format("columns i4 {}", kColumnLayout), matrix, shape.bytes(), [&](ByteSpan packed) {
    down.threads.ForEachBlock(shape.in, shape.out,
                              [&](int64_t first, int64_t count) { PackColumns(shape, weights.data, first, count, packed.data()); });
    return Status();
  });
}

}  // namespace

Result<StepPtr> MakeSparseFeedForward(SparseFeedForward parts) {
  const FullyConnectedShape up = TRY(CheckFullyConnected(parts.up));
  const FullyConnectedShape down = TRY(CheckFullyConnected(parts.down));
  const BoundTensor& weights = parts.up.in(1);
  const auto bias_of = [](const OpContext& op) { return op.has_input(2) ? op.in(2).as<float>() : nullptr; };
  SparseBlock block{.input = *parts.up.quantized_input, .gate = parts.gate.as<float>(), .units = down.in};
  block.up = {.bits = InfoOf(weights.type).bits, .in = up.in, .out = up.out, .weights = weights.data, .scales = weights.scales};
  block.up.bias = bias_of(parts.up);
  block.down = {.shape = {.in = down.in, .out = down.out}, .scales = parts.down.in(1).scales, .bias = bias_of(parts.down)};
  block.down.packed = TRY(PackedColumnsOf(parts.down, block.down.shape));
  block.out = parts.down.out().out<float>();
  if (parts.tokens == 1) return std::make_unique<SparseToken>(block, parts.up.threads);
  Populate({weights.data, static_cast<size_t>(up.in * up.out * block.up.bits / 8)});  // several tokens soon read most rows
  return MakeSparseTokens(block, parts.tokens, std::move(parts.dense), parts.up.threads);
}

}  // namespace taskpress
