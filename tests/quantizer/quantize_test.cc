#include "quantizer/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "quantizer/block_scale.h"
#include "quantizer/row_kernels.h"
#include "schema/base/error.h"
#include "schema/base/half.h"
#include "schema/int_packing.h"
#include "tests/quantizer/matrices.h"
#include "tests/testing/every_target.h"

namespace taskpress {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr QuantSpec kInt4{.type = DType::kI4};
constexpr QuantSpec kInt8{.type = DType::kI8};
constexpr QuantSpec kInt4Clip{.type = DType::kI4, .method = QuantMethod::kClip};
constexpr QuantSpec kInt8Clip{.type = DType::kI8, .method = QuantMethod::kClip};
constexpr QuantSpec kBlock32{.type = DType::kI4, .block_size = 32};
constexpr QuantSpec kBlock64Clip{.type = DType::kI4, .method = QuantMethod::kClip, .block_size = 64};
constexpr QuantSpec kF16{.type = DType::kF16};
constexpr QuantSpec kF32{.type = DType::kF32};

struct Quantized {
  std::vector<std::byte> packed;
  std::vector<float> scales;
  bool operator==(const Quantized&) const = default;
};
using Quantizer = decltype(&QuantizeRows);

Result<Quantized> QuantizeBy(Quantizer quantize, const QuantSpec& spec, std::span<const float> values, int64_t columns) {
  const auto rows = static_cast<int64_t>(values.size()) / columns;
  const uint64_t row_bytes = TRY(PackedRowBytes(spec, columns));
  const auto per_row = static_cast<size_t>(std::max<int64_t>(1, spec.ScalesPerRow(columns)));
  Quantized out{std::vector<std::byte>(static_cast<size_t>(rows) * row_bytes),
                std::vector<float>(static_cast<size_t>(rows) * per_row, -1.0F)};
  TRY(quantize(spec, values, rows, columns, out.packed, out.scales, 0, {}));
  return out;
}

std::vector<int> CodesOf(const QuantSpec& spec, const Quantized& quantized) {
  std::vector<int> codes;
  for (const std::byte byte : quantized.packed) {
    if (spec.type == DType::kI8) {
      codes.push_back(static_cast<int8_t>(byte));
    } else {
      codes.push_back(EvenInt4(byte));
      codes.push_back(OddInt4(byte));
    }
  }
  return codes;
}

// Rows that provoke rounding, range and ordering mistakes; each is `columns` long.
std::vector<std::vector<float>> AdversarialRows(size_t columns) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
  std::vector<std::vector<float>> rows;
  const auto add = [&](auto value_at) {
    std::vector<float>& row = rows.emplace_back();
    for (size_t i = 0; i < columns; ++i) row.push_back(value_at(i));
  };
  add([](size_t) { return 0.0F; });
  add([](size_t) { return -0.0F; });
  add([](size_t i) { return i == 0 ? 7.0F : 0.5F * static_cast<float>(static_cast<int>(i % 29) - 14); });       // int4 ties at scale 1
  add([](size_t i) { return i == 1 ? -127.0F : 0.5F * static_cast<float>(static_cast<int>(i % 509) - 254); });  // int8 ties
  add([=](size_t i) { return std::nextafter(static_cast<float>(i % 8) - 0.5F, i % 2 == 0 ? kMax : -kMax); });
  add([=](size_t i) { return kDenormal * static_cast<float>(i); });
  add([=](size_t i) { return i % 3 == 0 ? kMax : -kMax / static_cast<float>(i + 1); });
  add([](size_t i) { return i % 2 == 0 ? 1e-38F : -1e-45F; });
  add([](size_t i) { return std::ldexp(i % 2 == 0 ? 1.0F : -1.7F, -static_cast<int>(i % 140)); });
  add([](size_t i) { return 0x1p-98F * static_cast<float>(i % 9); });    // around the smallest scale
  add([columns](size_t i) { return i + 1 == columns ? -3.0F : 0.1F; });  // the largest value last
  return rows;
}

std::vector<float> Flatten(const std::vector<std::vector<float>>& rows) {
  std::vector<float> values;
  for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());
  return values;
}

