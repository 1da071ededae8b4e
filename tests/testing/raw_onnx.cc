#include "tests/testing/raw_onnx.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "schema/base/error.h"
#include "schema/base/half.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using onnx::TensorProto;

constexpr std::string_view kTextPrefix = "model.language_model.";
constexpr int kBits = 4;
constexpr int64_t kBlock = 32;

std::vector<float> ReadAll(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  const RowBlock all{.first_row = 0, .num_rows = MatrixRows(tensor.shape), .first_column = 0, .num_columns = MatrixColumns(tensor.shape)};
  std::vector<float> values(static_cast<size_t>(all.num_rows * all.num_columns));
  EXPECT_TRUE(checkpoint.ReadRows(tensor, all, values).has_value()) << tensor.name;
  return values;
}

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// AltUp is no scope of the TorchScript exporter.
std::string WithoutAltup(const std::string& module) {
  std::string path = Replaced(module + ".", ".altup.", ".");
  path.pop_back();
  return path;
}

std::string WithSlashes(std::string text) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '.' && (text[i + 1] < '0' || text[i + 1] > '9')) text[i] = '/';
  }
  return text;
}

// Writes one exporter's model, tensor by tensor.
class Exporter {
 public:
  Exporter(OnnxStyle style, bool bf16) : style_(style), bf16_(bf16), model_(EmptyOnnx()) {}

  void Add(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
    const std::string module = name.substr(0, name.rfind('.'));
    if (module.contains("embed_tokens")) {
      AddTable(name, module, shape, values);
    } else if (shape.size() == 2) {
      AddLinear(name, module, shape, values);
    } else if (name.ends_with("norm.weight")) {
      AddGain(name, module, shape, values);
    } else {  // altup.correct_output_scale: a parameter of the layer's own
      AddInitializer(model_, Store(name, shape, values));
      Read("Mul", WithoutAltup(module), 1, name);
    }
  }

  onnx::ModelProto Finish() {
    // What every export holds besides: an index, a scalar, the angles of RoPE over 8 positions and a mask.
    AddInitializer(model_, RawOnnxTensor("val_7", TensorProto::INT64, {4}, std::string(32, '\0')));
    AddInitializer(model_, OnnxFloats("val_221", {}, std::vector<float>{1.0F}));
    AddInitializer(model_, OnnxFloats("unsqueeze_27", {1, 8, 1, 2}, std::vector<float>(16, 0.5F)));
    AddInitializer(model_, OnnxFloats("where_1", {1, 1, 8, 8}, std::vector<float>(64, -1.0F)));
    AddInitializer(model_, OnnxFloats("model.rotary_emb.full_attention_inv_freq", {16}, std::vector<float>(16, 0.1F)));
    Read("Mul", "model.layers.0.self_attn", 1, "unsqueeze_27");
    Read("Add", "model.layers.0.self_attn", 1, "where_1");
    Read("Mul", "model.rotary_emb", 1, "model.rotary_emb.full_attention_inv_freq");
    return std::move(model_);
  }

 private:
  [[nodiscard]] bool dynamo() const { return style_ == OnnxStyle::kDynamo || style_ == OnnxStyle::kDynamoUnoptimized; }

  [[nodiscard]] TensorProto Store(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values) const {
    if (!bf16_) return OnnxFloats(name, shape, values);
    std::vector<uint16_t> halves;
    for (const float value : values) halves.push_back(FloatToBf16(value));
    return RawOnnxTensor(name, TensorProto::BFLOAT16, shape, RawBytes(std::span<const uint16_t>(halves)));
  }

  std::string MadeUp(std::string_view op) { return dynamo() ? Format("val_{}", ++count_) : Format("onnx::{}_{}", op, ++count_); }

  onnx::NodeProto& Read(std::string_view op, const std::string& module, size_t input, const std::string& tensor) {
    std::vector<std::string> inputs(std::max<size_t>(input + 1, 2), "x");
    inputs[input] = tensor;
    const std::string slashed = style_ == OnnxStyle::kModelBuilder ? module : WithoutAltup(module);
    const std::string name = dynamo() ? Format("node_{}_{}", op, ++count_) : Format("/{}/{}", WithSlashes(slashed), op);
    onnx::NodeProto& node = AddOnnxNode(model_, op, name, inputs);
    if (dynamo()) SetOnnxScopes(node, module);
    return node;
  }

