#include "runtime/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/log_probability.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// How often each of four tokens comes up.
std::array<int, 4> Count(SamplerOptions options, std::array<float, 4> logits, int draws) {
  Sampler sampler(options);
  std::array<int, 4> counts{};
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.Sample(logits).value())];
  return counts;
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Sample(std::array{1.0F, 3.0F, 2.0F}), 1);
  EXPECT_EQ(sampler.Sample(std::array{3.0F, 1.0F, 3.0F}), 0);
  EXPECT_THAT(Count({.temperature = 1.0, .top_k = 1}, {0, 5, 5, 0}, 10), ElementsAre(0, 10, 0, 0));
}

TEST(SamplerTest, FollowsTheProbabilities) {
  const auto ln = [](double x) { return static_cast<float>(std::log(x)); };
  const std::array<int, 4> counts = Count({.temperature = 1.0, .seed = 7}, {ln(0.1), ln(0.2), ln(0.3), ln(0.4)}, 20000);
  // Five standard deviations of a binomial count are below 350.
  EXPECT_NEAR(counts[0], 2000, 350);
  EXPECT_NEAR(counts[1], 4000, 350);
  EXPECT_NEAR(counts[2], 6000, 350);
  EXPECT_NEAR(counts[3], 8000, 350);
}

TEST(SamplerTest, TemperatureSharpens) {
  const std::array<float, 4> logits = {0, 1, 0, 0};
  EXPECT_GT(Count({.temperature = 0.1}, logits, 1000)[1], 990);
  EXPECT_NEAR(Count({.temperature = 1e6}, logits, 8000)[1], 2000, 200);
}

TEST(SamplerTest, TopKKeepsTheLikeliestLowIdsFirst) {
  const std::array<int, 4> counts = Count({.temperature = 1.0, .top_k = 2}, {1, 1, 1, 0}, 1000);
  EXPECT_EQ(counts[2] + counts[3], 0);
  EXPECT_GT(counts[1], 400);
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesIt) {
  const auto ln = [](double x) { return static_cast<float>(std::log(x)); };
  const std::array<float, 4> logits = {ln(0.1), ln(0.5), ln(0.3), ln(0.1)};
  EXPECT_THAT(Count({.temperature = 1.0, .top_p = 0.4}, logits, 100), ElementsAre(0, 100, 0, 0));
  const std::array<int, 4> two = Count({.temperature = 1.0, .top_p = 0.75}, logits, 1000);
  EXPECT_EQ(two[0] + two[3], 0);
  EXPECT_NEAR(two[1], 625, 80);
  EXPECT_THAT(Count({.temperature = 1.0, .top_p = 0.0}, logits, 10), ElementsAre(0, 10, 0, 0));
  // top_k first: of the two left, the first alone has 0.625 of the weight.
  EXPECT_THAT(Count({.temperature = 1.0, .top_k = 2, .top_p = 0.6}, logits, 100), ElementsAre(0, 100, 0, 0));
}

TEST(SamplerTest, TheSeedDecides) {
  const std::array<float, 8> logits{};
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1.0, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 12; ++i) tokens.push_back(sampler.Sample(logits).value());
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
  // Frozen, and checked with another SplitMix64: a bundle's reply must not change with the library or the machine.
  EXPECT_THAT(draw(42), ElementsAre(2, 7, 3, 3, 4, 6, 7, 7, 7, 4, 5, 0));
}

TEST(SamplerTest, RefusesLogitsThatAreNotFinite) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (const double temperature : {0.0, 1.0}) {
      const auto token = Sampler({.temperature = temperature}).Sample(std::array{1.0F, bad});
      ASSERT_FALSE(token.has_value());
      EXPECT_EQ(token.error().code, ErrorCode::kNotFinite);
      EXPECT_THAT(token.error().message, HasSubstr("token 1"));
    }
  }
  EXPECT_FALSE(Sampler({}).Sample({}).has_value());
}

TEST(LogProbabilityTest, IsStableForLargeLogits) {
  EXPECT_DOUBLE_EQ(LogProbability(std::array{0.0F, 0.0F}, 1), -std::numbers::ln2);
  EXPECT_DOUBLE_EQ(LogProbability(std::array{1000.0F, 1000.0F}, 0), -std::numbers::ln2);
  EXPECT_DOUBLE_EQ(LogProbability(std::array{-1000.0F, 0.0F}, 0), -1000.0);
  const std::array<float, 3> logits = {1.0F, 2.0F, 3.0F};
  double sum = 0.0;
  for (const int32_t token : {0, 1, 2}) sum += std::exp(LogProbability(logits, token));
  EXPECT_DOUBLE_EQ(sum, 1.0);
}

}  // namespace
}  // namespace taskpress
