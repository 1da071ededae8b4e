// The fast kernels against the reference ones, for every operator, over shapes that end in the middle of vectors and tiles.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <functional>

#include "runtime/kernels/native/narrow_matmul.h"
#include "schema/base/half.h"
#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::RandomFloats;
using testing::RunGraph;
using testing::ToyGraph;
using testing::Values;

// Distance in representable floats.
int64_t Ulps(float a, float b) {
  const auto order = [](float value) {
    const auto bits = std::bit_cast<int32_t>(value);
    return bits < 0 ? -static_cast<int64_t>(bits & 0x7fffffff) : static_cast<int64_t>(bits);
  };
  return std::abs(order(a) - order(b));
}

struct Twin {
  std::string name;
  Graph graph;
  std::vector<Values> inputs;
  KernelKind kernel = KernelKind::kXnnpack;  // that must be chosen
  float absolute = 0.0F;                     // allowed difference: this, or `ulps`
  int64_t ulps = 0;
};

// Runs both kernel sets, and the fast one with one and with three threads: bits must not depend on the number.
void ExpectTwins(const Twin& twin) {
  const auto reference = RunGraph(twin.graph, twin.inputs);
  const auto fast = RunGraph(twin.graph, twin.inputs, {.kernels = Kernels::kXnnpack});
  const auto threaded = RunGraph(twin.graph, twin.inputs, {.kernels = Kernels::kXnnpack, .threads = 3});
  ASSERT_TRUE(reference.has_value()) << twin.name << ": " << reference.error().message;
  ASSERT_TRUE(fast.has_value()) << twin.name << ": " << fast.error().message;
  ASSERT_TRUE(threaded.has_value()) << twin.name << ": " << threaded.error().message;
  EXPECT_EQ(NameOf(fast->last_kernel), NameOf(twin.kernel)) << twin.name;
  EXPECT_EQ(fast->bytes, threaded->bytes) << twin.name << ": the number of threads shows in the result";
  const std::vector<float> expected = reference->floats();
  const std::vector<float> actual = fast->floats();
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::abs(expected[i] - actual[i]) <= twin.absolute || Ulps(expected[i], actual[i]) <= twin.ulps)
        << twin.name << ": element " << i << " is " << actual[i] << ", expected " << expected[i];
  }
}

int64_t Elements(const Shape& shape) { return NumElements(shape).value(); }

Twin UnaryTwin(OpKind kind, int64_t count, float low, float high, OpAttributes attributes = {}) {
  ToyGraph toy;
  toy.Begin("main");
  toy.Output("y", toy.Op(kind, {toy.Input("x", DType::kF32, {count})}, {count}, attributes));
  std::vector<float> x = RandomFloats(count, 7);
  for (float& value : x) value = low + (value + 1.0F) * 0.5F * (high - low);
  return {.name = std::string(NameOf(kind)) + " " + std::to_string(count), .graph = toy.Take(), .inputs = {x}};
}

TEST(XnnpackUnaryTest, AgreesWithTheReference) {
  for (const int64_t count : {1, 7, 16, 2048, 100003}) {
    for (const OpKind kind : {OpKind::kSquare, OpKind::kRelu}) ExpectTwins(UnaryTwin(kind, count, -9.0F, 9.0F));
  }
}

// Bounds: runtime/kernels/native/elementwise.h.
TEST(NativeUnaryTest, AgreesWithTheReference) {
  for (const int64_t count : {1, 7, 16, 2048, 100003}) {
    for (const auto& [kind, low, high, absolute, ulps] :
         std::vector<std::tuple<OpKind, float, float, float, int64_t>>{{OpKind::kSqrt, 0.0F, 9.0F, 0.0F, 3},
                                                                       {OpKind::kRsqrt, 1e-6F, 9.0F, 0.0F, 3},
                                                                       {OpKind::kTanh, -9.0F, 9.0F, 5e-7F, 0},
                                                                       {OpKind::kSin, -32768.0F, 32768.0F, 5e-7F, 0},
                                                                       {OpKind::kCos, -32768.0F, 32768.0F, 5e-7F, 0}}) {
      Twin twin = UnaryTwin(kind, count, low, high);
      twin.kernel = KernelKind::kNative;
      twin.absolute = absolute;
      twin.ulps = ulps;
      ExpectTwins(twin);
    }
  }
}

