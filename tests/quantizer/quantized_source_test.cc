#include "quantizer/quantized_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "quantizer/quantize.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

constexpr int64_t kRows = 37;
constexpr int64_t kColumns = 30;

QuantizedRowsInput InputOf(const std::vector<float>& values, DType type, int64_t rows = kRows, int64_t columns = kColumns) {
  return {.name = "layers.0.up_proj", .spec = {.type = type}, .num_rows = rows, .columns = columns, .reader = ReaderOf(values, columns)};
}

struct Rows {
  std::vector<std::byte> packed;
  std::vector<float> scales;
  bool operator==(const Rows&) const = default;
};

Result<Rows> ReadRowsOf(const RowSource& source, int64_t first_row, int64_t count) {
  Rows rows{std::vector<std::byte>(static_cast<size_t>(count) * source.row_bytes()),
            std::vector<float>(static_cast<size_t>(count * source.scales_per_row()))};
  TRY(source.ReadRows(first_row, count, rows.packed, rows.scales));
  return rows;
}

Rows QuantizeAll(const std::vector<float>& values, const QuantSpec& spec, int64_t rows, int64_t columns) {
  Rows out{std::vector<std::byte>(static_cast<size_t>(rows) * *PackedRowBytes(spec, columns)),
           std::vector<float>(spec.is_quantized() ? static_cast<size_t>(rows) : 0)};
  EXPECT_TRUE(QuantizeRows(spec, values, rows, columns, out.packed, out.scales).has_value());
  return out;
}

TEST(QuantizedRowsTest, AnyRangeOfRowsHoldsWhatQuantizingAllAtOnceGives) {
  const std::vector<float> values = RandomMatrix(kRows, kColumns, 1);
  for (const DType type : {DType::kI4, DType::kI8, DType::kF16, DType::kF32}) {
    const auto source = QuantizedRows::Make(InputOf(values, type));
    ASSERT_TRUE(source.has_value());
    const Rows all = QuantizeAll(values, {.type = type}, kRows, kColumns);
    const uint64_t row_bytes = (*source)->row_bytes();
    EXPECT_EQ((*source)->size(), all.packed.size());
    for (int64_t first = 0; first <= kRows; ++first) {
      for (int64_t count = 0; count <= kRows - first; ++count) {
        const Result<Rows> rows = ReadRowsOf(**source, first, count);
        ASSERT_TRUE(rows.has_value());
        const auto begin = static_cast<size_t>(first);
        const auto length = static_cast<size_t>(count);
        ASSERT_TRUE(std::ranges::equal(rows->packed, std::span(all.packed).subspan(begin * row_bytes, length * row_bytes)));
        if (!all.scales.empty()) {
          ASSERT_TRUE(std::ranges::equal(rows->scales, std::span(all.scales).subspan(begin, length)));
        }
      }
    }
  }
}

TEST(QuantizedRowsTest, AnyByteRangeCanBeRead) {
  const std::vector<float> values = RandomMatrix(5, 6, 2);
  const Result<SharedBytes> source = MakeQuantizedSource(InputOf(values, DType::kI4, 5, 6));
  ASSERT_TRUE(source.has_value());
  ASSERT_NE((*source)->rows(), nullptr);
  EXPECT_TRUE((*source)->view().empty());
  const Rows all = QuantizeAll(values, {.type = DType::kI4}, 5, 6);
  ASSERT_EQ((*source)->size(), 15U);
  for (uint64_t offset = 0; offset <= 15; ++offset) {
    for (uint64_t length = 0; length <= 15 - offset; ++length) {
      std::vector<std::byte> bytes(length);
      ASSERT_TRUE((*source)->Read(offset, bytes).has_value());
      EXPECT_TRUE(std::ranges::equal(bytes, std::span(all.packed).subspan(offset, length)));
    }
  }
  std::vector<std::byte> too_many(16);
  EXPECT_EQ((*source)->Read(0, too_many).error().code, ErrorCode::kReadFailed);
}

TEST(QuantizedRowsTest, ABigRequestReachesTheReaderInBlocksOfAtMostOneMebibyte) {
  constexpr int64_t kBigRows = 1000;
  constexpr int64_t kBigColumns = 1030;
  std::atomic<size_t> largest = 0;
  std::atomic<int64_t> next_row = 0;
  QuantizedRowsInput input = InputOf({}, DType::kI8, kBigRows, kBigColumns);
  input.reader = [&](int64_t first_row, int64_t count, std::span<float> out) -> Status {
    EXPECT_EQ(first_row, next_row.exchange(first_row + count));
    EXPECT_EQ(out.size(), static_cast<size_t>(count * kBigColumns));
    largest = std::max(largest.load(), out.size_bytes());
    std::ranges::fill(out, static_cast<float>(first_row));
    return {};
  };
  const auto source = QuantizedRows::Make(std::move(input));
  ASSERT_TRUE(source.has_value());
  ASSERT_TRUE(ReadRowsOf(**source, 0, kBigRows).has_value());
  EXPECT_EQ(next_row.load(), kBigRows);
  EXPECT_LE(largest.load(), size_t{1} << 20);
  EXPECT_GT(largest.load(), size_t{1} << 19);
}

