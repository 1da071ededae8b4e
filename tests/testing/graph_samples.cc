#include "tests/testing/graph_samples.h"

#include "tests/testing/toy_graph.h"

namespace taskpress::testing {

Graph SmallGraph() {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 2, 4});
  const TensorId weights = toy.Quantized(DType::kI8, {3, 4}, RandomFloats(12, 1));
  const TensorId product = toy.Op(OpKind::kFullyConnected, {x, weights}, {1, 2, 3}, FullyConnectedAttributes{.keep_num_dims = true});
  const TensorId offsets = toy.Floats({3}, {0.5F, -1.0F, 2.0F});
  toy.Output("y", toy.Op(OpKind::kAdd, {product, offsets}, {1, 2, 3}));
  Graph graph = toy.Take();
  graph.description = "a small graph";
  graph.metadata = {{"note", "two words"}};
  return graph;
}

namespace {

// Elementwise and shape operators over x [1,4,2,8].
void AddElementwise(ToyGraph& toy, TensorId x) {
  const Shape shape{1, 4, 2, 8};
  const TensorId half = toy.Floats({1}, {0.5F});
  for (const OpKind kind : {OpKind::kAdd, OpKind::kSub, OpKind::kMul, OpKind::kMinimum, OpKind::kMaximum}) {
    toy.Output(std::string(NameOf(kind)), toy.Op(kind, {x, half}, shape));
  }
  for (const OpKind kind : {OpKind::kSquare, OpKind::kSqrt, OpKind::kRsqrt, OpKind::kTanh, OpKind::kRelu, OpKind::kCos, OpKind::kSin}) {
    toy.Output(std::string(NameOf(kind)), toy.Op(kind, {x}, shape));
  }
  toy.Output("gelu_tanh", toy.Op(OpKind::kGelu, {x}, shape, GeluAttributes{.approximate = true}));
  toy.Output("gelu_erf", toy.Op(OpKind::kGelu, {x}, shape, GeluAttributes{.approximate = false}));
  toy.Output("softmax", toy.Op(OpKind::kSoftmax, {x}, shape, SoftmaxAttributes{.beta = 0.75F}));
  toy.Output("mean", toy.Op(OpKind::kMean, {x, toy.Ints({3})}, {1, 4, 2, 1}, MeanAttributes{.keep_dims = true}));
  toy.Output("mean_dropped", toy.Op(OpKind::kMean, {x, toy.Ints({3})}, {1, 4, 2}, MeanAttributes{.keep_dims = false}));
}

void AddMoves(ToyGraph& toy, TensorId x) {
  toy.Output("slice", toy.Op(OpKind::kSlice, {x, toy.Ints({0, 1, 0, 4}), toy.Ints({1, 2, 2, 4})}, {1, 2, 2, 4}));
  toy.Output("reshape", toy.Op(OpKind::kReshape, {x, toy.Ints({1, 8, 8})}, {1, 8, 8}));
  toy.Output("transpose", toy.Op(OpKind::kTranspose, {x, toy.Ints({0, 2, 1, 3})}, {1, 2, 4, 8}));
  toy.Output("concatenation", toy.Op(OpKind::kConcatenation, {x, x, x}, {1, 4, 6, 8}, ConcatenationAttributes{.axis = 2}));
  const TensorId rows = toy.Input("rows", DType::kI32, {1, 3});
  toy.Output("gather", toy.Op(OpKind::kGather, {x, rows}, {1, 3, 2, 8}, GatherAttributes{.axis = 1, .batch_dims = 1}));
  toy.Output("cast", toy.Op(OpKind::kCast, {rows}, {1, 3}, CastAttributes{.from = DType::kI32, .to = DType::kF32}));
  const TensorId start = toy.Input("start", DType::kI32, {4});
  const TensorId update = toy.Input("update", DType::kF32, {1, 1, 2, 8});
  toy.Output("updated", toy.Op(OpKind::kDynamicUpdateSlice, {x, update, start}, {1, 4, 2, 8}));
}

// Weights of 64 columns are outside the FlatBuffer, of 8 inside. Returns the tensors that the second subgraph shares.
std::vector<TensorId> AddMatrices(ToyGraph& toy, TensorId x, TensorId wide) {
  const FullyConnectedAttributes keep{.keep_num_dims = true};
  const TensorId int8 = toy.Quantized(DType::kI8, {48, 64}, RandomFloats(48 * 64, 2));
  const TensorId int4 = toy.Quantized(DType::kI4, {48, 64}, RandomFloats(48 * 64, 3));
  const TensorId small = toy.Quantized(DType::kI4, {6, 8}, RandomFloats(48, 4));
  const TensorId floats = toy.Floats({48, 64}, RandomFloats(48 * 64, 5));
  const TensorId halves = toy.Op(OpKind::kDequantize, {toy.Halves({48, 64}, RandomFloats(48 * 64, 6))}, {48, 64});
  toy.Output("fc_int8", toy.Op(OpKind::kFullyConnected, {wide, int8}, {2, 48}, keep));
  toy.Output("fc_int4", toy.Op(OpKind::kFullyConnected, {wide, int4}, {2, 48}, keep));
  toy.Output("fc_float", toy.Op(OpKind::kFullyConnected, {wide, floats, kNone}, {2, 48}, keep));
  toy.Output("fc_half", toy.Op(OpKind::kFullyConnected, {wide, halves}, {2, 48}, keep));
  const TensorId bias = toy.Floats({6}, RandomFloats(6, 7));
  toy.Output("fc_flat", toy.Op(OpKind::kFullyConnected, {x, small, bias}, {8, 6}, FullyConnectedAttributes{.keep_num_dims = false}));
  const TensorId left = toy.Input("left", DType::kF32, {1, 2, 8, 4});
  const TensorId right = toy.Input("right", DType::kF32, {1, 2, 6, 8});
  toy.Output("matmul", toy.Op(OpKind::kBatchMatMul, {left, right}, {1, 2, 4, 6}, BatchMatMulAttributes{.adj_x = true, .adj_y = true}));
  const TensorId ids = toy.Input("ids", DType::kI32, {2});
  toy.Output("lookup", toy.Op(OpKind::kEmbeddingLookup, {ids, int4}, {2, 64}));
  return {int8, int4, floats};
}

}  // namespace

