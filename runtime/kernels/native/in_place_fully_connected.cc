#include "runtime/kernels/native/in_place_fully_connected.h"

#include <algorithm>

#include "runtime/kernels/native/float_product.h"
#include "runtime/kernels/native/integer_product.h"
#include "runtime/kernels/native/quantize_row.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// Rows of activations for which the weights are walked once. Bounds the scratch memory, whatever the length of a prefill.
constexpr int64_t kRowsPerWalk = 32;

int64_t ElementsPerChannel(int64_t rows, int64_t in) { return std::max<int64_t>(1, rows * in / kProductsPerElement); }

StepPtr MakeFloat(const OpContext& context, const FullyConnectedShape& shape) {
  FloatProduct product{.rows = shape.rows, .in = shape.in, .out = shape.out};
  if (context.halves != nullptr) {
    product.halves = context.halves->as<uint16_t>();
  } else {
    product.floats = context.in(1).as<float>();
  }
  if (context.has_input(2)) product.bias = context.in(2).as<float>();
  product.x = context.in(0).as<float>();
  product.result = context.out().out<float>();
  return MakeStep([product, threads = &context.threads] {
    threads->ForEachBlock(product.out, ElementsPerChannel(product.rows, product.in),
                          [&](int64_t first, int64_t count) { MultiplyChannels(product, first, count); });
  });
}

class IntegerStep final : public Step {
 public:
  // `product` without rows and what depends on them.
  IntegerStep(const IntegerProduct& product, int64_t rows, const float* x, float* out, const ThreadPool& threads)
      : product_(product), rows_(rows), x_(x), out_(out), threads_(threads) {}

  [[nodiscard]] uint64_t workspace_bytes() const override { return CodesOffset() + static_cast<uint64_t>(product_.in); }

  Status Bind(std::byte* workspace) override {
    planes_ = reinterpret_cast<int16_t*>(workspace);
    row_scales_ = reinterpret_cast<float*>(workspace + ScalesOffset());
    codes_ = std::span(reinterpret_cast<int8_t*>(workspace + CodesOffset()), static_cast<size_t>(product_.in));
    product_.planes = planes_;
    product_.row_scales = row_scales_;
    return {};
  }

  Status Run() override {
    for (int64_t row = 0; row < rows_; row += kRowsPerWalk) Walk(row, std::min(kRowsPerWalk, rows_ - row));
    return {};
  }

 private:
  // Scratch memory: planes [rows of a walk], their scales, the codes of one row.
  [[nodiscard]] int64_t WalkRows() const { return std::min(kRowsPerWalk, rows_); }
  [[nodiscard]] int64_t RowLength() const { return PlanesLength(product_.in, product_.bits); }
  [[nodiscard]] uint64_t ScalesOffset() const {
    return AlignUp(static_cast<uint64_t>(WalkRows() * RowLength()) * sizeof(int16_t), kTensorAlignment);
  }
  [[nodiscard]] uint64_t CodesOffset() const {
    return AlignUp(ScalesOffset() + static_cast<uint64_t>(WalkRows()) * sizeof(float), kTensorAlignment);
  }

  void Walk(int64_t first_row, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const RowQuantization row = QuantizeRow(x_ + (first_row + i) * product_.in, product_.in, codes_.data());
      FillPlanes(codes_, row.zero_point, product_.bits, planes_ + i * RowLength());
      row_scales_[i] = row.scale;
    }
    IntegerProduct product = product_;
    product.rows = count;
    product.result = out_ + first_row * product_.out;
    threads_.ForEachBlock(product.out, ElementsPerChannel(count, product.in),
                          [&](int64_t first, int64_t channels) { MultiplyChannels(product, first, channels); });
  }

  IntegerProduct product_;
  int64_t rows_;
  const float* x_;
  float* out_;
  const ThreadPool& threads_;
  int16_t* planes_ = nullptr;
  float* row_scales_ = nullptr;
  std::span<int8_t> codes_;
};

StepPtr MakeInteger(const OpContext& context, const FullyConnectedShape& shape) {
  const BoundTensor& weights = context.in(1);
  IntegerProduct product{.bits = weights.type == DType::kI4 ? 4 : 8, .in = shape.in, .out = shape.out, .weights = weights.data};
  product.scales = weights.scales;
  product.block_size = weights.block_size;
  if (context.has_input(2)) product.bias = context.in(2).as<float>();
  return std::make_unique<IntegerStep>(product, shape.rows, context.in(0).as<float>(), context.out().out<float>(), context.threads);
}

}  // namespace

Result<StepPtr> MakeInPlaceFullyConnected(const OpContext& context) {
  if (context.op.kind != OpKind::kFullyConnected) return nullptr;
  const FullyConnectedShape shape = TRY(CheckFullyConnected(context));
  if (!context.in(1).is_constant()) return nullptr;
  if (!shape.integer_weights) return MakeFloat(context, shape);
  // The reference kernel refuses rows that could overflow, and reads int4 rows that start in the middle of a byte.
  const bool shared_bytes = context.in(1).type == DType::kI4 && shape.in % 2 != 0;
  if (shared_bytes || shape.in > kMaxIntegerColumns) return nullptr;
  return MakeInteger(context, shape);
}

}  // namespace taskpress
