// Every operator on numbers that a person can check, and every refusal. Dimensions differ, so that a swapped axis cannot pass.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <limits>

#include "runtime/kernels/reference/quantized_activation.h"
#include "schema/base/half.h"
#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;
using testing::RunGraph;
using testing::ToyGraph;
using testing::Values;

// A graph with one op; the last tensor is the output.
Graph Finish(ToyGraph& toy, TensorId output) {
  toy.Output("y", output);
  return toy.Take();
}

std::vector<float> RunBinary(OpKind kind, const Shape& a, const Shape& b, const Shape& out, std::vector<float> va, std::vector<float> vb) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, a);
  const TensorId y = toy.Input("y", DType::kF32, b);
  const Graph graph = Finish(toy, toy.Op(kind, {x, y}, out));
  return RunGraph(graph, {std::move(va), std::move(vb)}).value().floats();
}

TEST(BinaryTest, BroadcastsLikeNumpy) {
  EXPECT_THAT(RunBinary(OpKind::kAdd, {2, 1, 3}, {2, 1}, {2, 2, 3}, {1, 2, 3, 4, 5, 6}, {10, 20}),
              ElementsAre(11, 12, 13, 21, 22, 23, 14, 15, 16, 24, 25, 26));
  EXPECT_THAT(RunBinary(OpKind::kSub, {1}, {2, 2}, {2, 2}, {10}, {1, 2, 3, 4}), ElementsAre(9, 8, 7, 6));
  EXPECT_THAT(RunBinary(OpKind::kMul, {2, 3}, {3}, {2, 3}, {1, 2, 3, 4, 5, 6}, {1, 10, 100}), ElementsAre(1, 20, 300, 4, 50, 600));
  EXPECT_THAT(RunBinary(OpKind::kMinimum, {3}, {3}, {3}, {1, 5, -3}, {2, 4, -2}), ElementsAre(1, 4, -3));
  EXPECT_THAT(RunBinary(OpKind::kMaximum, {3}, {1}, {3}, {1, 5, -3}, {2}), ElementsAre(2, 5, 2));
}

TEST(BinaryTest, ComputesInIntegersToo) {
  for (const auto& [kind, expected] : std::vector<std::pair<OpKind, std::vector<int32_t>>>{{OpKind::kAdd, {8, 5}},
                                                                                           {OpKind::kSub, {-2, -5}},
                                                                                           {OpKind::kMul, {15, 0}},
                                                                                           {OpKind::kMinimum, {3, 0}},
                                                                                           {OpKind::kMaximum, {5, 5}}}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kI32, {2});
    const Graph graph = Finish(toy, toy.Op(kind, {x, toy.Ints({5})}, {2}, {}, DType::kI32));
    EXPECT_EQ(RunGraph(graph, {std::vector<int32_t>{3, 0}}).value().ints(), expected) << NameOf(kind);
  }
}

std::vector<float> RunUnary(OpKind kind, std::vector<float> x, OpAttributes attributes = {}) {
  ToyGraph toy;
  toy.Begin("main");
  const Shape shape = {static_cast<int64_t>(x.size())};
  const Graph graph = Finish(toy, toy.Op(kind, {toy.Input("x", DType::kF32, shape)}, shape, attributes));
  return RunGraph(graph, {std::move(x)}).value().floats();
}

TEST(UnaryTest, KnownValues) {
  EXPECT_THAT(RunUnary(OpKind::kSquare, {-3, 0.5}), ElementsAre(9, 0.25));
  EXPECT_THAT(RunUnary(OpKind::kSqrt, {9, 2}), ElementsAre(3, 1.41421356F));
  EXPECT_THAT(RunUnary(OpKind::kRsqrt, {4, 2}), ElementsAre(0.5, 0.70710678F));
  EXPECT_THAT(RunUnary(OpKind::kTanh, {0, 1, -20}), ElementsAre(0, 0.76159416F, -1));
  EXPECT_THAT(RunUnary(OpKind::kRelu, {-2, 0, 3}), ElementsAre(0, 0, 3));
  EXPECT_THAT(RunUnary(OpKind::kCos, {0, 1, 32767}), Pointwise(FloatEq(), {1.0F, 0.5403023058F, 0.9822633518F}));
  EXPECT_THAT(RunUnary(OpKind::kSin, {0, 1, 32767}), Pointwise(FloatEq(), {0.0F, 0.8414709848F, 0.1875065539F}));
}

