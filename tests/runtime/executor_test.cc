// Memory: which tensors share it, that nobody overwrites what is still read, and that states are updated in place.
#include "runtime/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RandomFloats;
using testing::RunGraph;
using testing::ToyGraph;

constexpr std::array kAllKernels = {Kernels::kReference, Kernels::kXnnpack, Kernels::kFast, Kernels::kInPlace};

TEST(ArenaTest, TensorsThatLiveTogetherNeverOverlap) {
  std::mt19937 engine(1);
  std::vector<Storage> storages;
  for (int i = 0; i < 300; ++i) {
    const auto first = static_cast<int32_t>(engine() % 100);
    storages.push_back({.bytes = 1 + engine() % 5000, .first = first, .last = first + static_cast<int32_t>(engine() % 10)});
  }
  const ArenaLayout layout = LayOutArena(storages).value();
  uint64_t total = 0;
  for (size_t i = 0; i < storages.size(); ++i) {
    total += storages[i].bytes;
    EXPECT_EQ(layout.offsets[i] % kTensorAlignment, 0U);
    EXPECT_LE(layout.offsets[i] + storages[i].bytes + kTensorPadding, layout.bytes);
    for (size_t j = 0; j < i; ++j) {
      if (storages[i].last < storages[j].first || storages[j].last < storages[i].first) continue;
      const bool apart = layout.offsets[i] + storages[i].bytes + kTensorPadding <= layout.offsets[j] ||
                         layout.offsets[j] + storages[j].bytes + kTensorPadding <= layout.offsets[i];
      EXPECT_TRUE(apart) << i << " and " << j;
    }
  }
  EXPECT_LT(layout.bytes, total / 4);
}

TEST(ArenaTest, RefusesMoreThanCanBeAddressed) {
  const std::vector<Storage> storages = {{.bytes = ~uint64_t{0} - 10, .first = 0, .last = 0}};
  EXPECT_EQ(LayOutArena(storages).error().code, ErrorCode::kGraphShape);
}

TEST(PlanTest, ReshapesAndContiguousSlicesAreViews) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 4, 6});
  const TensorId squared = toy.Op(OpKind::kSquare, {x}, {1, 4, 6});
  const TensorId rows = toy.Op(OpKind::kSlice, {squared, toy.Ints({0, 1, 0}), toy.Ints({1, 2, 6})}, {1, 2, 6});
  const TensorId moved = toy.Op(OpKind::kTranspose, {rows, toy.Ints({1, 0, 2})}, {2, 1, 6});
  const TensorId flat = toy.Op(OpKind::kReshape, {moved, toy.Ints({12})}, {12});
  const TensorId half = toy.Op(OpKind::kSlice, {flat, toy.Ints({6}), toy.Ints({6})}, {6});
  const TensorId columns = toy.Op(OpKind::kSlice, {squared, toy.Ints({0, 0, 1}), toy.Ints({1, 4, 2})}, {1, 4, 2});
  toy.Output("half", toy.Op(OpKind::kRelu, {half}, {6}));
  toy.Output("columns", toy.Op(OpKind::kRelu, {columns}, {1, 4, 2}));
  const Graph graph = toy.Take();
  const Plan plan = MakePlan(graph, 0, {}).value();
  EXPECT_EQ(plan.ops.size(), 4U);  // square, one slice that cuts columns, two relus
  EXPECT_EQ(plan.placements[static_cast<size_t>(half)].index, plan.placements[static_cast<size_t>(squared)].index);
  EXPECT_EQ(plan.placements[static_cast<size_t>(half)].offset, 12U * sizeof(float));
  EXPECT_EQ(plan.values[static_cast<size_t>(flat)], rows);
  std::vector<float> values(24);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  for (const Kernels kernels : kAllKernels) {
    EXPECT_THAT(RunGraph(graph, {values}, {.kernels = kernels}).value().floats(), ElementsAre(144, 169, 196, 225, 256, 289));
  }
}

TEST(PlanTest, DeadOpsAreDropped) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {3});
  const TensorId dead = toy.Op(OpKind::kTanh, {x}, {3});
  toy.Op(OpKind::kSquare, {dead}, {3});
  toy.Output("y", toy.Op(OpKind::kRelu, {x}, {3}));
  const Graph graph = toy.Take();
  EXPECT_THAT(MakePlan(graph, 0, {}).value().ops, ElementsAre(2));
}

