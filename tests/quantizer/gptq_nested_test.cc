#include "quantizer/gptq_nested.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "quantizer/gptq_source.h"
#include "quantizer/quantize.h"
#include "tests/quantizer/matrices.h"
#include "tests/testing/every_target.h"

namespace taskpress {
namespace {

using Matrix = std::vector<std::vector<double>>;

// Inputs with two common causes.
SecondMoments Moments(int64_t columns, int64_t tokens, uint32_t seed) {
  std::vector<float> inputs = NormalValues(tokens * columns, seed);
  const std::vector<float> causes = NormalValues(tokens * 2, seed + 1);
  const std::vector<float> mix = NormalValues(columns * 2, seed + 2);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const size_t token = i / static_cast<size_t>(columns);
    const size_t column = i % static_cast<size_t>(columns);
    inputs[i] += 1.5F * (causes[2 * token] * mix[2 * column] + causes[2 * token + 1] * mix[2 * column + 1]);
  }
  return ComputeMomentsPlain(inputs, tokens, columns, MomentKind::kFull).value();
}

// The moments of columns [first, end).
SecondMoments Part(const SecondMoments& moments, int64_t first, int64_t end) {
  SecondMoments part = MakeMoments(end - first, MomentKind::kFull).value();
  part.tokens = moments.tokens;
  part.activation_step2 = moments.activation_step2;
  for (int64_t i = first; i < end; ++i) {
    part.squares[static_cast<size_t>(i - first)] = moments.squares[static_cast<size_t>(i)];
    for (int64_t j = first; j <= i; ++j) {
      part.products[static_cast<size_t>((i - first) * part.columns + j - first)] =
          moments.products[static_cast<size_t>(i * moments.columns + j)];
    }
  }
  return part;
}

constexpr double kAdded = 0.5;  // on the diagonal of the piece's own moments
GptqOptions Damped(bool act_order) { return {.damping = 0, .added_diagonal = kAdded, .act_order = act_order}; }

// A matrix of two pieces: the first has `before` columns.
struct Problem {
  Problem(int64_t before_columns, int64_t own_columns, uint32_t seed, bool act_order = true)
      : before(before_columns),
        columns(own_columns),
        moments(Moments(before_columns + own_columns, 3 * (before_columns + own_columns), seed)),
        own(GptqFactor::Make(Part(moments, before_columns, before_columns + own_columns), Damped(act_order)).value()),
        cross(GptqCross::Make(moments, before_columns, own).value()) {}

  [[nodiscard]] double H(int64_t i, int64_t j) const {
    const double product = static_cast<double>(moments.products[static_cast<size_t>(std::max(i, j) * moments.columns + std::min(i, j))]);
    return i == j && i >= before ? product + kAdded : product;
  }
  // (e1, e2)^T H (e1, e2)
  [[nodiscard]] double Objective(std::span<const float> errors, std::span<const double> own_errors) const {
    const auto e = [&](int64_t i) {
      return i < before ? static_cast<double>(errors[static_cast<size_t>(i)]) : own_errors[static_cast<size_t>(i - before)];
    };
    double sum = 0;
    for (int64_t i = 0; i < before + columns; ++i) {
      for (int64_t j = 0; j < before + columns; ++j) sum += e(i) * e(j) * H(i, j);
    }
    return sum;
  }