// Python: c = sqrt(2/pi); 0.5*x*(1+tanh(c*(x+0.044715*x**3))) and 0.5*x*erfc(-x/sqrt(2))
TEST(UnaryTest, GeluInBothForms) {
  const std::vector<float> x = {-3, -1, 0, 0.5, 2};
  EXPECT_THAT(RunUnary(OpKind::kGelu, x, GeluAttributes{.approximate = true}),
              Pointwise(FloatEq(), {-0.0036373920818F, -0.1588080094F, 0.0F, 0.3457140098F, 1.9545976941F}));
  EXPECT_THAT(RunUnary(OpKind::kGelu, x, GeluAttributes{.approximate = false}),
              Pointwise(FloatEq(), {-0.0040496940949F, -0.1586552539F, 0.0F, 0.3457312306F, 1.9544997361F}));
}

TEST(CastTest, TruncatesTowardsZeroAndSaturates) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {5});
  const Graph graph = Finish(toy, toy.Op(OpKind::kCast, {x}, {5}, CastAttributes{DType::kF32, DType::kI32}, DType::kI32));
  EXPECT_THAT(RunGraph(graph, {std::vector<float>{1.9F, -1.9F, 1e20F, -1e20F, std::nanf("")}}).value().ints(),
              ElementsAre(1, -1, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min(), 0));
}

TEST(CastTest, MakesFloatsOfIntegers) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kI32, {2});
  const Graph graph = Finish(toy, toy.Op(OpKind::kCast, {x}, {2}, CastAttributes{}));
  EXPECT_THAT(RunGraph(graph, {std::vector<int32_t>{-7, 16777216}}).value().floats(), ElementsAre(-7, 16777216));
}

std::vector<float> RunMean(std::initializer_list<int32_t> axes, Shape out, bool keep) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2, 3, 2});
  const Graph graph = Finish(toy, toy.Op(OpKind::kMean, {x, toy.Ints(axes)}, std::move(out), MeanAttributes{.keep_dims = keep}));
  return RunGraph(graph, {std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}).value().floats();
}

TEST(MeanTest, ReducesAnyAxes) {
  EXPECT_THAT(RunMean({-1}, {2, 3, 1}, true), ElementsAre(1.5, 3.5, 5.5, 7.5, 9.5, 11.5));
  EXPECT_THAT(RunMean({1}, {2, 2}, false), ElementsAre(3, 4, 9, 10));
  EXPECT_THAT(RunMean({0, 2}, {1, 3, 1}, true), ElementsAre(4.5, 6.5, 8.5));
  EXPECT_THAT(RunMean({0, 1, 2}, {}, false), ElementsAre(6.5));
}

std::vector<float> RunSoftmax(Shape shape, std::vector<float> x, float beta = 1.0F) {
  ToyGraph toy;
  toy.Begin("main");
  const Graph graph = Finish(toy, toy.Op(OpKind::kSoftmax, {toy.Input("x", DType::kF32, shape)}, shape, SoftmaxAttributes{.beta = beta}));
  return RunGraph(graph, {std::move(x)}).value().floats();
}

TEST(SoftmaxTest, NormalisesEachRow) {
  EXPECT_THAT(RunSoftmax({2, 3}, {0, 0, 0, 1, 2, 3}),
              ElementsAre(FloatNear(1.0F / 3, 1e-7F), FloatNear(1.0F / 3, 1e-7F), FloatNear(1.0F / 3, 1e-7F), FloatNear(0.09003057F, 1e-7F),
                          FloatNear(0.24472847F, 1e-7F), FloatNear(0.66524096F, 1e-7F)));
  EXPECT_THAT(RunSoftmax({2}, {1, 2}, /*beta=*/2.0F), ElementsAre(FloatNear(0.11920292F, 1e-7F), FloatNear(0.88079708F, 1e-7F)));
}

