// The converter's graphs of the micro checkpoint, run by a session, against the logits of transformers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "converter/checkpoint.h"
#include "converter/text_model.h"
#include "converter/text_weights.h"
#include "quantizer/recipe.h"
#include "runtime/session.h"
#include "tests/reference/goldens.h"

namespace taskpress {
namespace {

using oracle::Tokens;

// Both sides compute in float32 in different orders (our reference kernels: sums in float64). The logits lie in [-30, 30].
constexpr double kTolerance = 5e-5;

constexpr int64_t kContext = 224;

TextModel BuildMicro(WindowForm window) {
  const TextConfig config = ReadTextConfig(oracle::MicroCheckpoint() / "config.json").value();
  TextWeights weights = TextWeights::Bind(OpenSafetensorsCheckpoint(oracle::MicroCheckpoint()).value(), config).value();
  EXPECT_TRUE(weights.ApplyRecipe(RecipeFromName("f32").value()).has_value());
  TextModel model;
  model.embedder = BuildEmbedder(config, weights).value();
  model.per_layer_embedder = BuildPerLayerEmbedder(config, weights).value();
  model.prefill_decode =
      BuildPrefillDecode(config, weights, {.context = kContext, .prefill_lengths = {8, 32}, .score_length = 32, .window = window}).value();
  return model;
}

// The golden logits of a prompt are all rows when it is short, else the last. They have columns for picture and sound tokens, which a text
// model does not predict.
constexpr size_t kLongestFullPrompt = 33;

double WorstError(Session& session, const Tokens& prompt, std::span<const float> golden) {
  const size_t rows = prompt.size() <= kLongestFullPrompt ? prompt.size() : 1;
  const size_t width = golden.size() / rows;
  const size_t first = prompt.size() - rows;
  double worst = 0.0;
  const auto compare = [&](size_t row, std::span<const float> logits) {
    if (row < first) return;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double error = std::abs(static_cast<double>(logits[i]) - static_cast<double>(golden[(row - first) * width + i]));
      worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
    }
  };
  EXPECT_TRUE(session
                  .Score(prompt,
                         [&](int32_t index, std::span<const float> logits) -> Status {
                           compare(static_cast<size_t>(index), logits);
                           return {};
                         })
                  .has_value());
  session.Reset();
  EXPECT_TRUE(session.Prefill(std::span(prompt).first(prompt.size() - 1)).has_value());
  compare(prompt.size() - 1, session.Decode(prompt.back()).value());
  return worst;
}

void ExpectGoldenLogits(WindowForm window, Kernels kernels, size_t prompts) {
  Session session = Session::Create(BuildMicro(window), {.kernels = kernels, .threads = 1}).value();
  const oracle::TrustingSafetensors goldens = oracle::GoldenTensors("e4b");
  for (size_t p = 0; p < prompts; ++p) {
    session.Reset();
    const Tokens prompt = oracle::GoldenPrompts()[p];
    EXPECT_LT(WorstError(session, prompt, goldens.Get("p" + std::to_string(p) + ".logits").Floats()), kTolerance) << "prompt " << p;
  }
}

TEST(Gemma3nSessionTest, XnnpackGivesTheLogitsOfTransformers) { ExpectGoldenLogits(WindowForm::kGather, Kernels::kXnnpack, 8); }
TEST(Gemma3nSessionTest, FusedStepsGiveTheLogitsOfTransformers) { ExpectGoldenLogits(WindowForm::kGather, Kernels::kFast, 8); }
TEST(Gemma3nSessionTest, WeightsInPlaceGiveTheLogitsOfTransformers) { ExpectGoldenLogits(WindowForm::kGather, Kernels::kInPlace, 8); }
TEST(Gemma3nSessionTest, TheMaskedWindowGivesTheSame) { ExpectGoldenLogits(WindowForm::kMask, Kernels::kXnnpack, 8); }
TEST(Gemma3nSessionTest, TheMaskedWindowGivesTheSameInFusedSteps) { ExpectGoldenLogits(WindowForm::kMask, Kernels::kFast, 8); }
// Up to 33 tokens: one more than the window.
TEST(Gemma3nSessionTest, ReferenceKernelsGiveTheLogitsOfTransformers) { ExpectGoldenLogits(WindowForm::kGather, Kernels::kReference, 5); }

}  // namespace
}  // namespace taskpress