TEST(QuantizeTest, VectorAndPlainTwinsAgreeOnEveryInstructionSetAndRowLength) {
  ForEachTarget([] {
    for (const QuantSpec& spec : {kInt4, kInt8, kInt4Clip, kInt8Clip, kBlock32, kBlock64Clip}) {
      for (int64_t columns = 1; columns <= 300; ++columns) {
        if (!PackedRowBytes(spec, columns)) continue;
        std::vector<float> values = Flatten(AdversarialRows(static_cast<size_t>(columns)));
        if (spec.block_size > 0) {
          for (float& value : values) value = std::clamp(value, -1e5F, 1e5F);
        }
        const std::vector<float> random = RandomMatrix(4, columns, static_cast<uint32_t>(columns));
        values.insert(values.end(), random.begin(), random.end());
        const Result<Quantized> fast = QuantizeBy(QuantizeRows, spec, values, columns);
        const Result<Quantized> plain = QuantizeBy(QuantizeRowsPlain, spec, values, columns);
        ASSERT_TRUE(fast && plain);
        ASSERT_EQ(*fast, *plain) << NameOf(spec) << ", " << columns << " columns";
      }
    }
  });
}

TEST(QuantizeTest, VectorAndPlainTwinsAgreeOnRandomBitPatterns) {
  std::mt19937 random(5);
  std::vector<float> values;
  while (values.size() < 1 << 16) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isfinite(value)) values.push_back(value);
  }
  for (const QuantSpec& spec : {kInt4, kInt8, kF32}) {
    for (const int64_t columns : {16, 128, 4096}) {
      const Result<Quantized> fast = QuantizeBy(QuantizeRows, spec, values, columns);
      const Result<Quantized> plain = QuantizeBy(QuantizeRowsPlain, spec, values, columns);
      ASSERT_TRUE(fast && plain);
      EXPECT_EQ(*fast, *plain) << NameOf(spec) << ", " << columns << " columns";
    }
  }
}

TEST(RowKernelsTest, ScalesThatClipSaturateAlikeOnEveryInstructionSet) {
  const std::vector<float> values = Flatten(AdversarialRows(300));
  ForEachTarget([&] {
    for (const float scale : {0x1p-126F, kMinQuantScale, 1e-3F, 0.3F, 1.0F, 1e30F}) {
      std::vector<std::byte> fast(values.size());
      std::vector<std::byte> plain(values.size());
      VectorRowKernels().encode_int8(values, scale, fast);
      PlainRowKernels().encode_int8(values, scale, plain);
      ASSERT_EQ(fast, plain) << scale;
      VectorRowKernels().encode_int4(values, scale, std::span(fast).first(values.size() / 2));
      PlainRowKernels().encode_int4(values, scale, std::span(plain).first(values.size() / 2));
      ASSERT_EQ(fast, plain) << scale;
    }
  });
  std::array<std::byte, 2> codes{};
  VectorRowKernels().encode_int8(std::array{1e30F, -1e30F}, 1.0F, codes);
  EXPECT_THAT(codes, ElementsAre(std::byte{127}, std::byte{0x81}));
}

TEST(QuantizeTest, HalvesRoundToEven) {
  const std::vector<float> values = {7.0F, 0.5F, 1.5F, 2.5F, 3.5F, -0.5F, -1.5F, -2.5F, 6.5F, -6.5F};
  const Result<Quantized> quantized = QuantizeBy(QuantizeRows, kInt4, values, 10);
  ASSERT_TRUE(quantized.has_value());
  EXPECT_THAT(quantized->scales, ElementsAre(1.0F));
  EXPECT_THAT(CodesOf(kInt4, *quantized), ElementsAre(7, 0, 2, 2, 4, 0, -2, -2, 6, -6));
}

TEST(QuantizeTest, TheLargestMagnitudeOfARowGetsTheLargestCodeAndNeverMore) {
  for (const QuantSpec& spec : {kInt4, kInt8}) {
    const int limit = spec == kInt4 ? 7 : 127;
    std::mt19937 random(11);
    std::vector<float> values;
    for (int row = 0; row < 20000; ++row) {
      const auto bits = static_cast<uint32_t>(random()) % (0x7f800000U - 0x20000000U) + 0x20000000U;  // 2^-63 and more
      values.push_back(std::bit_cast<float>(bits));
      values.push_back(-std::bit_cast<float>(bits));
    }
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, spec, values, 2);
    ASSERT_TRUE(quantized.has_value());
    const std::vector<int> codes = CodesOf(spec, *quantized);
    for (size_t i = 0; i < codes.size(); i += 2) {
      ASSERT_EQ(codes[i], limit) << values[i];
      ASSERT_EQ(codes[i + 1], -limit) << values[i];
    }
  }
}