TEST(XnnpackUnaryTest, GeluAgreesInBothForms) {
  for (const int64_t count : {1, 7, 16, 2048, 100003}) {
    Twin twin = UnaryTwin(OpKind::kGelu, count, -12.0F, 12.0F, GeluAttributes{.approximate = true});
    twin.kernel = KernelKind::kNative;
    twin.absolute = 1e-6F;
    ExpectTwins(twin);
    twin = UnaryTwin(OpKind::kGelu, count, -12.0F, 12.0F, GeluAttributes{.approximate = false});
    twin.absolute = 2e-6F;
    ExpectTwins(twin);
  }
}

TEST(XnnpackUnaryTest, GeluSurvivesExtremes) {
  Twin twin = UnaryTwin(OpKind::kGelu, 6, 0.0F, 1.0F, GeluAttributes{.approximate = true});
  twin.inputs = {std::vector<float>{-1e4F, 1e4F, -40.0F, 40.0F, -0.0F, 1e-30F}};
  twin.kernel = KernelKind::kNative;
  twin.absolute = 1e-6F;
  ExpectTwins(twin);
}

TEST(XnnpackBinaryTest, AgreesForEveryBroadcast) {
  const std::vector<std::array<Shape, 3>> shapes = {
      {Shape{5}, {5}, {5}},
      {Shape{1, 3, 2051}, {1, 3, 2051}, {1, 3, 2051}},
      {Shape{3, 2051}, {3, 1}, {3, 2051}},
      {Shape{3, 1}, {3, 2051}, {3, 2051}},
      {Shape{7, 33}, {33}, {7, 33}},
      {Shape{1}, {4, 5}, {4, 5}},
      {Shape{2, 1, 3, 1, 5, 1}, {1, 4, 1, 2, 1, 3}, {2, 4, 3, 2, 5, 3}},
      {Shape{2, 3, 4, 65}, {4, 65}, {2, 3, 4, 65}},
      {Shape{64, 1025}, {1, 1025}, {64, 1025}},
  };
  for (const auto& [a, b, out] : shapes) {
    for (const OpKind kind : {OpKind::kAdd, OpKind::kSub, OpKind::kMul, OpKind::kMinimum, OpKind::kMaximum}) {
      ToyGraph toy;
      toy.Begin("main");
      const TensorId x = toy.Input("a", DType::kF32, a);
      toy.Output("y", toy.Op(kind, {x, toy.Input("b", DType::kF32, b)}, out));
      ExpectTwins({.name = std::string(NameOf(kind)) + ToString(a) + ToString(b),
                   .graph = toy.Take(),
                   .inputs = {RandomFloats(Elements(a), 1), RandomFloats(Elements(b), 2)}});
    }
  }
}

TEST(XnnpackMeanTest, AgreesOverAnyAxes) {
  for (const auto& [dims, axes, out] : std::vector<std::tuple<Shape, std::vector<int32_t>, Shape>>{{{1, 3, 2051}, {2}, {1, 3, 1}},
                                                                                                   {{5, 7}, {1}, {5, 1}},
                                                                                                   {{5, 7}, {0}, {1, 7}},
                                                                                                   {{3, 5, 7}, {0, 2}, {1, 5, 1}},
                                                                                                   {{33, 4096}, {-1}, {33, 1}}}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, dims);
    const TensorId constant = axes.size() == 1 ? toy.Ints({axes[0]}) : toy.Ints({axes[0], axes[1]});
    toy.Output("y", toy.Op(OpKind::kMean, {x, constant}, out, MeanAttributes{}));
    // Inputs lie in [-1, 1]: float32 sums of up to 4096 of them, several partial sums each, divided again.
    const bool of_rows = axes.size() == 1 && (axes[0] == -1 || static_cast<size_t>(axes[0]) + 1 == dims.size());
    ExpectTwins({.name = "MEAN " + ToString(dims),
                 .graph = toy.Take(),
                 .inputs = {RandomFloats(Elements(dims), 3)},
                 .kernel = of_rows ? KernelKind::kNative : KernelKind::kXnnpack,
                 .absolute = 1e-6F});
  }
}

