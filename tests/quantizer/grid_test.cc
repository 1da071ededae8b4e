#include "quantizer/grid.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "schema/base/half.h"

namespace taskpress {
namespace {

// k s for random k in [low, high], as `store` keeps it.
template <typename Store>
std::vector<float> OnGrid(float scale, int low, int high, size_t count, Store store) {
  std::mt19937 random(3);
  std::vector<float> values;
  for (size_t j = 0; j < count; ++j) {
    const int code = low + static_cast<int>(random() % static_cast<uint32_t>(high - low + 1));
    values.push_back(store(static_cast<float>(code) * scale));
  }
  return values;
}
float AsIs(float value) { return value; }
float ThroughBf16(float value) { return Bf16ToFloat(FloatToBf16(value)); }
float ThroughF16(float value) { return F16ToFloat(FloatToF16(value)); }

TEST(GridTest, ScalesOfGridsAreFoundToTheBit) {
  for (const float scale : {1.0F, 0.3F, 0.0123F, 3e-5F, 1e-30F}) {
    for (const auto& [low, high] : {std::pair(-8, 7), std::pair(-7, 7), std::pair(-1, 7), std::pair(-8, 0), std::pair(-2, 3)}) {
      EXPECT_EQ(FindGridScale(OnGrid(scale, low, high, 256, AsIs)), scale) << low << " to " << high;
      const float stored = ThroughBf16(scale);
      EXPECT_EQ(FindGridScale(OnGrid(stored, low, high, 256, ThroughBf16)), stored) << low << " to " << high;
    }
  }
}

TEST(GridTest, CodesSurviveTheRoundingOfProducts) {
  for (const auto store : {ThroughBf16, ThroughF16}) {
    for (const float scale : {0.0123F, 0.77777F, 1.99F}) {
      const std::vector<float> values = OnGrid(scale, -8, 7, 512, store);
      const std::optional<float> found = FindGridScale(values);
      ASSERT_TRUE(found.has_value()) << scale;
      EXPECT_NEAR(*found, scale, scale * 0x1p-8F);
      const std::vector<float> exact = OnGrid(scale, -8, 7, 512, AsIs);
      for (size_t j = 0; j < values.size(); ++j) EXPECT_EQ(std::nearbyint(values[j] / *found), std::nearbyint(exact[j] / scale));
    }
  }
}

TEST(GridTest, RowsThatAreNoGridAreLeftAlone) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> values(64);
  for (float& value : values) value = ThroughBf16(normal(random));
  EXPECT_FALSE(FindGridScale(values).has_value());
  EXPECT_FALSE(FindGridScale(std::vector<float>(64, 0.0F)).has_value());
  EXPECT_FALSE(FindGridScale(std::vector<float>(64, 0.5F)).has_value());                     // one magnitude
  EXPECT_FALSE(FindGridScale(OnGrid(0.3F, -8, 7, kLeastGridValues - 1, AsIs)).has_value());  // too few to tell
  EXPECT_FALSE(FindGridScale(OnGrid(0.3F, -8, 8, 512, AsIs)).has_value());                   // +8 is no code
  EXPECT_FALSE(FindGridScale(OnGrid(0.3F, -9, 7, 512, AsIs)).has_value());                   // -9 neither
  EXPECT_FALSE(FindGridScale(OnGrid(std::numeric_limits<float>::denorm_min(), -8, 7, 512, AsIs)).has_value());
  std::vector<float> off = OnGrid(0.3F, -8, 7, 512, AsIs);
  for (float& value : off) value = std::abs(value - 2.1F) < 0.01F ? 2.1F * 1.02F : value;  // one of the levels is not where it should be
  EXPECT_FALSE(FindGridScale(off).has_value());
}

// Few values that only look like a grid: whatever is accepted is kept to 2^-7 of each value, which is what a grid has to promise.
TEST(GridTest, WhatIsAcceptedIsKept) {
  std::mt19937 random(6);
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    const float a = 1.0F + static_cast<float>(random() % 1000) * 0.001F;
    const float b = 0.2F + static_cast<float>(random() % 2000) * 0.001F;
    std::vector<float> values;
    for (size_t j = 0; j < 64; ++j) values.push_back((random() % 2 == 0 ? 1.0F : -1.0F) * (random() % 2 == 0 ? a : b));
    const std::optional<float> found = FindGridScale(values);
    if (!found) continue;
    ++accepted;
    for (const float value : values) {
      const float code = std::clamp(std::nearbyint(value / *found), -8.0F, 7.0F);
      EXPECT_LE(std::abs(value - code * *found), 0x1.03p-7F * std::abs(value));
    }
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace taskpress
