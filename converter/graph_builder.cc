#include "converter/graph_builder.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <ranges>

#include "schema/base/hash.h"

namespace taskpress {
namespace {

// NumPy's rule, which is TFLite's. Nothing when the shapes do not go together.
std::optional<Shape> Broadcast(const Shape& a, const Shape& b) {
  const size_t rank = std::max(a.size(), b.size());
  Shape out(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t left = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t right = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (left != right && left != 1 && right != 1) return std::nullopt;
    out[rank - 1 - i] = std::max(left, right);
  }
  return out;
}

}  // namespace

void GraphBuilder::Report(Error error) {
  if (!error_) error_ = std::move(error);
}

Value GraphBuilder::Broken(OpKind kind, std::string_view why) {
  Report({ErrorCode::kGraphShape,
          std::format("subgraph \"{}\", operator {} {}: {}", subgraph_.name, subgraph_.ops.size(), NameOf(kind), why)});
  return {};
}

void GraphBuilder::BeginSubgraph(std::string_view name) {
  subgraph_ = Subgraph{.name = std::string(name)};
  input_names_.clear();
  subgraph_constants_.clear();
}

Value GraphBuilder::Input(std::string_view name, DType type, Shape shape) {
  subgraph_.tensors.push_back({.name = std::string(name), .type = type, .shape = std::move(shape)});
  const auto id = static_cast<TensorId>(subgraph_.tensors.size() - 1);
  subgraph_.inputs.push_back(id);
  input_names_.emplace_back(name);
  return {id};
}

int32_t GraphBuilder::AddBuffer(const Weight& weight) {
  const auto known = model_constants_.find(weight.name);
  if (known != model_constants_.end()) return known->second.first;
  graph_.buffers.push_back({weight.bytes});
  const auto buffer = static_cast<int32_t>(graph_.buffers.size() - 1);
  int32_t quantization = kNone;
  if (weight.type == DType::kI8 || weight.type == DType::kI4) {
    graph_.quantizations.push_back({.axis = 0, .num_scales = weight.shape.empty() ? 0 : weight.shape[0], .scales = nullptr});
    quantization = static_cast<int32_t>(graph_.quantizations.size() - 1);
  }
  model_constants_[weight.name] = {buffer, quantization};
  return buffer;
}

Value GraphBuilder::Constant(const Weight& weight) {
  if (!ok()) return {};
  const auto known = subgraph_constants_.find(weight.name);
  if (known != subgraph_constants_.end()) return {known->second};
  const int32_t buffer = AddBuffer(weight);
  subgraph_.tensors.push_back({.name = weight.name,
                               .type = weight.type,
                               .shape = weight.shape,
                               .buffer = buffer,
                               .quantization = model_constants_[weight.name].second});
  const auto id = static_cast<TensorId>(subgraph_.tensors.size() - 1);
  subgraph_constants_[weight.name] = id;
  return {id};
}

Value GraphBuilder::Float(float value) { return Floats(std::span(&value, 1), {1}); }

Value GraphBuilder::Floats(std::span<const float> values, Shape shape) {
  const ByteView bytes = std::as_bytes(values);
  std::string name = values.size() == 1 ? std::format("const.{}", values[0]) : std::format("const.{}", Sha256Hex(bytes).substr(0, 16));
  name += ToString(shape);
  return Constant({.name = std::move(name), .type = DType::kF32, .shape = std::move(shape), .bytes = MakeMemorySource(bytes)});
}

Value GraphBuilder::Integers(std::span<const int32_t> values) {
  std::string name = "const.i32";
  if (values.size() <= 8) {
    for (const int32_t value : values) name += std::format(".{}", value);
  } else {
    name += "." + Sha256Hex(std::as_bytes(values)).substr(0, 16);
  }
  return Constant(
      {.name = std::move(name), .type = DType::kI32, .shape = {static_cast<int64_t>(values.size())}, .bytes = MakeMemorySource(values)});
}

Value GraphBuilder::Emit(OpKind kind, std::vector<TensorId> inputs, DType type, Shape shape, OpAttributes attributes) {
  if (!ok()) return {};
  subgraph_.tensors.push_back({.name = std::format("{}.{}", NameOf(kind), subgraph_.ops.size()), .type = type, .shape = std::move(shape)});
  const auto output = static_cast<TensorId>(subgraph_.tensors.size() - 1);
  subgraph_.ops.push_back({.kind = kind, .inputs = std::move(inputs), .outputs = {output}, .attributes = std::move(attributes)});
  return {output};
}

Value GraphBuilder::Unary(OpKind kind, Value x) {
  if (!ok()) return {};
  return Emit(kind, {x.id}, tensor(x).type, shape(x));
}

Value GraphBuilder::Binary(OpKind kind, Value a, Value b) {
  if (!ok()) return {};
  std::optional<Shape> out = Broadcast(shape(a), shape(b));
  if (!out || tensor(a).type != tensor(b).type) {
    return Broken(kind,
                  std::format("{} {} and {} {}", NameOf(tensor(a).type), ToString(shape(a)), NameOf(tensor(b).type), ToString(shape(b))));
  }
  return Emit(kind, {a.id, b.id}, tensor(a).type, *std::move(out));
}

Value GraphBuilder::Add(Value a, Value b) { return Binary(OpKind::kAdd, a, b); }
Value GraphBuilder::Sub(Value a, Value b) { return Binary(OpKind::kSub, a, b); }
Value GraphBuilder::Mul(Value a, Value b) { return Binary(OpKind::kMul, a, b); }
Value GraphBuilder::Minimum(Value a, Value b) { return Binary(OpKind::kMinimum, a, b); }
Value GraphBuilder::Maximum(Value a, Value b) { return Binary(OpKind::kMaximum, a, b); }
Value GraphBuilder::Square(Value x) { return Unary(OpKind::kSquare, x); }
Value GraphBuilder::Sqrt(Value x) { return Unary(OpKind::kSqrt, x); }
Value GraphBuilder::Rsqrt(Value x) { return Unary(OpKind::kRsqrt, x); }
Value GraphBuilder::Tanh(Value x) { return Unary(OpKind::kTanh, x); }
Value GraphBuilder::Relu(Value x) { return Unary(OpKind::kRelu, x); }
Value GraphBuilder::Cos(Value x) { return Unary(OpKind::kCos, x); }
Value GraphBuilder::Sin(Value x) { return Unary(OpKind::kSin, x); }

Value GraphBuilder::GeluTanh(Value x) {
  if (!ok()) return {};
  return Emit(OpKind::kGelu, {x.id}, tensor(x).type, shape(x), GeluAttributes{.approximate = true});
}

Value GraphBuilder::IntegersToFloats(Value x) {
  if (!ok()) return {};
  return Emit(OpKind::kCast, {x.id}, DType::kF32, shape(x), CastAttributes{.from = DType::kI32, .to = DType::kF32});
}

Value GraphBuilder::MeanOfLast(Value x) {
  if (!ok()) return {};
  Shape out = shape(x);
  const auto axis = static_cast<int32_t>(out.size()) - 1;
  out.back() = 1;
  return Emit(OpKind::kMean, {x.id, Integers(std::span(&axis, 1)).id}, DType::kF32, std::move(out), MeanAttributes{.keep_dims = true});
}

Value GraphBuilder::Softmax(Value x) {
  if (!ok()) return {};
  return Emit(OpKind::kSoftmax, {x.id}, DType::kF32, shape(x), SoftmaxAttributes{.beta = 1.0F});
}

Value GraphBuilder::Slice(Value x, std::span<const int32_t> begin, std::span<const int32_t> size) {
  if (!ok()) return {};
  const Shape& in = shape(x);
  if (begin.size() != in.size() || size.size() != in.size()) return Broken(OpKind::kSlice, std::format("rank of {}", ToString(in)));
  for (size_t i = 0; i < in.size(); ++i) {
    if (begin[i] < 0 || size[i] < 1 || begin[i] + size[i] > in[i]) {
      return Broken(OpKind::kSlice, std::format("[{}, +{}) of dimension {} of {}", begin[i], size[i], i, ToString(in)));
    }
  }
  return Emit(OpKind::kSlice, {x.id, Integers(begin).id, Integers(size).id}, tensor(x).type, Shape(size.begin(), size.end()));
}

Value GraphBuilder::SliceOfLast(Value x, int64_t begin, int64_t size) {
  if (!ok()) return {};
  std::vector<int32_t> begins(shape(x).size(), 0);
  std::vector<int32_t> sizes;
  for (const int64_t dimension : shape(x)) sizes.push_back(static_cast<int32_t>(dimension));
  begins.back() = static_cast<int32_t>(begin);
  sizes.back() = static_cast<int32_t>(size);
  return Slice(x, begins, sizes);
}

Value GraphBuilder::Reshape(Value x, Shape to) {
  if (!ok()) return {};
  if (shape(x) == to) return x;
  if (NumElements(to) != NumElements(shape(x))) return Broken(OpKind::kReshape, std::format("{} to {}", ToString(shape(x)), ToString(to)));
  std::vector<int32_t> dimensions;
  for (const int64_t dimension : to) dimensions.push_back(static_cast<int32_t>(dimension));
  return Emit(OpKind::kReshape, {x.id, Integers(dimensions).id}, tensor(x).type, std::move(to));
}

Value GraphBuilder::Transpose(Value x, std::span<const int32_t> permutation) {
  if (!ok()) return {};
  std::vector<int32_t> sorted(permutation.begin(), permutation.end());
  std::ranges::sort(sorted);
  std::vector<int32_t> identity(shape(x).size());
  std::iota(identity.begin(), identity.end(), 0);
  if (sorted != identity) return Broken(OpKind::kTranspose, std::format("not a permutation of {}", ToString(shape(x))));
  Shape out;
  for (const int32_t axis : permutation) out.push_back(shape(x)[static_cast<size_t>(axis)]);
  return Emit(OpKind::kTranspose, {x.id, Integers(permutation).id}, tensor(x).type, std::move(out));
}

Value GraphBuilder::Concatenation(std::span<const Value> values, int32_t axis) {
  if (!ok()) return {};
  if (values.size() == 1) return values[0];
  Shape out = shape(values[0]);
  const auto place = static_cast<size_t>(axis);
  std::vector<TensorId> ids;
  int64_t total = 0;
  for (const Value value : values) {
    Shape other = shape(value);
    if (other.size() != out.size() || place >= out.size()) return Broken(OpKind::kConcatenation, "ranks differ");
    total += other[place];
    other[place] = out[place];
    if (other != out) return Broken(OpKind::kConcatenation, std::format("{} with {}", ToString(out), ToString(shape(value))));
    ids.push_back(value.id);
  }
  out[place] = total;
  return Emit(OpKind::kConcatenation, std::move(ids), tensor(values[0]).type, std::move(out), ConcatenationAttributes{.axis = axis});
}

Value GraphBuilder::Gather(Value x, Value indices, int32_t axis) {
  if (!ok()) return {};
  Shape out = shape(x);
  if (static_cast<size_t>(axis) >= out.size() || shape(indices).size() != 1) return Broken(OpKind::kGather, "axis or indices");
  out[static_cast<size_t>(axis)] = shape(indices)[0];
  return Emit(OpKind::kGather, {x.id, indices.id}, tensor(x).type, std::move(out), GatherAttributes{.axis = axis});
}

Value GraphBuilder::FullyConnected(Value x, Value weights, std::optional<Value> bias) {
  if (!ok()) return {};
  const Shape& w = shape(weights);  // [out, in]
  if (w.size() != 2 || shape(x).empty() || shape(x).back() != w[1] || (bias && shape(*bias) != Shape{w[0]})) {
    return Broken(OpKind::kFullyConnected, std::format("{} with weights \"{}\" {}", ToString(shape(x)), tensor(weights).name, ToString(w)));
  }
  Value matrix = weights;
  if (tensor(weights).type == DType::kF16) matrix = Emit(OpKind::kDequantize, {weights.id}, DType::kF32, w);
  Shape out = shape(x);
  out.back() = shape(matrix)[0];
  std::vector<TensorId> inputs{x.id, matrix.id};
  if (bias) inputs.push_back(bias->id);
  return Emit(OpKind::kFullyConnected, std::move(inputs), DType::kF32, std::move(out), FullyConnectedAttributes{.keep_num_dims = true});
}

Value GraphBuilder::BatchMatMul(Value a, Value b, bool adj_y) {
  if (!ok()) return {};
  const Shape& left = shape(a);
  const Shape& right = shape(b);
  const size_t rank = left.size();
  if (rank < 2 || right.size() != rank || left[rank - 1] != right[rank - (adj_y ? 1 : 2)] ||
      !std::equal(left.begin(), left.end() - 2, right.begin())) {
    return Broken(OpKind::kBatchMatMul, std::format("{} and {}{}", ToString(left), ToString(right), adj_y ? " transposed" : ""));
  }
  Shape out = left;
  out[rank - 1] = right[rank - (adj_y ? 2 : 1)];
  return Emit(OpKind::kBatchMatMul, {a.id, b.id}, DType::kF32, std::move(out), BatchMatMulAttributes{.adj_x = false, .adj_y = adj_y});
}

Value GraphBuilder::DynamicUpdateSlice(Value operand, Value update, Value start) {
  if (!ok()) return {};
  const Shape& whole = shape(operand);
  const Shape& part = shape(update);
  bool fits = whole.size() == part.size() && shape(start) == Shape{static_cast<int64_t>(whole.size())};
  for (size_t i = 0; fits && i < whole.size(); ++i) fits = part[i] <= whole[i];
  if (!fits) return Broken(OpKind::kDynamicUpdateSlice, std::format("{} into {}", ToString(part), ToString(whole)));
  return Emit(OpKind::kDynamicUpdateSlice, {operand.id, update.id, start.id}, tensor(operand).type, whole);
}

Value GraphBuilder::EmbeddingLookup(Value ids, Value table) {
  if (!ok()) return {};
  if (shape(ids).size() != 1 || shape(table).size() < 2)
    return Broken(OpKind::kEmbeddingLookup, "ids [n] and a table [rows, ...] are needed");
  Shape out = shape(table);
  out[0] = shape(ids)[0];
  return Emit(OpKind::kEmbeddingLookup, {ids.id, table.id}, DType::kF32, std::move(out));
}

const Shape& GraphBuilder::shape(Value value) const {
  static const Shape kNothing;
  return value.id == kNone ? kNothing : tensor(value).shape;
}

int64_t GraphBuilder::dim(Value value, int axis) const {
  const Shape& all = shape(value);
  const auto index = static_cast<size_t>(axis < 0 ? axis + static_cast<int>(all.size()) : axis);
  return index < all.size() ? all[index] : 0;
}

void GraphBuilder::PruneDeadOps() {
  std::vector<bool> needed(subgraph_.tensors.size());
  for (const TensorId id : subgraph_.outputs) needed[static_cast<size_t>(id)] = true;
  std::vector<Op> kept;
  for (Op& op : std::views::reverse(subgraph_.ops)) {
    if (!needed[static_cast<size_t>(op.outputs[0])]) continue;
    for (const TensorId id : op.inputs) {
      if (id != kNone) needed[static_cast<size_t>(id)] = true;
    }
    kept.push_back(std::move(op));
  }
  std::ranges::reverse(kept);
  subgraph_.ops = std::move(kept);
}

void GraphBuilder::PruneUnusedTensors() {
  std::vector<bool> used(subgraph_.tensors.size());
  for (const TensorId id : subgraph_.inputs) used[static_cast<size_t>(id)] = true;
  for (const Op& op : subgraph_.ops) {
    for (const TensorId id : op.inputs) {
      if (id != kNone) used[static_cast<size_t>(id)] = true;
    }
    used[static_cast<size_t>(op.outputs[0])] = true;
  }
  std::vector<TensorId> renumbered(used.size(), kNone);
  std::vector<Tensor> kept;
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    renumbered[i] = static_cast<TensorId>(kept.size());
    kept.push_back(std::move(subgraph_.tensors[i]));
  }
  subgraph_.tensors = std::move(kept);
  const auto renumber = [&](std::vector<TensorId>& ids) {
    for (TensorId& id : ids) {
      if (id != kNone) id = renumbered[static_cast<size_t>(id)];
    }
  };
  for (Op& op : subgraph_.ops) {
    renumber(op.inputs);
    renumber(op.outputs);
  }
  renumber(subgraph_.inputs);
  renumber(subgraph_.outputs);
}

void GraphBuilder::EndSubgraph(std::string_view signature_key, std::span<const std::pair<std::string, Value>> outputs) {
  if (!ok()) return;
  for (const auto& [name, value] : outputs) {
    subgraph_.outputs.push_back(value.id);
    subgraph_.tensors[static_cast<size_t>(value.id)].name = name;
  }
  PruneDeadOps();
  PruneUnusedTensors();
  Signature signature{.key = std::string(signature_key), .subgraph = static_cast<int32_t>(graph_.subgraphs.size())};
  for (size_t i = 0; i < subgraph_.inputs.size(); ++i) signature.inputs.emplace_back(input_names_[i], subgraph_.inputs[i]);
  for (size_t i = 0; i < subgraph_.outputs.size(); ++i) signature.outputs.emplace_back(outputs[i].first, subgraph_.outputs[i]);
  graph_.signatures.push_back(std::move(signature));
  graph_.subgraphs.push_back(std::move(subgraph_));
}

Result<Graph> GraphBuilder::Finish() {
  if (error_) return std::unexpected(*error_);
  TRY(ValidateGraph(graph_));
  return std::move(graph_);
}

}  // namespace taskpress
