// Fused steps against the operators they stand for: row regions bit for bit, attention within a bound.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/executor.h"
#include "runtime/passes/step_groups.h"
#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using ::testing::Contains;
using ::testing::Not;
using testing::RandomFloats;
using testing::ToyGraph;

struct Outcome {
  std::vector<std::vector<float>> outputs;
  std::vector<std::string> steps;
  uint64_t skipped_bytes = 0;
};

struct Setting {
  Kernels kernels = Kernels::kFast;
  int threads = 1;
  PassNames disabled_passes;
};

Outcome RunAll(const Graph& graph, const std::vector<testing::Values>& inputs, const Setting& setting) {
  const auto shared =
      SharedRuntime::Create({.kernels = setting.kernels, .threads = setting.threads, .disabled_passes = setting.disabled_passes}).value();
  Result<Executor> created = Executor::Create(graph, 0, *shared);
  if (!created) {
    ADD_FAILURE() << created.error().message;
    return {};
  }
  Executor& executor = *created;
  const Subgraph& subgraph = graph.subgraphs[0];
  Outcome outcome;
  // Twice: what a run leaves in the memory of the next must not count.
  for (int run = 0; run < 2; ++run) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const ByteSpan to = executor.Input(subgraph.inputs[i]);
      std::visit([&](const auto& values) { std::ranges::copy(std::as_bytes(std::span(values)), to.begin()); }, inputs[i]);
    }
    EXPECT_TRUE(executor.Run().has_value());
    outcome.outputs.clear();
    for (const TensorId output : subgraph.outputs) {
      const std::span<const float> values = executor.OutputAs<float>(output);
      outcome.outputs.emplace_back(values.begin(), values.end());
    }
  }
  for (const StepInfo& step : executor.steps()) outcome.steps.emplace_back(step.name);
  outcome.skipped_bytes = executor.skipped_bytes();
  return outcome;
}

void ExpectSameBits(const Graph& graph, const std::vector<testing::Values>& inputs) {
  const Outcome plain = RunAll(graph, inputs, {.kernels = Kernels::kXnnpack});
  for (const int threads : {1, 2, 4}) {
    const Outcome fused = RunAll(graph, inputs, {.threads = threads});
    EXPECT_LT(fused.steps.size(), plain.steps.size());
    EXPECT_EQ(fused.outputs, plain.outputs) << threads << " threads";
  }
}

// A random run of row-wise operators between two matrix products, [1, tokens, heads, columns] all along.
class RandomRegion {
 public:
  RandomRegion(uint32_t seed, int64_t tokens, int64_t heads, int64_t columns)
      : engine_(seed), tokens_(tokens), heads_(heads), columns_(columns) {
    toy_.Begin("main");
    const TensorId x = toy_.Input("x", DType::kF32, {1, tokens, heads * columns});
    const std::vector<float> weights = RandomFloats(heads * columns * 40, seed + 1);
    const TensorId product = Product(x, toy_.Quantized(DType::kI8, {heads * columns, heads * columns}, Square(seed)), heads * columns);
    Add(toy_.Op(OpKind::kReshape, {product, Dims({1, tokens, heads, columns})}, {1, tokens, heads, columns}), columns);
    for (int i = 0; i < 25; ++i) Step();
    const TensorId flat = toy_.Op(OpKind::kReshape, {Wide(), Dims({1, tokens, heads * columns})}, {1, tokens, heads * columns});
    toy_.Output("y", Product(flat, toy_.Quantized(DType::kI4, {40, heads * columns}, weights), 40));
    const auto three = std::span(weights).first(static_cast<size_t>(3 * heads * columns));
    toy_.Output("z", Product(flat, toy_.Floats({3, heads * columns}, three), 3));
    toy_.Output("kept", values_[values_.size() / 2].id);
  }

  Graph Take() { return toy_.Take(); }
  [[nodiscard]] std::vector<testing::Values> Inputs() const { return {RandomFloats(tokens_ * heads_ * columns_, 77)}; }

