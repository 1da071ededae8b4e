#include "quantizer/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace taskpress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Groups = std::vector<std::vector<BudgetChoice>>;

// Every combination.
BudgetSolution BruteForce(const Groups& groups, uint64_t budget) {
  BudgetSolution best{.chosen = {}, .bytes = 0, .cost = std::numeric_limits<double>::infinity()};
  std::vector<size_t> at(groups.size());
  for (;;) {
    uint64_t bytes = 0;
    double cost = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      bytes += groups[g][at[g]].bytes;
      cost += groups[g][at[g]].cost;
    }
    if (bytes <= budget && cost < best.cost) best = {.chosen = at, .bytes = bytes, .cost = cost};
    size_t g = 0;
    while (g < groups.size() && ++at[g] == groups[g].size()) at[g++] = 0;
    if (g == groups.size()) return best;
  }
}

uint64_t Sum(const Groups& groups, bool most) {
  uint64_t sum = 0;
  for (const auto& choices : groups) {
    const auto bytes = [](const BudgetChoice& choice) { return choice.bytes; };
    sum += most ? std::ranges::max(choices, {}, bytes).bytes : std::ranges::min(choices, {}, bytes).bytes;
  }
  return sum;
}

// Choices as weights have them: more bytes, mostly less error; some groups alike, as layers are.
Groups RandomGroups(std::mt19937& random, size_t groups, size_t choices, bool alike) {
  std::uniform_int_distribution<uint64_t> bytes(1, 1000);
  std::uniform_real_distribution<double> cost(0.0, 1.0);
  Groups made;
  for (size_t g = 0; g < groups; ++g) {
    std::vector<BudgetChoice>& group = made.emplace_back();
    for (size_t c = 0; c < choices; ++c) {
      const uint64_t size = alike ? 100 * (c + 1) : bytes(random);
      group.push_back({.bytes = size, .cost = cost(random) / (alike ? static_cast<double>(size) : 1.0)});
    }
  }
  return made;
}

TEST(BudgetTest, TheAnswerIsThatOfEveryCombinationTried) {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    const Groups groups = RandomGroups(random, 1 + round % 7, 1 + round % 5, round % 3 == 0);
    const uint64_t least = Sum(groups, false);
    const uint64_t budget = least + (Sum(groups, true) - least) * static_cast<uint64_t>(round % 11) / 10;
    const Result<BudgetSolution> solved = SolveBudget(groups, budget);
    ASSERT_TRUE(solved.has_value()) << solved.error().message;
    const BudgetSolution best = BruteForce(groups, budget);
    EXPECT_NEAR(solved->cost, best.cost, 1e-12) << round;
    EXPECT_TRUE(solved->exact);
    EXPECT_LE(solved->bytes, budget);
    uint64_t bytes = 0;
    for (size_t g = 0; g < groups.size(); ++g) bytes += groups[g][solved->chosen[g]].bytes;
    EXPECT_EQ(solved->bytes, bytes);
    EXPECT_LE(solved->bound, best.cost + 1e-12);
  }
}

TEST(BudgetTest, WithFewStatesTheAnswerFitsAndTheBoundHolds) {
  std::mt19937 random(11);
  int inexact = 0;
  for (int round = 0; round < 200; ++round) {
    const Groups groups = RandomGroups(random, 7, 4, false);
    const uint64_t budget = (Sum(groups, false) + Sum(groups, true)) / 2;
    const BudgetSolution solved = SolveBudget(groups, budget, {.max_states = 2}).value();
    const double best = BruteForce(groups, budget).cost;
    EXPECT_LE(solved.bytes, budget);
    EXPECT_GE(solved.cost, best - 1e-12);
    EXPECT_LE(solved.bound, best + 1e-12);
    if (solved.exact) {
      EXPECT_NEAR(solved.cost, best, 1e-12);
    }
    inexact += solved.exact ? 0 : 1;
  }
  EXPECT_GT(inexact, 10);
}

TEST(BudgetTest, AModelOfManyLayersIsSolvedExactly) {
  std::mt19937 random(13);
  std::lognormal_distribution<double> sensitivity(0.0, 1.5);
  Groups groups;
  for (int layer = 0; layer < 35; ++layer) {
    for (const uint64_t values :
         {4194304U, 1048576U, 1048576U, 4194304U, 33554432U, 33554432U, 33554432U, 131072U, 131072U, 524288U, 524288U}) {
      const double error = sensitivity(random) * 1e-3;
      const double jitter = 1 + static_cast<double>(random() % 1000) / 1e4;
      groups.push_back({{values / 2 + 8192, error},
                        {values / 2 + values / 64, error * 0.6 * jitter},
                        {values / 2 + values / 32, error * 0.5 * jitter},
                        {values / 2 + values / 16, error * 0.4},
                        {values + 8192, error * 0.004}});
    }
  }
  for (const double share : {0.02, 0.1, 0.3, 0.5, 0.9}) {
    const uint64_t least = Sum(groups, false);
    const uint64_t budget = least + static_cast<uint64_t>(share * static_cast<double>(Sum(groups, true) - least));
    const BudgetSolution solved = SolveBudget(groups, budget).value();
    EXPECT_LE(solved.bytes, budget);
    EXPECT_TRUE(solved.exact) << share;
    const BudgetSolution bounded = SolveBudget(groups, budget, {.max_states = 64}).value();
    EXPECT_LE(bounded.bound, solved.cost * (1 + 1e-9));
    EXPECT_GE(bounded.cost, solved.cost * (1 - 1e-9));
    EXPECT_LE(bounded.cost - bounded.bound, 0.01 * bounded.cost) << "within a hundredth, whatever is thinned out";
  }
}

TEST(BudgetTest, MoreBytesNeverCostMore) {
  std::mt19937 random(17);
  const Groups groups = RandomGroups(random, 30, 5, true);
  double before = std::numeric_limits<double>::infinity();
  for (uint64_t budget = Sum(groups, false); budget <= Sum(groups, true); budget += 37) {
    const double cost = SolveBudget(groups, budget)->cost;
    EXPECT_LE(cost, before + 1e-12);
    before = cost;
  }
}

TEST(BudgetTest, OfEqualCostsTheSmallestIsTaken) {
  EXPECT_THAT(SolveBudget(Groups{{{9, 1.0}, {5, 1.0}, {5, 1.0}}, {{3, 0.0}, {1, 2.0}}}, 100)->chosen, ElementsAre(1, 0));
}

TEST(BudgetTest, WhatDoesNotFitIsRefusedWithTheLeast) {
  const Groups groups = {{{10, 1.0}, {20, 0.5}}, {{5, 1.0}}};
  EXPECT_THAT(SolveBudget(groups, 15)->chosen, ElementsAre(0, 0));
  const Result<BudgetSolution> refused = SolveBudget(groups, 14);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_THAT(refused.error().message, HasSubstr("the smallest types need 15"));
  EXPECT_TRUE(SolveBudget(Groups{}, 0).has_value());
}

TEST(BudgetTest, GroupsThatMakeNoSenseAreRefused) {
  for (const Groups& groups : {Groups{{}}, Groups{{{1, -1.0}}}, Groups{{{1, std::nan("")}}}, Groups{{{1, INFINITY}}},
                               Groups{{{UINT64_MAX, 1.0}}, {{UINT64_MAX, 1.0}}}}) {
    EXPECT_EQ(SolveBudget(groups, UINT64_MAX).error().code, ErrorCode::kUsage);
  }
}

}  // namespace
}  // namespace taskpress
