#include "quantizer/clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quantizer/block_scale.h"
#include "tests/testing/every_target.h"

namespace taskpress {
namespace {

double ErrorOf(std::span<const float> values, std::span<const float> importance, double scale, CodeLimits limits = kInt4Codes) {
  double error = 0;
  for (size_t j = 0; j < values.size(); ++j) {
    const auto value = static_cast<double>(values[j]);
    const double code =
        std::clamp(std::nearbyint(value / scale), -static_cast<double>(limits.negative), static_cast<double>(limits.positive));
    const double rest = value - scale * code;
    error += rest * rest * (importance.empty() ? 1.0 : static_cast<double>(importance[j]));
  }
  return error;
}

double TotalOf(std::span<const float> values, std::span<const float> importance) { return ErrorOf(values, importance, 1e300); }

struct Row {
  std::vector<float> values;
  std::vector<float> importance;
};

// Rows of every kind a search could stumble over, `columns` long.
std::vector<Row> Rows(size_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<Row> rows;
  const auto add = [&](auto value, auto weight) {
    Row& row = rows.emplace_back();
    for (size_t j = 0; j < columns; ++j) {
      row.values.push_back(value(j));
      if (const float w = weight(j); w >= 0) row.importance.push_back(w);
    }
  };
  const auto alike = [](size_t) { return -1.0F; };
  const auto scattered = [&](size_t) { return std::exp(2 * normal(random)); };
  add([&](size_t) { return normal(random); }, alike);
  add([&](size_t) { return normal(random) * 1e-3F; }, scattered);
  add([&](size_t) { return std::abs(normal(random)); }, alike);
  add([&](size_t) { return -std::abs(normal(random)); }, scattered);
  add([&](size_t) { return std::exp(2 * normal(random)) * (random() % 2 == 0 ? 1.0F : -1.0F); }, alike);
  add([&](size_t j) { return j == 0 ? 40.0F : 0.1F * normal(random); }, alike);
  add([&](size_t j) { return j == columns / 2 ? -1e4F : normal(random); }, [&](size_t j) { return j == columns / 2 ? 0.0F : 1.0F; });
  add([&](size_t) { return static_cast<float>(static_cast<int>(random() % 16) - 8) * 0.3F; }, alike);
  add([&](size_t) { return random() % 4 == 0 ? 0.5F : -0.25F; }, alike);
  add([&](size_t) { return 1.0F; }, alike);
  add([&](size_t j) { return j % 3 == 0 ? 0.0F : std::ldexp(normal(random), static_cast<int>(j % 24) - 12); }, scattered);
  return rows;
}

// A tie of errors is no difference; the last bits of float scales are none either.
void ExpectAsGood(const Row& row, float scale, double other_scale, CodeLimits limits = kInt4Codes) {
  const double slack = 1e-12 * TotalOf(row.values, row.importance);
  const double error = ErrorOf(row.values, row.importance, static_cast<double>(scale), limits);
  EXPECT_LE(error, ErrorOf(row.values, row.importance, other_scale, limits) * (1 + 1e-6) + slack) << scale << " and " << other_scale;
}

TEST(ScaleErrorsTest, VectorAndPlainTwinsAgreeOnEveryInstructionSetAndLength) {
  ForEachTarget([] {
    for (const size_t columns : {1U, 2U, 31U, 255U, 256U, 257U, 700U}) {
      for (const Row& row : Rows(columns, 3)) {
        std::vector<float> magnitudes;
        std::vector<float> limits;
        for (const float value : row.values) {
          magnitudes.push_back(std::abs(value));
          limits.push_back(value < 0 ? 8.0F : 7.0F);
        }
        for (const size_t count : {16U, 32U, 48U}) {
          std::vector<float> scales;
          for (size_t k = 0; k < count; ++k) scales.push_back(0.01F * static_cast<float>(k + 1));
          const RowToScale to_scale{.magnitudes = magnitudes, .limits = limits, .importance = row.importance};
          std::vector<double> fast(2 * count);
          std::vector<double> plain(2 * count);
          MeasureScales(to_scale, {scales, std::span(fast).first(count), std::span(fast).subspan(count)});
          MeasureScalesPlainly(to_scale, {scales, std::span(plain).first(count), std::span(plain).subspan(count)});
          ASSERT_EQ(fast, plain) << columns << " columns, " << count << " scales";
        }
      }
    }
  });
}

TEST(ClipSearchTest, IsAsGoodAsTheWalkOverEveryBreakpoint) {
  ClipSearch search;
  for (const size_t columns : {1U, 2U, 3U, 8U, 33U, 64U, 500U, 4096U}) {
    for (uint32_t seed = 1; seed <= (columns > 1000 ? 2U : 25U); ++seed) {
      for (const Row& row : Rows(columns, seed)) {
        const float found = search.Find(row.values, row.importance);
        if (TotalOf(row.values, row.importance) == 0) {
          EXPECT_EQ(found, 0.0F);
          continue;
        }
        const float plain = FindClipScalePlainly(row.values, row.importance);
        ExpectAsGood(row, found, static_cast<double>(plain));
        ExpectAsGood(row, plain, static_cast<double>(found));
      }
    }
  }
}

TEST(ClipSearchTest, NoneOfManyScalesIsBetter) {
  constexpr int kScan = 20'000;
  ClipSearch search;
  for (const size_t columns : {2U, 7U, 40U, 128U}) {
    for (const Row& row : Rows(columns, 77)) {
      const float found = search.Find(row.values, row.importance);
      const float block = search.FindForBlock(row.values, row.importance);
      float largest = 0;
      for (const float value : row.values) largest = std::max(largest, std::abs(value));
      if (found == 0) continue;
      EXPECT_TRUE(IsBlockScale(block)) << block;
      double best = 1;
      for (int k = 1; k <= kScan; ++k) {
        const double scale = 2.1 * static_cast<double>(largest) * k / kScan;
        if (ErrorOf(row.values, row.importance, scale) < ErrorOf(row.values, row.importance, best)) best = scale;
      }
      ExpectAsGood(row, found, best);
      for (float scale = kMinBlockScale; scale <= std::min(3 * largest, kMaxBlockScale); scale = NextBlockScale(scale)) {
        ExpectAsGood(row, block, static_cast<double>(scale));
      }
    }
  }
}

TEST(ClipSearchTest, PlainKernelAndEveryInstructionSetGiveTheSameBits) {
  for (const size_t columns : {32U, 300U}) {
    for (const Row& row : Rows(columns, 5)) {
      ClipSearch plain(&MeasureScalesPlainly);
      const std::array expected = {plain.Find(row.values, row.importance), plain.FindForBlock(row.values, row.importance),
                                   plain.FindForInt8(row.values, row.importance)};
      ForEachTarget([&] {
        ClipSearch fast;
        const std::array found = {fast.Find(row.values, row.importance), fast.FindForBlock(row.values, row.importance),
                                  fast.FindForInt8(row.values, row.importance)};
        EXPECT_EQ(found, expected);
      });
    }
  }
}

TEST(ClipSearchTest, Int8IsNeverWorseThanAbsmax) {
  ClipSearch search;
  for (const size_t columns : {1U, 16U, 1000U}) {
    for (const Row& row : Rows(columns, 9)) {
      const float found = search.FindForInt8(row.values, row.importance);
      float largest = 0;
      for (const float value : row.values) largest = std::max(largest, std::abs(value));
      if (found != 0) ExpectAsGood(row, found, static_cast<double>(largest / 127.0F), kInt8Codes);
    }
  }
}

TEST(ClipSearchTest, CodeMinusEightIsUsed) {
  std::vector<float> values;
  for (int k = -8; k <= 7; ++k) values.push_back(0.5F * static_cast<float>(k));
  EXPECT_EQ(ClipSearch().Find(values, {}), 0.5F);
  EXPECT_EQ(ClipSearch().FindForBlock(values, {}), 0.5F);
}

TEST(ClipSearchTest, RowsThatGiveNothingToSearchForAreLeftToAbsmax) {
  const std::vector<float> zeros(64, 0.0F);
  const std::vector<float> tiny(64, 0x1p-91F);
  const std::vector<float> ones(64, 1.0F);
  ClipSearch search;
  for (const auto& find : {&ClipSearch::Find, &ClipSearch::FindForBlock, &ClipSearch::FindForInt8}) {
    EXPECT_EQ((search.*find)(zeros, {}), 0.0F);
    EXPECT_EQ((search.*find)(tiny, {}), 0.0F);
    EXPECT_EQ((search.*find)(ones, zeros), 0.0F);
  }
}

TEST(ClipSearchTest, ScalesFollowTheSizeOfTheValues) {
  const Row row = Rows(96, 21)[0];
  const float scale = ClipSearch().Find(row.values, {});
  for (const int exponent : {-80, -9, 1, 100}) {
    std::vector<float> scaled;
    for (const float value : row.values) scaled.push_back(std::ldexp(value, exponent));
    EXPECT_EQ(ClipSearch().Find(scaled, {}), std::ldexp(scale, exponent)) << exponent;
  }
}

TEST(BlockScaleTest, TheGridIsWhatBothSixteenBitFloatsHold) {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const float value = F16ToFloat(static_cast<uint16_t>(half));
    EXPECT_EQ(IsBlockScale(value), half >= 0x400 && Bf16ToFloat(FloatToBf16(value)) == value) << value;
  }
  EXPECT_EQ(NearestBlockScale(0), kMinBlockScale);
  EXPECT_EQ(NearestBlockScale(1e30F), kMaxBlockScale);
  EXPECT_EQ(NearestBlockScale(1.003F), 1.0F);
  EXPECT_EQ(NearestBlockScale(1.005F), 1.0078125F);
  EXPECT_EQ(NextBlockScale(1.0F), 1.0078125F);
  EXPECT_FALSE(IsBlockScale(NextBlockScale(kMaxBlockScale)));
}

}  // namespace
}  // namespace taskpress