// Every allowed code is tried in long double; the chosen one must be as near as the nearest, but for the last bit of the float quotient.
TEST(QuantizeTest, NoOtherCodeIsNearer) {
  for (const QuantSpec& spec : {kInt4, kInt8}) {
    const int limit = spec == kInt4 ? 7 : 127;
    const int64_t columns = 64;
    const std::vector<float> values = RandomMatrix(64, columns, 3);
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, spec, values, columns);
    ASSERT_TRUE(quantized.has_value());
    const std::vector<int> codes = CodesOf(spec, *quantized);
    for (size_t i = 0; i < values.size(); ++i) {
      const long double scale = quantized->scales[i / static_cast<size_t>(columns)];
      long double nearest = std::numeric_limits<long double>::infinity();
      for (int code = -limit; code <= limit; ++code)
        nearest = std::min(nearest, std::abs(values[i] - static_cast<long double>(code) * scale));
      const long double error = std::abs(values[i] - static_cast<long double>(codes[i]) * scale);
      ASSERT_LE(error, nearest + scale * limit * 0x1p-23L) << values[i];
      ASSERT_LE(error, scale * (0.5L + limit * 0x1p-23L)) << values[i];
    }
  }
}

TEST(QuantizeTest, ScalesAreTheFloatQuotientOfTheAbsoluteMaximum) {
  const std::vector<float> values = RandomMatrix(50, 34, 9);
  for (const QuantSpec& spec : {kInt4, kInt8}) {
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, spec, values, 34);
    ASSERT_TRUE(quantized.has_value());
    for (size_t row = 0; row < 50; ++row) {
      float absmax = 0;
      for (size_t i = 0; i < 34; ++i) absmax = std::max(absmax, std::abs(values[row * 34 + i]));
      EXPECT_EQ(quantized->scales[row], absmax / (spec == kInt4 ? 7.0F : 127.0F));
    }
  }
}

TEST(QuantizeTest, ZeroAndTinyRowsGetTheSmallestScaleWhichIsNormal) {
  static_assert(kMinQuantScale >= std::numeric_limits<float>::min());
  for (const float tiny : {0.0F, -0.0F, std::numeric_limits<float>::denorm_min(), 1e-38F, 0x1p-102F}) {
    const std::vector<float> values(8, tiny);
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, kInt4, values, 8);
    ASSERT_TRUE(quantized.has_value());
    EXPECT_THAT(quantized->scales, ElementsAre(kMinQuantScale)) << tiny;
    EXPECT_THAT(CodesOf(kInt4, *quantized), Each(0)) << tiny;
  }
}

TEST(QuantizeTest, DequantizeInvertsEveryCodeOfAnIntegerGrid) {
  std::vector<float> int4_grid;
  for (int code = -7; code <= 7; ++code) int4_grid.push_back(0.25F * static_cast<float>(code));
  int4_grid.push_back(0.0F);
  std::vector<float> int8_grid;
  for (int code = -127; code <= 127; ++code) int8_grid.push_back(0.125F * static_cast<float>(code));
  for (const auto& [spec, grid] : {std::pair(kInt4, int4_grid), std::pair(kInt8, int8_grid)}) {
    const auto columns = static_cast<int64_t>(grid.size());
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, spec, grid, columns);
    ASSERT_TRUE(quantized.has_value());
    std::vector<float> back(grid.size(), 99.0F);
    DequantizeRows(spec, quantized->packed, quantized->scales, 1, columns, back);
    EXPECT_EQ(back, grid) << NameOf(spec);
  }
}

TEST(QuantizeTest, DequantizeUsesEachRowsOwnScale) {
  const std::vector<float> values = {7, -1, 14, -2, 0, 0, 70, 30};
  for (const QuantSpec& spec : {kInt4, kInt8}) {
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, spec, values, 2);
    ASSERT_TRUE(quantized.has_value());
    std::vector<float> back(values.size());
    DequantizeRows(spec, quantized->packed, quantized->scales, 4, 2, back);
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(back[i], values[i], quantized->scales[i / 2] * 0.5F) << i;
  }
}

