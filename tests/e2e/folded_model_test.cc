// Folds change where rounding falls, not what the float model computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "converter/prepare.h"
#include "runtime/divergence.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/reference/golden_windows.h"

namespace taskpress::testing {
namespace {

PreparedModel Prepare(const std::string& checkpoint, const std::string& recipe, bool choose, std::vector<Fold> folds = {}) {
  PrepareOptions options;
  options.recipe = Must(RecipeFromName(recipe));
  options.choose_folds = choose;
  options.folds = std::move(folds);
  options.model.context = 64;
  options.model.prefill_lengths = {8};
  options.model.score_length = 32;
  return Must(PrepareModel(std::string(TASKPRESS_TEST_DATA) + checkpoint, options));
}

std::vector<Fold> FoldsOf(const PreparedModel& model) {
  for (const auto& [name, text] : model.graphs.prefill_decode.metadata) {
    if (name == kFoldsEntry) return Must(DecodeFolds(text));
  }
  return {};
}

std::vector<float> Logits(const PreparedModel& model, std::span<const int32_t> tokens) {
  Session session = Must(Session::Create(model.graphs));
  return ScoreAll(session, tokens);
}

// The largest difference of two rows of logits of these models without folds is their float32 noise, 1e-5; factors of 2^(k/8) add roundings
// of the same size. A factor forgotten on one side would make differences of several.
TEST(FoldedModelTest, TheFloatModelIsTheSameFunction) {
  const std::vector<int32_t> tokens{2, 5, 17, 3, 88, 41, 120, 9, 63, 7, 250, 14};
  for (const char* checkpoint : {"/micro-e4b", "/micro-gemma3"}) {
    const std::vector<Fold> folds = FoldsOf(Prepare(checkpoint, "dynamic_int4", true));
    ASSERT_FALSE(folds.empty()) << checkpoint;
    const std::vector<float> plain = Logits(Prepare(checkpoint, "f32", false), tokens);
    const std::vector<float> folded = Logits(Prepare(checkpoint, "f32", false, folds), tokens);
    ASSERT_EQ(plain.size(), folded.size());
    double worst = 0;
    for (size_t i = 0; i < plain.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(plain[i]) - static_cast<double>(folded[i])));
    EXPECT_LE(worst, 2e-4) << checkpoint;
  }
}

// The micro checkpoint's channels were made uneven; undoing that is what folds are for.
TEST(FoldedModelTest, UnevenChannelsLoseTheirCost) {
  const PreparedModel exact = Prepare("/micro-e4b", "f32", false);
  const auto divergence = [&](const PreparedModel& model) {
    const auto window = oracle::GoldenWindows()[0];
    const std::span<const int32_t> tokens = std::span(window).first(48);
    Divergence between(exact.config.text_vocab_size);
    between.AddWindow(tokens, Logits(model, tokens), Logits(exact, tokens));
    return between.Summarize().kl_mean;
  };
  const double plain = divergence(Prepare("/micro-e4b", "dynamic_int4", false));
  const double folded = divergence(Prepare("/micro-e4b", "dynamic_int4", true));
  EXPECT_LT(folded, 0.4 * plain);
}

TEST(FoldedModelTest, NothingIsFoldedWhereNothingIsRounded) {
  EXPECT_TRUE(FoldsOf(Prepare("/micro-e4b", "f32", true)).empty());
  EXPECT_TRUE(FoldsOf(Prepare("/micro-e4b", "f16", true)).empty());
}

TEST(FoldedModelTest, TheChoiceDoesNotDependOnTheNumberOfThreads) {
  PrepareOptions options;
  options.recipe = Must(RecipeFromName("dynamic_int4"));
  options.choose_folds = true;
  std::string first;
  for (const int threads : {1, 3}) {
    options.work.threads = threads;
    const std::string text = EncodeFolds(FoldsOf(Must(PrepareModel(std::string(TASKPRESS_TEST_DATA) + "/micro-e4b", options))));
    EXPECT_TRUE(first.empty() || first == text);
    first = text;
  }
}

}  // namespace
}  // namespace taskpress::testing