 private:
  struct Made {
    TensorId id;
    int64_t width;  // columns_ or 1 or half
  };

  std::vector<float> Square(uint32_t seed) const { return RandomFloats(heads_ * columns_ * heads_ * columns_, seed + 2); }
  TensorId Product(TensorId x, TensorId weights_id, int64_t out) {
    return toy_.Op(OpKind::kFullyConnected, {x, weights_id}, {1, tokens_, out}, FullyConnectedAttributes{});
  }
  TensorId Dims(std::initializer_list<int64_t> dims) {
    std::vector<int32_t> narrow;
    for (const int64_t dim : dims) narrow.push_back(static_cast<int32_t>(dim));
    return narrow.size() == 3 ? toy_.Ints({narrow[0], narrow[1], narrow[2]}) : toy_.Ints({narrow[0], narrow[1], narrow[2], narrow[3]});
  }
  void Add(TensorId id, int64_t width) { values_.push_back({.id = id, .width = width}); }
  uint32_t Random(uint32_t count) { return static_cast<uint32_t>(engine_() % count); }
  Shape Of(int64_t width) const { return {1, tokens_, heads_, width}; }
  TensorId Wide() {
    for (size_t i = values_.size(); i-- > 0;) {
      if (values_[i].width == columns_) return values_[i].id;
    }
    return values_[0].id;
  }
  Made Any() { return values_[Random(static_cast<uint32_t>(values_.size()))]; }

  TensorId Unary(OpKind kind, const Made& a) {
    OpAttributes attributes;
    if (kind == OpKind::kGelu) attributes = GeluAttributes{.approximate = true};
    return toy_.Op(kind, {a.id}, Of(a.width), attributes);
  }

  void Step() {
    constexpr std::array kBinary{OpKind::kAdd, OpKind::kSub, OpKind::kMul, OpKind::kMinimum, OpKind::kMaximum};
    constexpr std::array kUnary{OpKind::kSquare, OpKind::kTanh, OpKind::kRelu, OpKind::kGelu, OpKind::kCos, OpKind::kSin};
    const uint32_t choice = Random(8);
    const Made a = Any();
    if (choice < 2) {
      const Made b = Any();
      const bool fits = a.width == b.width || a.width == 1 || b.width == 1;
      const TensorId other = fits ? b.id : toy_.Floats({a.width}, RandomFloats(a.width, Random(100)));
      const int64_t width = fits ? std::max(a.width, b.width) : a.width;
      return Add(toy_.Op(kBinary[Random(5)], {a.id, other}, Of(width)), width);
    }
    if (choice == 2) return Add(toy_.Op(kBinary[Random(5)], {toy_.Floats({1}, {0.25F}), a.id}, Of(a.width)), a.width);
    if (choice == 3) return Add(Unary(kUnary[Random(6)], a), a.width);
    if (choice == 4) return Add(toy_.Op(OpKind::kMean, {a.id, toy_.Ints({3})}, Of(1), MeanAttributes{.keep_dims = true}), 1);
    if (choice == 5) {
      const TensorId squared = toy_.Op(OpKind::kSquare, {a.id}, Of(a.width));
      const TensorId mean = toy_.Op(OpKind::kMean, {squared, toy_.Ints({-1})}, Of(1), MeanAttributes{.keep_dims = true});
      return Add(toy_.Op(OpKind::kMul, {a.id, toy_.Op(OpKind::kSqrt, {mean}, Of(1))}, Of(a.width)), a.width);
    }
    if (a.width != columns_) return;
    const auto half = static_cast<int32_t>(columns_ / 2);
    const TensorId first = toy_.Op(OpKind::kSlice, {a.id, toy_.Ints({0, 0, 0, 0}), Dims({1, tokens_, heads_, half})}, Of(half));
    const TensorId second =
        toy_.Op(OpKind::kSlice, {a.id, toy_.Ints({0, 0, 0, half}), Dims({1, tokens_, heads_, columns_ - half})}, Of(columns_ - half));
    Add(toy_.Op(OpKind::kConcatenation, {second, first}, Of(columns_), ConcatenationAttributes{.axis = 3}), columns_);
  }