Graph EveryOpGraph() {
  ToyGraph toy;
  toy.Begin("first");
  const TensorId x = toy.Input("x", DType::kF32, {1, 4, 2, 8});
  const TensorId wide = toy.Input("wide", DType::kF32, {2, 64});
  AddElementwise(toy, x);
  AddMoves(toy, x);
  const std::vector<TensorId> weights = AddMatrices(toy, x, wide);
  toy.Begin("second");
  const TensorId y = toy.Input("wide", DType::kF32, {1, 64});
  for (const TensorId weight : weights) {
    const TensorId shared = toy.SameConstant(0, weight);
    toy.Output("out" + std::to_string(weight),
               toy.Op(OpKind::kFullyConnected, {y, shared}, {1, 48}, FullyConnectedAttributes{.keep_num_dims = true}));
  }
  Graph graph = toy.Take();
  graph.description = "every operator";
  graph.metadata = {{"taskpress.recipe", "int8 everything\n"}, {"empty", ""}};
  return graph;
}

Status PatternRows::ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const {
  for (int64_t row = 0; row < count; ++row) {
    for (uint64_t column = 0; column < row_bytes_; ++column) {
      packed[static_cast<uint64_t>(row) * row_bytes_ + column] =
          static_cast<std::byte>((static_cast<uint64_t>(first_row + row) * 7 + column) & 0xFFU);
    }
    for (int64_t i = 0; i < scales_per_row_; ++i) {
      scales[static_cast<size_t>(row * scales_per_row_ + i)] = static_cast<float>(first_row + row + 1) / 16.0F;
    }
  }
  return {};
}

Status SizeOnly::Read(uint64_t offset, ByteSpan out) const {
  return Fail(ErrorCode::kReadFailed, "nothing to read at [{}, +{})", offset, out.size());
}

Graph LookupGraph(DType type, Shape table, SharedBytes bytes) {
  Graph graph;
  graph.buffers.push_back({std::move(bytes)});
  const int64_t rows = table[0];
  Shape out = table;
  out[0] = 1;
  int32_t quantization = kNone;
  if (type == DType::kI8 || type == DType::kI4) {
    graph.quantizations.push_back({.axis = 0, .num_scales = rows, .scales = nullptr});
    quantization = 0;
  }
  graph.subgraphs.push_back(
      {.name = "main",
       .tensors = {{.name = "ids", .type = DType::kI32, .shape = {1}},
                   {.name = "table", .type = type, .shape = std::move(table), .buffer = 0, .quantization = quantization},
                   {.name = "row", .type = DType::kF32, .shape = std::move(out)}},
       .ops = {{.kind = OpKind::kEmbeddingLookup, .inputs = {0, 1}, .outputs = {2}, .attributes = {}}},
       .inputs = {0},
       .outputs = {2}});
  graph.signatures.push_back({.key = "lookup", .subgraph = 0, .inputs = {{"ids", 0}}, .outputs = {{"row", 2}}});
  return graph;
}

}  // namespace taskpress::testing
