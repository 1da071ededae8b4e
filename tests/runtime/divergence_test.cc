#include "runtime/divergence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace taskpress {
namespace {

// softmax by definition, for logits small enough not to overflow
std::vector<double> Softmax(std::span<const float> logits) {
  std::vector<double> p;
  double sum = 0;
  for (const float logit : logits) {
    p.push_back(std::exp(static_cast<double>(logit)));
    sum += p.back();
  }
  for (double& value : p) value /= sum;
  return p;
}

double KlOracle(std::span<const float> p_logits, std::span<const float> q_logits) {
  const std::vector<double> p = Softmax(p_logits);
  const std::vector<double> q = Softmax(q_logits);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]);
  return kl;
}

std::vector<float> Logits(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random() % 20001) / 1000.0F - 10.0F;
  return values;
}

TEST(KlDivergenceTest, IsItsDefinition) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    const std::vector<float> p = Logits(300, seed);
    const std::vector<float> q = Logits(300, seed + 100);
    EXPECT_NEAR(KlDivergence(p, q), KlOracle(p, q), 1e-12 * KlOracle(p, q) + 1e-13);
  }
}

TEST(KlDivergenceTest, OfTwoCoinsIsKnown) {
  // p = 3/4, 1/4; q = 1/2, 1/2: 3/4 ln 3/2 + 1/4 ln 1/2
  const std::vector<float> p = {std::log(3.0F), 0.0F};
  const std::vector<float> q = {7.0F, 7.0F};
  EXPECT_NEAR(KlDivergence(p, q), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(KlDivergence(q, p), 0.5 * std::log(2.0 / 3) + 0.5 * std::log(2.0), 1e-7);
}

TEST(KlDivergenceTest, IsZeroForEqualsAndForAShiftAndNeverNegative) {
  const std::vector<float> p = Logits(1000, 5);
  EXPECT_EQ(KlDivergence(p, p), 0.0);
  std::vector<float> shifted = p;
  for (float& value : shifted) value += 4.0F;
  EXPECT_NEAR(KlDivergence(p, shifted), 0.0, 1e-6);
  EXPECT_GE(KlDivergence(p, shifted), 0.0);
}

TEST(KlDivergenceTest, SurvivesLogitsWhoseExponentialsDoNot) {
  const std::vector<float> p = {3000.0F, 2999.0F, -3000.0F};
  const std::vector<float> q = {2000.0F, 2000.0F, 1999.0F};
  EXPECT_NEAR(KlDivergence(p, q), KlOracle(std::vector<float>{1.0F, 0.0F, -700.0F}, std::vector<float>{1.0F, 1.0F, 0.0F}), 1e-12);
}

TEST(DivergenceTest, SummarizesAllRowsAndPredictsFromAllButTheLastOfAWindow) {
  constexpr size_t kVocab = 50;
  const std::vector<int32_t> first = {3, 7, 49, 0};
  const std::vector<int32_t> second = {1, 2};
  Divergence divergence(kVocab);
  std::vector<double> kl;
  double nll_a = 0;
  double nll_b = 0;
  int64_t agreed = 0;
  double largest = 0;
  uint32_t seed = 1;
  for (const std::vector<int32_t>& tokens : {first, second}) {
    std::vector<float> a;
    std::vector<float> b;
    for (size_t t = 0; t < tokens.size(); ++t) {
      const std::vector<float> row_a = Logits(kVocab, seed);
      std::vector<float> row_b = Logits(kVocab, seed + 50);
      if (t == 1) row_b = row_a;
      ++seed;
      kl.push_back(KlOracle(row_b, row_a));
      agreed += std::ranges::max_element(row_a) - row_a.begin() == std::ranges::max_element(row_b) - row_b.begin() ? 1 : 0;
      for (size_t i = 0; i < kVocab; ++i)
        largest = std::max(largest, std::abs(static_cast<double>(row_a[i]) - static_cast<double>(row_b[i])));
      if (t + 1 < tokens.size()) {
        nll_a -= std::log(Softmax(row_a)[static_cast<size_t>(tokens[t + 1])]);
        nll_b -= std::log(Softmax(row_b)[static_cast<size_t>(tokens[t + 1])]);
      }
      a.insert(a.end(), row_a.begin(), row_a.end());
      b.insert(b.end(), row_b.begin(), row_b.end());
    }
    divergence.AddWindow(tokens, a, b);
  }
  const DivergenceSummary summary = divergence.Summarize();
  EXPECT_EQ(summary.positions, 6);
  double sum = 0;
  for (const double value : kl) sum += value;
  EXPECT_NEAR(summary.kl_mean, sum / 6, 1e-12);
  EXPECT_NEAR(summary.top1_agreement, static_cast<double>(agreed) / 6, 1e-15);
  EXPECT_GE(summary.top1_agreement, 2.0 / 6);
  EXPECT_NEAR(summary.perplexity_a, std::exp(nll_a / 4), 1e-9 * summary.perplexity_a);
  EXPECT_NEAR(summary.perplexity_b, std::exp(nll_b / 4), 1e-9 * summary.perplexity_b);
  EXPECT_DOUBLE_EQ(summary.max_abs_difference.value(), largest);
}

// Two windows of unequal length, every figure by its definition from softmax.
TEST(DivergenceTest, ErrorsMediansAndOverlapsAreTheirDefinitions) {
  constexpr size_t kVocab = 40;
  const std::vector<std::vector<int32_t>> windows = {{3, 7, 39, 0, 5, 6}, {1, 2, 3}};
  Divergence divergence(kVocab);
  std::vector<double> kl;
  std::vector<double> sums;
  std::vector<double> log_ratios;
  double overlap = 0;
  double squares = 0;
  uint32_t seed = 1;
  for (const std::vector<int32_t>& tokens : windows) {
    std::vector<float> a;
    std::vector<float> b;
    sums.push_back(0);
    for (size_t t = 0; t < tokens.size(); ++t, ++seed) {
      const std::vector<float> row_b = Logits(kVocab, seed);
      std::vector<float> row_a = row_b;
      const std::vector<float> noise = Logits(kVocab, seed + 500);
      for (size_t i = 0; i < kVocab; ++i) row_a[i] += 0.2F * noise[i];
      kl.push_back(KlOracle(row_b, row_a));
      sums.back() += kl.back();
      const auto fifth = [](std::vector<float> row) {
        std::ranges::sort(row, std::ranges::greater());
        return row[4];
      };
      for (size_t i = 0; i < kVocab; ++i) overlap += row_a[i] >= fifth(row_a) && row_b[i] >= fifth(row_b) ? 0.2 : 0.0;
      if (t + 1 < tokens.size()) {
        const double p_a = Softmax(row_a)[static_cast<size_t>(tokens[t + 1])];
        const double p_b = Softmax(row_b)[static_cast<size_t>(tokens[t + 1])];
        log_ratios.push_back(std::log(p_b / p_a));
        squares += (p_a - p_b) * (p_a - p_b);
      }
      a.insert(a.end(), row_a.begin(), row_a.end());
      b.insert(b.end(), row_b.begin(), row_b.end());
    }
    divergence.AddWindow(tokens, a, b);
  }
  const auto mean_of = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  const auto error_of = [&](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += (value - mean_of(values)) * (value - mean_of(values));
    const auto n = static_cast<double>(values.size());
    return std::sqrt(sum / (n - 1) / n);
  };
  const DivergenceSummary summary = divergence.Summarize();
  EXPECT_NEAR(summary.kl_standard_error, error_of(kl), 1e-9);
  const double first = sums[0] - 6 * mean_of(kl);
  const double second = sums[1] - 3 * mean_of(kl);
  EXPECT_NEAR(summary.kl_window_standard_error, std::sqrt(2 * (first * first + second * second)) / 9, 1e-9);
  std::ranges::sort(kl);
  EXPECT_NEAR(summary.kl_median, kl[4], 1e-9);
  EXPECT_NEAR(summary.kl_max, kl[8], 1e-9);
  EXPECT_NEAR(summary.top5_overlap, overlap / 9, 1e-9);
  EXPECT_GT(summary.top5_overlap, 0.2);
  EXPECT_LT(summary.top5_overlap, 1.0);
  EXPECT_NEAR(summary.perplexity_ratio, std::exp(mean_of(log_ratios)), 1e-9);
  EXPECT_NEAR(summary.perplexity_ratio, summary.perplexity_a / summary.perplexity_b, 1e-9);
  EXPECT_NEAR(summary.perplexity_ratio_standard_error, summary.perplexity_ratio * error_of(log_ratios), 1e-9);
  EXPECT_NEAR(summary.rms_delta_p, std::sqrt(squares / static_cast<double>(log_ratios.size())), 1e-9);
}

TEST(DivergenceTest, TheMedianOfAnEvenNumberIsBetweenTheMiddleTwo) {
  Divergence divergence(2);
  for (const double kl : {4.0, 1.0, 3.0, 100.0}) divergence.AddPosition({.kl = kl});
  EXPECT_EQ(divergence.Summarize().kl_median, 3.5);
  EXPECT_EQ(divergence.Summarize().kl_window_standard_error, 0.0) << "one window";
  EXPECT_FALSE(divergence.Summarize().max_abs_difference.has_value());
}

// Of 200 rows, one far off: the 99th percentile is below it; with five it is not.
TEST(DivergenceTest, TheHighPercentileIgnoresOneRowInAHundredAndNoMore) {
  for (const size_t far_off : {1U, 5U}) {
    Divergence divergence(2);
    for (size_t i = 0; i < 200; ++i) {
      const std::vector<float> a = {0.0F, i < far_off ? 8.0F : 0.1F};
      const std::vector<float> b = {0.0F, 0.0F};
      const std::vector<int32_t> token = {0};
      divergence.AddWindow(token, a, b);
    }
    EXPECT_EQ(divergence.Summarize().kl_p99 > 1.0, far_off == 5) << far_off;
  }
}

TEST(DivergenceTest, OfNothingIsNothing) {
  EXPECT_EQ(Divergence(10).Summarize().positions, 0);
  EXPECT_EQ(Divergence(10).Summarize().kl_mean, 0.0);
}

}  // namespace
}  // namespace taskpress