  std::mt19937 engine_;
  int64_t tokens_;
  int64_t heads_;
  int64_t columns_;
  ToyGraph toy_;
  std::vector<Made> values_;
};

TEST(RowRegionTest, RandomRunsOfOperatorsGiveTheSameBits) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const int64_t tokens = std::array<int64_t, 5>{1, 2, 7, 19, 40}[seed % 5];
    const int64_t heads = std::array<int64_t, 3>{1, 2, 3}[seed % 3];
    const int64_t columns = std::array<int64_t, 4>{8, 24, 34, 64}[seed % 4];
    SCOPED_TRACE(Format("seed {}: {} tokens, {} heads, {} columns", seed, tokens, heads, columns));
    RandomRegion region(seed, tokens, heads, columns);
    const Graph graph = region.Take();
    ExpectSameBits(graph, region.Inputs());
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

// x times several factors side by side, then as rows of one product, whose results are added up side by side again.
Graph TermsGraph(int64_t tokens, int64_t terms, int64_t columns, int64_t out) {
  ToyGraph toy;
  toy.Begin("main");
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  const TensorId x = toy.Input("x", DType::kF32, {1, tokens, columns});
  std::vector<TensorId> parts;
  for (int64_t term = 0; term < terms; ++term) {
    const TensorId factor = toy.Floats({1}, {0.5F + static_cast<float>(term)});
    parts.push_back(toy.Op(OpKind::kMul, {x, factor}, {1, tokens, columns}));
  }
  const TensorId joined = toy.Op(OpKind::kConcatenation, parts, {1, tokens, terms * columns}, ConcatenationAttributes{.axis = 2});
  const Shape rows{1, tokens * terms, columns};
  const TensorId stacked = toy.Op(OpKind::kReshape, {joined, toy.Ints({1, narrow(tokens * terms), narrow(columns)})}, rows);
  const TensorId weights = toy.Quantized(DType::kI8, {out, columns}, RandomFloats(out * columns, 5));
  const TensorId product =
      toy.Op(OpKind::kFullyConnected, {stacked, weights}, {1, tokens * terms, out}, FullyConnectedAttributes{.keep_num_dims = true});
  const TensorId flat = toy.Op(OpKind::kReshape, {product, toy.Ints({1, narrow(tokens), narrow(terms * out)})}, {1, tokens, terms * out});
  TensorId sum = kNone;
  for (int64_t term = 0; term < terms; ++term) {
    const TensorId part =
        toy.Op(OpKind::kSlice, {flat, toy.Ints({0, 0, narrow(term * out)}), toy.Ints({1, narrow(tokens), narrow(out)})}, {1, tokens, out});
    sum = term == 0 ? part : toy.Op(OpKind::kAdd, {sum, part}, {1, tokens, out});
  }
  toy.Output("y", sum);
  return toy.Take();
}

TEST(RowRegionTest, SeveralRowsOfATokenAreRoundedInTheRegion) {
  for (const int64_t tokens : {1, 2, 7, 19, 40}) {
    for (const int64_t terms : {2, 3}) {
      SCOPED_TRACE(Format("{} tokens, {} terms", tokens, terms));
      const Graph graph = TermsGraph(tokens, terms, 34, 24);
      const std::vector<testing::Values> inputs{RandomFloats(tokens * 34, 9)};
      ExpectSameBits(graph, inputs);
      const std::vector<std::string> steps = RunAll(graph, inputs, {}).steps;
      EXPECT_THAT(steps, Contains("ROW_REGION"));
      EXPECT_THAT(steps, Not(Contains("QUANTIZE_ROWS")));
      EXPECT_THAT(steps, Not(Contains("CONCATENATION")));
    }
  }
}