TEST(SoftmaxTest, AFullyMaskedRowIsUniform) {
  const float masked = -0.7F * FLT_MAX;
  EXPECT_THAT(RunSoftmax({4}, {masked, masked, masked, masked}), ElementsAre(0.25, 0.25, 0.25, 0.25));
  EXPECT_THAT(RunSoftmax({3}, {masked, 5, masked}), ElementsAre(0, 1, 0));
}

TEST(SliceTest, TakesABlock) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2, 3, 4});
  const Graph graph = Finish(toy, toy.Op(OpKind::kSlice, {x, toy.Ints({0, 1, 1}), toy.Ints({2, -1, 2})}, {2, 2, 2}));
  std::vector<float> values(24);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  EXPECT_THAT(RunGraph(graph, {values}).value().floats(), ElementsAre(5, 6, 9, 10, 17, 18, 21, 22));
}

TEST(SliceTest, ChecksABeginThatTheGraphComputes) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kI32, {5});
  const TensorId begin = toy.Input("begin", DType::kI32, {1});
  const Graph graph = Finish(toy, toy.Op(OpKind::kSlice, {x, begin, toy.Ints({2})}, {2}, {}, DType::kI32));
  const std::vector<int32_t> values = {10, 11, 12, 13, 14};
  EXPECT_THAT(RunGraph(graph, {values, std::vector<int32_t>{3}}).value().ints(), ElementsAre(13, 14));
  for (const int32_t bad : {-1, 4, std::numeric_limits<int32_t>::max()}) {
    const auto result = RunGraph(graph, {values, std::vector<int32_t>{bad}});
    ASSERT_FALSE(result.has_value()) << bad;
    EXPECT_EQ(result.error().code, ErrorCode::kRuntimeIndex);
  }
}

TEST(TransposeTest, FollowsThePermutation) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2, 3, 2});
  const Graph graph = Finish(toy, toy.Op(OpKind::kTranspose, {x, toy.Ints({1, 2, 0})}, {3, 2, 2}));
  EXPECT_THAT(RunGraph(graph, {std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}).value().floats(),
              ElementsAre(0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11));
}

TEST(ConcatenationTest, JoinsAlongAnyAxis) {
  for (const int32_t axis : {1, -2}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, {2, 1, 2});
    const TensorId y = toy.Input("y", DType::kF32, {2, 2, 2});
    const Graph graph = Finish(toy, toy.Op(OpKind::kConcatenation, {x, y}, {2, 3, 2}, ConcatenationAttributes{.axis = axis}));
    EXPECT_THAT(RunGraph(graph, {std::vector<float>{0, 1, 2, 3}, std::vector<float>{10, 11, 12, 13, 14, 15, 16, 17}}).value().floats(),
                ElementsAre(0, 1, 10, 11, 12, 13, 2, 3, 14, 15, 16, 17));
  }
}

TEST(GatherTest, PicksAlongAnyAxisAndChecksIndices) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2, 3, 2});
  const TensorId indices = toy.Input("indices", DType::kI32, {2});
  const Graph graph = Finish(toy, toy.Op(OpKind::kGather, {x, indices}, {2, 2, 2}, GatherAttributes{.axis = 1}));
  const std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  EXPECT_THAT(RunGraph(graph, {values, std::vector<int32_t>{2, 0}}).value().floats(), ElementsAre(4, 5, 0, 1, 10, 11, 6, 7));
  for (const int32_t bad : {-1, 3}) {
    EXPECT_EQ(RunGraph(graph, {values, std::vector<int32_t>{0, bad}}).error().code, ErrorCode::kRuntimeIndex);
  }
}

