#include "quantizer/output_error.h"

#include <gtest/gtest.h>
#include <oneapi/tbb/global_control.h>

#include <bit>

#include "quantizer/quantize.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

constexpr int64_t kRows = 50;
constexpr int64_t kColumns = 74;  // not a multiple of the lanes
constexpr int64_t kTokens = 300;

std::shared_ptr<const QuantizedRows> RowsOf(const std::vector<float>& values, DType type, int64_t columns) {
  return QuantizedRows::Make({.name = "w",
                              .spec = {.type = type},
                              .num_rows = static_cast<int64_t>(values.size()) / columns,
                              .columns = columns,
                              .reader = ReaderOf(values, columns)})
      .value();
}

// The outputs themselves: sums over tokens of (w x)^2 and (e x)^2.
OutputError Direct(const QuantizedRows& rows, const std::vector<float>& weights, const std::vector<float>& inputs) {
  std::vector<std::byte> packed(rows.size());
  std::vector<float> scales(kRows);
  std::vector<float> back(weights.size());
  EXPECT_TRUE(rows.ReadRows(0, kRows, packed, scales).has_value());
  DequantizeRows(rows.spec(), packed, scales, kRows, kColumns, back);
  long double signal = 0;
  long double noise = 0;
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t token = 0; token < kTokens; ++token) {
      long double output = 0;
      long double error = 0;
      for (size_t c = 0; c < kColumns; ++c) {
        const long double x = inputs[token * kColumns + c];
        const long double w = weights[row * kColumns + c];
        output += w * x;
        error += (w - static_cast<long double>(back[row * kColumns + c])) * x;
      }
      signal += output * output;
      noise += error * error;
    }
  }
  return {.signal = static_cast<double>(signal), .noise = static_cast<double>(noise), .rows = kRows};
}

TEST(OutputErrorTest, WithFullMomentsItIsTheErrorOfTheOutputs) {
  const std::vector<float> weights = RandomMatrix(kRows, kColumns, 1);
  const std::vector<float> inputs = RandomMatrix(kTokens, kColumns, 2);
  const SecondMoments moments = ComputeMomentsPlain(inputs, kTokens, kColumns, MomentKind::kFull).value();
  for (const DType type : {DType::kI4, DType::kI8}) {
    const auto rows = RowsOf(weights, type, kColumns);
    const OutputError expected = Direct(*rows, weights, inputs);
    const OutputError error = MeasureOutputError(*rows, &moments).value();
    EXPECT_NEAR(error.signal / expected.signal, 1, 1e-5);
    EXPECT_NEAR(error.noise / expected.noise, 1, 1e-5);
    EXPECT_EQ(error.rows, kRows);
  }
}

TEST(OutputErrorTest, WithADiagonalColumnsAreWeighed) {
  const std::vector<float> weights = NormalValues(kRows * kColumns, 3);
  const auto rows = RowsOf(weights, DType::kI4, kColumns);
  const OutputError plain = MeasureOutputError(*rows, nullptr).value();
  SecondMoments moments = MakeMoments(kColumns, MomentKind::kDiagonal).value();
  for (double& square : moments.squares) square = 3;
  const OutputError even = MeasureOutputError(*rows, &moments).value();
  EXPECT_NEAR(even.noise / plain.noise, 3, 1e-9);
  EXPECT_NEAR(even.relative() / plain.relative(), 1, 1e-9);
  for (size_t c = 1; c < kColumns; ++c) moments.squares[c] = 0;
  const OutputError first = MeasureOutputError(*rows, &moments).value();
  double signal = 0;
  for (size_t row = 0; row < kRows; ++row) {
    const auto value = static_cast<double>(weights[row * kColumns]);
    signal += 3 * value * value;
  }
  EXPECT_NEAR(first.signal / signal, 1, 1e-9);
}

TEST(OutputErrorTest, LargeMatricesAreSampledEvenly) {
  const std::vector<float> weights = NormalValues(4096 * 64, 4);
  const auto rows = RowsOf(weights, DType::kI4, 64);
  const OutputError all = MeasureOutputError(*rows, nullptr).value();
  const OutputError some = MeasureOutputError(*rows, nullptr, {.work_limit = 64 * 512 * 8}).value();
  EXPECT_EQ(all.rows, 4096);
  EXPECT_EQ(some.rows, 512);
  EXPECT_NEAR(some.relative() / all.relative(), 1, 0.03);
  EXPECT_EQ(MeasureOutputError(*rows, nullptr, {.work_limit = 0}).value().rows, 16);
}

TEST(OutputErrorTest, FiguresAreTheSameBitsForEveryNumberOfThreads) {
  const tbb::global_control four_threads(tbb::global_control::max_allowed_parallelism, 4);
  const std::vector<float> weights = RandomMatrix(700, kColumns, 5);
  const std::vector<float> inputs = RandomMatrix(kTokens, kColumns, 6);
  const SecondMoments moments = ComputeMomentsPlain(inputs, kTokens, kColumns, MomentKind::kFull).value();
  const auto rows = RowsOf(weights, DType::kI4, kColumns);
  const OutputError one = MeasureOutputError(*rows, &moments, {.work = {.threads = 1}}).value();
  const OutputError four = MeasureOutputError(*rows, &moments, {.work = {.threads = 4}}).value();
  EXPECT_EQ(std::bit_cast<uint64_t>(one.noise), std::bit_cast<uint64_t>(four.noise));
  EXPECT_EQ(std::bit_cast<uint64_t>(one.signal), std::bit_cast<uint64_t>(four.signal));
}

TEST(OutputErrorTest, AMatrixOfZerosHasNoError) {
  const std::vector<float> weights(64 * 32);
  EXPECT_EQ(MeasureOutputError(*RowsOf(weights, DType::kI4, 32), nullptr)->relative(), 0);
}

TEST(OutputErrorTest, MomentsOfOtherColumnsAreRefused) {
  const std::vector<float> weights = NormalValues(64 * 32, 7);
  const SecondMoments moments = MakeMoments(31, MomentKind::kDiagonal).value();
  EXPECT_EQ(MeasureOutputError(*RowsOf(weights, DType::kI4, 32), &moments).error().code, ErrorCode::kCalibrationMismatch);
}

}  // namespace
}  // namespace taskpress