TEST(RowRegionTest, ItsPassCanBeSwitchedOff) {
  RandomRegion region(3, 7, 2, 24);
  const Graph graph = region.Take();
  EXPECT_THAT(RunAll(graph, region.Inputs(), {}).steps, Contains("ROW_REGION"));
  const Outcome off = RunAll(graph, region.Inputs(), {.disabled_passes = {"row_regions"}});
  EXPECT_THAT(off.steps, Not(Contains("ROW_REGION")));
  EXPECT_EQ(off.steps, RunAll(graph, region.Inputs(), {.kernels = Kernels::kXnnpack}).steps);
}

TEST(PassTest, AnUnknownNameIsRefused) {
  EXPECT_EQ(CheckPassName("attention_deficit").error().code, ErrorCode::kUsage);
  for (const PassInfo& pass : AllPasses()) EXPECT_TRUE(CheckPassName(pass.name).has_value());
  EXPECT_FALSE(SharedRuntime::Create({.disabled_passes = {"rows"}}).has_value());
}

struct FeedForwardCase {
  int64_t hidden = 64;
  int64_t units = 96;
  DType up = DType::kI4;
  float cutoff = 0.5F;  // above what the gate has, every unit is closed
  bool gelu = true;
  int64_t tokens = 1;
};

// The gate less a cutoff, RELU, GELU, times up, down.
Graph FeedForwardGraph(const FeedForwardCase& c) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, c.tokens, c.hidden});
  const auto product = [&](TensorId in, DType type, int64_t columns, int64_t rows, uint32_t seed) {
    return toy.Op(OpKind::kFullyConnected, {in, toy.Quantized(type, {rows, columns}, RandomFloats(rows * columns, seed))},
                  {1, c.tokens, rows}, FullyConnectedAttributes{});
  };
  TensorId gate = product(x, DType::kI4, c.hidden, c.units, 1);
  const TensorId up = product(x, c.up, c.hidden, c.units, 2);
  gate = toy.Op(OpKind::kRelu, {toy.Op(OpKind::kSub, {gate, toy.Floats({1}, {c.cutoff})}, {1, c.tokens, c.units})}, {1, c.tokens, c.units});
  if (c.gelu) gate = toy.Op(OpKind::kGelu, {gate}, {1, c.tokens, c.units}, GeluAttributes{.approximate = true});
  const TensorId open = toy.Op(OpKind::kMul, {gate, up}, {1, c.tokens, c.units});
  const TensorId down = product(open, DType::kI4, c.units, c.hidden, 3);
  toy.Output("y", toy.Op(OpKind::kTanh, {down}, {1, c.tokens, c.hidden}));
  return toy.Take();
}

TEST(SparseFeedForwardTest, GivesTheBitsOfTheDenseProducts) {
  for (const FeedForwardCase& c :
       {FeedForwardCase{}, FeedForwardCase{.hidden = 128, .units = 600, .up = DType::kI8, .cutoff = 4.0F},
        FeedForwardCase{.hidden = 2050, .units = 1000, .cutoff = -100.0F}, FeedForwardCase{.cutoff = 1000.0F},
        FeedForwardCase{.hidden = 300, .units = 4096, .cutoff = 10.0F, .gelu = false},
        // Several tokens, of which few units are open, most of them, and none.
        FeedForwardCase{.units = 1024, .cutoff = 5.0F, .tokens = 2},
        FeedForwardCase{.hidden = 130, .units = 400, .up = DType::kI8, .cutoff = 9.0F, .tokens = 7},
        FeedForwardCase{.hidden = 128, .units = 600, .cutoff = 12.0F, .tokens = 45},
        FeedForwardCase{.units = 300, .cutoff = 7.0F, .tokens = 530}, FeedForwardCase{.hidden = 200, .cutoff = -100.0F, .tokens = 19},
        FeedForwardCase{.cutoff = 1000.0F, .tokens = 3}}) {
    const Graph graph = FeedForwardGraph(c);
    const std::vector<testing::Values> inputs = {RandomFloats(c.tokens * c.hidden, 9)};
    const Outcome plain = RunAll(graph, inputs, {.kernels = Kernels::kXnnpack});
    for (const int threads : {1, 2, 4}) {
      const Outcome sparse = RunAll(graph, inputs, {.threads = threads});
      EXPECT_THAT(sparse.steps, Contains("SPARSE_FFN"));
      EXPECT_EQ(sparse.outputs, plain.outputs) << c.units << " units, cutoff " << c.cutoff;
    }
    EXPECT_THAT(RunAll(graph, inputs, {.disabled_passes = {"sparse_ffn"}}).steps, Not(Contains("SPARSE_FFN")));
  }
}

