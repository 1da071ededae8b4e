// FULLY_CONNECTED with f32, i8 and i4 weights. With integer weights the input is first quantized to int8, row by row; matrices that read
// the same tensor share that copy.
#include <algorithm>
#include <cmath>
#include <cstddef>
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

// A kernel of r rows reads r scales and zero points, however few rows are left, and the results for those that are not there end up in the
// last one: what stands behind the end must repeat it. The library asks for 10 of them, but its kernels have up to 16 rows (seen with the
// 14 rows of qd8_f32_qb4w on AVX-512 with VNNI and GFNI, version 2024-11-08).
constexpr int64_t kParametersBehind = 16;
static_assert(kParametersBehind >= XNN_EXTRA_QUANTIZATION_PARAMS);

// Memory of a quantized input: [rows] scales and zero points, then [rows, columns] int8. XNNPACK reads some of both past their ends.
uint64_t ParameterBytes(int64_t rows) {
  return AlignUp((static_cast<uint64_t>(rows) + kParametersBehind) * sizeof(xnn_quantization_params), kTensorAlignment);
}
xnn_quantization_params* ParametersOf(const QuantizedInput& input) { return reinterpret_cast<xnn_quantization_params*>(input.memory); }
int8_t* CodesOf(const QuantizedInput& input) { return reinterpret_cast<int8_t*>(input.memory + ParameterBytes(input.rows)); }

uint64_t XnnBytes(int64_t rows, int64_t columns) {
  return AlignUp(ParameterBytes(rows) + static_cast<uint64_t>(rows * columns), kTensorAlignment);
}
uint64_t PackedRowBytes(int64_t rows) { return AlignUp(static_cast<uint64_t>(rows) * sizeof(PackedRow), kTensorAlignment); }

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

// Tiles of rows [first, first + count).
void QuantizeTiles(const QuantizedInput& input, const float* x, int64_t first, int64_t count) {
  const CodeRows copy = RowsOf(input);
  for (int64_t begin = first * kTileRows; begin < std::min((first + count) * kTileRows, input.rows); begin += kTileRows) {
    for (int64_t row = begin; row < std::min(begin + kTileRows, input.rows); ++row) {
      const RowQuantization quantization = QuantizeRow(x + row * input.columns, input.columns, copy.codes + row * input.columns);
      copy.parameters[row] = {.zero_point = quantization.zero_point, .scale = quantization.scale};
    }
    PackTile(input, begin);
  }
}

}  // namespace

std::vector<QuantizedInputPlan> PlanQuantizedInputs(const Subgraph& subgraph, const Plan& plan, bool packed) {
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
    QuantizedInputPlan input{.value = plan.values[static_cast<size_t>(op.inputs[0])],
                             .rows = elements / columns,
                             .columns = columns,
                             .packed = packed,
                             .ops = {}};
    const auto same = [&](const QuantizedInputPlan& other) {
      return other.value == input.value && other.rows == input.rows && other.columns == input.columns;
    };
    const auto found = std::ranges::find_if(inputs, same);
    (found != inputs.end() ? *found : inputs.emplace_back(std::move(input))).ops.push_back(index);
  }
  return inputs;
}

uint64_t QuantizedInputBytes(const QuantizedInputPlan& input) {
  const uint64_t xnn = XnnBytes(input.rows, input.columns);
  return input.packed ? xnn + PackedRowBytes(input.rows) + static_cast<uint64_t>(input.rows * PackedRowLength(input.columns)) : xnn;
}

PackedRow* PackedRowsOf(const QuantizedInput& input) {
  return reinterpret_cast<PackedRow*>(input.memory + XnnBytes(input.rows, input.columns));
}
int8_t* PackedCodesOf(const QuantizedInput& input) {
  return reinterpret_cast<int8_t*>(input.memory + XnnBytes(input.rows, input.columns) + PackedRowBytes(input.rows));
}

CodeRows RowsOf(const QuantizedInput& input) {
  static_assert(sizeof(RowParameters) == sizeof(xnn_quantization_params));
  static_assert(offsetof(RowParameters, zero_point) == offsetof(xnn_quantization_params, zero_point));
  static_assert(offsetof(RowParameters, scale) == offsetof(xnn_quantization_params, scale));
  return {.codes = CodesOf(input), .parameters = reinterpret_cast<RowParameters*>(input.memory)};
}

void PackTile(const QuantizedInput& input, int64_t first) {
  if (!input.packed) return;
  const CodeRows copy = RowsOf(input);
  PackedRow* packed = PackedRowsOf(input);
  const int64_t rows = std::min(kTileRows, input.rows - first);
  for (int64_t row = first; row < first + rows; ++row) {
    packed[row] = {.scale = copy.parameters[row].scale, .zero_point = copy.parameters[row].zero_point};
  }
  PackRows(copy.codes + first * input.columns, rows, input.columns, PackedCodesOf(input) + first * PackedRowLength(input.columns),
           packed + first);
}

void FillParametersBehind(const QuantizedInput& input) {
  RowParameters* parameters = RowsOf(input).parameters;
  std::fill_n(parameters + input.rows, kParametersBehind, parameters[input.rows - 1]);
}

Result<StepPtr> MakeQuantizeRows(const OpContext& context, const QuantizedInput& input) {
  TRY(CheckFullyConnected(context));
  return MakeStep([input, x = context.in(0).as<float>(), threads = &context.threads] {
    const int64_t tiles = (input.rows + kTileRows - 1) / kTileRows;
    const auto quantize = [&](int64_t first, int64_t count) { QuantizeTiles(input, x, first, count); };
    threads->ForEachBlock(tiles, std::min(kTileRows, input.rows) * input.columns, quantize);
    FillParametersBehind(input);
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
