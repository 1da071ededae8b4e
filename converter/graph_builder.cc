#include "converter/graph_builder.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <ranges>

#include "quantizer/quant_spec.h"
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

std::vector<int32_t> Narrow(const Shape& shape) {
  std::vector<int32_t> narrow;
  for (const int64_t dimension : shape) narrow.push_back(static_cast<int32_t>(dimension));
  return narrow;
}

// Marks what `ids` name; an absent optional input names nothing.
void Mark(std::vector<bool>& marks, std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id != kNone) marks[static_cast<size_t>(id)] = true;
  }
}

// The entries that are `kept`, in order. Returns where each went, kNone for those that are gone.
template <typename T>
std::vector<int32_t> Keep(std::vector<T>& all, const std::vector<bool>& kept) {
  std::vector<int32_t> moved_to(all.size(), kNone);
  std::vector<T> left;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!kept[i]) continue;
    moved_to[i] = static_cast<int32_t>(left.size());
    left.push_back(std::move(all[i]));
  }
  all = std::move(left);
  return moved_to;
}

void Renumber(std::span<int32_t> ids, const std::vector<int32_t>& moved_to) {
  for (int32_t& id : ids) {
    if (id != kNone) id = moved_to[static_cast<size_t>(id)];
  }
}

}  // namespace

void GraphBuilder::Report(Error error) {
  if (!error_) error_ = std::move(error);
}

Value GraphBuilder::Broken(OpKind kind, std::string_view why) {
  Report({ErrorCode::kGraphShape, Format("subgraph \"{}\", operator {} {}: {}", subgraph_.name, subgraph_.ops.size(), NameOf(kind), why)});
  return {};
}

void GraphBuilder::BeginSubgraph(std::string_view name) {
  subgraph_ = Subgraph{.name = std::string(name)};
  input_names_.clear();
  subgraph_constants_.clear();
  two_terms_.clear();
}

Value GraphBuilder::Input(std::string_view name, DType type, Shape shape) {
  subgraph_.tensors.push_back({.name = std::string(name), .type = type, .shape = std::move(shape)});
  const auto id = static_cast<TensorId>(subgraph_.tensors.size() - 1);
  subgraph_.inputs.push_back(id);
  input_names_.emplace_back(name);
  return {id};
}

const GraphBuilder::ModelConstant& GraphBuilder::ModelConstantOf(const Weight& weight) {
  const auto known = model_constants_.find(weight.name);
  if (known != model_constants_.end()) return known->second;
  ModelConstant constant{
      .type = weight.type, .shape = weight.shape, .buffer = static_cast<int32_t>(graph_.buffers.size()), .two_terms = weight.two_terms};
  graph_.buffers.push_back({weight.bytes});
  if (weight.block_scales != nullptr) {
    constant.blocks = static_cast<int64_t>(weight.block_scales->size() / sizeof(uint16_t)) / std::max<int64_t>(1, weight.shape[0]);
  } else if (weight.type == DType::kI8 || weight.type == DType::kI4) {
    constant.quantization = static_cast<int32_t>(graph_.quantizations.size());
    graph_.quantizations.push_back({.axis = 0, .num_scales = weight.shape.empty() ? 0 : weight.shape[0], .scales = nullptr});
  }
  return model_constants_.emplace(weight.name, std::move(constant)).first->second;
}

Value GraphBuilder::Constant(const Weight& weight) {
  if (!ok()) return {};
  const ModelConstant& constant = ModelConstantOf(weight);
  if (constant.type != weight.type || constant.shape != weight.shape) {
    Report({ErrorCode::kGraphShape, Format("constant \"{}\": {} {} here, {} {} before", weight.name, NameOf(weight.type),
                                           ToString(weight.shape), NameOf(constant.type), ToString(constant.shape))});
    return {};
  }
  const auto known = subgraph_constants_.find(weight.name);
  if (known != subgraph_constants_.end()) return {known->second};
  Tensor tensor{
      .name = weight.name, .type = weight.type, .shape = weight.shape, .buffer = constant.buffer, .quantization = constant.quantization};
  if (constant.blocks > 0) {
    const Value scales = Constant(
        {.name = weight.name + ".scales", .type = DType::kF16, .shape = {weight.shape[0], constant.blocks}, .bytes = weight.block_scales});
    tensor.block_scales = scales.id;
  }
  subgraph_.tensors.push_back(std::move(tensor));
  const auto id = static_cast<TensorId>(subgraph_.tensors.size() - 1);
  subgraph_constants_[weight.name] = id;
  return {id};
}