TEST(SparseFeedForwardTest, CountsTheWeightsThatOneTokenHadNoNeedToRead) {
  const auto skipped = [](float cutoff) {
    const FeedForwardCase c{.cutoff = cutoff};
    return RunAll(FeedForwardGraph(c), {RandomFloats(c.hidden, 9)}, {}).skipped_bytes;
  };
  EXPECT_EQ(skipped(-100.0F), 0U);
  EXPECT_EQ(skipped(1000.0F), 2U * 64 * 96 / 2);  // all of both matrices
  EXPECT_GT(skipped(0.5F), 0U);
  EXPECT_LT(skipped(0.5F), 2U * 64 * 96 / 2);
}

TEST(SparseFeedForwardTest, WithoutAReluAllUnitsAreComputed) {
  Graph graph = FeedForwardGraph({});
  for (Op& op : graph.subgraphs[0].ops) {
    if (op.kind == OpKind::kRelu) op.kind = OpKind::kSquare;
  }
  const std::vector<testing::Values> inputs = {RandomFloats(64, 9)};
  EXPECT_THAT(RunAll(graph, inputs, {}).steps, Not(Contains("SPARSE_FFN")));
}

struct AttentionCase {
  int64_t tokens = 1;
  int64_t kv_heads = 1;
  int64_t group = 1;
  int64_t head_dim = 8;
  int64_t cached = 16;  // positions in the cache
  int64_t seen = 16;    // positions gathered; == cached: no GATHER
  bool transposed_values = false;
};

