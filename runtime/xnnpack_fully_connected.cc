// FULLY_CONNECTED with f32, i8 and i4 weights. With integer weights the input is first quantized to int8, row by row; matrices that read
// the same tensor share that copy.
#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/kernels/native/narrow_matmul.h"
#include "runtime/kernels/native/quantize_row.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_handles.h"
#include "runtime/xnnpack_kernels.h"
#include "runtime/xnnpack_packed_weights.h"
#include "schema/base/checked_math.h"
#include "schema/base/half.h"

namespace taskpress {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Memory of a quantized input: [rows] scales and zero points, then [rows, columns] int8. XNNPACK reads some of both past their ends.
uint64_t ParameterBytes(int64_t rows) {
  return AlignUp((static_cast<uint64_t>(rows) + XNN_EXTRA_QUANTIZATION_PARAMS) * sizeof(xnn_quantization_params), kTensorAlignment);
}
xnn_quantization_params* ParametersOf(const QuantizedInput& input) { return reinterpret_cast<xnn_quantization_params*>(input.memory); }
int8_t* CodesOf(const QuantizedInput& input) { return reinterpret_cast<int8_t*>(input.memory + ParameterBytes(input.rows)); }

// Int4 rows are whole bytes only when the number of columns is even.
bool HasXnnWeights(const Tensor& weights) {
  return weights.is_constant() && weights.shape.size() == 2 &&
         (weights.type == DType::kI8 || (weights.type == DType::kI4 && weights.shape[1] % 2 == 0));
}

// XNNPACK wants one normal, positive scale per channel, or one bfloat16 per block.
bool HasXnnScales(const BoundTensor& weights, int64_t channels) {
  if (weights.block_size > 0) {
    return std::ranges::all_of(weights.scales, [](float scale) { return Bf16ToFloat(FloatToBf16(scale)) == scale; });
  }
  return static_cast<int64_t>(weights.scales.size()) == channels &&
         std::ranges::all_of(weights.scales, [](float scale) { return std::isnormal(scale) && scale > 0.0F; });
}

struct Sizes {
  size_t rows;
  size_t in;
  size_t out;
};

PackedWeights::Matrix MatrixOf(const OpContext& context, const FullyConnectedShape& shape) {
  const BoundTensor& weights = context.in(1);
  PackedWeights::Matrix matrix{.bytes = {weights.data, NumBytes(weights.type, weights.shape).value_or(0)},
                               .scales = weights.scales,
                               .in = shape.in,
                               .out = shape.out};
  if (context.has_input(2)) matrix.bias = {context.in(2).as<float>(), static_cast<size_t>(shape.out)};
  return matrix;
}

Result<XnnOperator> CreateFloat(const OpContext& context, const Sizes& size, const float* bias, xnn_weights_cache_t cache,
                                pthreadpool* threads) {
  const BoundTensor& weights = context.in(1);
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_fully_connected_nc_f32(size.in, size.out, size.in, size.out, weights.as<float>(), bias, -kInfinity, kInfinity,
                                                     /*flags=*/0, /*code_cache=*/nullptr, cache, &created));
  XnnOperator op(created);
  TRY_XNN(context, xnn_reshape_fully_connected_nc_f32(op.get(), size.rows, threads));
  TRY_XNN(context, xnn_setup_fully_connected_nc_f32(op.get(), context.in(0).as<float>(), context.out().out<float>()));
  return op;
}

Result<XnnOperator> CreateInt8(const OpContext& context, const Sizes& size, const float* bias, xnn_weights_cache_t cache,
                               pthreadpool* threads) {
  const BoundTensor& weights = context.in(1);
  const QuantizedInput& x = *context.quantized_input;
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_fully_connected_nc_qd8_f32_qc8w(size.in, size.out, size.in, size.out, weights.scales.data(),
                                                              weights.as<int8_t>(), bias, -kInfinity, kInfinity, /*flags=*/0,
                                                              /*code_cache=*/nullptr, cache, &created));
  XnnOperator op(created);
  TRY_XNN(context, xnn_reshape_fully_connected_nc_qd8_f32_qc8w(op.get(), size.rows, threads));
  TRY_XNN(context, xnn_setup_fully_connected_nc_qd8_f32_qc8w(op.get(), CodesOf(x), context.out().out<float>(), ParametersOf(x)));
  return op;
}

// Zero point 0 means signed nibbles: TFLite's bytes go in as they are.
Result<XnnOperator> CreateInt4(const OpContext& context, const Sizes& size, const float* bias, xnn_weights_cache_t cache,
                               pthreadpool* threads) {
  const BoundTensor& weights = context.in(1);
  const QuantizedInput& x = *context.quantized_input;
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_fully_connected_nc_qd8_f32_qc4w(size.in, size.out, size.in, size.out, /*kernel_zero_point=*/0,
                                                              weights.scales.data(), weights.data, bias, -kInfinity, kInfinity,
                                                              /*flags=*/0, /*code_cache=*/nullptr, cache, &created));
  XnnOperator op(created);
  TRY_XNN(context, xnn_reshape_fully_connected_nc_qd8_f32_qc4w(op.get(), size.rows, threads));
  TRY_XNN(context, xnn_setup_fully_connected_nc_qd8_f32_qc4w(op.get(), CodesOf(x), context.out().out<float>(), ParametersOf(x)));
  return op;
}

