#include "quantizer/resolved_recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quantizer/recipe.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

constexpr std::array<std::pair<std::string_view, QuantClass>, 7> kWeights = {{{"layers.0.q", QuantClass::kAttention},
                                                                              {"layers.0.k", QuantClass::kAttention},
                                                                              {"layers.1.q", QuantClass::kAttention},
                                                                              {"layers.1.k", QuantClass::kAttention},
                                                                              {"layers.2.q", QuantClass::kAttention},
                                                                              {"norm", QuantClass::kSmall},
                                                                              {"embed", QuantClass::kEmbedding}}};

std::string Text() {
  std::vector<WeightToQuantize> weights;
  for (const auto& [name, quant_class] : kWeights) weights.push_back({std::string(name), quant_class, 64});
  Recipe recipe = RecipeFromName("dynamic_int4_block64").value();
  EXPECT_TRUE(AddTensorTypeRule(recipe, "layers.2=int8").has_value());
  return ResolvedRecipeText(weights, recipe.Resolve(weights).value());
}

TEST(ResolvedRecipeTest, LinesAreReadAsTheyWereWritten) {
  const std::vector<RecipeLine> lines = ParseResolvedRecipe(Text()).value();
  ASSERT_EQ(lines.size(), kWeights.size());
  EXPECT_EQ(lines[0],
            (RecipeLine{.type = "int4_block64", .method = "absmax", .quant_class = "attention", .name = "layers.0.q", .note = ""}));
  EXPECT_EQ(lines[5], (RecipeLine{.type = "f32", .method = "-", .quant_class = "small", .name = "norm", .note = ""}));
  EXPECT_EQ(lines[6].note, "tables are looked up by row, in blocks only by the newest clients");
  EXPECT_TRUE(ParseResolvedRecipe("")->empty());
}

TEST(ResolvedRecipeTest, WhatIsNoLineIsRefused) {
  for (const std::string_view text : {"\n", "int4", "int4 absmax attention", "int4 absmax nonsense name", "int4 absmax attention name note",
                                      "int4 absmax attention name (note", "int4 absmax attention name\n\n"}) {
    const Result<std::vector<RecipeLine>> lines = ParseResolvedRecipe(text);
    ASSERT_FALSE(lines.has_value()) << text;
    EXPECT_EQ(lines.error().code, ErrorCode::kMetadataMalformed);
  }
}

TEST(ResolvedRecipeTest, TheSummaryHasOneLineForWeightsAlike) {
  EXPECT_EQ(RecipeSummary(ParseResolvedRecipe(Text()).value()),
            "  int4_block64  absmax attention              4\n"
            "  int8          absmax attention              1  layers.2.q\n"
            "  int4          absmax embedding              1  embed (tables are looked up by row, in blocks only by the newest clients)\n"
            "  f32           -      small                  1  norm\n");
}

TEST(ResolvedRecipeTest, ARecipeOfItsLinesStoresTheSameAgain) {
  const std::vector<RecipeLine> lines = ParseResolvedRecipe(Text()).value();
  const Recipe recipe = RecipeFromLines("again", lines).value();
  EXPECT_EQ(recipe.rules.size(), 3U);
  std::vector<WeightToQuantize> weights;
  for (const auto& [name, quant_class] : kWeights) weights.push_back({std::string(name), quant_class, 64});
  std::vector<RecipeLine> again = ParseResolvedRecipe(ResolvedRecipeText(weights, recipe.Resolve(weights).value())).value();
  for (size_t i = 0; i < lines.size(); ++i) {
    again[i].note = lines[i].note;
    EXPECT_EQ(again[i], lines[i]);
  }
  EXPECT_EQ(
      RecipeFromLines("x", std::vector{RecipeLine{.type = "int3", .method = "absmax", .quant_class = "head", .name = "h"}}).error().code,
      ErrorCode::kMetadataMalformed);
}

TEST(ResolvedRecipeTest, TwoTermsComeBackAndKeepTheColumns) {
  const std::vector<RecipeLine> lines =
      ParseResolvedRecipe("int8_two_terms gptq   head       lm_head\nf32            -      small      norm\n").value();
  EXPECT_EQ(RecipeSummary(lines),
            "  int8_two_terms gptq   head                   1  lm_head\n"
            "  f32            -      small                  1  norm\n");
  EXPECT_EQ(RecipeFromLines("again", lines)->rules.at(0).spec, (QuantSpec{.type = DType::kI8, .two_terms = true}));
}

TEST(ResolvedRecipeTest, AsJsonEveryWeightIsARow) {
  const OrderedJson rows = RecipeJson(ParseResolvedRecipe(Text()).value());
  EXPECT_EQ(rows.size(), kWeights.size());
  EXPECT_EQ(rows[4].dump(), R"({"name":"layers.2.q","class":"attention","type":"int8","method":"absmax"})");
  EXPECT_THAT(rows[6]["note"].get<std::string>(), HasSubstr("tables"));
}

}  // namespace
}  // namespace taskpress
