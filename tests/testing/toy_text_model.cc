#include "tests/testing/toy_text_model.h"

#include <algorithm>
#include <cmath>

#include "tests/testing/toy_graph.h"

namespace taskpress::testing {
namespace {

constexpr int64_t kHidden = 6;
constexpr int64_t kPerLayer = 2;  // one layer
constexpr float kPositionScale = 0.125F;

struct Matrix {
  int64_t out;
  int64_t in;
  std::vector<float> values;
};
Matrix RandomMatrix(int64_t out, int64_t in, uint32_t seed) { return {.out = out, .in = in, .values = RandomFloats(out * in, seed)}; }

struct Weights {
  Matrix table = RandomMatrix(kToyVocab, kHidden, 21);
  Matrix per_layer_table = RandomMatrix(kToyVocab, kPerLayer, 22);
  Matrix per_layer = RandomMatrix(kHidden, kPerLayer, 23);
  Matrix q = RandomMatrix(kHidden, kHidden, 24);
  Matrix k = RandomMatrix(kHidden, kHidden, 25);
  Matrix v = RandomMatrix(kHidden, kHidden, 26);
  Matrix head = RandomMatrix(kToyVocab, kHidden, 27);
};

class ModelBuilder {
 public:
  explicit ModelBuilder(const ToyTextOptions& options) : options_(options) {}

  Graph Build() {
    for (const int64_t tokens : options_.prefill_lengths) AddSignature("prefill_" + std::to_string(tokens), tokens, false);
    AddSignature("decode", 1, true);
    for (const int64_t tokens : options_.score_lengths) AddSignature("score_" + std::to_string(tokens), tokens, true);
    return toy_.Take();
  }

 private:
  // A matrix is stored once; further signatures refer to it.
  TensorId Constant(const Matrix& matrix, std::pair<int32_t, TensorId>& stored) {
    if (stored.second != kNone) return toy_.SameConstant(stored.first, stored.second);
    const Shape shape = {matrix.out, matrix.in};
    const TensorId id =
        options_.weights == DType::kF32 ? toy_.Floats(shape, matrix.values) : toy_.Quantized(options_.weights, shape, matrix.values);
    stored = {toy_.subgraph(), id};
    return id;
  }

  TensorId Project(TensorId x, const Matrix& matrix, std::pair<int32_t, TensorId>& stored, int64_t tokens) {
    return toy_.Op(OpKind::kFullyConnected, {x, Constant(matrix, stored)}, {1, tokens, matrix.out}, FullyConnectedAttributes{});
  }

  void AddSignature(const std::string& key, int64_t tokens, bool logits) {
    toy_.Begin(key);
    const TensorId embeddings = toy_.Input("embeddings", DType::kF32, {1, tokens, kHidden});
    const TensorId positions = toy_.Input("input_pos", DType::kI32, {tokens});
    const TensorId mask = toy_.Input("mask", DType::kF32, {1, 1, tokens, kToyContext});
    const TensorId old_k = toy_.Input("kv_cache_k_0", DType::kF32, {1, 1, kToyContext, kHidden});
    const TensorId old_v = toy_.Input("kv_cache_v_0", DType::kF32, {1, 1, kHidden, kToyContext});
    TensorId x = embeddings;
    if (options_.per_layer_embeddings) {
      const TensorId rows = toy_.Input("per_layer_embeddings", DType::kF32, {1, tokens, 1, kPerLayer});
      const TensorId flat = toy_.Op(OpKind::kReshape, {rows}, {1, tokens, kPerLayer});
      x = toy_.Op(OpKind::kAdd, {x, Project(flat, weights_.per_layer, per_layer_, tokens)}, {1, tokens, kHidden});
    }
    const TensorId floats = toy_.Op(OpKind::kCast, {positions}, {tokens}, CastAttributes{});
    const TensorId column = toy_.Op(OpKind::kReshape, {floats}, {1, tokens, 1});
    const TensorId shift = toy_.Op(OpKind::kMul, {column, toy_.Floats({1}, {kPositionScale})}, {1, tokens, 1});
    x = toy_.Op(OpKind::kAdd, {x, shift}, {1, tokens, kHidden});

    const TensorId q = toy_.Op(OpKind::kReshape, {Project(x, weights_.q, q_, tokens)}, {1, 1, tokens, kHidden});
    const TensorId k = toy_.Op(OpKind::kReshape, {Project(x, weights_.k, k_, tokens)}, {1, 1, tokens, kHidden});
    const TensorId v = toy_.Op(OpKind::kReshape, {Project(x, weights_.v, v_, tokens)}, {1, tokens, 1, kHidden});
    const TensorId v_columns = toy_.Op(OpKind::kTranspose, {v, toy_.Ints({0, 2, 3, 1})}, {1, 1, kHidden, tokens});
    const TensorId first = toy_.Op(OpKind::kSlice, {positions, toy_.Ints({0}), toy_.Ints({1})}, {1}, {}, DType::kI32);
    const ConcatenationAttributes along{.axis = 0};
    const TensorId at_row = toy_.Op(OpKind::kConcatenation, {toy_.Ints({0, 0}), first, toy_.Ints({0})}, {4}, along, DType::kI32);
    const TensorId at_column = toy_.Op(OpKind::kConcatenation, {toy_.Ints({0, 0, 0}), first}, {4}, along, DType::kI32);
    const TensorId new_k = toy_.Op(OpKind::kDynamicUpdateSlice, {old_k, k, at_row}, {1, 1, kToyContext, kHidden});
    const TensorId new_v = toy_.Op(OpKind::kDynamicUpdateSlice, {old_v, v_columns, at_column}, {1, 1, kHidden, kToyContext});
    toy_.Output("kv_cache_k_0", new_k);
    toy_.Output("kv_cache_v_0", new_v);
    if (!logits) return;

    const BatchMatMulAttributes transposed{.adj_x = false, .adj_y = true};
    const Shape scores_shape = {1, 1, tokens, kToyContext};
    const TensorId scores = toy_.Op(OpKind::kBatchMatMul, {q, new_k}, scores_shape, transposed);
    const TensorId masked = toy_.Op(OpKind::kAdd, {scores, mask}, scores_shape);
    const TensorId probabilities = toy_.Op(OpKind::kSoftmax, {masked}, scores_shape, SoftmaxAttributes{});
    const TensorId mixed = toy_.Op(OpKind::kBatchMatMul, {probabilities, new_v}, {1, 1, tokens, kHidden}, transposed);
    const TensorId rows = toy_.Op(OpKind::kReshape, {mixed}, {1, tokens, kHidden});
    const TensorId sum = toy_.Op(OpKind::kAdd, {rows, x}, {1, tokens, kHidden});
    toy_.Output("logits", Project(sum, weights_.head, head_, tokens));
  }

