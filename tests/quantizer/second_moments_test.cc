#include "quantizer/second_moments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/testing/every_target.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

// Tokens of columns of very different size, of which a share is zero. [rows, columns]
std::vector<float> Inputs(int64_t rows, int64_t columns, uint32_t seed, float zeros = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform;
  std::vector<float> values;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const float value = normal(random) * static_cast<float>(1 + i % columns % 7);
    values.push_back(uniform(random) < zeros ? 0.0F : value);
  }
  return values;
}

SecondMoments Accumulate(const std::vector<float>& values, int64_t columns, std::vector<int64_t> portions,
                         MomentKind kind = MomentKind::kFull, int threads = 2, const DenseKernels& kernels = VectorDenseKernels()) {
  Result<MomentAccumulator> accumulator = MomentAccumulator::Make(columns, kind, kernels);
  EXPECT_TRUE(accumulator.has_value());
  const RowWork work{.threads = threads};
  const auto rows = static_cast<int64_t>(values.size()) / columns;
  int64_t first = 0;
  for (size_t i = 0; first < rows; ++i) {
    const int64_t count = std::min(portions[i % portions.size()], rows - first);
    EXPECT_TRUE(accumulator->Add(std::span(values).subspan(static_cast<size_t>(first * columns), static_cast<size_t>(count * columns)),
                                 count, work));
    first += count;
  }
  Result<SecondMoments> moments = accumulator->Finish(work);
  EXPECT_TRUE(moments.has_value()) << moments.error().message;
  return *std::move(moments);
}

void ExpectEqual(const SecondMoments& a, const SecondMoments& b) {
  EXPECT_EQ(a.columns, b.columns);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.sums, b.sums);
  EXPECT_EQ(a.squares, b.squares);
  EXPECT_EQ(a.max_magnitudes, b.max_magnitudes);
  EXPECT_EQ(a.activation_step2, b.activation_step2);
  ASSERT_EQ(a.kind(), b.kind());
  if (a.kind() == MomentKind::kDiagonal) return;
  const auto d = static_cast<size_t>(a.columns);
  for (size_t i = 0; i < d; ++i) {
    for (size_t j = 0; j <= i; ++j) ASSERT_EQ(a.products[i * d + j], b.products[i * d + j]) << i << ", " << j;
  }
}

TEST(SecondMoments, AreThoseOfADoubleSum) {
  constexpr int64_t kRows = 700;
  constexpr int64_t kColumns = 45;
  const std::vector<float> values = Inputs(kRows, kColumns, 1);
  const SecondMoments moments = Accumulate(values, kColumns, {100});
  EXPECT_EQ(moments.tokens, kRows);
  double step2 = 0;
  std::vector<double> exact(kColumns * kColumns);
  for (size_t row = 0; row < kRows; ++row) {
    const float* x = &values[row * kColumns];
    const double range = std::max(0.0F, *std::max_element(x, x + kColumns)) - std::min(0.0F, *std::min_element(x, x + kColumns));
    step2 += range * range / 255 / 255;
    for (size_t i = 0; i < kColumns; ++i) {
      for (size_t j = 0; j <= i; ++j) exact[i * kColumns + j] += static_cast<double>(x[i]) * static_cast<double>(x[j]);
    }
  }
  EXPECT_NEAR(moments.activation_step2, step2, 1e-5 * step2);  // the range was taken in float here
  for (size_t i = 0; i < kColumns; ++i) {
    EXPECT_NEAR(moments.squares[i], exact[i * kColumns + i], 1e-12 * exact[i * kColumns + i]);
    for (size_t j = 0; j <= i; ++j) {
      // 256 roundings of a part and 3 of the whole, each of at most 2^-24 of what has been summed.
      const double bound = 260 * 0x1p-24 * std::sqrt(exact[i * kColumns + i] * exact[j * kColumns + j]);
      EXPECT_NEAR(moments.products[i * kColumns + j], exact[i * kColumns + j], bound);
    }
  }
}

TEST(SecondMoments, DoNotDependOnCutsThreadsKernelsOrInstructionSet) {
  for (const float zeros : {0.0F, 0.5F, 0.95F, 1.0F}) {
    constexpr int64_t kRows = 270;
    constexpr int64_t kColumns = 270;  // two groups of panels, the last panel not full
    const std::vector<float> values = Inputs(kRows, kColumns, 2, zeros);
    const Result<SecondMoments> plain = ComputeMomentsPlain(values, kRows, kColumns, MomentKind::kFull);
    ASSERT_TRUE(plain.has_value());
    ExpectEqual(Accumulate(values, kColumns, {kRows}, MomentKind::kFull, 1, PlainDenseKernels()), *plain);
    ExpectEqual(Accumulate(values, kColumns, {1, 100, 0, 7}, MomentKind::kFull, 3), *plain);
    if (zeros == 0 || zeros == 1) continue;
    ForEachTarget([&] { ExpectEqual(Accumulate(values, kColumns, {kRows}, MomentKind::kFull, 2), *plain); });
  }
}

