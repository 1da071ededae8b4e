// Weights read in place: the products against their plain twins, on every instruction set, and what the mode leaves out of memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "runtime/kernels/native/float_product.h"
#include "schema/base/half.h"
#include "tests/testing/every_target.h"
#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::RandomFloats;
using testing::RunGraph;
using testing::ToyGraph;
using testing::Values;

struct Case {
  DType type = DType::kI8;
  int64_t rows = 1;
  int64_t in = 1;
  int64_t out = 1;
  bool bias = false;
  bool one_scale = false;
};

std::string NameOf(const Case& c) {
  return std::string(NameOf(c.type)) + " [" + std::to_string(c.rows) + ", " + std::to_string(c.in) + "] -> " + std::to_string(c.out) +
         (c.bias ? " with bias" : "") + (c.one_scale ? " with one scale" : "");
}

// y = x weights + bias; `bytes` are the weights.
Graph FullyConnected(const Case& c, const std::vector<std::byte>& bytes) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {c.rows, c.in});
  const TensorId weights = toy.Quantized(c.type, {c.out, c.in}, RandomFloats(c.out * c.in, 3));
  std::vector<TensorId> inputs = {x, weights};
  if (c.bias) inputs.push_back(toy.Floats({c.out}, RandomFloats(c.out, 4)));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, inputs, {c.rows, c.out}, FullyConnectedAttributes{}));
  Graph graph = toy.Take();
  graph.buffers[0].bytes = MakeMemorySource(ByteView(bytes));
  if (c.one_scale) graph.quantizations[0] = {.axis = 0, .num_scales = 1, .scales = MakeMemorySource(std::span<const float>({0.25F}))};
  return graph;
}

// Every code there is, the extreme ones often.
std::vector<std::byte> Codes(const Case& c, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<std::byte> bytes(NumBytes(c.type, {c.out, c.in}).value());
  constexpr std::array kExtremes{0x80U, 0x7FU, 0x88U, 0x77U, 0x00U, 0xFFU};
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine() % 2 == 0 ? engine() & 0xFFU : kExtremes[engine() % 6]);
  return bytes;
}

// Row 0 is positive, so its zero point is -128, row 1 negative: 127; then rows of both signs, of zeros, and of one outlier.
std::vector<float> Activations(const Case& c) {
  std::vector<float> x = RandomFloats(c.rows * c.in, 5);
  for (int64_t row = 0; row < c.rows; ++row) {
    const auto values = std::span(x).subspan(static_cast<size_t>(row * c.in), static_cast<size_t>(c.in));
    for (float& value : values) {
      if (row % 5 == 0) value = std::abs(value);
      if (row % 5 == 1) value = -std::abs(value);
      if (row % 5 == 3) value = 0.0F;
    }
    if (row % 5 == 4) values.back() = 1e4F;
  }
  return x;
}

void ExpectReferenceBits(const Case& c, const Graph& graph, const std::vector<float>& x, KernelKind kernel,
                         std::initializer_list<int> threads_to_try = {1, 2, 4}) {
  const auto expected = RunGraph(graph, {x}).value();
  for (const int threads : threads_to_try) {
    const auto actual = RunGraph(graph, {x}, {.kernels = Kernels::kInPlace, .threads = threads}).value();
    ASSERT_EQ(taskpress::NameOf(actual.last_kernel), taskpress::NameOf(kernel)) << NameOf(c);
    ASSERT_EQ(actual.bytes, expected.bytes) << NameOf(c) << ", " << threads << " threads";
  }
}

void ExpectReferenceBits(const Case& c, KernelKind kernel = KernelKind::kNative) {
  ExpectReferenceBits(c, FullyConnected(c, Codes(c, static_cast<uint32_t>(c.in))), Activations(c), kernel);
}

TEST(InPlaceIntegerTest, GivesTheBitsOfTheReferenceOnEveryInstructionSetAndLength) {
  ForEachTarget([] {
    for (const DType type : {DType::kI8, DType::kI4}) {
      for (int64_t in = 1; in <= 150; ++in) {
        if (type == DType::kI4 && in % 2 != 0) continue;
        const Case c{.type = type, .rows = 1 + in % 6, .in = in, .out = 1 + in % 3, .bias = in % 4 == 1};
        ExpectReferenceBits(c, FullyConnected(c, Codes(c, static_cast<uint32_t>(in))), Activations(c), KernelKind::kNative, {1});
      }
    }
  });
}