TEST(DynamicUpdateSliceTest, ClampsTheStartSoThatTheUpdateFits) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {3, 4});
  const TensorId update = toy.Input("update", DType::kF32, {2, 1});
  const TensorId start = toy.Input("start", DType::kI32, {2});
  const Graph graph = Finish(toy, toy.Op(OpKind::kDynamicUpdateSlice, {x, update, start}, {3, 4}));
  const auto run = [&](int32_t row, int32_t column) {
    return RunGraph(graph, {std::vector<float>(12, 0.0F), std::vector<float>{1, 2}, std::vector<int32_t>{row, column}}).value().floats();
  };
  EXPECT_THAT(run(1, 2), ElementsAre(0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0));
  EXPECT_THAT(run(2, 9), ElementsAre(0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2));
  EXPECT_THAT(run(-5, 0), ElementsAre(1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0));
}

TEST(EmbeddingLookupTest, ReadsFloatInt8AndInt4Tables) {
  const std::vector<float> table = {0.7F, -0.1F, 0.3F, 1.4F, 0.2F, -1.4F, 7.0F, 1.0F, -3.0F};  // [3, 3]: int4 rows share bytes
  for (const DType type : {DType::kF32, DType::kI8, DType::kI4}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId ids = toy.Input("ids", DType::kI32, {2});
    const TensorId weights = type == DType::kF32 ? toy.Floats({3, 3}, table) : toy.Quantized(type, {3, 3}, table);
    const Graph graph = Finish(toy, toy.Op(OpKind::kEmbeddingLookup, {ids, weights}, {2, 3}));
    const std::vector<float> rows = RunGraph(graph, {std::vector<int32_t>{2, 0}}).value().floats();
    const float tolerance = type == DType::kI8 ? 7.0F / 127 : 1e-6F;  // these rows are exact in int4
    EXPECT_THAT(rows, Pointwise(FloatNear(tolerance), {7.0F, 1.0F, -3.0F, 0.7F, -0.1F, 0.3F})) << NameOf(type);
    for (const int32_t bad : {-1, 3}) {
      EXPECT_EQ(RunGraph(graph, {std::vector<int32_t>{0, bad}}).error().code, ErrorCode::kRuntimeIndex);
    }
  }
}

TEST(BatchMatMulTest, TransposesEitherSideAndBroadcastsBatches) {
  // a [2,1 | 2,3], b [2 | 3,1] as stored, or with the last two dimensions swapped.
  const std::vector<float> a = {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6};
  const std::vector<float> a_swapped = {1, 4, 2, 5, 3, 6, -1, -4, -2, -5, -3, -6};
  const std::vector<float> b = {1, 10, 100, 2, 20, 200};
  for (const bool adj_x : {false, true}) {
    for (const bool adj_y : {false, true}) {
      ToyGraph toy;
      toy.Begin("main");
      const TensorId x = toy.Input("a", DType::kF32, adj_x ? Shape{2, 1, 3, 2} : Shape{2, 1, 2, 3});
      const TensorId y = toy.Input("b", DType::kF32, adj_y ? Shape{2, 1, 3} : Shape{2, 3, 1});
      const Graph graph = Finish(toy, toy.Op(OpKind::kBatchMatMul, {x, y}, {2, 2, 2, 1}, BatchMatMulAttributes{adj_x, adj_y}));
      EXPECT_THAT(RunGraph(graph, {adj_x ? a_swapped : a, b}).value().floats(), ElementsAre(321, 654, 642, 1308, -321, -654, -642, -1308));
    }
  }
}

TEST(FullyConnectedTest, MultipliesRowsWithFloatWeights) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 2, 3});
  const TensorId weights = toy.Floats({2, 3}, {1, 0, -1, 0.5F, 0.5F, 0.5F});
  const Graph graph =
      Finish(toy, toy.Op(OpKind::kFullyConnected, {x, weights, toy.Floats({2}, {100, 200})}, {1, 2, 2}, FullyConnectedAttributes{}));
  EXPECT_THAT(RunGraph(graph, {std::vector<float>{1, 2, 3, 4, 5, 7}}).value().floats(), ElementsAre(98, 203, 97, 208));
}

TEST(FullyConnectedTest, WithoutKeepNumDimsTheOutputIsAMatrix) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2, 3, 1});
  const Graph graph = Finish(toy, toy.Op(OpKind::kFullyConnected, {x, toy.Floats({1, 3}, {1, 10, 100})}, {2, 1},
                                         FullyConnectedAttributes{.keep_num_dims = false}));
  EXPECT_THAT(RunGraph(graph, {std::vector<float>{1, 2, 3, 4, 5, 6}}).value().floats(), ElementsAre(321, 654));
}

