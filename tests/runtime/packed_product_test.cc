// Packed matrices: their layout, the product against its plain twin on every instruction set, and the step against XNNPACK's and the
// reference kernel. Integer sums are exact, so nothing may differ by a bit.
#include "runtime/kernels/native/packed_product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "runtime/kernels/op_shapes.h"
#include "tests/testing/every_target.h"
#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::RandomFloats;
using testing::RunGraph;
using testing::ToyGraph;

struct Case {
  int bits = 4;
  int64_t rows = 1;
  int64_t in = 8;
  int64_t out = 1;
  bool bias = false;
  bool one_scale = false;
};

std::string NameOf(const Case& c) {
  return "i" + std::to_string(c.bits) + " [" + std::to_string(c.rows) + ", " + std::to_string(c.in) + "] -> " + std::to_string(c.out) +
         (c.bias ? " with bias" : "") + (c.one_scale ? " with one scale" : "");
}

// Every code there is, the extreme ones often: they are what an addition in 16 bits would not hold.
std::vector<std::byte> Codes(uint64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  constexpr std::array kExtremes{0x80U, 0x7FU, 0x88U, 0x77U, 0x00U, 0xFFU};
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine() % 2 == 0 ? engine() & 0xFFU : kExtremes[engine() % 6]);
  return bytes;
}

// A product with everything it points at.
struct Operands {
  explicit Operands(const Case& c) : weights(Codes(static_cast<uint64_t>(c.in * c.out * c.bits / 8), 1)), shape{c.bits, c.in, c.out} {
    packed.resize(shape.bytes());
    PackTiles(shape, weights.data(), 0, shape.tiles(), packed.data());
    const std::vector<std::byte> bytes = Codes(static_cast<uint64_t>(c.rows * c.in), 2);
    std::ranges::transform(bytes, std::back_inserter(codes), [](std::byte byte) { return static_cast<int8_t>(byte); });
    std::mt19937 engine(3);
    for (int64_t row = 0; row < c.rows; ++row) {
      const int32_t zero_point = row % 3 == 0 ? -128 : row % 3 == 1 ? 127 : static_cast<int32_t>(engine() % 256) - 128;
      rows.push_back({.scale = 0.001F * static_cast<float>(1 + engine() % 99), .zero_point = zero_point});
    }
    packed_codes.resize(static_cast<size_t>(c.rows * PackedRowLength(c.in)));
    for (int64_t row = 0; row < c.rows; row += kTileRows) {
      PackRows(codes.data() + row * c.in, std::min(kTileRows, c.rows - row), c.in, packed_codes.data() + row * PackedRowLength(c.in),
               rows.data() + row);
    }
    scales = RandomFloats(c.one_scale ? 1 : c.out, 4);
    if (c.bias) bias = RandomFloats(c.out, 5);
  }

  [[nodiscard]] PackedProduct ProductInto(std::vector<float>& result) const {
    result.assign(rows.size() * static_cast<size_t>(shape.out), NAN);
    return {.shape = shape,
            .weights = packed.data(),
            .scales = scales,
            .bias = bias.empty() ? nullptr : bias.data(),
            .rows = static_cast<int64_t>(rows.size()),
            .codes = packed_codes.data(),
            .row = rows.data(),
            .result = result.data()};
  }

  std::vector<std::byte> weights;
  PackedMatrixShape shape;
  std::vector<std::byte> packed;
  std::vector<int8_t> codes;
  std::vector<int8_t> packed_codes;
  std::vector<PackedRow> rows;
  std::vector<float> scales;
  std::vector<float> bias;
};

int32_t WeightAt(const Operands& operands, int64_t channel, int64_t column) {
  const int64_t element = channel * operands.shape.in + column;
  if (operands.shape.bits == 8) return static_cast<int8_t>(operands.weights[static_cast<size_t>(element)]);
  const std::byte pair = operands.weights[static_cast<size_t>(element / 2)];
  const auto nibble = static_cast<int32_t>(element % 2 == 0 ? pair & std::byte{15} : pair >> 4);
  return nibble >= 8 ? nibble - 16 : nibble;
}