TEST(InPlaceIntegerTest, GivesTheBitsOfTheReferenceForManyRowsAndChannels) {
  for (const DType type : {DType::kI8, DType::kI4}) {
    for (const int64_t rows : {1, 3, 4, 5, 8, 31, 32, 33, 70}) {  // one walk over the weights serves 32
      ExpectReferenceBits({.type = type, .rows = rows, .in = 66, .out = 301, .bias = rows % 2 == 0, .one_scale = rows % 3 == 0});
    }
    ExpectReferenceBits({.type = type, .rows = 2, .in = 2048, .out = 513, .bias = true});  // several blocks of channels
  }
}

// The largest sums that int32 must hold, of both signs.
TEST(InPlaceIntegerTest, TheLongestRowsOfExtremeCodesDoNotOverflow) {
  for (const DType type : {DType::kI8, DType::kI4}) {
    for (const unsigned weight : {type == DType::kI4 ? 0x88U : 0x80U, type == DType::kI4 ? 0x77U : 0x7FU}) {
      for (const float value : {1.0F, -1.0F}) {
        const Case c{.type = type, .rows = 1, .in = 65536, .out = 2};
        const std::vector<std::byte> bytes(NumBytes(c.type, {c.out, c.in}).value(), static_cast<std::byte>(weight));
        ExpectReferenceBits(c, FullyConnected(c, bytes), std::vector<float>(65536, value), KernelKind::kNative);
      }
    }
  }
}

// y = x weights + bias, weights in blocks; extreme codes often.
Graph BlocksGraph(const Case& c, int64_t block_size) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {c.rows, c.in});
  const TensorId weights = toy.Blocks({c.out, c.in}, block_size, RandomFloats(c.out * c.in, 3));
  std::vector<TensorId> inputs = {x, weights};
  if (c.bias) inputs.push_back(toy.Floats({c.out}, RandomFloats(c.out, 4)));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, inputs, {c.rows, c.out}, FullyConnectedAttributes{}));
  Graph graph = toy.Take();
  graph.buffers[1].bytes = MakeMemorySource(ByteView(Codes(c, static_cast<uint32_t>(c.in))));  // 0: scales
  return graph;
}

TEST(InPlaceIntegerTest, BlocksGiveTheBitsOfTheReferenceOnEveryInstructionSet) {
  ForEachTarget([] {
    for (const int64_t block_size : {32, 64, 128, 96, 256}) {
      for (const int64_t blocks : {1, 2, 3, 7}) {
        for (const int64_t rows : {1, 4, 6, 33}) {
          const Case c{.type = DType::kI4, .rows = rows, .in = blocks * block_size, .out = 1 + rows % 5, .bias = blocks % 2 == 1};
          ExpectReferenceBits(c, BlocksGraph(c, block_size), Activations(c), KernelKind::kNative, {1, 3});
        }
      }
    }
  });
}

TEST(InPlaceIntegerTest, WhatItDoesNotCoverRunsOnTheReferenceKernel) {
  ExpectReferenceBits({.type = DType::kI4, .rows = 3, .in = 7, .out = 5, .bias = true}, KernelKind::kReference);  // rows share bytes
  const Case c{.type = DType::kI8, .rows = 1, .in = 65537, .out = 1};
  const auto refused = RunGraph(FullyConnected(c, Codes(c, 1)), {}, {.kernels = Kernels::kInPlace});
  EXPECT_EQ(refused.error().code, ErrorCode::kKernelUnsupported);
}

// y = x weights with float weights, f16 ones by way of DEQUANTIZE.
Graph FloatGraph(int64_t rows, int64_t in, int64_t out, const std::vector<float>& weights, bool halves, bool bias) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {rows, in});
  const TensorId w = halves ? toy.Op(OpKind::kDequantize, {toy.Halves({out, in}, weights)}, {out, in}) : toy.Floats({out, in}, weights);
  std::vector<TensorId> inputs = {x, w};
  if (bias) inputs.push_back(toy.Floats({out}, RandomFloats(out, 6)));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, inputs, {rows, out}, FullyConnectedAttributes{}));
  return toy.Take();
}