  void AddTable(const std::string& name, const std::string& module, const std::vector<int64_t>& shape, const std::vector<float>& values) {
    const bool tied = name == "model.embed_tokens.weight";
    const std::string stored = tied && dynamo() ? "lm_head.weight" : name;
    AddInitializer(model_, Store(stored, shape, values));
    Read("Gather", module, 0, stored);
    if (!tied) return;
    if (dynamo()) {
      Read("Transpose", "lm_head", 0, stored).set_output(0, "table_transposed");
      Read("MatMul", "lm_head", 1, "table_transposed");
    } else {
      AddTransposed(MadeUp("MatMul"), "lm_head", shape, values);
    }
  }

  void AddTransposed(const std::string& stored, const std::string& module, const std::vector<int64_t>& shape,
                     const std::vector<float>& values) {
    const auto rows = static_cast<size_t>(shape[0]);
    const auto columns = static_cast<size_t>(shape[1]);
    std::vector<float> turned(values.size());
    for (size_t row = 0; row < rows; ++row) {
      for (size_t column = 0; column < columns; ++column) turned[column * rows + row] = values[row * columns + column];
    }
    AddInitializer(model_, Store(stored, {shape[1], shape[0]}, turned));
    Read("MatMul", module, 1, stored);
  }

  void AddLinear(const std::string& name, const std::string& module, const std::vector<int64_t>& shape, const std::vector<float>& values) {
    switch (style_) {
      case OnnxStyle::kTorchScript:
      case OnnxStyle::kDynamo:
        return AddTransposed(MadeUp("MatMul"), module, shape, values);
      case OnnxStyle::kModelBuilder: {
        const std::string builders = Replaced(module, ".self_attn.", ".attn.");
        return AddTransposed(builders + ".MatMul.weight", builders, shape, values);
      }
      case OnnxStyle::kDynamoUnoptimized:
        AddInitializer(model_, Store(name, shape, values));
        Read("Transpose", module, 0, name).set_output(0, name + "_transposed");
        Read("MatMul", module, 1, name + "_transposed");
        return;
      case OnnxStyle::kQuantized: {
        QuantizedOnnx quantized = QuantizeOnnx(MadeUp("MatMul") + "_Q4", values, shape[0], shape[1], kBits, kBlock);
        onnx::NodeProto& node = Read("MatMulNBits", module, 1, quantized.codes.name());
        node.set_name(Format("/{}/MatMul_Q4", WithSlashes(WithoutAltup(module))));
        node.set_domain("com.microsoft");
        node.add_input(quantized.scales.name());
        node.add_input(quantized.zero_points.name());
        SetOnnxInteger(node, "N", shape[0]);
        SetOnnxInteger(node, "K", shape[1]);
        SetOnnxInteger(node, "bits", kBits);
        SetOnnxInteger(node, "block_size", kBlock);
        AddInitializer(model_, std::move(quantized.codes));
        AddInitializer(model_, std::move(quantized.scales));
        AddInitializer(model_, std::move(quantized.zero_points));
        return;
      }
    }
  }

  void AddGain(const std::string& name, const std::string& module, const std::vector<int64_t>& shape, const std::vector<float>& values) {
    const bool named = style_ == OnnxStyle::kModelBuilder || (dynamo() && !bf16_);
    const std::string stored = named ? name : MadeUp("Mul");
    AddInitializer(model_, OnnxFloats(stored, shape, values));  // norms work in float32
    Read("Mul", module, 1, stored);
    if (named || !module.ends_with("router_norm") || dynamo()) return;
    // Called again: TorchScript numbers the scope, and reads an Identity of the tensor.
    AddOnnxNode(model_, "Identity", Format("Identity_{}", ++count_), {stored}).set_output(0, stored + "_again");
    Read("Mul", module + "_1", 1, stored + "_again");
  }

  OnnxStyle style_;
  bool bf16_;
  int count_ = 100;
  onnx::ModelProto model_;
};

}  // namespace

onnx::ModelProto EmptyOnnx() {
  onnx::ModelProto model;
  model.set_ir_version(10);
  model.mutable_graph()->set_name("main_graph");
  model.add_opset_import()->set_version(20);
  return model;
}

TensorProto RawOnnxTensor(std::string name, int type, const std::vector<int64_t>& dims, std::string bytes) {
  TensorProto tensor;
  tensor.set_name(std::move(name));
  tensor.set_data_type(type);
  for (const int64_t dimension : dims) tensor.add_dims(dimension);
  tensor.set_raw_data(std::move(bytes));
  return tensor;
}

TensorProto OnnxFloats(std::string name, const std::vector<int64_t>& dims, std::span<const float> values) {
  return RawOnnxTensor(std::move(name), TensorProto::FLOAT, dims, RawBytes(values));
}

void AddInitializer(onnx::ModelProto& model, TensorProto tensor) { *model.mutable_graph()->add_initializer() = std::move(tensor); }