// A state of four rows, updated at `start`; the outcome of `Read` tells what was seen.
struct StateGraph {
  Graph graph;
  TensorId update = kNone;
  TensorId start = kNone;
  TensorId state_in = kNone;
  TensorId state_out = kNone;
  TensorId seen = kNone;
};

// `read_old`: the graph also reads the input after the update, which forbids updating in place.
StateGraph MakeStateGraph(bool read_old) {
  ToyGraph toy;
  toy.Begin("main");
  StateGraph state;
  state.state_in = toy.Input("state", DType::kF32, {4, 2});
  state.update = toy.Input("update", DType::kF32, {1, 2});
  state.start = toy.Input("start", DType::kI32, {2});
  state.state_out = toy.Op(OpKind::kDynamicUpdateSlice, {state.state_in, state.update, state.start}, {4, 2});
  state.seen = toy.Op(OpKind::kRelu, {read_old ? state.state_in : state.state_out}, {4, 2});
  toy.Output("state", state.state_out);
  toy.Output("seen", state.seen);
  state.graph = toy.Take();
  return state;
}

TEST(StateTest, IsUpdatedInPlaceWhenNobodyReadsTheOldOne) {
  for (const Kernels kernels : kAllKernels) {
    const StateGraph state = MakeStateGraph(/*read_old=*/false);
    const auto shared = SharedRuntime::Create({.kernels = kernels, .threads = 1}).value();
    TensorBuffer buffer = TensorBuffer::Make(8 * sizeof(float)).value();
    buffer.Zero();
    const ExternalBuffer external{.input = state.state_in, .output = state.state_out, .bytes = buffer.bytes()};
    EXPECT_TRUE(MakePlan(state.graph, 0, std::span(&external, 1)).value().copy_backs.empty());
    Executor executor = Executor::Create(state.graph, 0, *shared, std::span(&external, 1)).value();
    EXPECT_EQ(executor.Output(state.state_out).data(), buffer.data());
    for (int32_t row = 0; row < 3; ++row) {
      std::ranges::fill(executor.InputAs<float>(state.update), static_cast<float>(row + 1));
      executor.InputAs<int32_t>(state.start)[0] = row;
      executor.InputAs<int32_t>(state.start)[1] = 0;
      ASSERT_TRUE(executor.Run().has_value());
    }
    EXPECT_THAT(executor.OutputAs<float>(state.seen), ElementsAre(1, 1, 2, 2, 3, 3, 0, 0));
  }
}

TEST(StateTest, IsCopiedBackWhenTheOldOneIsReadAfterTheUpdate) {
  for (const Kernels kernels : kAllKernels) {
    const StateGraph state = MakeStateGraph(/*read_old=*/true);
    const auto shared = SharedRuntime::Create({.kernels = kernels, .threads = 1}).value();
    TensorBuffer buffer = TensorBuffer::Make(8 * sizeof(float)).value();
    buffer.Zero();
    const ExternalBuffer external{.input = state.state_in, .output = state.state_out, .bytes = buffer.bytes()};
    EXPECT_EQ(MakePlan(state.graph, 0, std::span(&external, 1)).value().copy_backs.size(), 1U);
    Executor executor = Executor::Create(state.graph, 0, *shared, std::span(&external, 1)).value();
    std::ranges::fill(executor.InputAs<float>(state.update), 5.0F);
    std::ranges::fill(executor.InputAs<int32_t>(state.start), 0);
    ASSERT_TRUE(executor.Run().has_value());
    EXPECT_THAT(executor.OutputAs<float>(state.seen), Each(0.0F));
    const auto* values = reinterpret_cast<const float*>(buffer.data());
    EXPECT_THAT(std::vector<float>(values, values + 8), ElementsAre(5, 5, 0, 0, 0, 0, 0, 0));
  }
}