TEST(QuantizeTest, FloatTypesAreCopiedOrRoundedAndScalesStayUntouched) {
  const std::vector<float> values = {1.0F, -0.0F, 0x1p-24F, 65504.0F, -65519.9F, 1.00048828125F, 1e-30F, 3.14159274F};
  for (const QuantSpec& spec : {kF32, kF16}) {
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, spec, values, 4);
    ASSERT_TRUE(quantized.has_value());
    EXPECT_THAT(quantized->scales, Each(-1.0F));
    std::vector<float> back(values.size());
    DequantizeRows(spec, quantized->packed, {}, 2, 4, back);
    for (size_t i = 0; i < values.size(); ++i) {
      const float expected = spec == kF32 ? values[i] : F16ToFloat(FloatToF16(values[i]));
      EXPECT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(expected)) << i;
    }
    EXPECT_EQ(*QuantizeBy(QuantizeRowsPlain, spec, values, 4), *quantized);
  }
}

TEST(QuantizeTest, ANonFiniteValueIsRefusedWithItsRowAndColumnInEveryPosition) {
  ForEachTarget([] {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      for (size_t position = 0; position < 280; ++position) {
        std::vector<float> values(280, 0.5F);
        values[position] = bad;
        for (const QuantSpec& spec : {kInt4, kInt8, kF16, kF32}) {
          for (const Quantizer quantize : {&QuantizeRows, &QuantizeRowsPlain}) {
            const Result<Quantized> quantized = QuantizeBy(quantize, spec, values, 140);
            ASSERT_FALSE(quantized.has_value());
            EXPECT_EQ(quantized.error().code, ErrorCode::kQuantValue);
            EXPECT_THAT(quantized.error().message, HasSubstr(Format("row {}, column {}:", position / 140, position % 140)));
          }
        }
      }
    }
  });
}

TEST(QuantizeTest, MessagesCountRowsFromTheRowTheBlockStartsAt) {
  const std::vector<float> values = {1.0F, 2.0F, 3.0F, std::nanf("")};
  std::array<std::byte, 2> packed{};
  std::array<float, 2> scales{};
  const Status done = QuantizeRows(kInt4, values, 2, 2, packed, scales, 1000);
  ASSERT_FALSE(done.has_value());
  EXPECT_THAT(done.error().message, HasSubstr("row 1001, column 1: the value is nan"));
}

TEST(QuantizeTest, F16RefusesWhatWouldBecomeInfinity) {
  EXPECT_TRUE(QuantizeBy(QuantizeRows, kF16, std::vector{std::nextafter(65520.0F, 0.0F)}, 1).has_value());
  for (const float large : {65520.0F, -65520.0F, 1e30F}) {
    const Result<Quantized> quantized = QuantizeBy(QuantizeRows, kF16, std::vector{1.0F, large}, 2);
    ASSERT_FALSE(quantized.has_value());
    EXPECT_EQ(quantized.error().code, ErrorCode::kQuantValue);
    EXPECT_THAT(quantized.error().message, HasSubstr("column 1:"));
    EXPECT_THAT(quantized.error().message, HasSubstr("does not fit f16"));
  }
}

TEST(QuantizeTest, PackedRowBytesFollowTheType) {
  EXPECT_EQ(PackedRowBytes(kF32, 6), 24U);
  EXPECT_EQ(PackedRowBytes(kF16, 6), 12U);
  EXPECT_EQ(PackedRowBytes(kInt8, 5), 5U);
  EXPECT_EQ(PackedRowBytes(kInt4, 6), 3U);
}