TEST(QuantizedRowsTest, RowsLongerThanABlockAreReadOneByOne) {
  constexpr int64_t kLong = (1 << 18) + 2;
  const std::vector<float> values = RandomMatrix(3, kLong, 4);
  const auto source = QuantizedRows::Make(InputOf(values, DType::kI4, 3, kLong));
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(*ReadRowsOf(**source, 0, 3), QuantizeAll(values, {.type = DType::kI4}, 3, kLong));
}

TEST(QuantizedRowsTest, TheScaleFactorGoesIntoTheScalesOfIntegers) {
  const std::vector<float> values = RandomMatrix(kRows, kColumns, 6);
  for (const DType type : {DType::kI4, DType::kI8}) {
    QuantizedRowsInput input = InputOf(values, type);
    input.scale_factor = std::sqrt(2048.0F);
    const auto source = QuantizedRows::Make(std::move(input));
    ASSERT_TRUE(source.has_value());
    Rows expected = QuantizeAll(values, {.type = type}, kRows, kColumns);
    for (float& scale : expected.scales) scale *= std::sqrt(2048.0F);
    EXPECT_EQ(*ReadRowsOf(**source, 0, kRows), expected);
  }
}

TEST(QuantizedRowsTest, TheScaleFactorGoesIntoTheValuesOfFloats) {
  const std::vector<float> values = RandomMatrix(kRows, kColumns, 7);
  std::vector<float> scaled = values;
  for (float& value : scaled) value *= 3.25F;
  for (const DType type : {DType::kF16, DType::kF32}) {
    QuantizedRowsInput input = InputOf(values, type);
    input.scale_factor = 3.25F;
    const auto source = QuantizedRows::Make(std::move(input));
    ASSERT_TRUE(source.has_value());
    EXPECT_EQ((*source)->scales_per_row(), 0);
    EXPECT_EQ(*ReadRowsOf(**source, 0, kRows), QuantizeAll(scaled, {.type = type}, kRows, kColumns));
  }
}

TEST(QuantizedRowsTest, FoldedScalesStayNormal) {
  const std::vector<float> values = {0.0F, 0.0F, 1e-20F, 2e-20F};
  QuantizedRowsInput input = InputOf(values, DType::kI4, 2, 2);
  input.scale_factor = 1e-20F;
  const auto source = QuantizedRows::Make(std::move(input));
  ASSERT_TRUE(source.has_value());
  EXPECT_THAT(ReadRowsOf(**source, 0, 2)->scales, testing::Each(kMinQuantScale));
}

TEST(QuantizedRowsTest, AScaleThatOverflowsIsRefused) {
  const std::vector<float> values = {1.0F, 1.0F, 1e30F, 1.0F};
  QuantizedRowsInput input = InputOf(values, DType::kI4, 2, 2);
  input.scale_factor = 1e20F;
  const auto source = QuantizedRows::Make(std::move(input));
  ASSERT_TRUE(source.has_value());
  const Result<Rows> rows = ReadRowsOf(**source, 0, 2);
  ASSERT_FALSE(rows.has_value());
  EXPECT_EQ(rows.error().code, ErrorCode::kQuantValue);
  EXPECT_THAT(rows.error().message, HasSubstr("layers.0.up_proj: row 1:"));
}

TEST(QuantizedRowsTest, ANonFiniteValueIsNamedByTensorRowAndColumn) {
  std::vector<float> values = RandomMatrix(kRows, kColumns, 8);
  values[static_cast<size_t>(20 * kColumns + 3)] = std::numeric_limits<float>::infinity();
  for (const DType type : {DType::kI4, DType::kI8, DType::kF16, DType::kF32}) {
    const auto source = QuantizedRows::Make(InputOf(values, type));
    ASSERT_TRUE(source.has_value());
    EXPECT_TRUE(ReadRowsOf(**source, 0, 20).has_value());
    const Result<Rows> rows = ReadRowsOf(**source, 10, 15);
    ASSERT_FALSE(rows.has_value());
    EXPECT_EQ(rows.error().code, ErrorCode::kQuantValue);
    EXPECT_THAT(rows.error().message, HasSubstr("layers.0.up_proj: row 20, column 3: the value is inf"));
  }
}

TEST(QuantizedRowsTest, TheReadersErrorComesBackAsItIs) {
  QuantizedRowsInput input = InputOf({}, DType::kI4);
  input.reader = [](int64_t, int64_t, std::span<float>) -> Status { return Fail(ErrorCode::kFileChanged, "a.safetensors: shorter"); };
  const auto source = QuantizedRows::Make(std::move(input));
  ASSERT_TRUE(source.has_value());
  const Result<Rows> rows = ReadRowsOf(**source, 0, 1);
  ASSERT_FALSE(rows.has_value());
  EXPECT_EQ(rows.error().code, ErrorCode::kFileChanged);
  EXPECT_EQ(rows.error().message, "a.safetensors: shorter");
}