// Blocks have unsigned nibbles with zero point 8 there, and scales of bfloat16. Both copies are packed at once and not read again.
Result<XnnOperator> CreateBlocks(const OpContext& context, const Sizes& size, const float* bias, xnn_weights_cache_t cache,
                                 pthreadpool* threads) {
  const BoundTensor& weights = context.in(1);
  const QuantizedInput& x = *context.quantized_input;
  TensorBuffer nibbles = TRY(TensorBuffer::Make(size.in * size.out / 2));
  std::transform(weights.data, weights.data + size.in * size.out / 2, nibbles.data(),
                 [](std::byte pair) { return pair ^ std::byte{0x88}; });
  std::vector<uint16_t> scales;
  for (const float scale : weights.scales) scales.push_back(FloatToBf16(scale));
  xnn_operator_t created = nullptr;
  TRY_XNN(context, xnn_create_fully_connected_nc_qd8_f32_qb4w(size.in, size.out, size.in, size.out, static_cast<size_t>(weights.block_size),
                                                              /*kernel_zero_point=*/8, scales.data(), nibbles.data(), bias, -kInfinity,
                                                              kInfinity, /*flags=*/0, /*code_cache=*/nullptr, cache, &created));
  XnnOperator op(created);
  TRY_XNN(context, xnn_reshape_fully_connected_nc_qd8_f32_qb4w(op.get(), size.rows, threads));
  TRY_XNN(context, xnn_setup_fully_connected_nc_qd8_f32_qb4w(op.get(), CodesOf(x), context.out().out<float>(), ParametersOf(x)));
  return op;
}

Result<XnnOperator> CreateInteger(const OpContext& context, const Sizes& size, const float* bias, xnn_weights_cache_t cache,
                                  pthreadpool* threads) {
  const BoundTensor& weights = context.in(1);
  if (weights.block_size > 0) return CreateBlocks(context, size, bias, cache, threads);
  return weights.type == DType::kI8 ? CreateInt8(context, size, bias, cache, threads) : CreateInt4(context, size, bias, cache, threads);
}

}  // namespace

std::vector<QuantizedInputPlan> PlanQuantizedInputs(const Subgraph& subgraph, const Plan& plan) {
  std::vector<QuantizedInputPlan> inputs;
  for (const int32_t index : plan.ops) {
    const Op& op = subgraph.ops[static_cast<size_t>(index)];
    if (op.kind != OpKind::kFullyConnected) continue;
    const Tensor& x = subgraph.tensors[static_cast<size_t>(op.inputs[0])];
    const Tensor& weights = subgraph.tensors[static_cast<size_t>(op.inputs[1])];
    if (!HasXnnWeights(weights)) continue;
    const int64_t columns = weights.shape[1];
    const int64_t elements = NumElements(x.shape).value_or(0);
    if (elements % columns != 0) continue;  // the kernel will say so
    QuantizedInputPlan input{
        .value = plan.values[static_cast<size_t>(op.inputs[0])], .rows = elements / columns, .columns = columns, .ops = {}};
    const auto same = [&](const QuantizedInputPlan& other) {
      return other.value == input.value && other.rows == input.rows && other.columns == input.columns;
    };
    const auto found = std::ranges::find_if(inputs, same);
    (found != inputs.end() ? *found : inputs.emplace_back(std::move(input))).ops.push_back(index);
  }
  return inputs;
}

uint64_t QuantizedInputBytes(const QuantizedInputPlan& input) {
  return ParameterBytes(input.rows) + static_cast<uint64_t>(input.rows) * static_cast<uint64_t>(input.columns);
}

Result<StepPtr> MakeQuantizeRows(const OpContext& context, const QuantizedInput& input) {
  TRY(CheckFullyConnected(context));
  return MakeStep([x = context.in(0).as<float>(), rows = input.rows, columns = input.columns, codes = CodesOf(input),
                   parameters = ParametersOf(input), threads = &context.threads] {
    threads->ForEachBlock(rows, columns, [=](int64_t first, int64_t count) {
      for (int64_t row = first; row < first + count; ++row) {
        const RowQuantization quantization = QuantizeRow(x + row * columns, columns, codes + row * columns);
        parameters[row] = {.zero_point = quantization.zero_point, .scale = quantization.scale};
      }
    });
    std::fill_n(parameters + rows, XNN_EXTRA_QUANTIZATION_PARAMS, parameters[rows - 1]);
  });
}

Result<StepPtr> MakeXnnFullyConnected(const OpContext& context) {
  const FullyConnectedShape shape = TRY(CheckFullyConnected(context));
  const BoundTensor& weights = context.in(1);
  if (context.packed_weights == nullptr) return nullptr;
  if (!weights.is_constant() || (context.has_input(2) && !context.in(2).is_constant())) return nullptr;
  if (!shape.integer_weights && shape.out < kNarrow) return nullptr;  // a native kernel adds up as the client does
  const float* bias = context.has_input(2) ? context.in(2).as<float>() : nullptr;
  const Sizes size{.rows = static_cast<size_t>(shape.rows), .in = static_cast<size_t>(shape.in), .out = static_cast<size_t>(shape.out)};
  pthreadpool* threads = context.threads.HandleFor(shape.rows * shape.in * shape.out / kProductsPerElement);
  xnn_weights_cache_t cache = context.packed_weights->ProviderFor(MatrixOf(context, shape));
  if (!shape.integer_weights) return std::make_unique<XnnStep>(TRY(CreateFloat(context, size, bias, cache, threads)), threads);
  if (context.quantized_input == nullptr || !HasXnnScales(weights, shape.out)) return nullptr;
  XnnOperator op = TRY(CreateInteger(context, size, bias, cache, threads));
  return std::make_unique<XnnStep>(std::move(op), threads);
}

}  // namespace taskpress