  using Stored = std::pair<int32_t, TensorId>;
  const ToyTextOptions& options_;
  Weights weights_;
  ToyGraph toy_;
  Stored per_layer_{0, kNone};
  Stored q_{0, kNone};
  Stored k_{0, kNone};
  Stored v_{0, kNone};
  Stored head_{0, kNone};
};

Graph MakeEmbedder(const Matrix& table, Shape out) {
  ToyGraph toy;
  toy.Begin("embedder");
  const TensorId ids = toy.Op(OpKind::kReshape, {toy.Input("token_ids", DType::kI32, {1, 1})}, {1}, {}, DType::kI32);
  const TensorId row = toy.Op(OpKind::kEmbeddingLookup, {ids, toy.Floats({table.out, table.in}, table.values)}, {1, table.in});
  toy.Output("embeddings", toy.Op(OpKind::kReshape, {row}, std::move(out)));
  return toy.Take();
}

using Vector = std::vector<double>;

Vector Multiply(const Matrix& matrix, const Vector& x) {
  Vector y(static_cast<size_t>(matrix.out));
  for (size_t i = 0; i < y.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) y[i] += static_cast<double>(matrix.values[i * x.size() + j]) * x[j];
  }
  return y;
}

Vector RowOf(const Matrix& table, int32_t row) {
  const auto begin = table.values.begin() + row * table.in;
  return {begin, begin + table.in};
}

void AddTo(Vector& a, const Vector& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

TextModel MakeToyTextModel(const ToyTextOptions& options) {
  const Weights weights;
  TextModel model;
  model.embedder = MakeEmbedder(weights.table, {1, 1, kHidden});
  if (options.per_layer_embeddings) model.per_layer_embedder = MakeEmbedder(weights.per_layer_table, {1, 1, 1, kPerLayer});
  model.prefill_decode = ModelBuilder(options).Build();
  return model;
}

std::vector<std::vector<double>> ToyTextOracle(std::span<const int32_t> tokens, bool per_layer_embeddings) {
  const Weights weights;
  std::vector<Vector> keys;
  std::vector<Vector> values;
  std::vector<Vector> logits;
  for (size_t i = 0; i < tokens.size(); ++i) {
    Vector x = RowOf(weights.table, tokens[i]);
    if (per_layer_embeddings) AddTo(x, Multiply(weights.per_layer, RowOf(weights.per_layer_table, tokens[i])));
    for (double& value : x) value += static_cast<double>(kPositionScale) * static_cast<double>(i);
    keys.push_back(Multiply(weights.k, x));
    values.push_back(Multiply(weights.v, x));
    const Vector query = Multiply(weights.q, x);
    Vector scores;
    for (const Vector& key : keys) scores.push_back(std::exp(Dot(query, key)));
    double sum = 0.0;
    for (const double score : scores) sum += score;
    for (size_t j = 0; j < scores.size(); ++j) {
      for (size_t d = 0; d < x.size(); ++d) x[d] += scores[j] / sum * values[j][d];
    }
    logits.push_back(Multiply(weights.head, x));
  }
  return logits;
}

}  // namespace taskpress::testing
