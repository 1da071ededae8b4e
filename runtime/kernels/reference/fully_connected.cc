// FULLY_CONNECTED. f32 weights: sums in float64. i8 and i4 weights: XNNPACK's arithmetic, that is int8 inputs per row, exact int32 sums,
// then float32: sum * row scale, fused multiply-add with the channel's scale and bias. Blocks: each block's exact sum times its scale,
// added up in float32 in the order of the columns; that sum * row scale + bias.
#include <cmath>
#include <vector>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/packed_int4.h"
#include "runtime/kernels/reference/quantized_activation.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {
namespace {

StepPtr MakeFloat(const OpContext& context, const FullyConnectedShape& shape) {
  const float* bias = context.has_input(2) ? context.in(2).as<float>() : nullptr;
  return MakeStep([shape, bias, x = context.in(0).as<float>(), weights = context.in(1).as<float>(), out = context.out().out<float>()] {
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (int64_t channel = 0; channel < shape.out; ++channel) {
        double sum = bias == nullptr ? 0.0 : static_cast<double>(bias[channel]);
        for (int64_t i = 0; i < shape.in; ++i) {
          sum += static_cast<double>(x[row * shape.in + i]) * static_cast<double>(weights[channel * shape.in + i]);
        }
        out[row * shape.out + channel] = static_cast<float>(sum);
      }
    }
  });
}

StepPtr MakeInteger(const OpContext& context, const FullyConnectedShape& shape) {
  const float* bias = context.has_input(2) ? context.in(2).as<float>() : nullptr;
  std::vector<int32_t> codes(static_cast<size_t>(shape.in));  // q - zero point
  return MakeStep([shape, bias, codes = std::move(codes), x = context.in(0).as<float>(), weights = &context.in(1),
                   out = context.out().out<float>()]() mutable {
    for (int64_t row = 0; row < shape.rows; ++row) {
      const std::span<const float> values(x + row * shape.in, static_cast<size_t>(shape.in));
      const RowQuantization quantization = QuantizationOfRow(values);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = QuantizeActivation(values[i], quantization) - quantization.zero_point;
      for (int64_t channel = 0; channel < shape.out; ++channel) {
        int32_t sum = 0;
        for (int64_t i = 0; i < shape.in; ++i) {
          const int64_t element = channel * shape.in + i;
          const int32_t weight = weights->type == DType::kI8 ? weights->as<int8_t>()[element] : Int4At(weights->data, element);
          sum += codes[static_cast<size_t>(i)] * weight;
        }
        const float scale = weights->scales[weights->scales.size() == 1 ? 0 : static_cast<size_t>(channel)];
        const float scaled = static_cast<float>(sum) * quantization.scale;
        out[row * shape.out + channel] = std::fma(scaled, scale, bias == nullptr ? 0.0F : bias[channel]);
      }
    }
  });
}

StepPtr MakeBlocks(const OpContext& context, const FullyConnectedShape& shape) {
  const float* bias = context.has_input(2) ? context.in(2).as<float>() : nullptr;
  std::vector<int32_t> codes(static_cast<size_t>(shape.in));  // q - zero point
  return MakeStep([shape, bias, codes = std::move(codes), x = context.in(0).as<float>(), weights = &context.in(1),
                   out = context.out().out<float>()]() mutable {
    const int64_t blocks = shape.in / weights->block_size;
    for (int64_t row = 0; row < shape.rows; ++row) {
      const std::span<const float> values(x + row * shape.in, static_cast<size_t>(shape.in));
      const RowQuantization quantization = QuantizationOfRow(values);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = QuantizeActivation(values[i], quantization) - quantization.zero_point;
      for (int64_t channel = 0; channel < shape.out; ++channel) {
        float total = 0;
        for (int64_t block = 0; block < blocks; ++block) {
          int32_t sum = 0;
          for (int64_t i = block * weights->block_size; i < (block + 1) * weights->block_size; ++i) {
            sum += codes[static_cast<size_t>(i)] * Int4At(weights->data, channel * shape.in + i);
          }
          total += static_cast<float>(sum) * weights->scales[static_cast<size_t>(channel * blocks + block)];
        }
        out[row * shape.out + channel] = total * quantization.scale + (bias == nullptr ? 0.0F : bias[channel]);
      }
    }
  });
}

}  // namespace

Result<StepPtr> MakeFullyConnected(const OpContext& context) {
  const FullyConnectedShape shape = TRY(CheckFullyConnected(context));
  if (shape.integer_weights && shape.in > kMaxIntegerColumns) return context.Unsupported("integer weights with more than 65536 columns");
  if (context.in(1).block_size > 0) return MakeBlocks(context, shape);
  return shape.integer_weights ? MakeInteger(context, shape) : MakeFloat(context, shape);
}

}  // namespace taskpress::reference