// By hand: the row spans [-1, 3], so the scale is 4/255 and the zero point -128 + 255/4 = -64.25 -> -64; the codes are -128, -64, 127 less
// one rounding each, and the sums are exact integers.
TEST(FullyConnectedTest, QuantizesTheInputAsXnnpackDoes) {
  const std::vector<float> x = {-1, 0, 3};
  const RowQuantization row = reference::QuantizationOfRow(x);
  EXPECT_EQ(row.zero_point, -64);
  EXPECT_FLOAT_EQ(row.scale, 4.0F / 255);
  EXPECT_EQ(reference::QuantizeActivation(-1, row), -128);
  EXPECT_EQ(reference::QuantizeActivation(0, row), -64);
  EXPECT_EQ(reference::QuantizeActivation(3, row), 127);
  ToyGraph toy;
  toy.Begin("main");
  const TensorId in = toy.Input("x", DType::kF32, {1, 3});
  // Scales 1 and 0.5: codes {7, -3, 1} and {7, 2, -6}.
  const TensorId weights = toy.Quantized(DType::kI4, {2, 3}, std::vector<float>{7, -3, 1, 3.5F, 1, -3});
  const Graph graph = Finish(toy, toy.Op(OpKind::kFullyConnected, {in, weights}, {1, 2}, FullyConnectedAttributes{}));
  const float scale = 4.0F / 255;
  EXPECT_THAT(RunGraph(graph, {x}).value().floats(),
              ElementsAre(FloatNear((-64 * 7 + 191 * 1) * scale, 1e-6F), FloatNear((-64 * 7 - 191 * 6) * scale * 0.5F, 1e-6F)));
}

// Against float64 over the dequantized weights and the quantized activations: 3 blocks, so 3 additions and 2 products in float32.
TEST(FullyConnectedTest, EveryBlockHasItsScale) {
  constexpr int64_t kIn = 96;
  constexpr int64_t kOut = 4;
  ToyGraph toy;
  toy.Begin("main");
  std::vector<float> values = testing::RandomFloats(kIn * kOut, 5);
  for (size_t i = 0; i < values.size(); ++i) values[i] *= std::ldexp(1.0F, static_cast<int>(i / 32 % 5) * 2 - 4);  // blocks of other sizes
  const std::vector<float> x = testing::RandomFloats(kIn, 6);
  const TensorId in = toy.Input("x", DType::kF32, {1, kIn});
  const TensorId weights = toy.Blocks({kOut, kIn}, 32, values);
  const Graph graph = Finish(toy, toy.Op(OpKind::kFullyConnected, {in, weights}, {1, kOut}, FullyConnectedAttributes{}));
  const std::vector<float> out = RunGraph(graph, {x}).value().floats();
  const RowQuantization row = reference::QuantizationOfRow(x);
  for (int64_t channel = 0; channel < kOut; ++channel) {
    double expected = 0;
    double size = 0;
    for (int64_t block = 0; block < 3; ++block) {
      const auto first = static_cast<size_t>(channel * kIn + block * 32);
      float largest = 0;
      for (size_t i = first; i < first + 32; ++i) largest = std::max(largest, std::abs(values[i]));
      const float scale = Bf16ToFloat(FloatToBf16(largest / 7.0F));
      for (size_t i = 0; i < 32; ++i) {
        const double code = std::clamp(static_cast<double>(std::nearbyint(values[first + i] / scale)), -8.0, 7.0);
        const int32_t activation = reference::QuantizeActivation(x[static_cast<size_t>(block) * 32 + i], row) - row.zero_point;
        const double product = code * static_cast<double>(scale) * activation * static_cast<double>(row.scale);
        expected += product;
        size += std::abs(product);
      }
    }
    EXPECT_NEAR(static_cast<double>(out[static_cast<size_t>(channel)]), expected, 8 * 0x1p-24 * size) << channel;
  }
}