onnx::NodeProto& AddOnnxNode(onnx::ModelProto& model, std::string_view op, std::string_view name, const std::vector<std::string>& inputs) {
  onnx::NodeProto& node = *model.mutable_graph()->add_node();
  node.set_op_type(std::string(op));
  node.set_name(std::string(name));
  for (const std::string& input : inputs) node.add_input(input);
  node.add_output(std::string(name) + "_out");
  return node;
}

void SetOnnxInteger(onnx::NodeProto& node, std::string_view name, int64_t value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(std::string(name));
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}

void SetOnnxScopes(onnx::NodeProto& node, std::string_view path) {
  onnx::StringStringEntryProto& entry = *node.add_metadata_props();
  entry.set_key("pkg.torch.onnx.name_scopes");
  entry.set_value(Format("['', 'model', '{}', '{}']", path, node.name()));
}

onnx::ModelProto ExportOnnx(const Checkpoint& checkpoint, OnnxStyle style, bool bf16) {
  Exporter exporter(style, bf16);
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (!tensor.name.starts_with(kTextPrefix)) continue;
    exporter.Add("model." + tensor.name.substr(kTextPrefix.size()), tensor.shape, ReadAll(checkpoint, tensor));
  }
  return exporter.Finish();
}

QuantizedOnnx QuantizeOnnx(const std::string& name, std::span<const float> values, int64_t rows, int64_t columns, int bits,
                           int64_t block_size) {
  const int64_t blocks = (columns + block_size - 1) / block_size;
  const int64_t blob = block_size * bits / 8;
  const int64_t zero_bytes = (blocks * bits + 7) / 8;
  const int largest = (1 << bits) - 1;
  std::string codes(static_cast<size_t>(rows * blocks * blob), '\0');
  std::string zero_points(static_cast<size_t>(rows * zero_bytes), '\0');
  std::vector<float> scales;
  QuantizedOnnx out;
  const auto put = [bits](std::string& bytes, int64_t start, int64_t index, int code) {
    const int64_t at = bits == 8 ? start + index : start + index / 2;
    char& byte = bytes[static_cast<size_t>(at)];
    byte = static_cast<char>(static_cast<unsigned char>(byte) | (bits == 4 && index % 2 == 1 ? code << 4 : code));
  };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const auto first = static_cast<size_t>(row * columns + block * block_size);
      const auto size = static_cast<size_t>(std::min(block_size, columns - block * block_size));
      const auto [low, high] = std::ranges::minmax(values.subspan(first, size));
      const float scale = std::max((std::max(high, 0.0F) - std::min(low, 0.0F)) / static_cast<float>(largest), 1e-8F);
      const int zero = std::clamp(static_cast<int>(std::lround(-std::min(low, 0.0F) / scale)), 0, largest);
      scales.push_back(scale);
      put(zero_points, row * zero_bytes, block, zero);
      for (size_t i = 0; i < size; ++i) {
        const int code = std::clamp(static_cast<int>(std::lround(values[first + i] / scale)) + zero, 0, largest);
        put(codes, (row * blocks + block) * blob, static_cast<int64_t>(i), code);
        out.values.push_back(static_cast<float>(code - zero) * scale);
      }
    }
  }
  out.codes = RawOnnxTensor(name, TensorProto::UINT8, {rows, blocks, blob}, std::move(codes));
  out.scales = OnnxFloats(name + "_scales", {rows * blocks}, scales);
  out.zero_points = RawOnnxTensor(name + "_zero_points", TensorProto::UINT8, {rows * zero_bytes}, std::move(zero_points));
  return out;
}

std::string MoveOutside(onnx::ModelProto& model, const std::string& location, size_t smallest) {
  constexpr size_t kAlignment = 4096;
  std::string file;
  const auto add = [](TensorProto& tensor, std::string_view key, std::string value) {
    onnx::StringStringEntryProto& entry = *tensor.add_external_data();
    entry.set_key(std::string(key));
    entry.set_value(std::move(value));
  };
  for (TensorProto& tensor : *model.mutable_graph()->mutable_initializer()) {
    if (tensor.raw_data().size() < smallest) continue;
    file.resize((file.size() + kAlignment - 1) / kAlignment * kAlignment);
    add(tensor, "location", location);
    add(tensor, "offset", std::to_string(file.size()));
    add(tensor, "length", std::to_string(tensor.raw_data().size()));
    file += tensor.raw_data();
    tensor.clear_raw_data();
    tensor.set_data_location(TensorProto::EXTERNAL);
  }
  return file;
}

}  // namespace taskpress
