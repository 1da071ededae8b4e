#include "runtime/intervals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace taskpress {
namespace {

constexpr double kZ = 1.959963984540054;

// The interval is where the normal approximation, with the variance of the share that is being tested, does not refuse it: p_low and p_high
// solve (p - x / n)^2 = z^2 p (1 - p) / n.
TEST(WilsonIntervalTest, EndsSolveTheirEquation) {
  for (const int64_t n : {1, 2, 10, 100, 12345}) {
    for (const int64_t successes : {int64_t{1}, n / 3, n / 2, n - 1}) {
      if (successes < 1 || successes >= n) continue;
      const Interval interval = WilsonInterval(successes, n);
      const double share = static_cast<double>(successes) / static_cast<double>(n);
      for (const double p : {interval.low, interval.high}) {
        EXPECT_NEAR((p - share) * (p - share), kZ * kZ * p * (1 - p) / static_cast<double>(n), 1e-12) << successes << " of " << n;
      }
      EXPECT_LT(interval.low, share);
      EXPECT_GT(interval.high, share);
    }
  }
}

// Tabulated: 8 of 10, 95 %.
TEST(WilsonIntervalTest, OfEightInTenIsKnown) {
  EXPECT_NEAR(WilsonInterval(8, 10).low, 0.4902, 5e-5);
  EXPECT_NEAR(WilsonInterval(8, 10).high, 0.9433, 5e-5);
}

TEST(WilsonIntervalTest, NeverLeavesTheUnitIntervalAndKnowsItsEnds) {
  EXPECT_EQ(WilsonInterval(0, 20).low, 0.0);
  EXPECT_NEAR(WilsonInterval(0, 20).high, kZ * kZ / (20 + kZ * kZ), 1e-12);
  EXPECT_EQ(WilsonInterval(20, 20).high, 1.0);
  EXPECT_NEAR(WilsonInterval(20, 20).low, 20 / (20 + kZ * kZ), 1e-12);
  EXPECT_EQ(WilsonInterval(0, 0).low, 0.0);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1.0);
}

// The standard deviation of the sample of zeros and ones, by definition.
TEST(ShareStandardErrorTest, IsTheSpreadOfTheAnswers) {
  std::vector<double> answers(50, 0.0);
  std::fill_n(answers.begin(), 19, 1.0);
  double sum = 0;
  for (const double x : answers) sum += (x - 0.38) * (x - 0.38);
  EXPECT_NEAR(ShareStandardError(19, 50), std::sqrt(sum / 49 / 50), 1e-15);
  EXPECT_EQ(ShareStandardError(1, 1), 0.0);
}

// Counting coin throws: every sequence of n throws whose rarer side came up at most as often as observed.
double McNemarByCounting(int only_a, int only_b) {
  const int n = only_a + only_b;
  int as_uneven = 0;
  for (int throws = 0; throws < 1 << n; ++throws) {
    const int heads = __builtin_popcount(static_cast<unsigned>(throws));
    if (std::min(heads, n - heads) <= std::min(only_a, only_b)) ++as_uneven;
  }
  return static_cast<double>(as_uneven) / static_cast<double>(1 << n);
}

TEST(McNemarTest, IsTheShareOfCoinThrowsThatAreAsUneven) {
  for (int only_a = 0; only_a <= 8; ++only_a) {
    for (int only_b = 0; only_b <= 8; ++only_b) {
      EXPECT_NEAR(McNemarPValue(only_a, only_b), McNemarByCounting(only_a, only_b), 1e-12) << only_a << ", " << only_b;
    }
  }
}

TEST(McNemarTest, SurvivesThousandsOfQuestions) {
  EXPECT_EQ(McNemarPValue(5000, 5000), 1.0);
  // The normal approximation with continuity correction: (|b - c| - 1) / sqrt(b + c) = 1.99 standard deviations.
  EXPECT_NEAR(McNemarPValue(5100, 4900), std::erfc(199.0 / 100.0 / std::sqrt(2.0)), 1e-4);
  EXPECT_GE(McNemarPValue(0, 9000), 0.0);
  EXPECT_LT(McNemarPValue(0, 9000), 1e-300);
}

TEST(PairedStandardErrorTest, IsTheSpreadOfTheDifferences) {
  // 7 questions only a, 3 only b, 30 alike: differences of 1, -1 and 0.
  const double mean = 4.0 / 40;
  const double sum = 7 * (1 - mean) * (1 - mean) + 3 * (1 + mean) * (1 + mean) + 30 * mean * mean;
  EXPECT_NEAR(PairedStandardError(7, 3, 40), std::sqrt(sum / 40 / 40), 1e-15);
  EXPECT_EQ(PairedStandardError(0, 0, 0), 0.0);
}

}  // namespace
}  // namespace taskpress