// queries [1, tokens, heads, d], caches, mask [1, 1, 1, tokens, seen], positions [seen] as the models of this project have them.
Graph AttentionGraph(const AttentionCase& c) {
  const int64_t heads = c.kv_heads * c.group;
  ToyGraph toy;
  toy.Begin("main");
  const auto ints = [&](std::initializer_list<int64_t> values) {
    std::vector<int32_t> v(values.begin(), values.end());
    return v.size() == 4 ? toy.Ints({v[0], v[1], v[2], v[3]}) : toy.Ints({v[0], v[1], v[2], v[3], v[4]});
  };
  TensorId q = toy.Input("q", DType::kF32, {1, c.tokens, heads, c.head_dim});
  TensorId k = toy.Input("k", DType::kF32, {1, c.kv_heads, c.cached, c.head_dim});
  TensorId v = toy.Input("v", DType::kF32,
                         c.transposed_values ? Shape{1, c.kv_heads, c.head_dim, c.cached} : Shape{1, c.kv_heads, c.cached, c.head_dim});
  const TensorId mask = toy.Input("mask", DType::kF32, {1, 1, 1, c.tokens, c.seen});
  const TensorId positions = toy.Input("positions", DType::kI32, {c.seen});
  q = toy.Op(OpKind::kTranspose, {q, ints({0, 2, 1, 3})}, {1, heads, c.tokens, c.head_dim});
  q = toy.Op(OpKind::kReshape, {q, ints({1, c.kv_heads, c.group * c.tokens, c.head_dim})}, {1, c.kv_heads, c.group * c.tokens, c.head_dim});
  if (c.seen != c.cached) {
    const Shape rows{1, c.kv_heads, c.seen, c.head_dim};
    k = toy.Op(OpKind::kGather, {k, positions}, rows, GatherAttributes{.axis = 2, .batch_dims = 0});
    v = toy.Op(OpKind::kGather, {v, positions}, rows, GatherAttributes{.axis = 2, .batch_dims = 0});
  }
  TensorId s = toy.Op(OpKind::kBatchMatMul, {q, k}, {1, c.kv_heads, c.group * c.tokens, c.seen}, BatchMatMulAttributes{.adj_y = true});
  s = toy.Op(OpKind::kReshape, {s, ints({1, c.kv_heads, c.group, c.tokens, c.seen})}, {1, c.kv_heads, c.group, c.tokens, c.seen});
  s = toy.Op(OpKind::kAdd, {s, mask}, {1, c.kv_heads, c.group, c.tokens, c.seen});
  s = toy.Op(OpKind::kSoftmax, {s}, {1, c.kv_heads, c.group, c.tokens, c.seen}, SoftmaxAttributes{.beta = 1.0F});
  s = toy.Op(OpKind::kReshape, {s, ints({1, c.kv_heads, c.group * c.tokens, c.seen})}, {1, c.kv_heads, c.group * c.tokens, c.seen});
  TensorId o = toy.Op(OpKind::kBatchMatMul, {s, v}, {1, c.kv_heads, c.group * c.tokens, c.head_dim},
                      BatchMatMulAttributes{.adj_y = c.transposed_values});
  o = toy.Op(OpKind::kReshape, {o, ints({1, heads, c.tokens, c.head_dim})}, {1, heads, c.tokens, c.head_dim});
  o = toy.Op(OpKind::kTranspose, {o, ints({0, 2, 1, 3})}, {1, c.tokens, heads, c.head_dim});
  toy.Output("o", toy.Op(OpKind::kRelu, {o}, {1, c.tokens, heads, c.head_dim}));
  return toy.Take();
}

// Token t sees position0 - t .. ; the last row, if `padding`, sees nothing.
std::vector<testing::Values> AttentionInputs(const AttentionCase& c, bool padding, int64_t first_position) {
  const int64_t heads = c.kv_heads * c.group;
  std::vector<float> mask(static_cast<size_t>(c.tokens * c.seen), -0.7F * std::numeric_limits<float>::max());
  for (int64_t t = 0; t < c.tokens - (padding ? 1 : 0); ++t) {
    const int64_t last = std::min(c.seen - 1, c.seen / 2 + t);
    for (int64_t j = std::max<int64_t>(0, last - c.seen / 3); j <= last; ++j) mask[static_cast<size_t>(t * c.seen + j)] = 0.0F;
  }
  std::vector<int32_t> positions(static_cast<size_t>(c.seen));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first_position));
  const int64_t cache = c.kv_heads * c.cached * c.head_dim;
  std::vector<float> q = RandomFloats(c.tokens * heads * c.head_dim, 5);
  for (float& x : q) x *= 4.0F;
  return {q, RandomFloats(cache, 6), RandomFloats(cache, 7), mask, positions};
}

std::vector<AttentionCase> AttentionCases() {
  return {{.tokens = 1, .kv_heads = 2, .group = 4, .head_dim = 32, .cached = 40, .seen = 40},
          {.tokens = 1, .kv_heads = 2, .group = 4, .head_dim = 32, .cached = 1500, .seen = 1500, .transposed_values = true},
          {.tokens = 1, .kv_heads = 1, .group = 1, .head_dim = 5, .cached = 2000, .seen = 1100},
          {.tokens = 9, .kv_heads = 1, .group = 3, .head_dim = 20, .cached = 70, .seen = 70, .transposed_values = true},
          {.tokens = 33, .kv_heads = 2, .group = 4, .head_dim = 64, .cached = 200, .seen = 96},
          {.tokens = 70, .kv_heads = 1, .group = 1, .head_dim = 256, .cached = 300, .seen = 300},
          {.tokens = 12, .kv_heads = 2, .group = 40, .head_dim = 16, .cached = 64, .seen = 33},
          {.tokens = 5, .kv_heads = 3, .group = 2, .head_dim = 8, .cached = 600, .seen = 600, .transposed_values = true}};
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}