TEST(XnnpackSoftmaxTest, AgreesAndKeepsMaskedRowsUniform) {
  for (const Shape& dims : {Shape{3, 5}, Shape{2, 7, 130}, Shape{9, 4096}}) {
    ToyGraph toy;
    toy.Begin("main");
    toy.Output("y", toy.Op(OpKind::kSoftmax, {toy.Input("x", DType::kF32, dims)}, dims, SoftmaxAttributes{}));
    std::vector<float> x = RandomFloats(Elements(dims), 4);
    for (float& value : x) value *= 20.0F;
    const auto columns = static_cast<size_t>(dims.back());
    std::fill_n(x.begin(), columns, -0.7F * FLT_MAX);                                                 // a row of padding
    std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(columns) + 2, columns - 2, -0.7F * FLT_MAX);  // position 1
    ExpectTwins({.name = "SOFTMAX " + ToString(dims), .graph = toy.Take(), .inputs = {x}, .absolute = 2e-7F, .ulps = 8});
  }
}

TEST(XnnpackSoftmaxTest, AnotherBetaRunsOnTheReferenceKernel) {
  ToyGraph toy;
  toy.Begin("main");
  toy.Output("y", toy.Op(OpKind::kSoftmax, {toy.Input("x", DType::kF32, {2, 3})}, {2, 3}, SoftmaxAttributes{.beta = 0.5F}));
  ExpectTwins({.name = "beta", .graph = toy.Take(), .inputs = {RandomFloats(6, 5)}, .kernel = KernelKind::kReference});
}

TEST(XnnpackTransposeTest, AgreesForEveryPermutationOfFour) {
  const Shape dims = {3, 5, 7, 33};
  std::vector<int32_t> permutation = {0, 1, 2, 3};
  do {
    ToyGraph toy;
    toy.Begin("main");
    Shape out;
    for (const int32_t dim : permutation) out.push_back(dims[static_cast<size_t>(dim)]);
    const TensorId x = toy.Input("x", DType::kF32, dims);
    const TensorId constant = toy.Ints({permutation[0], permutation[1], permutation[2], permutation[3]});
    toy.Output("y", toy.Op(OpKind::kTranspose, {x, constant}, out));
    ExpectTwins({.name = "TRANSPOSE", .graph = toy.Take(), .inputs = {RandomFloats(Elements(dims), 6)}});
  } while (std::ranges::next_permutation(permutation).found);
}

TEST(XnnpackBatchMatMulTest, AgreesWithAndWithoutTranspose) {
  struct Case {
    Shape a;
    Shape b;
    Shape out;
    bool adj_y;
  };
  for (const Case& c : std::vector<Case>{{{1, 2, 4, 33}, {1, 2, 65, 33}, {1, 2, 4, 65}, true},
                                         {{1, 2, 4, 65}, {1, 2, 65, 33}, {1, 2, 4, 33}, false},
                                         {{1, 2, 4, 65}, {1, 2, 33, 65}, {1, 2, 4, 33}, true},
                                         {{3, 5}, {5, 7}, {3, 7}, false},
                                         {{2, 3, 5}, {1, 5, 7}, {2, 3, 7}, false},
                                         {{1, 3, 5}, {2, 5, 7}, {2, 3, 7}, false},
                                         {{4, 1, 3, 5}, {2, 5, 7}, {4, 2, 3, 7}, false},
                                         {{1, 2, 128, 64}, {1, 2, 64, 200}, {1, 2, 128, 200}, false}}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId a = toy.Input("a", DType::kF32, c.a);
    toy.Output("y", toy.Op(OpKind::kBatchMatMul, {a, toy.Input("b", DType::kF32, c.b)}, c.out,
                           BatchMatMulAttributes{.adj_x = false, .adj_y = c.adj_y}));
    // Up to 65 products of numbers in [-1, 1], summed in float32.
    ExpectTwins({.name = "BATCH_MATMUL " + ToString(c.a) + ToString(c.b),
                 .graph = toy.Take(),
                 .inputs = {RandomFloats(Elements(c.a), 8), RandomFloats(Elements(c.b), 9)},
                 .absolute = 5e-6F});
  }
}

