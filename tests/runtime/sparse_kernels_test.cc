// Products that skip rows and columns of weights against plain loops, on every instruction set of the machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "runtime/kernels/native/sparse_columns.h"
#include "runtime/kernels/native/sparse_rows.h"
#include "runtime/kernels/packed_int4.h"
#include "runtime/sparse_block.h"
#include "runtime/thread_pool.h"
#include "tests/testing/every_target.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::RandomFloats;

std::vector<int8_t> RandomCodes(int64_t count, std::mt19937& engine) {
  std::vector<int8_t> codes(static_cast<size_t>(count));
  for (int8_t& code : codes) code = static_cast<int8_t>(engine());
  return codes;
}
std::vector<std::byte> RandomBytes(int64_t count, std::mt19937& engine) {
  std::vector<std::byte> bytes(static_cast<size_t>(count));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine());
  return bytes;
}

void CompareSparseColumns() {
  std::mt19937 engine(4);
  for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{2, 1}, {64, 128}, {70, 130}, {512, 2048}, {30, 391}}) {
    const std::vector<std::byte> weights = RandomBytes(in * out / 2, engine);
    const ColumnMatrixShape shape{.in = in, .out = out};
    std::vector<std::byte> packed(shape.bytes());
    PackColumns(shape, weights.data(), 0, in / 2, packed.data());
    PackColumns(shape, weights.data(), in / 2, in - in / 2, packed.data());
    // Far from zero, so that differences of codes and zero point are no bytes.
    for (const int32_t zero_point : {-128, 0, 127}) {
      std::vector<uint16_t> units;
      for (uint16_t column = 0; column < in; ++column) {
        if (column == 0 || engine() % 3 != 0) units.push_back(column);
      }
      std::vector<int8_t> codes = RandomCodes(std::ssize(units), engine);
      codes[0] = zero_point == -128 ? 127 : -128;
      std::vector<uint16_t> columns(static_cast<size_t>(MostActive(std::ssize(units))));
      std::vector<int8_t> listed(columns.size());
      const ActiveColumns active = ListActive(units.data(), codes.data(), std::ssize(units), zero_point, columns.data(), listed.data());
      EXPECT_EQ(active.count % 4, 0);
      EXPECT_LE(active.count, MostActive(std::ssize(units)));
      const std::vector<float> scales = RandomFloats(in % 4 == 2 ? 1 : out, 8);
      const std::vector<float> bias = RandomFloats(out, 9);
      const ColumnProduct product{.shape = shape, .packed = packed.data(), .scales = scales, .bias = in == 64 ? nullptr : bias.data()};
      std::vector<float> result(static_cast<size_t>(out));
      std::vector<float> plain = result;
      MultiplyColumns(product, active, active, 0.25F, 0, shape.strips(), result.data());
      MultiplyColumnsPlain(product, active, 0.25F, 0, shape.strips(), plain.data());
      EXPECT_EQ(result, plain);
      for (int64_t channel = 0; channel < out; ++channel) {
        int32_t sum = 0;
        for (size_t i = 0; i < units.size(); ++i) sum += (codes[i] - zero_point) * Int4At(weights.data(), channel * in + units[i]);
        const float expected = std::fma(static_cast<float>(sum) * 0.25F, scales[scales.size() == 1 ? 0 : static_cast<size_t>(channel)],
                                        product.bias == nullptr ? 0.0F : bias[static_cast<size_t>(channel)]);
        EXPECT_EQ(result[static_cast<size_t>(channel)], expected) << channel;
      }
    }
  }
}

TEST(SparseColumnsTest, AgreeWithPlainLoopsForAnyShape) { ForEachTarget(CompareSparseColumns); }

