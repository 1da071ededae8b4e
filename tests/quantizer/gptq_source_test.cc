#include "quantizer/gptq_source.h"

#include <gtest/gtest.h>

#include <limits>

#include "quantizer/block_scale.h"
#include "quantizer/quantize.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

constexpr int64_t kColumns = 64;
constexpr int64_t kRows = 12;
constexpr int64_t kTokens = 512;

// Inputs with a common cause.
std::vector<float> Inputs() {
  std::vector<float> inputs = NormalValues(kTokens * kColumns, 1);
  const std::vector<float> cause = NormalValues(kTokens, 2);
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i] += 2.0F * cause[i / kColumns] * (i % 3 == 0 ? 1.0F : -0.5F);
  return inputs;
}

SecondMoments Moments() { return ComputeMomentsPlain(Inputs(), kTokens, kColumns, MomentKind::kFull).value(); }

struct Rounded {
  std::vector<std::byte> packed;
  std::vector<float> scales;
};

Rounded Round(const QuantSpec& spec, const GptqFactor* factor, std::span<const float> weights, std::span<const float> importance) {
  const auto rows = static_cast<int64_t>(weights.size()) / kColumns;
  Rounded rounded{.packed = std::vector<std::byte>(static_cast<size_t>(rows) * PackedRowBytes(spec, kColumns).value()),
                  .scales = std::vector<float>(static_cast<size_t>(rows * spec.ScalesPerRow(kColumns)))};
  const Status done = factor != nullptr ? GptqRows(*factor, spec, importance, weights, rows, rounded.packed, rounded.scales)
                                        : QuantizeRows(spec, weights, rows, kColumns, rounded.packed, rounded.scales, 0, importance);
  EXPECT_TRUE(done.has_value());
  return rounded;
}

// Squared error of the layer's outputs.
double OutputError(const QuantSpec& spec, const Rounded& rounded, std::span<const float> weights) {
  const auto rows = static_cast<int64_t>(weights.size()) / kColumns;
  std::vector<float> values(weights.size());
  DequantizeRows(spec, rounded.packed, rounded.scales, rows, kColumns, values);
  const std::vector<float> inputs = Inputs();
  double error = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t token = 0; token < kTokens; ++token) {
      double difference = 0;
      for (int64_t c = 0; c < kColumns; ++c) {
        const auto at = static_cast<size_t>(row * kColumns + c);
        difference +=
            static_cast<double>(values[at] - weights[at]) * static_cast<double>(inputs[static_cast<size_t>(token * kColumns + c)]);
      }
      error += difference * difference;
    }
  }
  return error;
}

class GptqRowsTest : public ::testing::TestWithParam<QuantSpec> {};

TEST_P(GptqRowsTest, LosesLessOfTheOutputsThanClippingAndDoesNotDependOnTheSplit) {
  const QuantSpec& spec = GetParam();
  const std::vector<float> weights = NormalValues(kRows * kColumns, 3);
  const std::vector<float> importance(kColumns, 1.0F);
  const SecondMoments moments = Moments();
  const GptqFactor factor = GptqFactor::Make(moments, DampingFor(moments, spec)).value();
  const Rounded whole = Round(spec, &factor, weights, importance);
  QuantSpec clip = spec;
  clip.method = QuantMethod::kClip;
  EXPECT_LT(OutputError(spec, whole, weights), 0.8 * OutputError(clip, Round(clip, nullptr, weights, importance), weights));

  Rounded parts;
  for (int64_t row = 0; row < kRows; row += 5) {
    const int64_t count = std::min<int64_t>(5, kRows - row);
    const Rounded part = Round(
        spec, &factor, std::span(weights).subspan(static_cast<size_t>(row * kColumns), static_cast<size_t>(count * kColumns)), importance);
    parts.packed.insert(parts.packed.end(), part.packed.begin(), part.packed.end());
    parts.scales.insert(parts.scales.end(), part.scales.begin(), part.scales.end());
  }
  EXPECT_EQ(parts.packed, whole.packed);
  EXPECT_EQ(parts.scales, whole.scales);
  for (const float scale : whole.scales) EXPECT_TRUE(spec.block_size == 0 || IsBlockScale(scale)) << scale;
}

INSTANTIATE_TEST_SUITE_P(Formats, GptqRowsTest,
                         ::testing::Values(QuantSpec{.type = DType::kI4, .method = QuantMethod::kGptq},
                                           QuantSpec{.type = DType::kI8, .method = QuantMethod::kGptq},
                                           QuantSpec{.type = DType::kI4, .method = QuantMethod::kGptq, .block_size = 32}));

TEST(GptqRowsRefusalTest, NamesRowAndColumnOfABadValue) {
  std::vector<float> weights = NormalValues(2 * kColumns, 3);
  weights[kColumns + 7] = std::numeric_limits<float>::quiet_NaN();
  const SecondMoments moments = Moments();
  const QuantSpec spec{.type = DType::kI4, .method = QuantMethod::kGptq};
  const GptqFactor factor = GptqFactor::Make(moments, DampingFor(moments, spec)).value();
  std::vector<std::byte> packed(kColumns);
  std::vector<float> scales(2);
  const Status done = GptqRows(factor, spec, {}, weights, 2, packed, scales, 100);
  ASSERT_FALSE(done.has_value());
  EXPECT_NE(done.error().message.find("row 101, column 7"), std::string::npos) << done.error().message;
}

TEST(DampingTest, FewTokensAreDampedMore) {
  SecondMoments moments = Moments();
  const QuantSpec spec{.type = DType::kI4};
  const double many = DampingFor(moments, spec).own_damping;
  moments.tokens = 32;
  EXPECT_GT(DampingFor(moments, spec).own_damping, 4 * many);
  EXPECT_EQ(DampingFor(moments, spec).added_diagonal, moments.activation_step2 / 12);
  EXPECT_FALSE(DampingFor(moments, {.type = DType::kI4, .block_size = 32}).act_order);
}

}  // namespace
}  // namespace taskpress