// Both sums are made in float64, in another order: apart by at most in * 2^-52 * sum |x w| before they are rounded to float32.
TEST(InPlaceFloatTest, DiffersFromTheReferenceByTheOrderOfAFloat64SumOnly) {
  ForEachTarget([] {
    for (const bool halves : {false, true}) {
      for (const int64_t in : {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 100, 2051}) {
        const int64_t rows = 1 + in % 3;
        const int64_t out = 1 + in % 40;
        const std::vector<float> x = RandomFloats(rows * in, 8);
        const Graph graph = FloatGraph(rows, in, out, RandomFloats(out * in, 9), halves, in % 2 == 0);
        const std::vector<float> expected = RunGraph(graph, {x}).value().floats();
        const auto actual = RunGraph(graph, {x}, {.kernels = Kernels::kInPlace}).value();
        ASSERT_EQ(NameOf(actual.last_kernel), "native");
        const std::vector<float> values = actual.floats();
        ASSERT_EQ(values.size(), expected.size());
        for (size_t i = 0; i < values.size(); ++i) {
          const double bound = static_cast<double>(in * in) * 0x1p-52;  // |x|, |w| < 1
          const float next = std::nextafter(expected[i], HUGE_VALF) - expected[i];
          ASSERT_LE(std::abs(static_cast<double>(values[i]) - static_cast<double>(expected[i])), bound + static_cast<double>(next))
              << in << " columns, f16: " << halves << ", element " << i;
        }
        EXPECT_EQ(RunGraph(graph, {x}, {.kernels = Kernels::kInPlace, .threads = 4}).value().bytes, actual.bytes);
      }
    }
  });
}

TEST(InPlaceFloatTest, EveryHalfIsWidenedExactly) {
  ForEachTarget([] {
    std::vector<uint16_t> halves(1U << 16U);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    const float one = 1.0F;
    std::vector<float> widened(halves.size());
    const auto count = static_cast<int64_t>(halves.size());
    MultiplyChannels(FloatProduct{.rows = 1, .in = 1, .out = count, .halves = halves.data(), .x = &one, .result = widened.data()}, 0,
                     count);
    for (size_t i = 0; i < halves.size(); ++i) {
      const float expected = F16ToFloat(halves[i]);
      if (std::isnan(expected)) {
        ASSERT_FALSE(std::isfinite(widened[i])) << i;
      } else {
        ASSERT_EQ(widened[i], expected) << i;
      }
    }
  });
}

// A whole vector of halves goes another way than the rest of a row.
TEST(InPlaceFloatTest, EveryHalfIsWidenedExactlyInWholeVectorsToo) {
  ForEachTarget([] {
    constexpr int64_t kColumns = 64;
    for (uint32_t half = 0; half < 0x10000U; half += 7) {
      const float expected = F16ToFloat(static_cast<uint16_t>(half));
      if (!std::isfinite(expected)) continue;
      std::vector<uint16_t> halves(kColumns);
      std::vector<float> x(kColumns, 0.0F);
      halves[half % kColumns] = static_cast<uint16_t>(half);
      x[half % kColumns] = 1.0F;
      float result = NAN;
      MultiplyChannels(FloatProduct{.rows = 1, .in = kColumns, .out = 1, .halves = halves.data(), .x = x.data(), .result = &result}, 0, 1);
      ASSERT_EQ(result, expected) << half;
    }
  });
}

// The same constant is read as f16 by a product and as f32 by something else.
TEST(InPlaceFloatTest, HalvesThatOthersReadAsFloatsAreStillDequantized) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 4});
  const TensorId w = toy.Op(OpKind::kDequantize, {toy.Halves({1, 4}, std::vector<float>{1, 2, 3, 4})}, {1, 4});
  const TensorId sum = toy.Op(OpKind::kAdd, {x, w}, {1, 4});
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {sum, w}, {1, 1}, FullyConnectedAttributes{}));
  EXPECT_THAT(RunGraph(toy.graph(), {std::vector<float>{10, 20, 30, 40}}, {.kernels = Kernels::kInPlace}).value().floats(),
              ::testing::ElementsAre(330));
}

}  // namespace
}  // namespace taskpress
