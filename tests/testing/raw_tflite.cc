#include "tests/testing/raw_tflite.h"

#include <algorithm>
#include <array>
#include <bit>

namespace taskpress::testing {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

Offset<tflite::Tensor> Build(FlatBufferBuilder& b, const RawTfliteTensor& from);
Offset<tflite::Operator> Build(FlatBufferBuilder& b, const RawOperator& from);
Offset<tflite::SubGraph> Build(FlatBufferBuilder& b, const RawSubgraph& from);
Offset<tflite::Buffer> Build(FlatBufferBuilder& b, const RawBuffer& from);
Offset<tflite::OperatorCode> Build(FlatBufferBuilder& b, const RawOperatorCode& from);
Offset<tflite::TensorMap> Build(FlatBufferBuilder& b, const std::pair<std::string, uint32_t>& from);
Offset<tflite::SignatureDef> Build(FlatBufferBuilder& b, const RawSignature& from);

template <typename Table, typename Raw>
Offset<flatbuffers::Vector<Offset<Table>>> BuildAll(FlatBufferBuilder& b, const std::vector<Raw>& from) {
  std::vector<Offset<Table>> built;
  for (const Raw& raw : from) built.push_back(Build(b, raw));
  return b.CreateVector(built);
}

Offset<tflite::QuantizationParameters> Build(FlatBufferBuilder& b, const RawQuantization& from) {
  const auto scales = b.CreateVector(from.scales);
  const auto zero_points = b.CreateVector(from.zero_points);
  Offset<void> details;
  const auto& [block_scales, block_zero_points, block_size] = from.blocks;
  if (from.details != tflite::QuantizationDetails::NONE && !from.no_details) {
    details = tflite::CreateBlockwiseQuantization(b, block_scales, block_zero_points, block_size).Union();
  }
  return tflite::CreateQuantizationParameters(b, 0, 0, scales, zero_points, from.details, details, from.axis);
}

Offset<tflite::Tensor> Build(FlatBufferBuilder& b, const RawTfliteTensor& from) {
  const auto name = b.CreateString(from.name);
  const auto shape = b.CreateVector(from.shape);
  Offset<tflite::QuantizationParameters> quantization;
  if (from.quantization) quantization = Build(b, *from.quantization);
  Offset<tflite::SparsityParameters> sparsity;
  if (from.is_sparse) sparsity = tflite::CreateSparsityParameters(b);
  Offset<flatbuffers::Vector<int32_t>> signature;
  if (!from.shape_signature.empty()) signature = b.CreateVector(from.shape_signature);
  tflite::TensorBuilder tensor(b);
  tensor.add_name(name);
  tensor.add_shape(shape);
  tensor.add_type(from.type);
  tensor.add_buffer(from.buffer);
  tensor.add_quantization(quantization);
  tensor.add_sparsity(sparsity);
  tensor.add_shape_signature(signature);
  tensor.add_is_variable(from.is_variable);
  tensor.add_external_buffer(from.external_buffer);
  return tensor.Finish();
}

Offset<tflite::Operator> Build(FlatBufferBuilder& b, const RawOperator& from) {
  Offset<void> options;
  if (from.options) options = from.options(b);
  const auto inputs = b.CreateVector(from.inputs);
  const auto outputs = b.CreateVector(from.outputs);
  return tflite::CreateOperator(b, from.code, inputs, outputs, from.options_type, options);
}

Offset<tflite::SubGraph> Build(FlatBufferBuilder& b, const RawSubgraph& from) {
  const auto tensors = BuildAll<tflite::Tensor>(b, from.tensors);
  const auto operators = BuildAll<tflite::Operator>(b, from.operators);
  const auto inputs = b.CreateVector(from.inputs);
  const auto outputs = b.CreateVector(from.outputs);
  return tflite::CreateSubGraph(b, tensors, inputs, outputs, operators, b.CreateString(from.name));
}

Offset<tflite::Buffer> Build(FlatBufferBuilder& b, const RawBuffer& from) {
  Offset<flatbuffers::Vector<uint8_t>> data;
  if (!from.data.empty()) {
    b.ForceVectorAlignment(from.data.size(), 1, 16);
    data = b.CreateVector(from.data);
  }
  return tflite::CreateBuffer(b, data, from.offset, from.size);
}

Offset<tflite::OperatorCode> Build(FlatBufferBuilder& b, const RawOperatorCode& from) {
  Offset<flatbuffers::String> custom;
  if (!from.custom.empty()) custom = b.CreateString(from.custom);
  return tflite::CreateOperatorCode(b, from.deprecated, custom, 1, from.builtin);
}

Offset<tflite::TensorMap> Build(FlatBufferBuilder& b, const std::pair<std::string, uint32_t>& from) {
  return tflite::CreateTensorMap(b, b.CreateString(from.first), from.second);
}

Offset<tflite::SignatureDef> Build(FlatBufferBuilder& b, const RawSignature& from) {
  const auto inputs = BuildAll<tflite::TensorMap>(b, from.inputs);
  const auto outputs = BuildAll<tflite::TensorMap>(b, from.outputs);
  return tflite::CreateSignatureDef(b, inputs, outputs, b.CreateString(from.key), from.subgraph);
}

}  // namespace