TEST(FullyConnectedTest, ABlockScaleThatIsNoPositiveNumberIsRefused) {
  for (const uint16_t bad : std::to_array<uint16_t>({0x0000, 0x03ff, 0x8400, 0x7c00, 0x7e00, 0xbc00})) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId in = toy.Input("x", DType::kF32, {1, 64});
    const TensorId weights = toy.Blocks({1, 64}, 32, testing::RandomFloats(64, 7));
    Graph graph = Finish(toy, toy.Op(OpKind::kFullyConnected, {in, weights}, {1, 1}, FullyConnectedAttributes{}));
    const std::array<uint16_t, 2> scales = {0x3c00, bad};
    graph.buffers[0].bytes = MakeMemorySource(std::span<const uint16_t>(scales));
    for (const Kernels kernels : {Kernels::kReference, Kernels::kXnnpack, Kernels::kFast, Kernels::kInPlace}) {
      const auto run = RunGraph(graph, {std::vector<float>(64, 1.0F)}, {.kernels = kernels});
      ASSERT_FALSE(run.has_value()) << bad;
      EXPECT_EQ(run.error().code, ErrorCode::kTfliteQuantization);
      EXPECT_THAT(run.error().message, HasSubstr("of block 1"));
    }
  }
}

TEST(EmbeddingLookupTest, ATableInBlocksIsRefused) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId ids = toy.Input("ids", DType::kI32, {1});
  const TensorId table = toy.Blocks({3, 64}, 32, testing::RandomFloats(192, 8));
  const Graph graph = Finish(toy, toy.Op(OpKind::kEmbeddingLookup, {ids, table}, {1, 64}));
  const auto run = RunGraph(graph, {std::vector<int32_t>{1}});
  ASSERT_FALSE(run.has_value());
  EXPECT_EQ(run.error().code, ErrorCode::kKernelUnsupported);
}

TEST(FullyConnectedTest, ARowOfZerosGivesTheBias) {
  for (const DType type : {DType::kI4, DType::kI8}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId in = toy.Input("x", DType::kF32, {1, 2});
    const TensorId weights = toy.Quantized(type, {1, 2}, std::vector<float>{1, 2});
    const Graph graph =
        Finish(toy, toy.Op(OpKind::kFullyConnected, {in, weights, toy.Floats({1}, {0.25F})}, {1, 1}, FullyConnectedAttributes{}));
    EXPECT_THAT(RunGraph(graph, {std::vector<float>{0, 0}}).value().floats(), ElementsAre(0.25F));
  }
}

TEST(DequantizeTest, F16ConstantsBecomeFloats) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2});
  const TensorId weights = toy.Op(OpKind::kDequantize, {toy.Halves({2}, std::vector<float>{1.5F, -0.25F})}, {2});
  const Graph graph = Finish(toy, toy.Op(OpKind::kAdd, {x, weights}, {2}));
  EXPECT_THAT(RunGraph(graph, {std::vector<float>{1, 1}}).value().floats(), ElementsAre(2.5, 0.75));
}

TEST(ReshapeTest, AnOutputHasItsOwnMemory) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {2, 3});
  const Graph graph = Finish(toy, toy.Op(OpKind::kReshape, {x, toy.Ints({3, 2})}, {3, 2}));
  EXPECT_THAT(RunGraph(graph, {std::vector<float>{1, 2, 3, 4, 5, 6}}).value().floats(), ElementsAre(1, 2, 3, 4, 5, 6));
}

// One lie per rule: what a damaged or foreign graph could say.
struct Lie {
  const char* name;
  ErrorCode code;
  const char* message;
  std::function<TensorId(ToyGraph&)> build;
};

TensorId X(ToyGraph& toy, Shape shape = {2, 3}, DType type = DType::kF32) { return toy.Input("x", type, std::move(shape)); }