std::vector<float> Vectorized(const Operands& operands) {
  std::vector<float> result;
  const PackedProduct product = operands.ProductInto(result);
  MultiplyTiles(product, 0, product.rows, 0, product.shape.tiles());
  return result;
}

std::vector<float> Plain(const Operands& operands) {
  std::vector<float> result;
  const PackedProduct product = operands.ProductInto(result);
  MultiplyTilesPlain(product, 0, product.rows, 0, product.shape.tiles());
  return result;
}

TEST(PackedMatrixTest, HasTheLayoutThatIsWritten) {
  const std::array<uint8_t, 8> rows = {0x10, 0x32, 0x54, 0x76, 0xF8, 0xDC, 0xBA, 0x98};  // i4 [2, 8]: 0 ... 7, and -8 -1 -4 -3 -6 -5 -8 -7
  const PackedMatrixShape shape{.bits = 4, .in = 8, .out = 2};
  std::vector<std::byte> packed(shape.bytes());
  PackTiles(shape, reinterpret_cast<const std::byte*>(rows.data()), 0, 1, packed.data());
  ASSERT_EQ(packed.size(), 128U + 128U);
  std::array<int32_t, kTileChannels> sums{};
  std::memcpy(sums.data(), packed.data(), sizeof(sums));
  EXPECT_EQ(sums[0], 28);
  EXPECT_EQ(sums[1], -42);
  EXPECT_EQ(sums[2], 0);
  const auto group = std::span(packed).subspan(128, 12);
  EXPECT_THAT(std::vector(group.begin(), group.end()),
              ::testing::ElementsAreArray(std::initializer_list<std::byte>{
                  std::byte{0xC8}, std::byte{0xD9}, std::byte{0xEA}, std::byte{0xFB},  // columns 0 and 4, 1 and 5, 2 and 6, 3 and 7; plus 8
                  std::byte{0x20}, std::byte{0x37}, std::byte{0x04}, std::byte{0x15}, std::byte{0x88}, std::byte{0x88}, std::byte{0x88},
                  std::byte{0x88}}));  // no such channel: weights 0
}

TEST(PackedMatrixTest, TilesCanBePackedInAnyOrder) {
  const Operands operands({.bits = 4, .in = 74, .out = 100});
  std::vector<std::byte> packed(operands.packed.size());
  for (const int64_t tile : {3, 0, 1, 2}) PackTiles(operands.shape, operands.weights.data(), tile, 1, packed.data());
  EXPECT_EQ(packed, operands.packed);
}

TEST(PackedProductTest, PlainLoopsGiveTheSumsOfTheDefinition) {
  for (const int bits : {4, 8}) {
    for (const int64_t in : {2, 6, 8, 62, 64, 66, 200}) {
      const Operands operands({.bits = bits, .rows = 14, .in = in, .out = 35, .bias = true});
      const std::vector<float> found = Plain(operands);
      for (int64_t row = 0; row < 14; ++row) {
        for (int64_t channel = 0; channel < 35; ++channel) {
          int64_t sum = 0;
          for (int64_t i = 0; i < in; ++i) {
            const int64_t code = operands.codes[static_cast<size_t>(row * in + i)] - operands.rows[static_cast<size_t>(row)].zero_point;
            sum += code * WeightAt(operands, channel, i);
          }
          const float scaled = static_cast<float>(sum) * operands.rows[static_cast<size_t>(row)].scale;
          const auto at = static_cast<size_t>(channel);
          ASSERT_EQ(found[static_cast<size_t>(row * 35 + channel)], std::fma(scaled, operands.scales[at], operands.bias[at]))
              << bits << " bits, " << in << " columns, row " << row << ", channel " << channel;
        }
      }
    }
  }
}

