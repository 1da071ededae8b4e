#include "quantizer/error_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <oneapi/tbb/global_control.h>

#include <bit>
#include <cmath>

#include "quantizer/quantize.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

std::shared_ptr<const QuantizedRows> RowsOf(const std::vector<float>& values, DType type, int64_t columns, float scale_factor = 1.0F) {
  return QuantizedRows::Make({.name = "w",
                              .spec = {.type = type},
                              .num_rows = static_cast<int64_t>(values.size()) / columns,
                              .columns = columns,
                              .reader = ReaderOf(values, columns),
                              .scale_factor = scale_factor})
      .value();
}

TEST(ErrorReportTest, FiguresAgreeWithSumsInLongDouble) {
  constexpr int64_t kColumns = 1038;  // not a multiple of the lanes, several blocks
  const std::vector<float> values = RandomMatrix(600, kColumns, 1);
  for (const DType type : {DType::kI4, DType::kI8, DType::kF16}) {
    const auto rows = RowsOf(values, type, kColumns, 0.0025F);
    std::vector<std::byte> packed(rows->size());
    std::vector<float> scales(static_cast<size_t>(rows->num_rows() * rows->scales_per_row()));
    std::vector<float> back(values.size());
    ASSERT_TRUE(rows->ReadRows(0, rows->num_rows(), packed, scales).has_value());
    DequantizeRows(rows->spec(), packed, scales, rows->num_rows(), kColumns, back);
    long double signal = 0;
    long double noise = 0;
    long double worst = 0;
    size_t worst_at = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const long double value = values[i] * 0.0025F;
      const long double error = value - static_cast<long double>(back[i]);
      signal += value * value;
      noise += error * error;
      if (std::abs(error) > worst) {
        worst = std::abs(error);
        worst_at = i;
      }
    }
    const Result<TensorError> error = MeasureTensorError(*rows);
    ASSERT_TRUE(error.has_value());
    EXPECT_NEAR(error->snr_db(), static_cast<double>(10 * std::log10(signal / noise)), 1e-9);
    EXPECT_NEAR(error->relative_error() / static_cast<double>(std::sqrt(noise / signal)), 1, 1e-12);
    EXPECT_NEAR(error->mean_squared_error() / static_cast<double>(noise / static_cast<long double>(values.size())), 1, 1e-12);
    EXPECT_EQ(error->max_abs_error, static_cast<double>(worst));
    EXPECT_EQ(error->worst_row, static_cast<int64_t>(worst_at) / kColumns);
    EXPECT_EQ(error->name, "w");
    EXPECT_EQ(error->num_rows, 600);
    EXPECT_EQ(error->columns, kColumns);
  }
}

TEST(ErrorReportTest, FiguresAreTheSameBitsForEveryNumberOfThreads) {
  const tbb::global_control four_threads(tbb::global_control::max_allowed_parallelism, 4);
  const std::vector<float> values = RandomMatrix(3000, 500, 2);
  const auto rows = RowsOf(values, DType::kI4, 500);
  const Result<TensorError> one = MeasureTensorError(*rows, {.threads = 1});
  ASSERT_TRUE(one.has_value());
  for (const int threads : {2, 4}) {
    for (int round = 0; round < 3; ++round) {
      const Result<TensorError> several = MeasureTensorError(*rows, {.threads = threads});
      ASSERT_TRUE(several.has_value());
      EXPECT_EQ(std::bit_cast<uint64_t>(several->signal), std::bit_cast<uint64_t>(one->signal));
      EXPECT_EQ(std::bit_cast<uint64_t>(several->noise), std::bit_cast<uint64_t>(one->noise));
      EXPECT_EQ(several->max_abs_error, one->max_abs_error);
      EXPECT_EQ(several->worst_row, one->worst_row);
    }
  }
}

TEST(ErrorReportTest, ExactTensorsHaveInfiniteSignalToNoise) {
  const std::vector<float> grid = {-7, 3, 0, 14, -28, 4, 0, 0};
  for (const auto& [values, type] :
       {std::pair(std::vector<float>(6, 0.0F), DType::kI4), std::pair(grid, DType::kI4), std::pair(grid, DType::kF32)}) {
    const Result<TensorError> exact = MeasureTensorError(*RowsOf(values, type, 2));
    ASSERT_TRUE(exact.has_value());
    EXPECT_TRUE(std::isinf(exact->snr_db()));
    EXPECT_EQ(exact->relative_error(), 0);
    EXPECT_EQ(exact->mean_squared_error(), 0);
    EXPECT_EQ(exact->max_abs_error, 0);
  }
}

