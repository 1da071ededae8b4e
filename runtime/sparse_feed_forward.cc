#include "runtime/sparse_feed_forward.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "runtime/kernels/native/integer_product.h"
#include "runtime/kernels/native/quantize_row.h"
#include "runtime/kernels/native/sparse_columns.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_packed_weights.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

class SparseStep final : public Step {
 public:
  SparseStep(const IntegerProduct& up, const QuantizedInput& input, const float* gate, const ColumnMatrixShape& shape,
             const std::byte* columns, const OpContext& down)
      : up_(up),
        input_(input),
        gate_(gate),
        shape_(shape),
        columns_(columns),
        down_scales_(down.in(1).scales),
        down_bias_(down.has_input(2) ? down.in(2).as<float>() : nullptr),
        out_(down.out().out<float>()),
        threads_(down.threads) {
    units_.reserve(static_cast<size_t>(shape.in));
    active_.reserve(static_cast<size_t>(shape.in));
  }

  // Planes of x, then values of W_up [units], products and their codes [active units], sums [channels].
  [[nodiscard]] uint64_t workspace_bytes() const override {
    return SumsOffset() + Bytes(shape_.strips() * kStripChannels, sizeof(int32_t));
  }
  Status Bind(std::byte* workspace) override {
    planes_ = reinterpret_cast<int16_t*>(workspace);
    values_ = reinterpret_cast<float*>(workspace + ValuesOffset());
    products_ = reinterpret_cast<float*>(workspace + ProductsOffset());
    codes_ = reinterpret_cast<int8_t*>(workspace + CodesOffset());
    sums_ = reinterpret_cast<int32_t*>(workspace + SumsOffset());
    return {};
  }

  Status Run() override {
    units_.clear();
    for (int64_t i = 0; i < shape_.in; ++i) {
      if (gate_[i] != 0.0F) units_.push_back(static_cast<int32_t>(i));
    }
    MultiplyUp();
    const RowQuantization row = QuantizeProducts();
    threads_.ForEachBlock(shape_.strips(), kStripChannels * static_cast<int64_t>(active_.size()) / kProductsPerElement + 1,
                          [&](int64_t first, int64_t count) { MultiplyDown(row, first, count); });
    return {};
  }

 private:
  // Products that are as much work as one element of an elementwise function.
  static constexpr int64_t kProductsPerElement = 16;

  static uint64_t Bytes(int64_t count, size_t size) {
    return AlignUp(static_cast<uint64_t>(count) * size + kTensorPadding, kTensorAlignment);
  }
  [[nodiscard]] uint64_t ValuesOffset() const { return Bytes(PlanesLength(up_.in, up_.bits), sizeof(int16_t)); }
  [[nodiscard]] uint64_t ProductsOffset() const { return ValuesOffset() + Bytes(shape_.in, sizeof(float)); }
  [[nodiscard]] uint64_t CodesOffset() const { return ProductsOffset() + Bytes(shape_.in, sizeof(float)); }
  [[nodiscard]] uint64_t SumsOffset() const { return CodesOffset() + Bytes(shape_.in, 1); }

  void MultiplyUp() {
    const CodeRows copy = RowsOf(input_);
    FillPlanes({copy.codes, static_cast<size_t>(up_.in)}, copy.parameters[0].zero_point, up_.bits, planes_);
    IntegerProduct product = up_;
    product.planes = planes_;
    product.row_scales = &copy.parameters[0].scale;
    product.result = values_;
    threads_.ForEachBlock(static_cast<int64_t>(units_.size()), up_.in / kProductsPerElement + 1, [&](int64_t first, int64_t count) {
      for (int64_t i = first; i < first + count; ++i) {
        const int32_t unit = units_[static_cast<size_t>(i)];
        MultiplyChannels(product, unit, 1);
        products_[i] = gate_[unit] * values_[unit];
      }
    });
  }

  // As the whole row is quantized: the zeros that are not there change neither its range, to which 0 belongs, nor its codes.
  RowQuantization QuantizeProducts() {
    active_.clear();
    const auto count = static_cast<int64_t>(units_.size());
    if (count == 0) return {};
    const RowQuantization row = QuantizeRow(products_, count, codes_);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t code = codes_[i] - row.zero_point;
      if (code != 0) active_.push_back({.column = units_[static_cast<size_t>(i)], .code = code});
    }
    return row;
  }

  void MultiplyDown(const RowQuantization& row, int64_t first, int64_t count) {
    SumColumns(shape_, columns_, active_, first, count, sums_);
    const int64_t end = std::min((first + count) * kStripChannels, shape_.out);
    for (int64_t channel = first * kStripChannels; channel < end; ++channel) {
      const float scale = down_scales_[down_scales_.size() == 1 ? 0 : static_cast<size_t>(channel)];
      const float bias = down_bias_ == nullptr ? 0.0F : down_bias_[channel];
      out_[channel] = std::fma(static_cast<float>(sums_[channel]) * row.scale, scale, bias);
    }
  }

  IntegerProduct up_;  // without its row
  QuantizedInput input_;
  const float* gate_;  // [units]
  ColumnMatrixShape shape_;
  const std::byte* columns_;
  std::span<const float> down_scales_;
  const float* down_bias_;
  float* out_;
  const ThreadPool& threads_;
  std::vector<int32_t> units_;        // whose gate is open
  std::vector<ActiveColumn> active_;  // of them, those with a product that is not rounded to zero
  int16_t* planes_ = nullptr;
  float* values_ = nullptr;
  float* products_ = nullptr;
  int8_t* codes_ = nullptr;
  int32_t* sums_ = nullptr;
};

}  // namespace

Result<StepPtr> MakeSparseFeedForward(const SparseFeedForward& parts) {
  const FullyConnectedShape up_shape = TRY(CheckFullyConnected(parts.up));
  const FullyConnectedShape down_shape = TRY(CheckFullyConnected(parts.down));
  const BoundTensor& up_weights = parts.up.in(1);
  const BoundTensor& down_weights = parts.down.in(1);
  IntegerProduct up{.bits = InfoOf(up_weights.type).bits, .rows = 1, .in = up_shape.in, .out = up_shape.out, .weights = up_weights.data};
  up.scales = up_weights.scales;
  if (parts.up.has_input(2)) up.bias = parts.up.in(2).as<float>();
  const ColumnMatrixShape shape{.in = down_shape.in, .out = down_shape.out};
  const PackedWeights::Matrix matrix{
      .bytes = {down_weights.data, static_cast<size_t>(shape.in * shape.out / 2)}, .in = shape.in, .out = shape.out};
  const std::string layout = Format("columns i4 {}", kColumnLayout);
  const std::byte* columns = TRY(parts.down.packed_weights->Packed(layout, matrix, shape.bytes(), [&](ByteSpan packed) {
    parts.down.threads.ForEachBlock(
        shape.in, shape.out, [&](int64_t first, int64_t count) { PackColumns(shape, down_weights.data, first, count, packed.data()); });
    return Status();
  }));
  return std::make_unique<SparseStep>(up, *parts.up.quantized_input, parts.gate.as<float>(), shape, columns, parts.down);
}

}  // namespace taskpress
