#include "tests/testing/toy_graph.h"

#include <algorithm>
#include <cmath>

#include "schema/base/half.h"

namespace taskpress::testing {

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(engine() >> 8U) * 0x1p-23F - 1.0F;
  return values;
}

void ToyGraph::Begin(std::string key) {
  graph_.subgraphs.push_back({.name = key, .tensors = {}, .ops = {}, .inputs = {}, .outputs = {}});
  graph_.signatures.push_back({.key = std::move(key), .subgraph = subgraph(), .inputs = {}, .outputs = {}});
}

TensorId ToyGraph::AddTensor(Tensor tensor) {
  const auto id = static_cast<TensorId>(current().tensors.size());
  if (tensor.name.empty()) tensor.name = "t" + std::to_string(id);
  current().tensors.push_back(std::move(tensor));
  return id;
}

int32_t ToyGraph::AddBuffer(ByteView bytes) {
  graph_.buffers.push_back({.bytes = MakeMemorySource(bytes)});
  return static_cast<int32_t>(graph_.buffers.size()) - 1;
}

TensorId ToyGraph::Input(std::string name, DType type, Shape shape) {
  const TensorId id = AddTensor({.name = name, .type = type, .shape = std::move(shape)});
  current().inputs.push_back(id);
  graph_.signatures.back().inputs.emplace_back(std::move(name), id);
  return id;
}

void ToyGraph::Output(std::string name, TensorId id) {
  current().outputs.push_back(id);
  graph_.signatures.back().outputs.emplace_back(std::move(name), id);
}

TensorId ToyGraph::Floats(Shape shape, std::span<const float> values) {
  return AddTensor({.name = {}, .type = DType::kF32, .shape = std::move(shape), .buffer = AddBuffer(std::as_bytes(values))});
}

TensorId ToyGraph::Ints(std::initializer_list<int32_t> values) {
  const std::span<const int32_t> span(values.begin(), values.size());
  return AddTensor(
      {.name = {}, .type = DType::kI32, .shape = {static_cast<int64_t>(values.size())}, .buffer = AddBuffer(std::as_bytes(span))});
}

TensorId ToyGraph::Halves(Shape shape, std::span<const float> values) {
  std::vector<uint16_t> halves;
  for (const float value : values) halves.push_back(FloatToF16(value));
  return AddTensor(
      {.name = {}, .type = DType::kF16, .shape = std::move(shape), .buffer = AddBuffer(std::as_bytes(std::span<const uint16_t>(halves)))});
}

TensorId ToyGraph::Quantized(DType type, Shape shape, std::span<const float> values) {
  const auto rows = static_cast<size_t>(shape[0]);
  const size_t columns = values.size() / rows;
  const float largest_code = type == DType::kI4 ? 7.0F : 127.0F;
  std::vector<float> scales;
  std::vector<std::byte> packed(NumBytes(type, shape).value());
  for (size_t row = 0; row < rows; ++row) {
    float largest = 0.0F;
    for (const float value : values.subspan(row * columns, columns)) largest = std::max(largest, std::abs(value));
    const float scale = largest == 0.0F ? 1.0F : largest / largest_code;
    scales.push_back(scale);
    for (size_t i = row * columns; i < (row + 1) * columns; ++i) {
      const auto code = static_cast<uint32_t>(static_cast<int32_t>(std::nearbyint(values[i] / scale)));
      if (type == DType::kI8) {
        packed[i] = static_cast<std::byte>(code & 0xFFU);
      } else {
        packed[i / 2] |= static_cast<std::byte>((code & 0xFU) << (i % 2 == 0 ? 0U : 4U));
      }
    }
  }
  graph_.quantizations.push_back(
      {.axis = 0, .num_scales = static_cast<int64_t>(rows), .scales = MakeMemorySource(std::span<const float>(scales))});
  return AddTensor({.name = {},
                    .type = type,
                    .shape = std::move(shape),
                    .buffer = AddBuffer(packed),
                    .quantization = static_cast<int32_t>(graph_.quantizations.size()) - 1});
}

TensorId ToyGraph::Blocks(Shape shape, int64_t block_size, std::span<const float> values) {
  std::vector<float> scales;
  std::vector<std::byte> packed(values.size() / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % static_cast<size_t>(block_size) == 0) {
      float largest = 0.0F;
      for (const float value : values.subspan(i, static_cast<size_t>(block_size))) largest = std::max(largest, std::abs(value));
      scales.push_back(std::max(Bf16ToFloat(FloatToBf16(largest / 7.0F)), 0x1p-14F));
    }
    const auto code = static_cast<uint32_t>(static_cast<int32_t>(std::clamp(std::nearbyint(values[i] / scales.back()), -8.0F, 7.0F)));
    packed[i / 2] |= static_cast<std::byte>((code & 0xFU) << (i % 2 == 0 ? 0U : 4U));
  }
  const TensorId block_scales = Halves({shape[0], shape[1] / block_size}, scales);
  return AddTensor({.name = {}, .type = DType::kI4, .shape = std::move(shape), .buffer = AddBuffer(packed), .block_scales = block_scales});
}

TensorId ToyGraph::SameConstant(int32_t subgraph, TensorId id) {
  Tensor tensor = graph_.subgraphs[static_cast<size_t>(subgraph)].tensors[static_cast<size_t>(id)];
  return AddTensor(std::move(tensor));
}

TensorId ToyGraph::Op(OpKind kind, std::vector<TensorId> inputs, Shape shape, OpAttributes attributes, DType type) {
  const TensorId output = AddTensor({.name = {}, .type = type, .shape = std::move(shape)});
  current().ops.push_back({.kind = kind, .inputs = std::move(inputs), .outputs = {output}, .attributes = attributes});
  return output;
}

}  // namespace taskpress::testing
