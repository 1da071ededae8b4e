#include "converter/fit_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quantizer/recipe_file.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;
using testing::Must;

constexpr auto kTypes = std::to_array<std::string_view>({"int4", "int4_block128", "int4_block64", "int4_block32", "int8"});

class FitBudgetTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { files_ = Must(OpenModelFiles(oracle::MicroCheckpoint())).release(); }
  static void TearDownTestSuite() { delete files_; }

  static PrepareOptions Options(std::initializer_list<std::string_view> pinned = {}) {
    PrepareOptions options;
    options.recipe = {.name = "budget", .rules = {}, .method = QuantMethod::kClip};
    for (const std::string_view rule : pinned) Must(AddTensorTypeRule(options.recipe, rule));
    options.model.context = 64;
    options.model.prefill_lengths = {8};
    options.work.threads = 1;
    return options;
  }
  static BudgetRequest Request(uint64_t bytes, SensitivityKind kind = SensitivityKind::kWeights) {
    BudgetRequest request{.bytes = bytes, .containers = {Container::kTask, Container::kLitertlm}, .sensitivity = {}};
    request.sensitivity.kind = kind;
    for (const std::string_view type : kTypes) request.sensitivity.candidates.push_back(*QuantSpecFromName(type));
    return request;
  }
  static Result<BudgetFit> Fit(const BudgetRequest& request, const PrepareOptions& options = Options()) {
    return FitBudget(*files_, oracle::MicroCheckpoint(), options, request);
  }

  static const ModelFiles* files_;
  TempFolder folder_;
};
const ModelFiles* FitBudgetTest::files_ = nullptr;

TEST_F(FitBudgetTest, TheFileIsAsLargeAsItSaysAndNoLargerThanItMay) {
  for (const uint64_t target : {4'200'000U, 5'000'001U}) {
    const BudgetFit fit = Must(Fit(Request(target)));
    EXPECT_EQ(fit.target, target);
    EXPECT_LE(fit.bytes, target);
    EXPECT_GT(fit.bytes, target - target / 50) << "what is allowed is used";
    EXPECT_LE(fit.bound, fit.cost * (1 + 1e-9));
    PrepareOptions options = Options();
    options.recipe = Must(ParseRecipeFile(FormatRecipeFile(fit.recipe), "again.toml"));
    const PreparedModel model = Must(PrepareModel(*files_, oracle::MicroCheckpoint(), options));
    const std::vector<std::filesystem::path> outputs = {folder_.path() / Format("{}.task", target),
                                                        folder_.path() / Format("{}.litertlm", target)};
    uint64_t largest = 0;
    for (const WrittenBundle& bundle : Must(WriteBundles(model, outputs, {.work = {.threads = 1}})))
      largest = std::max(largest, bundle.bytes);
    EXPECT_EQ(largest, fit.bytes) << "the recipe makes the same file without measuring again";
  }
}

TEST_F(FitBudgetTest, MoreBytesCostLess) {
  double before = std::numeric_limits<double>::infinity();
  for (const uint64_t target : {4'000'000U, 4'600'000U, 5'500'000U, 9'000'000U}) {
    const double cost = Must(Fit(Request(target))).cost;
    EXPECT_LT(cost, before);
    before = cost;
  }
  const BudgetFit all = Must(Fit(Request(9'000'000)));
  for (size_t i = 0; i < all.weights.size(); ++i) EXPECT_EQ(NameOf(all.weights[i].candidates[all.chosen[i]].spec), "int8");
}

TEST_F(FitBudgetTest, TheChoiceIsTheSameForEveryNumberOfThreads) {
  PrepareOptions two = Options();
  two.work.threads = 2;
  EXPECT_EQ(FormatRecipeFile(Must(Fit(Request(4'500'000), two)).recipe), FormatRecipeFile(Must(Fit(Request(4'500'000))).recipe));
}

TEST_F(FitBudgetTest, PinnedWeightsStayAsTheyAre) {
  const BudgetFit fit = Must(Fit(Request(5'500'000), Options({"lm_head=f16", "embed_tokens.weight=int4"})));
  for (size_t i = 0; i < fit.weights.size(); ++i) {
    const WeightCosts& weight = fit.weights[i];
    const std::string type = NameOf(weight.candidates[fit.chosen[i]].spec);
    EXPECT_TRUE(weight.name != "lm_head.weight" || type == "f16") << type;
    EXPECT_TRUE(weight.name != "embed_tokens.weight" || type == "int4") << type;
    const bool table = weight.quant_class == QuantClass::kEmbedding || weight.quant_class == QuantClass::kPerLayerEmbedding;
    EXPECT_TRUE(!table || weight.candidates.size() <= 2) << weight.name << ": tables have no blocks";
    EXPECT_TRUE(weight.quant_class != QuantClass::kFeedForward || weight.candidates.size() >= 4) << weight.name;
  }
}

TEST_F(FitBudgetTest, WhatCannotBeIsRefusedWithTheLeastSize) {
  const Result<BudgetFit> refused = Fit(Request(1'000'000));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUsage);
  EXPECT_THAT(refused.error().message, HasSubstr("1000000 bytes; with the smallest types of all weights the file has 3"));
  EXPECT_EQ(Fit(Request(5'000'000, SensitivityKind::kOutputs)).error().code, ErrorCode::kUsage);
  EXPECT_EQ(Fit(Request(5'000'000, SensitivityKind::kKl)).error().code, ErrorCode::kUsage);
}

TEST_F(FitBudgetTest, BitsPerWeightAreThoseOfTheFile) {
  BudgetRequest request = Request(0);
  request.bits_per_weight = 8;
  const BudgetFit fit = Must(Fit(request));
  const PreparedModel model = Must(PrepareModel(*files_, oracle::MicroCheckpoint(), [] {
    PrepareOptions options = Options();
    options.recipe = *RecipeFromName("f32");
    return options;
  }()));
  EXPECT_EQ(fit.target, static_cast<uint64_t>(model.parameters.text));
}

// One weight after the other is rounded and the model run: few tokens, few weights.
TEST_F(FitBudgetTest, DivergenceOfOneWeightAloneIsWhatKlMeasures) {
  PrepareOptions options = Options({"layers=int4", "altup=int4", "per_layer=int4"});
  BudgetRequest request = Request(5'000'000, SensitivityKind::kKl);
  request.sensitivity.text = "In the beginning God created the heaven and the earth.";
  request.sensitivity.kl_tokens = 12;
  size_t measured = 0;
  request.sensitivity.on_weight = [&](size_t done, size_t) { measured = done; };
  const std::vector<WeightCosts> weights = Must(MeasureSensitivity(*files_, oracle::MicroCheckpoint(), options, request.sensitivity));
  EXPECT_EQ(measured, weights.size());
  for (const WeightCosts& weight : weights) {
    if (weight.candidates.size() == 1) {
      EXPECT_EQ(weight.candidates.front().cost, 0) << weight.name << " has no choice";
      continue;
    }
    EXPECT_GT(weight.candidates.front().cost, 1e-6) << weight.name;
    EXPECT_LT(weight.candidates.front().cost, 1) << weight.name;
    EXPECT_NEAR(weight.candidates.back().cost / weight.candidates.front().cost,
                weight.candidates.back().error / weight.candidates.front().error, 1e-9);
  }
}

}  // namespace
}  // namespace taskpress