TEST(PackedProductTest, GivesTheBitsOfThePlainLoopsOnEveryInstructionSet) {
  ForEachTarget([] {
    for (const int bits : {4, 8}) {
      for (int64_t in = 1; in <= 140; ++in) {
        if (bits == 4 && in % 2 != 0) continue;
        const Case c{.bits = bits, .rows = 1 + in % 27, .in = in, .out = 1 + in * 7 % 80, .bias = in % 3 == 0, .one_scale = in % 5 == 0};
        const Operands operands(c);
        ASSERT_EQ(Vectorized(operands), Plain(operands)) << NameOf(c);
      }
      for (int64_t rows = 1; rows <= 33; ++rows) {
        const Case c{.bits = bits, .rows = rows, .in = 520, .out = 33};
        const Operands operands(c);
        ASSERT_EQ(Vectorized(operands), Plain(operands)) << NameOf(c);
      }
    }
  });
}

// The largest and smallest operands everywhere: what is added in 16 bits, or comes near 2^31, must not run over.
TEST(PackedProductTest, HoldsTheLargestSums) {
  for (const int bits : {4, 8}) {
    for (const std::byte weight : {std::byte{0x77}, std::byte{0x7F}, std::byte{0x80}, std::byte{0x88}}) {
      for (const int8_t code : {int8_t{-128}, int8_t{127}}) {
        Operands operands({.bits = bits, .rows = 3, .in = kMaxIntegerColumns, .out = 5});
        std::ranges::fill(operands.weights, weight);
        PackTiles(operands.shape, operands.weights.data(), 0, operands.shape.tiles(), operands.packed.data());
        std::ranges::fill(operands.codes, code);
        PackRows(operands.codes.data(), 3, kMaxIntegerColumns, operands.packed_codes.data(), operands.rows.data());
        const std::vector<float> expected = Plain(operands);
        ForEachTarget([&] {
          ASSERT_EQ(Vectorized(operands), expected) << bits << " bits, weights " << static_cast<int>(weight) << ", codes " << int{code};
        });
      }
    }
  }
}

TEST(PackedProductTest, BlocksOfRowsAndTilesMakeUpTheWhole) {
  const Operands operands({.bits = 4, .rows = 40, .in = 72, .out = 150});
  std::vector<float> result;
  const PackedProduct product = operands.ProductInto(result);
  for (const int64_t row : {24, 0}) {
    for (int64_t tile = product.shape.tiles() - 1; tile >= 0; --tile) MultiplyTiles(product, row, std::min<int64_t>(24, 40 - row), tile, 1);
  }
  EXPECT_EQ(result, Plain(operands));
}

Graph FullyConnected(const Case& c) {
  const DType type = c.bits == 4 ? DType::kI4 : DType::kI8;
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {c.rows, c.in});
  const TensorId weights = toy.Quantized(type, {c.out, c.in}, RandomFloats(c.out * c.in, 3));
  std::vector<TensorId> inputs = {x, weights};
  if (c.bias) inputs.push_back(toy.Floats({c.out}, RandomFloats(c.out, 4)));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, inputs, {c.rows, c.out}, FullyConnectedAttributes{}));
  Graph graph = toy.Take();
  graph.buffers[0].bytes = MakeMemorySource(ByteView(Codes(NumBytes(type, {c.out, c.in}).value(), 6)));
  if (c.one_scale) graph.quantizations[0] = {.axis = 0, .num_scales = 1, .scales = MakeMemorySource(std::span<const float>({0.25F}))};
  return graph;
}

// Rows that are positive, negative, of both signs, of zeros, and of one outlier: every kind of zero point.
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

