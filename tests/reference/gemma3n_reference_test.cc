// The one-page model against transformers, for the whole micro checkpoint and two sub-models of it.
#include "tests/reference/gemma3n_reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/reference/golden_windows.h"
#include "tests/reference/goldens.h"
#include "tests/reference/plain_math.h"

namespace taskpress::oracle {
namespace {

// Both sides compute in float32 in different orders. Largest difference seen: 1.2e-5; the closest greedy decision: 2.2e-3.
constexpr double kTolerance = 5e-5;

double MaxError(std::span<const float> actual, std::span<const float> expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i])));
    if (!std::isfinite(actual[i])) return HUGE_VAL;
  }
  return worst;
}

class Gemma3nReferenceTest : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] std::span<const float> Row(const std::vector<float>& logits, size_t row) const {
    const auto width = static_cast<size_t>(model_->vocabulary());
    return std::span(logits).subspan(row * width, width);
  }

  const std::unique_ptr<Gemma3nReference> model_ = Gemma3nReference::Open(MicroCheckpoint(), GoldenSlice(GetParam()));
  const TrustingSafetensors goldens_ = GoldenTensors(GetParam());
};

TEST_P(Gemma3nReferenceTest, LogitsOfEveryPromptAreThoseOfTransformers) {
  const std::vector<Tokens> prompts = GoldenPrompts();
  for (size_t p = 0; p < prompts.size(); ++p) {
    SCOPED_TRACE(testing::Message() << "prompt " << p);
    const std::vector<float> logits = model_->Forward(prompts[p]);
    const std::string name = "p" + std::to_string(p);

    // Short prompts keep every row, long ones the last.
    const std::vector<float> expected = goldens_.Get(name + ".logits").Floats();
    EXPECT_LE(MaxError(std::span(logits).last(expected.size()), expected), kTolerance);

    const std::vector<float> best_values = goldens_.Get(name + ".top64_values").Floats();
    const std::vector<int32_t> best_ids = goldens_.Get(name + ".top64_ids").Integers();
    ASSERT_EQ(best_values.size(), prompts[p].size() * 64);
    for (size_t t = 0; t < prompts[p].size(); ++t) {
      const std::span<const float> values = std::span(best_values).subspan(t * 64, 64);
      std::vector<float> at_ids;
      for (size_t i = 0; i < 64; ++i) at_ids.push_back(Row(logits, t)[static_cast<size_t>(best_ids[t * 64 + i])]);
      EXPECT_LE(MaxError(at_ids, values), kTolerance) << "row " << t;
      std::vector<float> sorted(Row(logits, t).begin(), Row(logits, t).end());
      std::ranges::partial_sort(sorted, sorted.begin() + 64, std::greater());
      EXPECT_LE(MaxError(std::span(sorted).first(64), values), kTolerance) << "row " << t;
    }
  }
}

TEST_P(Gemma3nReferenceTest, InnerTensorsAreThoseOfTransformers) {
  Gemma3nReference::Trace trace;
  (void)model_->Forward(GoldenPrompts()[5], &trace);
  const auto golden = [this](const std::string& name) { return goldens_.Get("p5." + name).Floats(); };
  EXPECT_LE(MaxError(trace.embedding, golden("embedding")), kTolerance);
  EXPECT_LE(MaxError(trace.per_layer_inputs, golden("per_layer_inputs")), kTolerance);
  EXPECT_LE(MaxError(trace.final_hidden, golden("final_hidden")), kTolerance);
  ASSERT_EQ(trace.layers.size(), static_cast<size_t>(model_->layers()));
  for (const size_t layer : {size_t{0}, size_t{4}, trace.layers.size() - 1}) {
    EXPECT_LE(MaxError(trace.layers[layer], golden("layer" + std::to_string(layer))), kTolerance) << "layer " << layer;
  }
}

// A greedy continuation is right if every id is the best after the right ids before it, so one pass checks all 32.
TEST_P(Gemma3nReferenceTest, GreedyContinuationsAreIdentical) {
  const std::vector<Tokens> prompts = GoldenPrompts();
  const std::vector<Tokens> continuations = GoldenGreedy(GetParam());
  for (size_t p = 0; p < prompts.size(); ++p) {
    Tokens tokens = prompts[p];
    tokens.insert(tokens.end(), continuations[p].begin(), continuations[p].end());
    const std::vector<float> logits = model_->Forward(tokens);
    for (size_t t = prompts[p].size(); t < tokens.size(); ++t) {
      const std::span<const float> row = Row(logits, t - 1);
      EXPECT_EQ(std::ranges::max_element(row) - row.begin(), tokens[t]) << "prompt " << p << ", position " << t;
    }
  }
}

TEST_P(Gemma3nReferenceTest, LikelihoodsOfHeldOutTextAreThoseOfTransformers) { EXPECT_GT(CompareGoldenWindows(GetParam(), 2), 0.0); }

TEST_P(Gemma3nReferenceTest, AnotherSizeWouldBeNoticed) {
  const TrustingSafetensors other = GoldenTensors(std::string(GetParam()) == "e4b" ? "mixed" : "e4b");
  EXPECT_GT(MaxError(model_->Forward(GoldenPrompts()[2]), other.Get("p2.logits").Floats()), 0.1);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Gemma3nReferenceTest, testing::Values("e4b", "e2b", "mixed"),
                         [](const auto& size) { return std::string(size.param); });

TEST(PlainMathTest, TheQuantileIsTheTabulatedOne) {
  EXPECT_NEAR(NormalQuantile(0.95), 1.6448536269514722, 1e-12);
  EXPECT_NEAR(NormalQuantile(0.5), 0.0, 1e-12);
}

}  // namespace
}  // namespace taskpress::oracle