TEST(StateTest, AnUpdateThatReadsItsOwnOperandIsNotInPlace) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId in = toy.Input("state", DType::kF32, {3, 2});
  const TensorId first = toy.Op(OpKind::kSlice, {in, toy.Ints({0, 0}), toy.Ints({2, 2})}, {2, 2});  // a view of the state
  const TensorId out = toy.Op(OpKind::kDynamicUpdateSlice, {in, first, toy.Ints({1, 0})}, {3, 2});
  toy.Output("state", out);
  const Graph graph = toy.Take();
  for (const Kernels kernels : kAllKernels) {
    const auto shared = SharedRuntime::Create({.kernels = kernels, .threads = 1}).value();
    TensorBuffer buffer = TensorBuffer::Make(6 * sizeof(float)).value();
    auto* values = reinterpret_cast<float*>(buffer.data());
    std::ranges::copy(std::vector<float>{1, 2, 3, 4, 5, 6}, values);
    const ExternalBuffer external{.input = in, .output = out, .bytes = buffer.bytes()};
    Executor executor = Executor::Create(graph, 0, *shared, std::span(&external, 1)).value();
    ASSERT_TRUE(executor.Run().has_value());
    EXPECT_THAT(std::vector<float>(values, values + 6), ElementsAre(1, 2, 1, 2, 3, 4));
  }
}

TEST(StateTest, AnInputThatIsNoStateKeepsItsValue) {
  const StateGraph state = MakeStateGraph(/*read_old=*/false);
  for (const Kernels kernels : kAllKernels) {
    const auto shared = SharedRuntime::Create({.kernels = kernels, .threads = 1}).value();
    Executor executor = Executor::Create(state.graph, 0, *shared).value();
    std::ranges::fill(executor.InputAs<float>(state.state_in), 7.0F);
    std::ranges::fill(executor.InputAs<float>(state.update), 5.0F);
    std::ranges::fill(executor.InputAs<int32_t>(state.start), 0);
    ASSERT_TRUE(executor.Run().has_value());
    EXPECT_THAT(executor.InputAs<float>(state.state_in), Each(7.0F));
    EXPECT_THAT(executor.OutputAs<float>(state.state_out), ElementsAre(5, 5, 7, 7, 7, 7, 7, 7));
  }
}

TEST(StateTest, ABufferOfTheWrongSizeIsRefused) {
  const StateGraph state = MakeStateGraph(/*read_old=*/false);
  const auto shared = SharedRuntime::Create({.kernels = Kernels::kReference, .threads = 1}).value();
  const TensorBuffer buffer = TensorBuffer::Make(64).value();
  const auto create = [&](TensorId input, TensorId output, uint64_t bytes) {
    const ExternalBuffer external{.input = input, .output = output, .bytes = buffer.bytes().first(bytes)};
    return Executor::Create(state.graph, 0, *shared, std::span(&external, 1)).error();
  };
  EXPECT_THAT(create(state.state_in, state.state_out, 28).message, HasSubstr("does not fit a state of 28 bytes"));
  EXPECT_EQ(create(state.state_out, kNone, 32).code, ErrorCode::kGraphShape);
  EXPECT_EQ(create(state.update, state.state_out, 32).code, ErrorCode::kGraphShape);
}

// Quantized on demand: what a graph straight from the converter holds.
class LazyRows final : public RowSource {
 public:
  int64_t num_rows() const override { return 150; }
  uint64_t row_bytes() const override { return 4; }
  Status ReadRows(int64_t first, int64_t count, ByteSpan packed, std::span<float> scales) const override {
    if (first < 0 || fail_) return Fail(ErrorCode::kReadFailed, "row {}", first);
    for (int64_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < 4; ++j) packed[static_cast<size_t>(i) * 4 + j] = static_cast<std::byte>((first + i) % 100);
      scales[static_cast<size_t>(i)] = 0.5F * static_cast<float>(1 + (first + i) % 2);
    }
    return {};
  }
  bool fail_ = false;
};

Graph LazyGraph(const std::shared_ptr<LazyRows>& rows) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId ids = toy.Input("ids", DType::kI32, {2});
  const TensorId table = toy.Quantized(DType::kI8, {150, 4}, std::vector<float>(600, 1.0F));
  toy.Output("y", toy.Op(OpKind::kEmbeddingLookup, {ids, table}, {2, 4}));
  Graph graph = toy.Take();
  graph.buffers[0].bytes = rows;
  graph.quantizations[0].scales = nullptr;
  return graph;
}

TEST(ConstantTest, RowsThatAreQuantizedOnDemandBringTheirScales) {
  const Graph graph = LazyGraph(std::make_shared<LazyRows>());
  for (const Kernels kernels : kAllKernels) {
    EXPECT_THAT(RunGraph(graph, {std::vector<int32_t>{3, 148}}, {.kernels = kernels, .threads = 2}).value().floats(),
                ElementsAre(3, 3, 3, 3, 24, 24, 24, 24));
  }
}