Value GraphBuilder::Float(float value) { return Floats(std::span(&value, 1), {1}); }

Value GraphBuilder::Floats(std::span<const float> values, Shape shape) {
  const ByteView bytes = std::as_bytes(values);
  std::string name = values.size() == 1 ? Format("const.{}", values[0]) : Format("const.{}", Sha256Hex(bytes).substr(0, 16));
  name += ToString(shape);
  return Constant({.name = std::move(name), .type = DType::kF32, .shape = std::move(shape), .bytes = MakeMemorySource(bytes)});
}

Value GraphBuilder::Integers(std::span<const int32_t> values) {
  std::string name = "const.i32";
  if (values.size() <= 8) {
    for (const int32_t value : values) name += Format(".{}", value);
  } else {
    name += "." + Sha256Hex(std::as_bytes(values)).substr(0, 16);
  }
  return Constant(
      {.name = std::move(name), .type = DType::kI32, .shape = {static_cast<int64_t>(values.size())}, .bytes = MakeMemorySource(values)});
}

Value GraphBuilder::Emit(OpKind kind, std::vector<TensorId> inputs, DType type, Shape shape, OpAttributes attributes) {
  if (!ok()) return {};
  subgraph_.tensors.push_back({.name = Format("{}.{}", NameOf(kind), subgraph_.ops.size()), .type = type, .shape = std::move(shape)});
  const auto output = static_cast<TensorId>(subgraph_.tensors.size() - 1);
  subgraph_.ops.push_back({.kind = kind, .inputs = std::move(inputs), .outputs = {output}, .attributes = std::move(attributes)});
  return {output};
}

bool GraphBuilder::AllAre(OpKind kind, DType type, std::initializer_list<Value> values) {
  if (!ok()) return false;
  for (const Value value : values) {
    if (value.id == kNone) {
      Broken(kind, "an operand is missing");
    } else if (tensor(value).type != type) {
      Broken(kind, Format("\"{}\" is {}, {} is needed", tensor(value).name, NameOf(tensor(value).type), NameOf(type)));
    }
  }
  return ok();
}

bool GraphBuilder::Exist(OpKind kind, std::span<const Value> values) {
  if (ok() && std::ranges::any_of(values, [](Value value) { return value.id == kNone; })) Broken(kind, "an operand is missing");
  return ok();
}

Value GraphBuilder::Unary(OpKind kind, Value x, OpAttributes attributes) {
  if (!AllAre(kind, DType::kF32, {x})) return {};
  return Emit(kind, {x.id}, DType::kF32, shape(x), std::move(attributes));
}