TEST(QuantizedRowsTest, ShapesAndFactorsThatMakeNoSenseAreRefused) {
  struct Lie {
    std::string_view what;
    void (*tell)(QuantizedRowsInput& input);
  };
  const std::vector<float> values;
  for (const Lie& lie : std::initializer_list<Lie>{
           {"odd columns", [](QuantizedRowsInput& input) { input.columns = 31; }},
           {"no columns", [](QuantizedRowsInput& input) { input.columns = 0; }},
           {"negative rows", [](QuantizedRowsInput& input) { input.num_rows = -1; }},
           {"too many rows", [](QuantizedRowsInput& input) { input.num_rows = std::numeric_limits<int64_t>::max() / 60; }},
           {"factor 0", [](QuantizedRowsInput& input) { input.scale_factor = 0; }},
           {"factor -1", [](QuantizedRowsInput& input) { input.scale_factor = -1; }},
           {"factor nan", [](QuantizedRowsInput& input) { input.scale_factor = std::nanf(""); }},
           {"factor inf", [](QuantizedRowsInput& input) { input.scale_factor = std::numeric_limits<float>::infinity(); }},
       }) {
    QuantizedRowsInput input = InputOf(values, DType::kI4);
    lie.tell(input);
    const Result<SharedBytes> source = MakeQuantizedSource(std::move(input));
    ASSERT_FALSE(source.has_value()) << lie.what;
    EXPECT_EQ(source.error().code, ErrorCode::kQuantShape) << lie.what;
    EXPECT_THAT(source.error().message, HasSubstr("layers.0.up_proj:")) << lie.what;
  }
}

TEST(QuantizedRowsTest, RowsOutsideTheMatrixAndBuffersTooSmallAreRefused) {
  const std::vector<float> values = RandomMatrix(kRows, kColumns, 8);
  const auto source = QuantizedRows::Make(InputOf(values, DType::kI4));
  ASSERT_TRUE(source.has_value());
  std::vector<std::byte> packed((*source)->row_bytes() * 2);
  std::vector<float> scales(2);
  EXPECT_TRUE((*source)->ReadRows(kRows - 2, 2, packed, scales).has_value());
  EXPECT_EQ((*source)->ReadRows(kRows - 1, 2, packed, scales).error().code, ErrorCode::kReadFailed);
  EXPECT_EQ((*source)->ReadRows(-1, 2, packed, scales).error().code, ErrorCode::kReadFailed);
  EXPECT_EQ((*source)->ReadRows(0, -2, packed, scales).error().code, ErrorCode::kReadFailed);
  EXPECT_EQ((*source)->ReadRows(0, 2, std::span(packed).first(packed.size() - 1), scales).error().code, ErrorCode::kQuantShape);
  EXPECT_EQ((*source)->ReadRows(0, 2, packed, std::span(scales).first(1)).error().code, ErrorCode::kQuantShape);
}

TEST(QuantizedRowsTest, SeveralThreadsMayReadAtOnce) {
  const std::vector<float> values = RandomMatrix(kRows, kColumns, 10);
  const auto source = QuantizedRows::Make(InputOf(values, DType::kI4));
  ASSERT_TRUE(source.has_value());
  const Rows expected = QuantizeAll(values, {.type = DType::kI4}, kRows, kColumns);
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        if (ReadRowsOf(**source, 0, kRows) != expected) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(QuantizedRowsTest, BlocksBringAScaleEach) {
  const std::vector<float> values = RandomMatrix(6, 96, 5);
  const QuantSpec spec{.type = DType::kI4, .method = QuantMethod::kClip, .block_size = 32};
  QuantizedRowsInput input{.name = "w", .spec = spec, .num_rows = 6, .columns = 96, .reader = ReaderOf(values, 96)};
  const auto source = QuantizedRows::Make(input).value();
  EXPECT_EQ(source->scales_per_row(), 3);
  std::vector<std::byte> packed(6 * 48);
  std::vector<float> scales(6 * 3);
  ASSERT_TRUE(source->ReadRows(0, 6, packed, scales).has_value());
  std::vector<std::byte> row(48);
  std::vector<float> row_scales(3);
  ASSERT_TRUE(source->ReadRows(4, 1, row, row_scales).has_value());
  EXPECT_TRUE(std::equal(row.begin(), row.end(), packed.begin() + 4 * 48));
  EXPECT_TRUE(std::equal(row_scales.begin(), row_scales.end(), scales.begin() + 4 * 3));
  input.scale_factor = 2.0F;
  EXPECT_EQ(QuantizedRows::Make(input).error().code, ErrorCode::kQuantShape);
}

TEST(QuantizedRowsTest, ImportanceMustFitTheColumns) {
  const std::vector<float> values = RandomMatrix(2, 32, 5);
  for (const std::vector<float>& importance : {std::vector<float>(31, 1.0F), std::vector<float>(32, -1.0F), std::vector<float>(32, NAN)}) {
    QuantizedRowsInput input{.name = "w", .spec = {}, .num_rows = 2, .columns = 32, .reader = ReaderOf(values, 32)};
    input.column_importance = importance;
    EXPECT_EQ(QuantizedRows::Make(std::move(input)).error().code, ErrorCode::kQuantShape);
  }
}

}  // namespace
}  // namespace taskpress
