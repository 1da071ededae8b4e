// The graphs that converter/ builds, run by the runtime, against the model on one page that shares no code with either.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "converter/checkpoint.h"
#include "converter/text_model.h"
#include "runtime/session.h"
#include "tests/reference/gemma3n_reference.h"

namespace taskpress {
namespace {

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b";
constexpr size_t kTokens = 45;  // the window is 32

std::vector<int32_t> Prompt() {
  std::vector<int32_t> tokens = {2};
  for (uint32_t i = 1; i < kTokens; ++i) tokens.push_back(static_cast<int32_t>(3 + i * 40503U % 2000U));
  return tokens;
}

// [tokens, 2048]: without the rows past the text vocabulary
std::vector<float> ReferenceLogits(const std::vector<int32_t>& tokens) {
  const auto model = oracle::Gemma3nReference::Open(kMicro);
  const std::vector<float> all = model->Forward(tokens);
  std::vector<float> logits;
  const auto width = static_cast<size_t>(model->vocabulary());
  for (size_t i = 0; i < tokens.size(); ++i)
    logits.insert(logits.end(), all.begin() + static_cast<ptrdiff_t>(i * width), all.begin() + static_cast<ptrdiff_t>(i * width + 2048));
  return logits;
}

Session OpenSession(std::string_view recipe, const TextModelOptions& options) {
  const TextConfig config = ReadTextConfig(kMicro / "config.json").value();
  TextWeights weights = TextWeights::Bind(OpenSafetensorsCheckpoint(kMicro).value(), config).value();
  EXPECT_TRUE(weights.ApplyRecipe(RecipeFromName(recipe).value()).has_value());
  TextModel model{.embedder = BuildEmbedder(config, weights).value(),
                  .per_layer_embedder = BuildPerLayerEmbedder(config, weights).value(),
                  .prefill_decode = BuildPrefillDecode(config, weights, options).value()};
  return Session::Create(std::move(model), {.kernels = Kernels::kReference, .threads = 2}).value();
}

// Largest difference of any logit of any position; each is predicted twice, by score_<T> calls and by prefill followed by decode.
float LargestError(Session& session, const std::vector<int32_t>& tokens, const std::vector<float>& expected) {
  float worst = 0;
  const auto compare = [&](size_t position, std::span<const float> logits) {
    for (size_t i = 0; i < logits.size(); ++i) worst = std::max(worst, std::abs(logits[i] - expected[position * logits.size() + i]));
  };
  EXPECT_EQ(session.vocab_size(), 2048);
  const Status scored = session.Score(tokens, [&](int32_t index, std::span<const float> logits) -> Status {
    compare(static_cast<size_t>(index), logits);
    return {};
  });
  EXPECT_TRUE(scored.has_value()) << scored.error().message;
  session.Reset();
  constexpr size_t kPrompt = 38;
  EXPECT_TRUE(session.Prefill(std::span(tokens).first(kPrompt)).has_value());
  for (size_t i = kPrompt; i < tokens.size(); ++i) compare(i, session.Decode(tokens[i]).value());
  return worst;
}

TEST(TextModelNumericsTest, FloatLogitsAreTheReferencesInBothWindowForms) {
  const std::vector<int32_t> tokens = Prompt();
  const std::vector<float> expected = ReferenceLogits(tokens);
  for (const WindowForm window : {WindowForm::kGather, WindowForm::kMask}) {
    Session session = OpenSession("f32", {.context = 96, .prefill_lengths = {8, 32}, .score_length = 16, .window = window});
    // Measured: 6.7e-6, the rounding of float32 sums. Logits lie within +-30.
    EXPECT_LT(LargestError(session, tokens, expected), 3e-5F);
  }
}

TEST(TextModelNumericsTest, HalfPrecisionStaysClose) {
  const std::vector<int32_t> tokens = Prompt();
  const std::vector<float> expected = ReferenceLogits(tokens);
  Session session = OpenSession("f16", {.context = 96, .prefill_lengths = {8, 32}, .score_length = 16, .window = WindowForm::kGather});
  EXPECT_LT(LargestError(session, tokens, expected), 0.02F);  // measured: 0.0038
}

}  // namespace
}  // namespace taskpress