TEST(ConstantTest, AFailureToReadARowIsReported) {
  const auto rows = std::make_shared<LazyRows>();
  rows->fail_ = true;
  EXPECT_EQ(RunGraph(LazyGraph(rows), {}).error().code, ErrorCode::kReadFailed);
}

TEST(ConstantTest, MisalignedConstantsAreCopied) {
  std::vector<std::byte> file(1 + 3 * sizeof(float));
  const std::array<float, 3> values = {1, 2, 3};
  std::memcpy(file.data() + 1, values.data(), sizeof(values));
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 3});
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, toy.Floats({1, 3}, {0, 0, 0})}, {1, 1}, FullyConnectedAttributes{}));
  Graph graph = toy.Take();
  graph.buffers[0].bytes = MakeSubSource(MakeMemorySource(ByteView(file)), 1, sizeof(values)).value();
  for (const Kernels kernels : kAllKernels) {
    EXPECT_THAT(RunGraph(graph, {std::vector<float>{1, 10, 100}}, {.kernels = kernels}).value().floats(), ElementsAre(321));
  }
}

TEST(PackedWeightsTest, SignaturesShareOnePackedCopy) {
  ToyGraph toy;
  std::vector<std::pair<TensorId, TensorId>> io;
  TensorId weights = kNone;
  for (const int64_t rows : {1, 8}) {
    toy.Begin("s" + std::to_string(rows));
    const TensorId x = toy.Input("x", DType::kF32, {1, rows, 64});
    const TensorId w = weights == kNone ? toy.Quantized(DType::kI4, {48, 64}, RandomFloats(48 * 64, 1)) : toy.SameConstant(0, weights);
    weights = w;
    io.emplace_back(x, toy.Op(OpKind::kFullyConnected, {x, w}, {1, rows, 48}, FullyConnectedAttributes{}));
    toy.Output("y", io.back().second);
  }
  const Graph graph = toy.Take();
  const auto shared = SharedRuntime::Create({.kernels = Kernels::kXnnpack, .threads = 1}).value();
  const Executor one = Executor::Create(graph, 0, *shared).value();
  const uint64_t bytes = shared->packed_weights().bytes();
  EXPECT_GT(bytes, 48U * 64 / 2);
  const Executor eight = Executor::Create(graph, 1, *shared).value();
  EXPECT_EQ(shared->packed_weights().bytes(), bytes);
}

// The sub-model of an elastic bundle reads the first rows of a matrix, with the same bytes and the same scales.
TEST(PackedWeightsTest, AMatrixOverThePrefixOfAnotherIsPackedSeparately) {
  const std::vector<float> values = RandomFloats(6 * 8, 2);
  const auto run = [&](bool both) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, {1, 8});
    const TensorId large = toy.Quantized(DType::kI8, {6, 8}, values);
    const TensorId small = toy.Quantized(DType::kI8, {3, 8}, std::span(values).first(24));
    const TensorId b = toy.Op(OpKind::kFullyConnected, {x, large}, {1, 6}, FullyConnectedAttributes{});
    const TensorId a = toy.Op(OpKind::kFullyConnected, {x, small}, {1, 3}, FullyConnectedAttributes{});
    toy.Output("a", a);
    if (both) toy.Output("b", b);
    Graph graph = toy.Take();
    graph.buffers[1].bytes = MakeSubSource(graph.buffers[0].bytes, 0, 24).value();
    graph.quantizations[1].scales = MakeSubSource(graph.quantizations[0].scales, 0, 12).value();
    return RunGraph(graph, {RandomFloats(8, 3)}, {.kernels = Kernels::kXnnpack}).value().floats();
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(ExecutorTest, RefusesAGraphThatIsNotValid) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {3});
  toy.Output("y", toy.Op(OpKind::kRelu, {x}, {3}));
  Graph graph = toy.Take();
  const auto shared = SharedRuntime::Create({.kernels = Kernels::kReference, .threads = 1}).value();
  EXPECT_EQ(Executor::Create(graph, 1, *shared).error().code, ErrorCode::kTfliteReference);
  graph.subgraphs[0].ops[0].inputs[0] = 99;
  EXPECT_EQ(Executor::Create(graph, 0, *shared).error().code, ErrorCode::kTfliteReference);
}

}  // namespace
}  // namespace taskpress