const std::vector<Lie>& Lies() {
  static const std::vector<Lie> lies = {
      {"a sum that is too large", ErrorCode::kGraphShape, "broadcast of its operands",
       [](ToyGraph& t) { return t.Op(OpKind::kAdd, {X(t), t.Floats({1}, {1})}, {4, 3}); }},
      {"operands that do not broadcast", ErrorCode::kGraphShape, "do not broadcast",
       [](ToyGraph& t) { return t.Op(OpKind::kAdd, {X(t), t.Floats({2}, {1, 2})}, {2, 3}); }},
      {"operands of two types", ErrorCode::kGraphShape, "differ in type",
       [](ToyGraph& t) { return t.Op(OpKind::kAdd, {X(t), t.Ints({1})}, {2, 3}); }},
      {"seven dimensions", ErrorCode::kKernelUnsupported, "six",
       [](ToyGraph& t) { return t.Op(OpKind::kAdd, {X(t, {1, 1, 1, 1, 1, 1, 2}), t.Floats({1}, {1})}, {1, 1, 1, 1, 1, 1, 2}); }},
      {"a square of other shape", ErrorCode::kGraphShape, "differ in shape",
       [](ToyGraph& t) { return t.Op(OpKind::kSquare, {X(t)}, {3, 2}); }},
      {"a square of integers", ErrorCode::kKernelUnsupported, "only f32",
       [](ToyGraph& t) { return t.Op(OpKind::kSquare, {X(t, {2}, DType::kI32)}, {2}, {}, DType::kI32); }},
      {"a mean over a missing axis", ErrorCode::kGraphShape, "axis out of range",
       [](ToyGraph& t) { return t.Op(OpKind::kMean, {X(t), t.Ints({2})}, {2, 3}, MeanAttributes{}); }},
      {"a mean that keeps its dimensions", ErrorCode::kGraphShape, "without the reduced axes",
       [](ToyGraph& t) { return t.Op(OpKind::kMean, {X(t), t.Ints({1})}, {2, 3}, MeanAttributes{}); }},
      {"axes that are computed", ErrorCode::kKernelUnsupported, "constants",
       [](ToyGraph& t) { return t.Op(OpKind::kMean, {X(t), t.Input("axes", DType::kI32, {1})}, {2, 1}, MeanAttributes{}); }},
      {"a slice that ends outside", ErrorCode::kGraphShape, "ends outside",
       [](ToyGraph& t) { return t.Op(OpKind::kSlice, {X(t), t.Ints({1, 0}), t.Ints({2, 3})}, {2, 3}); }},
      {"a slice that begins outside", ErrorCode::kGraphShape, "begin outside",
       [](ToyGraph& t) { return t.Op(OpKind::kSlice, {X(t), t.Ints({-1, 0}), t.Ints({1, 3})}, {1, 3}); }},
      {"a contiguous slice of another size", ErrorCode::kGraphShape, "not the slice's size",
       [](ToyGraph& t) { return t.Op(OpKind::kSquare, {t.Op(OpKind::kSlice, {X(t), t.Ints({0, 0}), t.Ints({2, 3})}, {1, 3})}, {1, 3}); }},
      {"a reshape of other size", ErrorCode::kGraphShape, "differ in size",
       [](ToyGraph& t) { return t.Op(OpKind::kReshape, {X(t), t.Ints({5})}, {5}); }},
      {"a permutation with a repetition", ErrorCode::kGraphShape, "not a permutation",
       [](ToyGraph& t) { return t.Op(OpKind::kTranspose, {X(t), t.Ints({1, 1})}, {3, 2}); }},
      {"a transpose into the wrong shape", ErrorCode::kGraphShape, "output shape",
       [](ToyGraph& t) { return t.Op(OpKind::kTranspose, {X(t), t.Ints({1, 0})}, {2, 3}); }},
      {"a concatenation that does not add up", ErrorCode::kGraphShape, "add up",
       [](ToyGraph& t) { return t.Op(OpKind::kConcatenation, {X(t)}, {4, 3}, ConcatenationAttributes{.axis = 0}); }},
      {"a gather with batch dimensions", ErrorCode::kKernelUnsupported, "batch_dims",
       [](ToyGraph& t) { return t.Op(OpKind::kGather, {X(t), t.Ints({0})}, {2, 1}, GatherAttributes{.axis = 1, .batch_dims = 1}); }},
      {"a gather into the wrong shape", ErrorCode::kGraphShape, "output shape",
       [](ToyGraph& t) { return t.Op(OpKind::kGather, {X(t), t.Ints({0})}, {2, 2}, GatherAttributes{.axis = 1}); }},
      {"an update that is too large", ErrorCode::kGraphShape, "larger than the operand",
       [](ToyGraph& t) {
         const TensorId x = X(t);
         return t.Op(OpKind::kDynamicUpdateSlice, {x, t.Input("u", DType::kF32, {3, 1}), t.Ints({0, 0})}, {2, 3});
       }},
      {"a start of the wrong length", ErrorCode::kGraphShape, "one value per dimension",
       [](ToyGraph& t) {
         const TensorId x = X(t);
         return t.Op(OpKind::kDynamicUpdateSlice, {x, t.Input("u", DType::kF32, {1, 1}), t.Ints({0})}, {2, 3});
       }},
      {"matrices that do not fit", ErrorCode::kGraphShape, "inner dimensions",
       [](ToyGraph& t) {
         const TensorId x = X(t);
         return t.Op(OpKind::kBatchMatMul, {x, t.Input("b", DType::kF32, {2, 2})}, {2, 2}, BatchMatMulAttributes{});
       }},
      {"weights that do not fit", ErrorCode::kGraphShape, "rows as long as the weights'",
       [](ToyGraph& t) {
         return t.Op(OpKind::kFullyConnected, {X(t), t.Floats({1, 4}, {1, 2, 3, 4})}, {2, 1}, FullyConnectedAttributes{});
       }},
      {"a bias of the wrong length", ErrorCode::kGraphShape, "bias",
       [](ToyGraph& t) {
         return t.Op(OpKind::kFullyConnected, {X(t), t.Floats({1, 3}, {1, 2, 3}), t.Floats({2}, {1, 2})}, {2, 1},
                     FullyConnectedAttributes{});
       }},
      {"a table of another width", ErrorCode::kGraphShape, "output shape",
       [](ToyGraph& t) { return t.Op(OpKind::kEmbeddingLookup, {X(t, {2}, DType::kI32), t.Floats({2, 2}, {1, 2, 3, 4})}, {2, 3}); }},
      {"a cast from bool", ErrorCode::kKernelUnsupported, "only i32",
       [](ToyGraph& t) { return t.Op(OpKind::kCast, {X(t, {2}, DType::kBool)}, {2}, CastAttributes{.from = DType::kBool}); }},
      {"an empty dimension", ErrorCode::kGraphShape, "not a valid shape",
       [](ToyGraph& t) { return t.Op(OpKind::kSquare, {X(t, {0, 3})}, {0, 3}); }},
      {"an absurd dimension", ErrorCode::kGraphShape, "not a valid shape",
       [](ToyGraph& t) { return t.Op(OpKind::kSquare, {X(t, {1LL << 50})}, {1LL << 50}); }},
      {"an absurd size", ErrorCode::kGraphShape, "absurd",
       [](ToyGraph& t) { return t.Op(OpKind::kSquare, {X(t, {1 << 30, 1 << 12})}, {1 << 30, 1 << 12}); }},
  };
  return lies;
}

TEST(ShapeCheckTest, EveryLieIsRefusedByEveryKernelSet) {
  for (const Lie& lie : Lies()) {
    for (const Kernels kernels : {Kernels::kReference, Kernels::kXnnpack, Kernels::kFast, Kernels::kInPlace}) {
      ToyGraph toy;
      toy.Begin("main");
      const Graph graph = Finish(toy, lie.build(toy));
      const auto result = RunGraph(graph, {}, {.kernels = kernels});
      ASSERT_FALSE(result.has_value()) << lie.name;
      EXPECT_EQ(result.error().code, lie.code) << lie.name << ": " << result.error().message;
      EXPECT_THAT(result.error().message, HasSubstr(lie.message)) << lie.name;
    }
  }
}

}  // namespace
}  // namespace taskpress