std::string RawModel::Bytes() const {
  FlatBufferBuilder b;
  const auto operator_codes = BuildAll<tflite::OperatorCode>(b, codes);
  const auto graphs = BuildAll<tflite::SubGraph>(b, subgraphs);
  const auto constants = BuildAll<tflite::Buffer>(b, buffers);
  std::vector<Offset<tflite::Metadata>> entries;
  for (const auto& [name, buffer] : metadata) entries.push_back(tflite::CreateMetadata(b, b.CreateString(name), buffer));
  const auto all_metadata = b.CreateVector(entries);
  const auto all_signatures = BuildAll<tflite::SignatureDef>(b, signatures);
  const auto description = b.CreateString("by hand");
  b.Finish(tflite::CreateModel(b, version, operator_codes, graphs, description, constants, 0, all_metadata, all_signatures),
           identifier.c_str());
  std::string bytes(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
  bytes.resize(std::max(bytes.size(), kBehindRoot));
  return bytes + behind_root;
}

RawModel HonestModel() {
  RawModel model;
  model.codes = {{.builtin = 9, .deprecated = 9, .custom = {}}, {.builtin = 0, .deprecated = 0, .custom = {}}};
  const std::vector<float> offsets = {0.5F, -1.0F, 2.0F};
  const auto bits = [](float value) { return std::bit_cast<std::array<uint8_t, sizeof(float)>>(value); };
  std::vector<uint8_t> constant;
  for (const float value : offsets) {
    for (const uint8_t byte : bits(value)) constant.push_back(byte);
  }
  model.buffers = {{}, {.data = {}, .offset = kBehindRoot, .size = 12}, {.data = constant, .offset = 0, .size = 0}};
  RawSubgraph main{.name = "main", .tensors = {}, .operators = {}, .inputs = {0}, .outputs = {4}};
  main.tensors = {{.name = "x", .type = 0, .shape = {1, 2, 4}},
                  {.name = "weights",
                   .type = 9,
                   .shape = {3, 4},
                   .buffer = 1,
                   .quantization = RawQuantization{.scales = {0.5F, 0.25F, 0.125F}, .zero_points = {0, 0, 0}}},
                  {.name = "product", .type = 0, .shape = {1, 2, 3}},
                  {.name = "offsets", .type = 0, .shape = {3}, .buffer = 2},
                  {.name = "y", .type = 0, .shape = {1, 2, 3}}};
  main.operators = {{.code = 0,
                     .inputs = {0, 1},
                     .outputs = {2},
                     .options_type = tflite::BuiltinOptions::FullyConnectedOptions,
                     .options = [](FlatBufferBuilder& b) { return tflite::CreateFullyConnectedOptions(b, 0, 0, true).Union(); }},
                    {.code = 1,
                     .inputs = {2, 3},
                     .outputs = {4},
                     .options_type = tflite::BuiltinOptions::AddOptions,
                     .options = [](FlatBufferBuilder& b) { return tflite::CreateAddOptions(b).Union(); }}};
  model.subgraphs.push_back(std::move(main));
  model.signatures = {{.key = "run", .inputs = {{"x", 0}}, .outputs = {{"y", 4}}, .subgraph = 0}};
  for (int i = 0; i < 12; ++i) model.behind_root += static_cast<char>(i - 6);
  return model;
}

}  // namespace taskpress::testing