Value GraphBuilder::Binary(OpKind kind, Value a, Value b) {
  if (!Exist(kind, std::array{a, b})) return {};
  std::optional<Shape> out = Broadcast(shape(a), shape(b));
  const DType type = tensor(a).type;
  if (!out || type != tensor(b).type || (type != DType::kF32 && type != DType::kI32)) {
    return Broken(kind, Format("{} {} and {} {}", NameOf(tensor(a).type), ToString(shape(a)), NameOf(tensor(b).type), ToString(shape(b))));
  }
  return Emit(kind, {a.id, b.id}, type, *std::move(out));
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

Value GraphBuilder::GeluTanh(Value x) { return Unary(OpKind::kGelu, x, GeluAttributes{.approximate = true}); }
Value GraphBuilder::Softmax(Value x) { return Unary(OpKind::kSoftmax, x, SoftmaxAttributes{.beta = 1.0F}); }

Value GraphBuilder::IntegersToFloats(Value x) {
  if (!AllAre(OpKind::kCast, DType::kI32, {x})) return {};
  return Emit(OpKind::kCast, {x.id}, DType::kF32, shape(x), CastAttributes{.from = DType::kI32, .to = DType::kF32});
}

Value GraphBuilder::MeanOfLast(Value x) {
  if (!AllAre(OpKind::kMean, DType::kF32, {x})) return {};
  Shape out = shape(x);
  if (out.empty()) return Broken(OpKind::kMean, "a scalar has no last dimension");
  const auto axis = static_cast<int32_t>(out.size()) - 1;
  out.back() = 1;
  const Value axes = Integers(std::span(&axis, 1));
  return Emit(OpKind::kMean, {x.id, axes.id}, DType::kF32, std::move(out), MeanAttributes{.keep_dims = true});
}

Value GraphBuilder::Slice(Value x, std::span<const int32_t> begin, std::span<const int32_t> size) {
  if (!Exist(OpKind::kSlice, std::array{x})) return {};
  const Shape& in = shape(x);
  if (begin.size() != in.size() || size.size() != in.size()) return Broken(OpKind::kSlice, Format("rank of {}", ToString(in)));
  for (size_t i = 0; i < in.size(); ++i) {
    if (begin[i] < 0 || size[i] < 1 || int64_t{begin[i]} + size[i] > in[i]) {
      return Broken(OpKind::kSlice, Format("[{}, +{}) of dimension {} of {}", begin[i], size[i], i, ToString(in)));
    }
  }
  const Value begins = Integers(begin);
  const Value sizes = Integers(size);
  return Emit(OpKind::kSlice, {x.id, begins.id, sizes.id}, tensor(x).type, Shape(size.begin(), size.end()));
}

Value GraphBuilder::SliceOfLast(Value x, int64_t begin, int64_t size) {
  if (!Exist(OpKind::kSlice, std::array{x})) return {};
  if (shape(x).empty()) return Broken(OpKind::kSlice, "a scalar has no last dimension");
  std::vector<int32_t> begins(shape(x).size(), 0);
  std::vector<int32_t> sizes = Narrow(shape(x));
  begins.back() = static_cast<int32_t>(begin);
  sizes.back() = static_cast<int32_t>(size);
  return Slice(x, begins, sizes);
}

Value GraphBuilder::Reshape(Value x, Shape to) {
  if (!Exist(OpKind::kReshape, std::array{x})) return {};
  if (shape(x) == to) return x;
  if (NumElements(to) != NumElements(shape(x))) return Broken(OpKind::kReshape, Format("{} to {}", ToString(shape(x)), ToString(to)));
  const Value dimensions = Integers(Narrow(to));
  return Emit(OpKind::kReshape, {x.id, dimensions.id}, tensor(x).type, std::move(to));
}

Value GraphBuilder::Transpose(Value x, std::span<const int32_t> permutation) {
  if (!Exist(OpKind::kTranspose, std::array{x})) return {};
  std::vector<int32_t> sorted(permutation.begin(), permutation.end());
  std::ranges::sort(sorted);
  std::vector<int32_t> identity(shape(x).size());
  std::iota(identity.begin(), identity.end(), 0);
  if (sorted != identity) return Broken(OpKind::kTranspose, Format("not a permutation of {}", ToString(shape(x))));
  Shape out;
  for (const int32_t axis : permutation) out.push_back(shape(x)[static_cast<size_t>(axis)]);
  const Value axes = Integers(permutation);
  return Emit(OpKind::kTranspose, {x.id, axes.id}, tensor(x).type, std::move(out));
}

Value GraphBuilder::Concatenation(std::span<const Value> values, int32_t axis) {
  if (!Exist(OpKind::kConcatenation, values)) return {};
  if (values.empty()) return Broken(OpKind::kConcatenation, "nothing to join");
  if (values.size() == 1) return values[0];
  Shape out = shape(values[0]);
  const DType type = tensor(values[0]).type;
  const auto place = static_cast<size_t>(axis);
  std::vector<TensorId> ids;
  int64_t total = 0;
  for (const Value value : values) {
    Shape other = shape(value);
    if (other.size() != out.size() || place >= out.size() || tensor(value).type != type) {
      return Broken(OpKind::kConcatenation, Format("{} {} and {} {} along dimension {}", NameOf(type), ToString(out),
                                                   NameOf(tensor(value).type), ToString(other), axis));
    }
    total += other[place];
    other[place] = out[place];
    if (other != out) return Broken(OpKind::kConcatenation, Format("{} with {}", ToString(out), ToString(shape(value))));
    ids.push_back(value.id);
  }
  out[place] = total;
  return Emit(OpKind::kConcatenation, std::move(ids), type, std::move(out), ConcatenationAttributes{.axis = axis});
}

Value GraphBuilder::Gather(Value x, Value indices, int32_t axis) {
  if (!Exist(OpKind::kGather, std::array{x}) || !AllAre(OpKind::kGather, DType::kI32, {indices})) return {};
  Shape out = shape(x);
  if (static_cast<size_t>(axis) >= out.size() || shape(indices).size() != 1) {
    return Broken(OpKind::kGather, Format("indices {} along dimension {} of {}", ToString(shape(indices)), axis, ToString(out)));
  }
  out[static_cast<size_t>(axis)] = shape(indices)[0];
  return Emit(OpKind::kGather, {x.id, indices.id}, tensor(x).type, std::move(out), GatherAttributes{.axis = axis});
}

Value GraphBuilder::HalvesToFloats(Value x) { return Emit(OpKind::kDequantize, {x.id}, DType::kF32, shape(x)); }

// W x = W a + W b as two rows of one product: [.., tokens, in] -> [.., 2 * tokens, in].
Value GraphBuilder::TwoTerms(Value x) {
  const auto known = two_terms_.find(x.id);
  if (known != two_terms_.end()) return known->second;
  Shape rows = shape(x);
  const auto last = static_cast<int32_t>(rows.size()) - 1;
  if (last < 1) return Broken(OpKind::kFullyConnected, "two terms of a vector without tokens");
  rows[rows.size() - 2] *= 2;
  const Value limit = Mul(Sqrt(MeanOfLast(Square(x))), Float(kTermLimit));
  const Value lowest = Mul(limit, Float(-1.0F));
  const Value a = Maximum(Minimum(x, limit), lowest);
  const Value both = Reshape(Concatenation(std::array{a, Sub(x, a)}, last), std::move(rows));
  two_terms_[x.id] = both;
  return both;
}

Value GraphBuilder::FullyConnected(Value x, Value weights, std::optional<Value> bias) {
  constexpr OpKind kKind = OpKind::kFullyConnected;
  if (!AllAre(kKind, DType::kF32, {x}) || !Exist(kKind, std::array{weights}) || (bias && !AllAre(kKind, DType::kF32, {*bias}))) return {};
  const Shape w = shape(weights);  // [out, in]
  const DType type = tensor(weights).type;
  const bool is_weight_type = type == DType::kF32 || type == DType::kF16 || type == DType::kI8 || type == DType::kI4;
  if (w.size() != 2 || shape(x).empty() || shape(x).back() != w[1] || (bias && shape(*bias) != Shape{w[0]}) || !is_weight_type) {
    return Broken(kKind, Format("{} with weights \"{}\" {} {}{}", ToString(shape(x)), tensor(weights).name, NameOf(type), ToString(w),
                                bias ? Format(" and bias {}", ToString(shape(*bias))) : ""));
  }
  const Value matrix = type == DType::kF16 ? HalvesToFloats(weights) : weights;
  const auto constant = model_constants_.find(tensor(weights).name);
  const bool two_terms = constant != model_constants_.end() && constant->second.two_terms;
  const Shape one_term = shape(x);
  if (two_terms) x = TwoTerms(x);
  if (!ok()) return {};
  Shape out = shape(x);
  out.back() = w[0];
  if (two_terms) {
    const Value product = Emit(kKind, {x.id, matrix.id}, DType::kF32, std::move(out), FullyConnectedAttributes{.keep_num_dims = true});
    Shape side_by_side = one_term;
    side_by_side.back() = 2 * w[0];
    const Value both = Reshape(product, std::move(side_by_side));
    const Value limited = SliceOfLast(both, 0, w[0]);
    const Value sum = Add(limited, SliceOfLast(both, w[0], w[0]));
    return bias ? Add(sum, *bias) : sum;
  }
  std::vector<TensorId> inputs{x.id, matrix.id};
  if (bias) inputs.push_back(bias->id);
  return Emit(kKind, std::move(inputs), DType::kF32, std::move(out), FullyConnectedAttributes{.keep_num_dims = true});
}

Value GraphBuilder::BatchMatMul(Value a, Value b, bool adj_y) {
  if (!AllAre(OpKind::kBatchMatMul, DType::kF32, {a, b})) return {};
  const Shape& left = shape(a);
  const Shape& right = shape(b);
  const size_t rank = left.size();
  if (rank < 2 || right.size() != rank || left[rank - 1] != right[rank - (adj_y ? 1 : 2)] ||
      !std::equal(left.begin(), left.end() - 2, right.begin())) {
    return Broken(OpKind::kBatchMatMul, Format("{} and {}{}", ToString(left), ToString(right), adj_y ? " transposed" : ""));
  }
  Shape out = left;
  out[rank - 1] = right[rank - (adj_y ? 2 : 1)];
  return Emit(OpKind::kBatchMatMul, {a.id, b.id}, DType::kF32, std::move(out), BatchMatMulAttributes{.adj_x = false, .adj_y = adj_y});
}

Value GraphBuilder::DynamicUpdateSlice(Value operand, Value update, Value start) {
  constexpr OpKind kKind = OpKind::kDynamicUpdateSlice;
  if (!AllAre(kKind, DType::kF32, {operand, update}) || !AllAre(kKind, DType::kI32, {start})) return {};
  const Shape& whole = shape(operand);
  const Shape& part = shape(update);
  bool fits = whole.size() == part.size() && shape(start) == Shape{static_cast<int64_t>(whole.size())};
  for (size_t i = 0; fits && i < whole.size(); ++i) fits = part[i] <= whole[i];
  if (!fits) return Broken(kKind, Format("{} into {} at {}", ToString(part), ToString(whole), ToString(shape(start))));
  return Emit(kKind, {operand.id, update.id, start.id}, DType::kF32, whole);
}

Value GraphBuilder::EmbeddingLookup(Value ids, Value table) {
  constexpr OpKind kKind = OpKind::kEmbeddingLookup;
  if (!AllAre(kKind, DType::kI32, {ids}) || !Exist(kKind, std::array{table})) return {};
  if (shape(ids).size() != 1 || shape(table).size() < 2) {
    return Broken(kKind,
                  Format("ids {} in a table {}; ids [n] and a table [rows, ...] are needed", ToString(shape(ids)), ToString(shape(table))));
  }
  const DType type = tensor(table).type;
  // ai-edge-litert 2.3.0 takes an f16 table for EMBEDDING_LOOKUP and answers zeros.
  if (type == DType::kF16) return HalvesToFloats(Gather(table, ids, 0));
  if (type != DType::kF32 && type != DType::kI8 && type != DType::kI4) return Broken(kKind, Format("a table of {}", NameOf(type)));
  Shape out = shape(table);
  out[0] = shape(ids)[0];
  return Emit(kKind, {ids.id, table.id}, DType::kF32, std::move(out));
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
  Mark(needed, subgraph_.outputs);
  std::vector<Op> kept;
  for (Op& op : std::views::reverse(subgraph_.ops)) {
    if (!needed[static_cast<size_t>(op.outputs[0])]) continue;
    Mark(needed, op.inputs);
    kept.push_back(std::move(op));
  }
  std::ranges::reverse(kept);
  subgraph_.ops = std::move(kept);
}

void GraphBuilder::PruneUnusedTensors() {
  std::vector<bool> used(subgraph_.tensors.size());
  Mark(used, subgraph_.inputs);
  Mark(used, subgraph_.outputs);
  for (const Op& op : subgraph_.ops) {
    Mark(used, op.inputs);
    Mark(used, op.outputs);
  }
  for (size_t i = 0; i < subgraph_.tensors.size(); ++i) {
    if (used[i]) Mark(used, std::span(&subgraph_.tensors[i].block_scales, 1));
  }
  const std::vector<int32_t> moved_to = Keep(subgraph_.tensors, used);
  for (Op& op : subgraph_.ops) {
    Renumber(op.inputs, moved_to);
    Renumber(op.outputs, moved_to);
  }
  for (Tensor& tensor : subgraph_.tensors) Renumber(std::span(&tensor.block_scales, 1), moved_to);
  Renumber(subgraph_.inputs, moved_to);
  Renumber(subgraph_.outputs, moved_to);
}

void GraphBuilder::PruneUnusedConstants() {
  std::vector<bool> buffers(graph_.buffers.size());
  std::vector<bool> quantizations(graph_.quantizations.size());
  for (const Subgraph& subgraph : graph_.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      Mark(buffers, std::span(&tensor.buffer, 1));
      Mark(quantizations, std::span(&tensor.quantization, 1));
    }
  }
  const std::vector<int32_t> buffer_moved_to = Keep(graph_.buffers, buffers);
  const std::vector<int32_t> quantization_moved_to = Keep(graph_.quantizations, quantizations);
  for (Subgraph& subgraph : graph_.subgraphs) {
    for (Tensor& tensor : subgraph.tensors) {
      Renumber(std::span(&tensor.buffer, 1), buffer_moved_to);
      Renumber(std::span(&tensor.quantization, 1), quantization_moved_to);
    }
  }
}

void GraphBuilder::EndSubgraph(std::string_view signature_key, std::span<const std::pair<std::string, Value>> outputs) {
  if (!ok()) return;
  for (const auto& [name, value] : outputs) {
    if (value.id == kNone) {
      Report({ErrorCode::kGraphShape, Format("subgraph \"{}\": output \"{}\" was never computed", subgraph_.name, name)});
      return;
    }
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
  PruneUnusedConstants();
  TRY(ValidateGraph(graph_));
  return std::move(graph_);
}

}  // namespace taskpress