// Scores are up to 30 and summed up in float32, so weights may differ by a few millionths.
TEST(AttentionStepTest, AgreesWithTheOperatorsItStandsFor) {
  for (const AttentionCase& c : AttentionCases()) {
    const Graph graph = AttentionGraph(c);
    for (const bool padding : {false, true}) {
      if (padding && c.tokens == 1) continue;
      const std::vector<testing::Values> inputs = AttentionInputs(c, padding, c.cached - c.seen);
      const Outcome exact = RunAll(graph, inputs, {.kernels = Kernels::kReference});
      const Outcome fused = RunAll(graph, inputs, {.threads = 1});
      EXPECT_THAT(fused.steps, Contains("ATTENTION"));
      EXPECT_THAT(fused.steps, Not(Contains("SOFTMAX")));
      EXPECT_THAT(fused.steps, Not(Contains("TRANSPOSE")));
      EXPECT_THAT(fused.steps, Not(Contains("GATHER")));
      EXPECT_LT(LargestDifference(exact.outputs[0], fused.outputs[0]), 1e-5) << c.tokens << " tokens, " << c.seen << " seen";
      for (const int threads : {2, 4}) EXPECT_EQ(RunAll(graph, inputs, {.threads = threads}).outputs, fused.outputs);
    }
  }
}

TEST(AttentionStepTest, PositionsInAnyOrderAreGathered) {
  const AttentionCase c{.tokens = 3, .kv_heads = 2, .group = 2, .head_dim = 16, .cached = 50, .seen = 20};
  const Graph graph = AttentionGraph(c);
  std::vector<testing::Values> inputs = AttentionInputs(c, false, 0);
  std::vector<int32_t> positions(20);
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>((i * 17 + 3) % 50);
  inputs[4] = positions;
  const Outcome exact = RunAll(graph, inputs, {.kernels = Kernels::kReference});
  EXPECT_LT(LargestDifference(exact.outputs[0], RunAll(graph, inputs, {}).outputs[0]), 2e-6);
}

TEST(AttentionStepTest, APositionOutsideTheCacheIsAnError) {
  const AttentionCase c{.tokens = 1, .kv_heads = 1, .group = 2, .head_dim = 8, .cached = 12, .seen = 4};
  const Graph graph = AttentionGraph(c);
  const auto shared = SharedRuntime::Create({.threads = 1}).value();
  Executor executor = Executor::Create(graph, 0, *shared).value();
  std::ranges::fill(executor.InputAs<int32_t>(graph.subgraphs[0].inputs[4]), 12);
  EXPECT_EQ(executor.Run().error().code, ErrorCode::kRuntimeIndex);
}

TEST(AttentionStepTest, AGraphThatReadsTheScoresElsewhereRunsOperatorByOperator) {
  Graph graph = AttentionGraph({.tokens = 3, .kv_heads = 1, .group = 2, .head_dim = 8, .cached = 16, .seen = 16});
  Subgraph& subgraph = graph.subgraphs[0];
  for (const Op& op : subgraph.ops) {
    if (op.kind == OpKind::kSoftmax) {
      subgraph.outputs.push_back(op.outputs[0]);
      graph.signatures[0].outputs.emplace_back("weights", op.outputs[0]);
    }
  }
  const auto shared = SharedRuntime::Create({.threads = 1}).value();
  const Executor executor = Executor::Create(graph, 0, *shared).value();
  EXPECT_THAT(executor.steps(), Contains(::testing::Field(&StepInfo::name, "SOFTMAX")));
}

}  // namespace
}  // namespace taskpress