Twin FullyConnectedTwin(DType type, int64_t rows, int64_t in, int64_t out, bool bias) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, rows, in});
  const std::vector<float> values = RandomFloats(in * out, 10);
  std::vector<TensorId> inputs = {x, type == DType::kF32 ? toy.Floats({out, in}, values) : toy.Quantized(type, {out, in}, values)};
  if (bias) inputs.push_back(toy.Floats({out}, RandomFloats(out, 11)));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, inputs, {1, rows, out}, FullyConnectedAttributes{}));
  return {.name = std::string(NameOf(type)) + " " + ToString({rows, in, out}) + (bias ? " bias" : ""),
          .graph = toy.Take(),
          .inputs = {RandomFloats(rows * in, 12)}};
}

TEST(XnnpackFullyConnectedTest, AgreesWithFloatWeights) {
  for (const int64_t rows : {1, 3, 17}) {
    for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{5, 3}, {64, 33}, {257, 70}, {1024, 600}}) {
      Twin twin = FullyConnectedTwin(DType::kF32, rows, in, out, rows == 3);
      // `in` roundings of partial sums of about sqrt(in) in size, each half an ulp at most (2^-24), adding up like a random walk: 2^-24 in
      // on average; three times that is allowed.
      twin.absolute = 2e-7F * static_cast<float>(in);
      if (out < kNarrow) twin.kernel = KernelKind::kNative;
      ExpectTwins(twin);
    }
  }
}

// The integer sums are exact in both; what follows is two multiplications and an addition in float32.
TEST(XnnpackFullyConnectedTest, AgreesWithIntegerWeightsToTheLastBits) {
  for (const DType type : {DType::kI8, DType::kI4}) {
    for (const int64_t rows : {1, 2, 5, 17}) {
      for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{2, 1}, {6, 3}, {64, 33}, {130, 70}, {2048, 96}, {1024, 600}}) {
        for (const bool bias : {false, true}) {
          Twin twin = FullyConnectedTwin(type, rows, in, out, bias);
          twin.ulps = 2;
          twin.absolute = bias ? 1e-6F : 0.0F;  // a bias can cancel the product
          ExpectTwins(twin);
        }
      }
    }
  }
}

Twin BlocksTwin(int64_t block_size, int64_t rows, int64_t in, int64_t out, bool bias) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, rows, in});
  std::vector<TensorId> inputs = {x, toy.Blocks({out, in}, block_size, RandomFloats(in * out, 10))};
  if (bias) inputs.push_back(toy.Floats({out}, RandomFloats(out, 11)));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, inputs, {1, rows, out}, FullyConnectedAttributes{}));
  return {.name = "blocks of " + std::to_string(block_size) + " " + ToString({rows, in, out}) + (bias ? " bias" : ""),
          .graph = toy.Take(),
          .inputs = {RandomFloats(rows * in, 12)}};
}

// Sums inside a block are exact; one float32 addition per block follows, of partial sums of about sqrt(in) in size, and XNNPACK adds what
// the zero point makes of the weights apart from the rest: twice as many. A rounding is 2^-24 at most, they add up like a random walk; six
// times that is allowed.
TEST(XnnpackFullyConnectedTest, AgreesWithBlocksButForTheAdditionsOfTheirSums) {
  for (const int64_t block_size : {32, 64, 128}) {
    for (const int64_t rows : {1, 2, 5, 17}) {
      for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{128, 1}, {128, 33}, {384, 70}, {2048, 96}}) {
        for (const bool bias : {false, true}) {
          Twin twin = BlocksTwin(block_size, rows, in, out, bias);
          twin.absolute = 6 * 0x1p-24F * std::sqrt(2.0F * static_cast<float>(in / block_size) * static_cast<float>(in));
          ExpectTwins(twin);
        }
      }
    }
  }
}

TEST(XnnpackFullyConnectedTest, BlocksWhoseScalesAreNoBfloat16RunOnOurOwnKernel) {
  Twin twin = BlocksTwin(32, 3, 64, 5, true);
  std::vector<uint16_t> scales(10, FloatToF16(0.3F));
  ASSERT_NE(Bf16ToFloat(FloatToBf16(F16ToFloat(scales[0]))), F16ToFloat(scales[0]));
  twin.graph.buffers[0].bytes = MakeMemorySource(std::span<const uint16_t>(scales));
  twin.kernel = KernelKind::kReference;
  ExpectTwins(twin);
}