void CompareSparseRows() {
  std::mt19937 engine(5);
  for (const int bits : {4, 8}) {
    for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{2, 3}, {64, 5}, {130, 7}, {258, 2}, {2048, 4}}) {
      const std::vector<std::byte> weights = RandomBytes(in * out * bits / 8, engine);
      constexpr int64_t kRows = 13;
      const int64_t length = SplitRowLength(in);
      std::vector<int8_t> split(static_cast<size_t>(kRows * length));
      std::vector<int8_t> ones(static_cast<size_t>(length));
      SplitRow(std::vector<int8_t>(static_cast<size_t>(in), 1).data(), in, bits, ones.data());
      std::vector<PackedRow> parameters;
      std::vector<std::vector<int8_t>> codes;
      for (int64_t row = 0; row < kRows; ++row) {
        codes.push_back(RandomCodes(in, engine));
        SplitRow(codes.back().data(), in, bits, split.data() + row * length);
        parameters.push_back({.scale = 0.5F,
                              .zero_point = static_cast<int8_t>(engine()),
                              .sum = std::accumulate(codes.back().begin(), codes.back().end(), 0)});
      }
      const std::vector<float> scales = RandomFloats(in == 64 ? 1 : out, 3);
      const std::vector<float> bias = RandomFloats(out, 2);
      const UnitProduct product{.bits = bits,
                                .in = in,
                                .out = out,
                                .weights = weights.data(),
                                .scales = scales,
                                .bias = in == 130 ? nullptr : bias.data(),
                                .codes = split.data(),
                                .ones = ones.data(),
                                .row = parameters.data()};
      for (const std::vector<uint16_t>& rows : {std::vector<uint16_t>{4}, {0, 12}, {1, 2, 3}, {0, 1, 2, 3}, {12, 3, 5, 0, 7, 9, 11}}) {
        for (int64_t unit = 0; unit < out; ++unit) {
          std::vector<float> values(rows.size());
          std::vector<float> plain(rows.size());
          MultiplyUnit(product, unit, rows, values.data());
          MultiplyUnitPlain(product, unit, rows, plain.data());
          EXPECT_EQ(values, plain);
          for (size_t i = 0; i < rows.size(); ++i) {
            int32_t sum = 0;
            for (int64_t column = 0; column < in; ++column) {
              const int64_t element = unit * in + column;
              const int32_t weight =
                  bits == 4 ? Int4At(weights.data(), element) : static_cast<int8_t>(weights[static_cast<size_t>(element)]);
              sum += weight * (codes[rows[i]][static_cast<size_t>(column)] - parameters[rows[i]].zero_point);
            }
            const float scale = scales[scales.size() == 1 ? 0 : static_cast<size_t>(unit)];
            EXPECT_EQ(values[i],
                      std::fma(static_cast<float>(sum) * 0.5F, scale, product.bias == nullptr ? 0.0F : bias[static_cast<size_t>(unit)]));
          }
        }
      }
    }
  }
}

TEST(SparseRowsTest, AgreeWithPlainLoopsForAnyShape) { ForEachTarget(CompareSparseRows); }

void FindNonZerosOfSeveral() {
  std::vector<float> values(100);
  values[0] = 1.0F;
  values[17] = -0.0F;
  values[63] = std::numeric_limits<float>::denorm_min();
  values[99] = std::numeric_limits<float>::quiet_NaN();
  std::vector<uint16_t> found(3);
  EXPECT_EQ(FindNonZeros(values.data(), 100, 3, found.data()), 3);
  EXPECT_EQ(found, (std::vector<uint16_t>{0, 63, 99}));
  EXPECT_EQ(FindNonZeros(values.data(), 100, 2, found.data()), 3);
  EXPECT_EQ(FindNonZeros(values.data(), 99, 2, found.data()), 2);
}

TEST(SparseRowsTest, FindsWhatIsNotZeroUntilThereIsNoRoom) { ForEachTarget(FindNonZerosOfSeveral); }

// Which of the two ways was taken shows in who filled the output.
TEST(SparseTokensTest, TheOperatorsRunOnlyWhenManyUnitsAreOpen) {
  constexpr int64_t kTokens = 40;
  constexpr int64_t kUnits = 256;
  const ThreadPool threads = ThreadPool::Create(2).value();
  const std::vector<std::byte> weights(kUnits * 8);
  std::vector<std::byte> memory(QuantizedInputBytes({.rows = kTokens, .columns = 8, .packed = true}) + kTensorAlignment);
  auto* aligned = reinterpret_cast<std::byte*>(AlignUp(reinterpret_cast<uint64_t>(memory.data()), kTensorAlignment));
  std::ranges::fill(memory, std::byte{0});
  const std::vector<float> scales = {1.0F};
  std::vector<float> gate(kTokens * kUnits);
  std::vector<float> out(kTokens * 8);
  SparseBlock block{.input = {.memory = aligned, .rows = kTokens, .columns = 8, .packed = true}, .gate = gate.data(), .units = kUnits};
  block.up = {.bits = 4, .in = 8, .out = kUnits, .weights = weights.data(), .scales = scales};
  block.down = {.shape = {.in = kUnits, .out = 8}, .scales = scales};
  std::vector<std::byte> packed(block.down.shape.bytes());
  PackColumns(block.down.shape, weights.data(), 0, kUnits, packed.data());
  block.down.packed = packed.data();
  block.out = out.data();
  int dense_runs = 0;
  std::vector<StepPtr> dense;
  dense.push_back(MakeStep([&dense_runs] { ++dense_runs; }));
  const StepPtr step = MakeSparseTokens(block, kTokens, std::move(dense), threads);
  const TensorBuffer workspace = TensorBuffer::Make(step->workspace_bytes()).value();
  ASSERT_TRUE(step->Bind(workspace.data()).has_value());
  for (int64_t token = 0; token < kTokens; ++token) std::fill_n(gate.begin() + token * kUnits, kUnits / 8, 1.0F);
  std::ranges::fill(out, 1.0F);
  ASSERT_TRUE(step->Run().has_value());
  EXPECT_EQ(dense_runs, 0);
  EXPECT_THAT(out, ::testing::Each(0.0F));  // all weights are 0
  gate[kUnits - 1] = 1.0F;
  ASSERT_TRUE(step->Run().has_value());
  EXPECT_EQ(dense_runs, 1);
}

}  // namespace
}  // namespace taskpress
