// A teacher's rows against the divergence of whole distributions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "runtime/divergence.h"
#include "runtime/log_probability.h"

namespace taskpress {
namespace {

constexpr int64_t kVocab = 500;

// Peaked, as predictions of text are.
std::vector<float> Logits(uint32_t seed, float spread = 1.5F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = 2 * normal(random);
  return logits;
}

std::vector<float> Near(std::vector<float> logits, uint32_t seed, float noise) {
  const std::vector<float> other = Logits(seed, noise);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] += other[i];
  return logits;
}

TeacherInfo Info(TeacherKind kind, int64_t top) { return {.kind = kind, .vocab_size = kVocab, .top = top}; }

TEST(TeacherTest, NamedTokensAndTheirTailAreTheDistribution) {
  const std::vector<float> logits = Logits(1);
  const TeacherRow row = MakeTeacherRow(logits, 77, Info(TeacherKind::kTop, 20));
  ASSERT_EQ(row.ids.size(), 20U);
  std::vector<float> sorted = logits;
  std::ranges::sort(sorted, std::ranges::greater());
  double named = 0;
  for (size_t i = 0; i < row.ids.size(); ++i) {
    EXPECT_EQ(logits[static_cast<size_t>(row.ids[i])], sorted[i]);
    EXPECT_NEAR(row.log_probabilities[i], LogProbability(logits, row.ids[i]), 1e-6);
    named += std::exp(static_cast<double>(row.log_probabilities[i]));
  }
  EXPECT_NEAR(row.tail, 1 - named, 1e-6);
  EXPECT_GT(row.tail, 0.0F);
  EXPECT_NEAR(row.next, LogProbability(logits, 77), 1e-6);
  EXPECT_EQ(MakeTeacherRow(logits, std::nullopt, Info(TeacherKind::kTop, 20)).next, 0.0F);
}

// More tokens, nearer to the truth from below; all of them, the truth.
TEST(TeacherTest, TheDivergenceOfNamedTokensIsALowerBoundThatRisesToTheTruth) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    const std::vector<float> b = Logits(seed);
    const std::vector<float> a = Near(b, seed + 1000, 0.3F);
    const double truth = KlDivergence(b, a);
    double before = 0;
    for (const int64_t top : {1, 5, 20, 100, 499}) {
      const double bound = CompareWithTeacher(a, MakeTeacherRow(b, std::nullopt, Info(TeacherKind::kTop, top)), TeacherKind::kTop, {}).kl;
      EXPECT_GE(bound, before - 1e-6) << top;
      EXPECT_LE(bound, truth + 1e-6) << top;
      before = bound;
    }
    const TeacherRow all = MakeTeacherRow(b, std::nullopt, Info(TeacherKind::kTop, kVocab));
    EXPECT_EQ(all.tail, 0.0F);
    EXPECT_NEAR(CompareWithTeacher(a, all, TeacherKind::kTop, {}).kl, truth, 1e-6);
  }
}

// Halves have 11 bits: a log-probability of -10 is off by 0.004 at most, and the errors of 500 tokens cancel for the most part.
TEST(TeacherTest, EveryTokenInFloat16IsExactButForTheHalves) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    const std::vector<float> b = Logits(seed);
    const std::vector<float> a = Near(b, seed + 1000, 0.3F);
    const TeacherRow row = MakeTeacherRow(b, 3, Info(TeacherKind::kFull, 5));
    ASSERT_EQ(row.log_probabilities.size(), static_cast<size_t>(kVocab));
    EXPECT_EQ(row.tail, 0.0F);
    const double truth = KlDivergence(b, a);
    EXPECT_NEAR(CompareWithTeacher(a, row, TeacherKind::kFull, 3).kl, truth, 1e-3 * truth + 1e-4);
    EXPECT_NEAR(CompareWithTeacher(b, row, TeacherKind::kFull, 3).kl, 0.0, 1e-5);
  }
}

TEST(TeacherTest, EverythingElseIsAsBetweenModels) {
  for (const TeacherKind kind : {TeacherKind::kTop, TeacherKind::kFull}) {
    for (uint32_t seed = 1; seed <= 10; ++seed) {
      const std::vector<float> b = Logits(seed);
      const std::vector<float> a = Near(b, seed + 1000, 0.8F);
      const PositionDivergence whole = ComparePosition(a, b, 9);
      const PositionDivergence kept = CompareWithTeacher(a, MakeTeacherRow(b, 9, Info(kind, 10)), kind, 9);
      EXPECT_EQ(kept.top1, whole.top1);
      EXPECT_EQ(kept.top5, whole.top5);
      EXPECT_DOUBLE_EQ(*kept.next_a, *whole.next_a);
      EXPECT_NEAR(*kept.next_b, *whole.next_b, 1e-6);
      EXPECT_FALSE(kept.max_abs_difference.has_value());
      EXPECT_FALSE(CompareWithTeacher(a, MakeTeacherRow(b, {}, Info(kind, 10)), kind, {}).next_b.has_value());
    }
  }
}

TEST(TeacherTest, ImpossibleTokensStayFinite) {
  std::vector<float> b = Logits(1);
  std::vector<float> a = Logits(2);
  b[0] = 400;
  a[0] = -2000;
  const TeacherRow row = MakeTeacherRow(b, 5, Info(TeacherKind::kTop, 5));
  const double kl = CompareWithTeacher(a, row, TeacherKind::kTop, 5).kl;
  EXPECT_NEAR(kl, KlDivergence(b, a), 1e-3 * kl);
  a.assign(a.size(), -3000.0F);
  a[0] = 0;
  b.assign(b.size(), 0.0F);
  EXPECT_TRUE(std::isfinite(CompareWithTeacher(a, MakeTeacherRow(b, 5, Info(TeacherKind::kTop, 5)), TeacherKind::kTop, 5).kl));
}

TEST(TopTokensTest, AreTheLikeliestAndOfEqualsTheLowestIds) {
  const std::vector<float> logits = {1, 3, 2, 3, 0};
  EXPECT_EQ(TopTokens(logits, 3), (std::vector<int32_t>{1, 3, 2}));
  EXPECT_EQ(TopTokens(logits, 9), (std::vector<int32_t>{1, 3, 2, 0, 4}));
  EXPECT_TRUE(TopTokens(logits, 0).empty());
}

}  // namespace
}  // namespace taskpress