// Two matrices over the same integers, as two sizes of an elastic bundle have them: each has its own scales.
TEST(XnnpackFullyConnectedTest, BlocksOfTheSameBytesAndOtherScalesArePackedApart) {
  Twin twin = BlocksTwin(32, 3, 64, 5, false);
  Subgraph& subgraph = twin.graph.subgraphs[0];
  std::vector<uint16_t> scales(10, FloatToF16(0.25F));
  Tensor other = subgraph.tensors[2];
  Tensor other_scales = subgraph.tensors[1];
  other_scales.buffer = static_cast<int32_t>(twin.graph.buffers.size());
  twin.graph.buffers.push_back({MakeMemorySource(std::span<const uint16_t>(scales))});
  subgraph.tensors.push_back(other_scales);
  other.block_scales = static_cast<TensorId>(subgraph.tensors.size() - 1);
  subgraph.tensors.push_back(other);
  const auto weights = static_cast<TensorId>(subgraph.tensors.size() - 1);
  Tensor sum = subgraph.tensors[3];
  subgraph.tensors.push_back(sum);
  subgraph.tensors.push_back(sum);
  subgraph.ops.push_back(
      {.kind = OpKind::kFullyConnected, .inputs = {0, weights}, .outputs = {weights + 1}, .attributes = FullyConnectedAttributes{}});
  subgraph.ops.push_back({.kind = OpKind::kAdd, .inputs = {3, weights + 1}, .outputs = {weights + 2}, .attributes = {}});
  subgraph.tensors[3].name = "one";
  subgraph.outputs = {weights + 2};
  twin.graph.signatures[0].outputs = {{"y", weights + 2}};
  twin.absolute = 2e-6F;
  ExpectTwins(twin);
}

TEST(XnnpackFullyConnectedTest, RowsOfUnusualRangesAreQuantizedAlike) {
  for (const DType type : {DType::kI8, DType::kI4}) {
    Twin twin = FullyConnectedTwin(type, /*rows=*/6, /*in=*/34, /*out=*/9, /*bias=*/false);
    auto& x = std::get<std::vector<float>>(twin.inputs[0]);
    for (size_t i = 0; i < 34; ++i) {
      x[i] = 0.0F;                                    // nothing to quantize
      x[34 + i] = 5.0F + x[34 + i];                   // positive only: zero point -128
      x[68 + i] = -1e-20F * (2.0F + x[68 + i]);       // tiny and negative only
      x[102 + i] = static_cast<float>(i % 2) - 0.5F;  // ties of the rounding
      x[136 + i] *= i == 3 ? 1e6F : 1.0F;             // an outlier
    }
    twin.ulps = 2;
    ExpectTwins(twin);
  }
}

TEST(XnnpackFullyConnectedTest, AnOddNumberOfInt4ColumnsRunsOnTheReferenceKernel) {
  Twin twin = FullyConnectedTwin(DType::kI4, 2, 7, 5, false);
  twin.kernel = KernelKind::kReference;
  ExpectTwins(twin);
}

TEST(XnnpackFullyConnectedTest, F16WeightsAreExpandedOnce) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 2, 40});
  const TensorId weights = toy.Op(OpKind::kDequantize, {toy.Halves({37, 40}, RandomFloats(37 * 40, 13))}, {37, 40});
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, weights}, {1, 2, 37}, FullyConnectedAttributes{}));
  ExpectTwins({.name = "f16", .graph = toy.Take(), .inputs = {RandomFloats(80, 14)}, .absolute = 5e-6F});
}