TEST(QuantizeTest, ShapesThatCannotBeStoredAreRefused) {
  struct Lie {
    QuantSpec spec;
    int64_t columns;
    std::string_view message;
  };
  for (const Lie& lie :
       {Lie{kInt4, 5, "must be even"}, Lie{kInt8, 0, "0 columns"}, Lie{kInt8, -4, "-4 columns"}, Lie{kBlock32, 48, "a multiple of 32"},
        Lie{kBlock32, 0, "0 columns"}, Lie{{.type = DType::kI4, .block_size = 16}, 64, "i4_block16 is no known way"},
        Lie{{.type = DType::kI8, .block_size = 32}, 64, "i8_block32 is no known way"},
        Lie{kF32, std::numeric_limits<int64_t>::max(), "columns cannot be stored"}, Lie{{.type = DType::kBF16}, 4, "not bf16"}}) {
    const Result<uint64_t> bytes = PackedRowBytes(lie.spec, lie.columns);
    ASSERT_FALSE(bytes.has_value()) << lie.message;
    EXPECT_EQ(bytes.error().code, ErrorCode::kQuantShape);
    EXPECT_THAT(bytes.error().message, HasSubstr(lie.message));
  }
}

TEST(QuantizeTest, BuffersOfTheWrongSizeAreRefused) {
  const std::vector<float> values(8, 1.0F);
  std::vector<std::byte> packed(4);
  std::vector<float> scales(2);
  EXPECT_TRUE(QuantizeRows(kInt4, values, 2, 4, packed, scales).has_value());
  EXPECT_EQ(QuantizeRows(kInt4, values, 3, 4, packed, scales).error().code, ErrorCode::kQuantShape);
  EXPECT_EQ(QuantizeRows(kInt4, values, -2, 4, packed, scales).error().code, ErrorCode::kQuantShape);
  EXPECT_EQ(QuantizeRows(kInt4, {}, int64_t{1} << 62, 4, {}, {}).error().code, ErrorCode::kQuantShape);  // the product wraps to 0
  EXPECT_EQ(QuantizeRows(kInt4, values, 2, 4, std::span(packed).first(3), scales).error().code, ErrorCode::kQuantShape);
  EXPECT_EQ(QuantizeRows(kInt4, values, 2, 4, packed, std::span(scales).first(1)).error().code, ErrorCode::kQuantShape);
}

TEST(QuantSpecTest, NamesGoThereAndBack) {
  for (const std::string_view name : {"f32", "f16", "int8", "int4", "int4_block32", "int4_block64", "int4_block128"}) {
    const std::optional<QuantSpec> spec = QuantSpecFromName(name);
    ASSERT_TRUE(spec.has_value()) << name;
    EXPECT_EQ(NameOf(*spec), name);
  }
  for (const std::string_view unknown : {"", "INT4", "int", "int44", "bf16", "int4_block16", "int8_block32", "int4_block"})
    EXPECT_FALSE(QuantSpecFromName(unknown).has_value()) << unknown;
  for (const std::string_view name : {"absmax", "clip", "gptq"}) EXPECT_EQ(NameOf(QuantMethodFromName(name).value()), name);
  EXPECT_FALSE(QuantMethodFromName("best").has_value());
}

double SquaredError(const QuantSpec& spec, const Quantized& quantized, std::span<const float> values, int64_t columns,
                    std::span<const float> importance = {}) {
  std::vector<float> back(values.size());
  DequantizeRows(spec, quantized.packed, quantized.scales, static_cast<int64_t>(values.size()) / columns, columns, back);
  double error = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double rest = static_cast<double>(values[i]) - static_cast<double>(back[i]);
    error += rest * rest * (importance.empty() ? 1.0 : static_cast<double>(importance[i % static_cast<size_t>(columns)]));
  }
  return error;
}

TEST(QuantizeTest, FinerScalesAndClippingMakeErrorsSmaller) {
  const std::vector<float> values = RandomMatrix(40, 256, 17);
  std::vector<double> errors;
  for (const QuantSpec& spec :
       {kInt4, kInt4Clip, QuantSpec{.type = DType::kI4, .method = QuantMethod::kClip, .block_size = 128}, kBlock64Clip, kInt8, kInt8Clip}) {
    errors.push_back(SquaredError(spec, *QuantizeBy(QuantizeRows, spec, values, 256), values, 256));
  }
  for (size_t i = 1; i < errors.size(); ++i) EXPECT_LT(errors[i], errors[i - 1]) << i;
}