TEST(SecondMoments, TheDiagonalAloneHasTheSameSums) {
  const std::vector<float> values = Inputs(300, 70, 3, 0.3F);
  const SecondMoments full = Accumulate(values, 70, {64});
  const SecondMoments diagonal = Accumulate(values, 70, {64}, MomentKind::kDiagonal);
  EXPECT_TRUE(diagonal.products.empty());
  EXPECT_EQ(diagonal.squares, full.squares);
  EXPECT_EQ(diagonal.sums, full.sums);
  const Result<SecondMoments> plain = ComputeMomentsPlain(values, 300, 70, MomentKind::kDiagonal);
  ASSERT_TRUE(plain.has_value());
  ExpectEqual(diagonal, *plain);
}

TEST(SecondMoments, OfOneSidedTokensTheStepCountsFromZero) {
  const std::vector<float> values = {3, 5, 4, -2, -1, -2};  // [2, 3]
  const SecondMoments moments = Accumulate(values, 3, {2});
  EXPECT_DOUBLE_EQ(moments.activation_step2, (25.0 + 4.0) / 255 / 255);
}

TEST(SecondMoments, OfTwoTermsTheStepIsThatOfTheLimit) {
  SecondMoments moments = MakeMoments(4, MomentKind::kDiagonal).value();
  moments.squares = {1, 4, 9, 2};  // mean square 4: the limit is 4 either way, the step 8 / 255
  EXPECT_DOUBLE_EQ(TwoTermStep2(moments), (8.0 / 255) * (8.0 / 255));
}

TEST(SecondMoments, AddUpInTheOrderGiven) {
  const std::vector<float> a = Inputs(256, 40, 4);
  const std::vector<float> b = Inputs(100, 40, 5);
  std::vector<float> both = a;
  both.insert(both.end(), b.begin(), b.end());
  SecondMoments sum = Accumulate(a, 40, {256});
  ASSERT_TRUE(AddMoments(sum, Accumulate(b, 40, {100})));
  const SecondMoments whole = Accumulate(both, 40, {356});
  for (size_t i = 0; i < 40; ++i) {
    for (size_t j = 0; j <= i; ++j) ASSERT_EQ(sum.products[i * 40 + j], whole.products[i * 40 + j]);  // a ends where a block does
    EXPECT_NEAR(sum.squares[i], whole.squares[i], 1e-14 * whole.squares[i]);
  }
  EXPECT_EQ(sum.tokens, 356);
  EXPECT_EQ(sum.max_magnitudes, whole.max_magnitudes);
  EXPECT_NEAR(sum.activation_step2, whole.activation_step2, 1e-14 * whole.activation_step2);
  EXPECT_FALSE(AddMoments(sum, Accumulate(b, 20, {100})));
  EXPECT_FALSE(AddMoments(sum, Accumulate(b, 40, {100}, MomentKind::kDiagonal)));
}

TEST(SecondMoments, RefuseWhatIsNotFiniteAndNameIt) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Result<MomentAccumulator> accumulator = MomentAccumulator::Make(40, MomentKind::kFull);
    ASSERT_TRUE(accumulator.has_value());
    std::vector<float> values = Inputs(50, 40, 6);
    ASSERT_TRUE(accumulator->Add(values, 50));
    values[33 * 40 + 39] = bad;
    const Status added = accumulator->Add(values, 50);
    ASSERT_FALSE(added);
    EXPECT_EQ(added.error().code, ErrorCode::kNotFinite);
    EXPECT_THAT(added.error().message, HasSubstr("token 83, column 39"));
    EXPECT_EQ(accumulator->tokens(), 50);
  }
}

TEST(SecondMoments, RefuseProductsThatOverflow) {
  Result<MomentAccumulator> accumulator = MomentAccumulator::Make(2, MomentKind::kFull);
  ASSERT_TRUE(accumulator.has_value());
  ASSERT_TRUE(accumulator->Add(std::vector<float>{1.0F, 1e20F}, 1));
  const Result<SecondMoments> moments = accumulator->Finish();
  ASSERT_FALSE(moments);
  EXPECT_EQ(moments.error().code, ErrorCode::kNotFinite);
}

TEST(SecondMoments, RefuseShapes) {
  EXPECT_FALSE(MomentAccumulator::Make(0, MomentKind::kFull));
  EXPECT_FALSE(MomentAccumulator::Make(kMaxMomentColumns + 1, MomentKind::kDiagonal));
  Result<MomentAccumulator> accumulator = MomentAccumulator::Make(3, MomentKind::kDiagonal);
  ASSERT_TRUE(accumulator.has_value());
  EXPECT_FALSE(accumulator->Add(std::vector<float>(5), 2));
  EXPECT_FALSE(accumulator->Add(std::vector<float>(3), -1));
}

}  // namespace
}  // namespace taskpress