TEST(XnnpackFullyConnectedTest, MatricesThatReadOneTensorShareItsQuantizedCopy) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 3, 8});
  const TensorId squared = toy.Op(OpKind::kSquare, {x}, {1, 3, 8});
  const TensorId flat = toy.Op(OpKind::kReshape, {squared, toy.Ints({3, 8})}, {3, 8});
  const auto project = [&](TensorId from, uint32_t seed) {
    const TensorId weights = toy.Quantized(DType::kI4, {8, 8}, RandomFloats(64, seed));
    return toy.Op(OpKind::kFullyConnected, {from, weights}, toy.graph().subgraphs[0].tensors[static_cast<size_t>(from)].shape,
                  FullyConnectedAttributes{});
  };
  const TensorId q = project(squared, 1);
  const TensorId k = project(flat, 2);  // the same bytes under another shape
  const TensorId v = project(x, 3);     // other bytes
  const TensorId sum = toy.Op(OpKind::kAdd, {q, toy.Op(OpKind::kReshape, {k, toy.Ints({1, 3, 8})}, {1, 3, 8})}, {1, 3, 8});
  toy.Output("y", toy.Op(OpKind::kAdd, {sum, v}, {1, 3, 8}));
  const Graph graph = toy.Take();
  const auto shared = SharedRuntime::Create({.kernels = Kernels::kXnnpack, .threads = 1}).value();
  const Executor executor = Executor::Create(graph, 0, *shared).value();
  EXPECT_EQ(std::ranges::count(executor.steps(), "QUANTIZE_ROWS", &StepInfo::name), 2);
  ExpectTwins({.name = "shared", .graph = graph, .inputs = {RandomFloats(24, 4)}, .absolute = 1e-6F, .ulps = 4});
}

// Data movement and lookups: not a bit may differ.
TEST(NativeKernelsTest, SlicesOfAnyShapeAgree) {
  const Shape dims = {3, 5, 7, 9};
  for (const auto& [begin, size] : std::vector<std::pair<std::array<int32_t, 4>, std::array<int32_t, 4>>>{
           {{0, 0, 0, 4}, {3, 5, 7, 5}}, {{1, 1, 2, 0}, {2, 3, 4, 9}}, {{0, 2, 0, 0}, {3, 1, 7, 9}}, {{0, 0, 3, 8}, {3, 5, 1, 1}}}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, dims);
    toy.Output(
        "y", toy.Op(OpKind::kSlice, {x, toy.Ints({begin[0], begin[1], begin[2], begin[3]}), toy.Ints({size[0], size[1], size[2], size[3]})},
                    Shape(size.begin(), size.end())));
    ExpectTwins({.name = "SLICE", .graph = toy.Take(), .inputs = {RandomFloats(Elements(dims), 15)}, .kernel = KernelKind::kNative});
  }
}

TEST(NativeKernelsTest, UpdatesInBothCacheLayoutsAgree) {
  for (const auto& [update, start] : std::vector<std::pair<Shape, std::vector<int32_t>>>{
           {{1, 2, 3, 8}, {0, 0, 5, 0}}, {{1, 2, 16, 1}, {0, 0, 0, 6}}, {{1, 1, 1, 1}, {0, 1, 99, 3}}, {{1, 2, 16, 8}, {0, 0, 0, 0}}}) {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, {1, 2, 16, 8});
    const TensorId u = toy.Input("u", DType::kF32, update);
    const TensorId s = toy.Input("s", DType::kI32, {4});
    toy.Output("y", toy.Op(OpKind::kDynamicUpdateSlice, {x, u, s}, {1, 2, 16, 8}));
    ExpectTwins({.name = "DYNAMIC_UPDATE_SLICE " + ToString(update),
                 .graph = toy.Take(),
                 .inputs = {RandomFloats(256, 16), RandomFloats(Elements(update), 17), start},
                 .kernel = KernelKind::kNative});
  }
}

TEST(NativeKernelsTest, LookupsAgreeForEveryTableType) {
  for (const DType type : {DType::kF32, DType::kI8, DType::kI4}) {
    for (const int64_t columns : {5, 64}) {
      ToyGraph toy;
      toy.Begin("main");
      const TensorId ids = toy.Input("ids", DType::kI32, {3});
      const std::vector<float> values = RandomFloats(7 * columns, 18);
      const TensorId table = type == DType::kF32 ? toy.Floats({7, columns}, values) : toy.Quantized(type, {7, columns}, values);
      toy.Output("y", toy.Op(OpKind::kEmbeddingLookup, {ids, table}, {3, columns}));
      const Graph graph = toy.Take();
      ExpectTwins({.name = "EMBEDDING_LOOKUP", .graph = graph, .inputs = {std::vector<int32_t>{6, 0, 3}}, .kernel = KernelKind::kNative});
      const auto bad = RunGraph(graph, {std::vector<int32_t>{0, 7, 0}}, {.kernels = Kernels::kXnnpack});
      EXPECT_EQ(bad.error().code, ErrorCode::kRuntimeIndex);
    }
  }
}

}  // namespace
}  // namespace taskpress