TEST(QuantizeTest, ImportanceDecidesWhatClipKeeps) {
  const std::vector<float> values = RandomMatrix(20, 128, 18);
  std::vector<float> importance(128);
  for (size_t j = 0; j < importance.size(); ++j) importance[j] = j % 9 == 0 ? 50.0F : 0.1F;
  for (const QuantSpec& spec : {kInt4Clip, kBlock64Clip, kInt8Clip}) {
    const Quantized plain = *QuantizeBy(QuantizeRows, spec, values, 128);
    Quantized weighted = plain;
    ASSERT_TRUE(QuantizeRows(spec, values, 20, 128, weighted.packed, weighted.scales, 0, importance).has_value());
    EXPECT_LT(SquaredError(spec, weighted, values, 128, importance), SquaredError(spec, plain, values, 128, importance));
    Quantized twin = plain;
    ASSERT_TRUE(QuantizeRowsPlain(spec, values, 20, 128, twin.packed, twin.scales, 0, importance).has_value());
    EXPECT_EQ(weighted, twin) << NameOf(spec);
  }
  std::vector<std::byte> packed(64);
  std::vector<float> scales(1);
  EXPECT_EQ(QuantizeRows(kInt4Clip, std::span(values).first(128), 1, 128, packed, scales, 0, std::span(importance).first(64)).error().code,
            ErrorCode::kQuantShape);
}

TEST(QuantizeTest, BlocksHaveScalesOfSixteenBitFloatsAndCodesOfTheirOwn) {
  const std::vector<float> values = RandomMatrix(30, 128, 19);
  for (const QuantSpec& spec : {kBlock32, kBlock64Clip}) {
    const Quantized quantized = *QuantizeBy(QuantizeRows, spec, values, 128);
    EXPECT_EQ(quantized.scales.size(), static_cast<size_t>(30 * 128 / spec.block_size));
    for (const float scale : quantized.scales) EXPECT_TRUE(IsBlockScale(scale)) << scale;
    const std::vector<int> codes = CodesOf(spec, quantized);
    for (size_t i = 0; i < values.size(); ++i) {
      const float scale = quantized.scales[i / static_cast<size_t>(spec.block_size)];
      EXPECT_EQ(codes[i], static_cast<int>(std::clamp(std::nearbyint(values[i] / scale), -8.0F, 7.0F)));
    }
  }
  for (const float small : {0.0F, 1e-9F}) {
    const Quantized quantized = *QuantizeBy(QuantizeRows, kBlock32, std::vector<float>(32, small), 32);
    EXPECT_THAT(quantized.scales, ElementsAre(kMinBlockScale));
    EXPECT_THAT(CodesOf(kBlock32, quantized), Each(0));
  }
}

TEST(QuantizeTest, ABlockWhoseScaleDoesNotFitIsRefused) {
  std::vector<float> values(64, 1.0F);
  values[40] = 7 * kMaxBlockScale;
  EXPECT_TRUE(QuantizeBy(QuantizeRows, kBlock32, values, 64).has_value());
  values[40] = std::nextafter(values[40], 1e9F);
  const Result<Quantized> quantized = QuantizeBy(QuantizeRows, kBlock32, values, 64);
  ASSERT_FALSE(quantized.has_value());
  EXPECT_EQ(quantized.error().code, ErrorCode::kQuantValue);
  EXPECT_THAT(quantized.error().message, HasSubstr("row 0, column 40: the scale of a block with 45696"));
}

TEST(QuantizeTest, RowsOnAGridKeepTheirCodesAndScaleWhateverTheMethod) {
  std::mt19937 random(20);
  std::vector<int> codes;
  std::vector<float> values;
  for (size_t j = 0; j < 64; ++j) {
    codes.push_back(static_cast<int>(random() % 12) - 8);  // -8 to 3: the largest code is not used
    values.push_back(Bf16ToFloat(FloatToBf16(0.01171875F * static_cast<float>(codes.back()))));
  }
  for (const QuantSpec& spec : {kInt4, kInt4Clip, kInt8, kInt8Clip, kBlock32, kBlock64Clip}) {
    const Quantized quantized = *QuantizeBy(QuantizeRows, spec, values, 64);
    EXPECT_THAT(quantized.scales, Each(0.01171875F)) << NameOf(spec);
    EXPECT_EQ(CodesOf(spec, quantized), codes) << NameOf(spec);
  }
}

}  // namespace
}  // namespace taskpress