TEST(ErrorReportTest, CodesAtTheEndsAndZerosAreCounted) {
  // Row maxima get the code 7 (int4) or 127 (int8); -14 is -7; half a step rounds to zero.
  const std::vector<float> values = {14, -14, 0, 2, 0.5F, 14, 7, 0, 1, 3, -3, 0};
  const Result<TensorError> int4 = MeasureTensorError(*RowsOf(values, DType::kI4, 6));
  ASSERT_TRUE(int4.has_value());
  EXPECT_EQ(int4->codes_at_ends, 4);
  EXPECT_EQ(int4->zero_codes, 4);  // with 0.5 / 2
  EXPECT_DOUBLE_EQ(int4->share_at_ends(), 4.0 / 12);
  EXPECT_DOUBLE_EQ(int4->share_of_zeros(), 4.0 / 12);
  const Result<TensorError> int8 = MeasureTensorError(*RowsOf(values, DType::kI8, 6));
  ASSERT_TRUE(int8.has_value());
  EXPECT_EQ(int8->codes_at_ends, 4);
  EXPECT_EQ(int8->zero_codes, 3);
  EXPECT_EQ(MeasureTensorError(*RowsOf(values, DType::kF32, 6))->codes_at_ends, 0);
}

TEST(ErrorReportTest, Int8IsAboutTwentyFiveDecibelsBetterThanInt4) {
  const std::vector<float> values = RandomMatrix(64, 512, 3);
  const double int4 = MeasureTensorError(*RowsOf(values, DType::kI4, 512))->snr_db();
  const double int8 = MeasureTensorError(*RowsOf(values, DType::kI8, 512))->snr_db();
  EXPECT_NEAR(int8 - int4, 20 * std::log10(127.0 / 7.0), 2.5);
}

TEST(ErrorReportTest, RowsOfAnotherShapeAreRefusedAndReadersErrorsComeBack) {
  const std::vector<float> values(64, 1.0F);
  const auto rows = RowsOf(values, DType::kI8, 8);
  const FloatRowReader reader = ReaderOf(values, 8);
  EXPECT_EQ(MeasureTensorError("w", {.type = DType::kI8}, 10, *rows, reader).error().code, ErrorCode::kQuantShape);
  EXPECT_EQ(MeasureTensorError("w", {.type = DType::kI4}, 8, *rows, reader).error().code, ErrorCode::kQuantShape);
  EXPECT_EQ(MeasureTensorError("w", {.type = DType::kI4}, 7, *rows, reader).error().code, ErrorCode::kQuantShape);
  const FloatRowReader broken = [](int64_t, int64_t, std::span<float>) -> Status { return Fail(ErrorCode::kFileChanged, "gone"); };
  EXPECT_EQ(MeasureTensorError("w", {.type = DType::kI8}, 8, *rows, broken).error().code, ErrorCode::kFileChanged);
  const std::atomic<bool> stop = true;
  EXPECT_EQ(MeasureTensorError(*rows, {.threads = 1, .stop = &stop}).error().code, ErrorCode::kInterrupted);
}

TEST(ErrorReportTest, TheReportListsTheWorstFirstAndEqualOnesByName) {
  const std::vector<TensorError> errors = {
      {.name = "good",
       .spec = {.type = DType::kI8},
       .num_rows = 2,
       .columns = 50,
       .signal = 100,
       .noise = 0.01,
       .max_abs_error = 0.05,
       .codes_at_ends = 3},
      {.name = "exact", .spec = {.type = DType::kF32}, .num_rows = 1, .columns = 1, .signal = 1},
      {.name = "bad_b", .spec = {.type = DType::kI4}, .num_rows = 2, .columns = 50, .signal = 100, .noise = 1, .max_abs_error = 0.5},
      {.name = "bad_a", .spec = {.type = DType::kI4}, .num_rows = 2, .columns = 50, .signal = 100, .noise = 1, .max_abs_error = 0.5},
  };
  EXPECT_EQ(FormatErrorReport(errors),
            "  SNR dB    relative   max error         MSE  at ends  type           shape            tensor\n"
            "   20.00   1.000e-01   5.000e-01   1.000e-02   0.00 %  int4           [2,50]           bad_a\n"
            "   20.00   1.000e-01   5.000e-01   1.000e-02   0.00 %  int4           [2,50]           bad_b\n"
            "   40.00   1.000e-02   5.000e-02   1.000e-04   3.00 %  int8           [2,50]           good\n"
            "   exact   0.000e+00   0.000e+00   0.000e+00        -  f32            [1,1]            exact\n");
  const OrderedJson json = ErrorReportJson(errors);
  ASSERT_EQ(json.size(), 4U);
  EXPECT_EQ(json[0].dump(),
            R"({"name":"bad_a","type":"int4","rows":2,"columns":50,"snr_db":20.0,"relative_error":0.1,"mean_squared_error":0.01,)"
            R"("max_abs_error":0.5,"worst_row":0,"share_at_ends":0.0,"share_of_zeros":0.0})");
  EXPECT_TRUE(json[3]["snr_db"].is_null());
}

}  // namespace
}  // namespace taskpress