TEST(PackedFullyConnectedTest, GivesTheBitsOfXnnpackAndOfTheReferenceWithAnyNumberOfThreads) {
  for (const Case& c : std::vector<Case>{{4, 1, 2, 1},
                                         {8, 1, 1, 1},
                                         {4, 1, 2048, 512},
                                         {8, 1, 2048, 64, true},
                                         {4, 3, 250, 77, true},
                                         {8, 13, 33, 100},
                                         {4, 33, 66, 301, true},
                                         {8, 33, 67, 301},
                                         {4, 128, 2048, 96},
                                         {4, 61, 8192, 64},
                                         {8, 100, 256, 130}}) {
    const Graph graph = FullyConnected(c);
    const std::vector<float> x = Activations(c);
    const auto expected = RunGraph(graph, {x}).value();
    EXPECT_EQ(RunGraph(graph, {x}, {.kernels = Kernels::kXnnpack}).value().bytes, expected.bytes) << NameOf(c);
    for (const int threads : {1, 2, 4}) {
      const auto found = RunGraph(graph, {x}, {.kernels = Kernels::kFast, .threads = threads}).value();
      EXPECT_EQ(NameOf(found.last_kernel), "native") << NameOf(c);
      EXPECT_EQ(found.bytes, expected.bytes) << NameOf(c) << ", " << threads << " threads";
    }
  }
}

TEST(PackedFullyConnectedTest, TakesOneScaleForAllChannels) {
  for (const int bits : {4, 8}) {
    const Case c{.bits = bits, .rows = 5, .in = 64, .out = 40, .bias = true, .one_scale = true};
    const Graph graph = FullyConnected(c);
    const auto found = RunGraph(graph, {Activations(c)}, {.kernels = Kernels::kFast}).value();
    EXPECT_EQ(NameOf(found.last_kernel), "native");
    EXPECT_EQ(found.bytes, RunGraph(graph, {Activations(c)}).value().bytes);
  }
}

TEST(PackedFullyConnectedTest, LeavesBlocksAndRowsOfHalfBytesToOthers) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {3, 64});
  const TensorId blocks = toy.Blocks({5, 64}, 32, RandomFloats(5 * 64, 3));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, blocks}, {3, 5}, FullyConnectedAttributes{}));
  const Graph graph = toy.Take();
  const std::vector<float> values = RandomFloats(3 * 64, 4);
  const auto found = RunGraph(graph, {values}, {.kernels = Kernels::kFast}).value();
  EXPECT_EQ(NameOf(found.last_kernel), "xnnpack");
  EXPECT_EQ(found.bytes, RunGraph(graph, {values}, {.kernels = Kernels::kXnnpack}).value().bytes);

  const Case odd{.bits = 4, .rows = 2, .in = 7, .out = 5};
  const auto reference = RunGraph(FullyConnected(odd), {Activations(odd)}, {.kernels = Kernels::kFast}).value();
  EXPECT_EQ(NameOf(reference.last_kernel), "reference");
}

// Two signatures of different lengths, as prefill and decode are.
TEST(PackedFullyConnectedTest, SignaturesShareThePackedWeights) {
  ToyGraph toy;
  toy.Begin("decode");
  TensorId weights = toy.Quantized(DType::kI4, {96, 64}, RandomFloats(96 * 64, 3));
  TensorId x = toy.Input("x", DType::kF32, {1, 64});
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, weights}, {1, 96}, FullyConnectedAttributes{}));
  toy.Begin("prefill");
  weights = toy.SameConstant(0, weights);
  x = toy.Input("x", DType::kF32, {30, 64});
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, weights}, {30, 96}, FullyConnectedAttributes{}));
  const Graph graph = toy.Take();
  const auto shared = SharedRuntime::Create({.kernels = Kernels::kFast, .threads = 1}).value();
  const Executor decode = Executor::Create(graph, 0, *shared).value();
  const uint64_t bytes = shared->packed_weights().bytes();
  EXPECT_EQ(bytes, (PackedMatrixShape{.bits = 4, .in = 64, .out = 96}).bytes());
  const Executor prefill = Executor::Create(graph, 1, *shared).value();
  EXPECT_EQ(shared->packed_weights().bytes(), bytes);
}

}  // namespace
}  // namespace taskpress