  int64_t before;
  int64_t columns;
  SecondMoments moments;
  GptqFactor own;
  GptqCross cross;
};

// x with a x = b, by Gauss's elimination; a is positive definite.
std::vector<double> SolvePlainly(Matrix a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t k = 0; k < n; ++k) {
    for (size_t i = k + 1; i < n; ++i) {
      const double factor = a[i][k] / a[k][k];
      for (size_t j = k; j < n; ++j) a[i][j] -= factor * a[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (size_t k = n; k-- > 0;) {
    for (size_t j = k + 1; j < n; ++j) b[k] -= a[k][j] * b[j];
    b[k] /= a[k][k];
  }
  return b;
}

// W2 + H22^-1 H21 E1 of one row.
std::vector<double> TextbookTargets(const Problem& problem, std::span<const float> values, std::span<const float> errors) {
  const auto n = static_cast<size_t>(problem.columns);
  Matrix h22(n, std::vector<double>(n));
  std::vector<double> owed(n);
  for (size_t i = 0; i < n; ++i) {
    const auto row = problem.before + static_cast<int64_t>(i);
    for (size_t j = 0; j < n; ++j) h22[i][j] = problem.H(row, problem.before + static_cast<int64_t>(j));
    for (int64_t k = 0; k < problem.before; ++k) owed[i] += problem.H(row, k) * static_cast<double>(errors[static_cast<size_t>(k)]);
  }
  std::vector<double> targets = SolvePlainly(std::move(h22), std::move(owed));
  for (size_t i = 0; i < n; ++i) targets[i] += static_cast<double>(values[i]);
  return targets;
}

TEST(NestedTargets, AreThoseOfTheTextbook) {
  constexpr size_t kRows = 37;
  for (const auto& [before, columns] : {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {40, 70}, {300, 130}, {0, 6}}) {
    for (const bool act_order : {false, true}) {
      const Problem problem(before, columns, 7, act_order);
      const std::vector<float> values = NormalValues(static_cast<int64_t>(kRows) * columns, 8);
      std::vector<float> errors = NormalValues(static_cast<int64_t>(kRows) * before, 9);
      for (float& error : errors) error *= 0.1F;
      const std::vector<float> targets = NestedTargets(problem.own, problem.cross, values, kRows, errors).value();
      for (size_t row = 0; row < kRows; ++row) {
        const auto n = static_cast<size_t>(columns);
        const auto b = static_cast<size_t>(before);
        const std::vector<double> expected =
            TextbookTargets(problem, std::span(values).subspan(row * n, n), std::span(errors).subspan(row * b, b));
        for (size_t i = 0; i < n; ++i) EXPECT_NEAR(targets[row * n + i], expected[i], 2e-4) << before << " " << columns << " " << i;
      }
    }
  }
}

// H = [[4, 1.5], [1.5, 2]], the second column alone in its piece: it makes up for 1.5 / 2 of the first's error.
TEST(NestedTargets, OfTwoColumnsHaveAClosedForm) {
  SecondMoments moments = MakeMoments(2, MomentKind::kFull).value();
  moments.products = {4, 0, 1.5, 2};
  const GptqFactor own = GptqFactor::Make(Part(moments, 1, 2), {.damping = 0}).value();
  const GptqCross cross = GptqCross::Make(moments, 1, own).value();
  EXPECT_FLOAT_EQ(NestedTargets(own, cross, std::vector{1.3F}, 1, std::vector{0.4F}).value()[0], 1.6F);
}

TEST(NestedTargets, HaveTheSameBitsForAnySplitKernelsAndInstructionSet) {
  constexpr int64_t kRows = 70;
  const Problem problem(90, 75, 3);
  const std::vector<float> values = NormalValues(kRows * 75, 4);
  const std::vector<float> errors = NormalValues(kRows * 90, 5);
  const std::vector<float> plain = NestedTargets(problem.own, problem.cross, values, kRows, errors, PlainDenseKernels()).value();
  ForEachTarget([&] {
    EXPECT_EQ(NestedTargets(problem.own, problem.cross, values, kRows, errors).value(), plain);
    for (const int64_t row : {int64_t{0}, int64_t{33}, kRows - 1}) {
      const std::vector<float> one = NestedTargets(problem.own, problem.cross, std::span(values).subspan(static_cast<size_t>(row * 75), 75),
                                                   1, std::span(errors).subspan(static_cast<size_t>(row * 90), 90))
                                         .value();
      EXPECT_TRUE(std::equal(one.begin(), one.end(), plain.begin() + row * 75)) << row;
    }
  });
}

TEST(NestedTargets, WithoutErrorsBeforeAreTheWeights) {
  const Problem problem(64, 64, 11);
  const std::vector<float> values = NormalValues(int64_t{3} * 64, 12);
  EXPECT_EQ(NestedTargets(problem.own, problem.cross, values, 3, std::vector<float>(3 * 64)).value(), values);
}

TEST(NestedTargets, OfOtherSizesAndOfErrorsThatAreNotFiniteAreRefused) {
  const Problem problem(8, 6, 13);
  const std::vector<float> values(12);
  std::vector<float> errors(16);
  EXPECT_FALSE(NestedTargets(problem.own, problem.cross, values, 1, errors).has_value());
  EXPECT_FALSE(NestedTargets(problem.own, problem.cross, values, 2, std::span(errors).first(12)).has_value());
  EXPECT_TRUE(NestedTargets(problem.own, problem.cross, values, 2, errors).has_value());
  errors[3] = std::numeric_limits<float>::infinity();
  const Result<std::vector<float>> refused = NestedTargets(problem.own, problem.cross, values, 2, errors);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kQuantValue);
  EXPECT_FALSE(GptqCross::Make(problem.moments, 7, problem.own).has_value());
}

// (e1, w2 - scale q2)^T H (..) of the best of all codes from -1 to 1 that the piece can have, given what the columns before left.
double BestOfAll(const Problem& problem, std::span<const float> values, float scale, std::span<const float> errors) {
  double least = std::numeric_limits<double>::infinity();
  for (int code = 0; code < 729; ++code) {
    std::array<double, 6> own{};
    for (int i = 0, rest = code; i < 6; ++i, rest /= 3) {
      own[static_cast<size_t>(i)] =
          static_cast<double>(values[static_cast<size_t>(i)]) - static_cast<double>(scale) * static_cast<double>(rest % 3 - 1);
    }
    least = std::min(least, problem.Objective(errors, own));
  }
  return least;
}

// Greedy feedback is as near to the best with something to make up for as it is without.
TEST(NestedGptq, OnSixColumnsIsAsNearToTheBestOfAllCodesAsAPieceAlone) {
  double nested = 0;
  double naive = 0;
  double alone = 0;
  const GptqGrid grid{.lo = -1, .hi = 1};
  constexpr int kProblems = 200;
  for (uint32_t seed = 0; seed < kProblems; ++seed) {
    const Problem problem(6, 6, 3 * seed + 100);
    const std::vector<float> values = NormalValues(6, seed + 5000);
    std::vector<float> errors = NormalValues(6, seed + 9000);
    for (float& error : errors) error *= 0.3F;
    const std::vector<float> nothing(6);
    const std::vector<float> targets = NestedTargets(problem.own, problem.cross, values, 1, errors).value();
    const float scale = *std::ranges::max_element(targets, {}, [](float value) { return std::abs(value); });
    const auto ratio = [&](std::span<const float> rounded, std::span<const float> before) {
      std::vector<float> scales{std::abs(scale)};
      std::vector<int8_t> codes(6);
      EXPECT_TRUE(GptqQuantize(problem.own, grid, rounded, 1, scales, codes).has_value());
      std::array<double, 6> own{};
      for (size_t i = 0; i < own.size(); ++i) {
        own[i] = static_cast<double>(values[i]) - static_cast<double>(scales[0]) * static_cast<double>(codes[i]);
      }
      const double objective = problem.Objective(before, own);
      const double best = BestOfAll(problem, values, scales[0], before);
      EXPECT_GE(objective, best * (1 - 1e-12));
      return objective / best;
    };
    nested += ratio(targets, errors);
    naive += ratio(values, errors);
    alone += ratio(values, nothing);
  }
  RecordProperty("nested_to_best", std::to_string(nested / kProblems));
  RecordProperty("naive_to_best", std::to_string(naive / kProblems));
  RecordProperty("alone_to_best", std::to_string(alone / kProblems));
  EXPECT_LE(nested, 1.02 * alone);
  EXPECT_GT(naive, 1.3 * nested);
}

struct Rounded {
  std::vector<std::byte> packed;
  std::vector<float> scales;
};

class NestedGptqRowsTest : public ::testing::TestWithParam<QuantSpec> {
 protected:
  static constexpr int64_t kBefore = 96;
  static constexpr int64_t kColumns = 64;
  static constexpr int64_t kRows = 75;

  static Rounded Space(int64_t rows) {
    return {.packed = std::vector<std::byte>(static_cast<size_t>(rows) * PackedRowBytes(GetParam(), kColumns).value()),
            .scales = std::vector<float>(static_cast<size_t>(rows * GetParam().ScalesPerRow(kColumns)))};
  }
  [[nodiscard]] Rounded Nested(int64_t first, int64_t rows) const {
    Rounded out = Space(rows);
    const Status done = NestedGptqRows(
        problem_.own, problem_.cross, GetParam(), importance_,
        std::span(values_).subspan(static_cast<size_t>(first * kColumns), static_cast<size_t>(rows * kColumns)), rows,
        std::span(errors_).subspan(static_cast<size_t>(first * kBefore), static_cast<size_t>(rows * kBefore)), out.packed, out.scales);
    EXPECT_TRUE(done.has_value()) << done.error().message;
    return out;
  }
  [[nodiscard]] std::vector<double> Objectives(const Rounded& rounded) const {
    std::vector<float> floats(values_.size());
    DequantizeRows(GetParam(), rounded.packed, rounded.scales, kRows, kColumns, floats);
    std::vector<double> objectives;
    for (size_t row = 0; row < kRows; ++row) {
      std::vector<double> own;
      for (size_t c = 0; c < kColumns; ++c) {
        own.push_back(static_cast<double>(values_[row * kColumns + c]) - static_cast<double>(floats[row * kColumns + c]));
      }
      objectives.push_back(problem_.Objective(std::span(errors_).subspan(row * kBefore, kBefore), own));
    }
    return objectives;
  }

  Problem problem_{kBefore, kColumns, 21, GetParam().block_size == 0};
  std::vector<float> values_ = NormalValues(kRows * kColumns, 22);
  std::vector<float> errors_ = [] {
    std::vector<float> errors = NormalValues(kRows * kBefore, 23);
    for (size_t i = 0; i < errors.size(); ++i) errors[i] *= i / kBefore % 3 == 0 ? 0.001F : 0.1F;  // every third row has next to none
    return errors;
  }();
  std::vector<float> importance_ = std::vector<float>(kColumns, 1.0F);
};

TEST_P(NestedGptqRowsTest, LosesLessThanTheNaiveOrderAndInNoRowMore) {
  Rounded naive = Space(kRows);
  ASSERT_TRUE(GptqRows(problem_.own, GetParam(), importance_, values_, kRows, naive.packed, naive.scales).has_value());
  const std::vector<double> of_naive = Objectives(naive);
  const std::vector<double> of_nested = Objectives(Nested(0, kRows));
  double sum_naive = 0;
  double sum_nested = 0;
  for (size_t row = 0; row < kRows; ++row) {
    EXPECT_LE(of_nested[row], of_naive[row] * (1 + 1e-5)) << row;
    sum_naive += of_naive[row];
    sum_nested += of_nested[row];
  }
  EXPECT_LT(sum_nested, 0.8 * sum_naive);
}

TEST_P(NestedGptqRowsTest, DoesNotDependOnTheSplit) {
  const Rounded whole = Nested(0, kRows);
  Rounded parts;
  for (int64_t row = 0; row < kRows; row += 11) {
    const Rounded part = Nested(row, std::min<int64_t>(11, kRows - row));
    parts.packed.insert(parts.packed.end(), part.packed.begin(), part.packed.end());
    parts.scales.insert(parts.scales.end(), part.scales.begin(), part.scales.end());
  }
  EXPECT_EQ(parts.packed, whole.packed);
  EXPECT_EQ(parts.scales, whole.scales);
}

INSTANTIATE_TEST_SUITE_P(Formats, NestedGptqRowsTest,
                         ::testing::Values(QuantSpec{.type = DType::kI4, .method = QuantMethod::kGptq},
                                           QuantSpec{.type = DType::kI8, .method = QuantMethod::kGptq},
                                           QuantSpec{.type = DType::kI4, .method = QuantMethod::kGptq, .block_size = 32}));

}  // namespace
}  // namespace taskpress
