#include "quantizer/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

namespace taskpress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr QuantSpec kF32{.type = DType::kF32};
constexpr QuantSpec kF16{.type = DType::kF16};
constexpr QuantSpec kInt8{.type = DType::kI8};
constexpr QuantSpec kInt4{.type = DType::kI4};

std::vector<WeightToQuantize> Weights() {
  return {
      {"model.language_model.embed_tokens.weight", QuantClass::kEmbedding},
      {"model.language_model.layers.0.input_layernorm.weight", QuantClass::kSmall},
      {"model.language_model.layers.0.self_attn.v_proj.weight", QuantClass::kAttention},
      {"model.language_model.layers.0.mlp.down_proj.weight", QuantClass::kFeedForward},
      {"model.language_model.layers.1.mlp.down_proj.weight", QuantClass::kFeedForward},
      {"model.language_model.norm.weight", QuantClass::kSmall},
  };
}

std::vector<QuantSpec> SpecsOf(const Result<std::vector<ResolvedWeight>>& resolved) {
  std::vector<QuantSpec> specs;
  for (const ResolvedWeight& weight : resolved.value()) specs.push_back(weight.spec);
  return specs;
}

Recipe MakeRecipe(std::string_view name, std::initializer_list<std::string_view> tensor_types = {}) {
  Recipe recipe = RecipeFromName(name).value();
  for (const std::string_view rule : tensor_types) EXPECT_TRUE(AddTensorTypeRule(recipe, rule).has_value()) << rule;
  return recipe;
}

TEST(RecipeTest, NamedRecipesStoreEveryClassButSmallAsTheirType) {
  for (const auto& [name, spec] : {std::pair("f32", kF32), {"f16", kF16}, {"dynamic_int8", kInt8}, {"dynamic_int4", kInt4}}) {
    for (int i = 0; i <= static_cast<int>(QuantClass::kSmall); ++i) {
      const std::vector<WeightToQuantize> weight = {{"w", static_cast<QuantClass>(i)}};
      const bool small = weight[0].quant_class == QuantClass::kSmall;
      EXPECT_THAT(SpecsOf(RecipeFromName(name)->Resolve(weight)), ElementsAre(small ? kF32 : spec))
          << name << ", " << NameOf(weight[0].quant_class);
    }
  }
}

TEST(RecipeTest, SpellingsOfOtherToolsMeanTheSameRecipe) {
  for (const auto& [alias, name] : {std::pair("dynamic_wi4_afp32", "dynamic_int4"),
                                    {"int4", "dynamic_int4"},
                                    {"q4", "dynamic_int4"},
                                    {"dynamic_wi8_afp32", "dynamic_int8"},
                                    {"int8", "dynamic_int8"},
                                    {"q8", "dynamic_int8"},
                                    {"dynamic_wi4_b32_afp32", "dynamic_int4_block32"},
                                    {"dynamic_wi4b32_afp32", "dynamic_int4_block32"},
                                    {"dynamic_wi4b64_afp32", "dynamic_int4_block64"},
                                    {"dynamic_wi4b128_afp32", "dynamic_int4_block128"},
                                    {"int4_block64", "dynamic_int4_block64"},
                                    {"dynamic_wi4_b128_afp32", "dynamic_int4_block128"}}) {
    EXPECT_EQ(RecipeFromName(alias)->name, name);
  }
  EXPECT_THAT(RecipeNames(), ElementsAre("f32", "f16", "dynamic_int8", "dynamic_int8_two_terms", "dynamic_int4", "dynamic_int4_block32",
                                         "dynamic_int4_block64", "dynamic_int4_block128"));
}

TEST(RecipeTest, NamesOfOthersComeWithWhatTheyWereTakenFor) {
  EXPECT_EQ(RecipeFromName("q4")->note,
            "q4 is dynamic_int4: int4, one scale per row of each matrix and table, inputs rounded to int8 as they come");
  EXPECT_THAT(RecipeFromName("dynamic_wi4b32_afp32")->note, HasSubstr("one scale per 32 columns of a matrix, tables one per row"));
  for (const std::string_view name : RecipeNames()) EXPECT_EQ(RecipeFromName(name)->note, "") << name;
}

TEST(RecipeTest, ClassesHaveNamesAndShortNames) {
  for (int i = 0; i <= static_cast<int>(QuantClass::kSmall); ++i) {
    EXPECT_EQ(QuantClassFromName(NameOf(static_cast<QuantClass>(i))), static_cast<QuantClass>(i));
  }
  EXPECT_EQ(QuantClassFromName("ffn"), QuantClass::kFeedForward);
  EXPECT_EQ(QuantClassFromName("ple"), QuantClass::kPerLayerEmbedding);
  EXPECT_EQ(QuantClassFromName("heads"), std::nullopt);
  EXPECT_EQ(QuantClassFromName(""), std::nullopt);
}

TEST(RecipeTest, AnUnknownNameIsRefusedWithTheNearestKnownOne) {
  const Result<Recipe> recipe = RecipeFromName("dynamic_in4");
  ASSERT_FALSE(recipe.has_value());
  EXPECT_EQ(recipe.error().code, ErrorCode::kRecipeSyntax);
  EXPECT_THAT(recipe.error().message, HasSubstr("did you mean dynamic_int4?"));
  const Result<Recipe> strange = RecipeFromName("zzzzzzzzzzzz");
  ASSERT_FALSE(strange.has_value());
  EXPECT_THAT(strange.error().message, Not(HasSubstr("did you mean")));
  EXPECT_THAT(strange.error().message, HasSubstr("; known: f32, f16, dynamic_int8, dynamic_int8_two_terms, dynamic_int4"));
  EXPECT_FALSE(RecipeFromName("").has_value());
}

TEST(RecipeTest, TheLastMatchingRuleWins) {
  const Recipe recipe = MakeRecipe("dynamic_int4", {"mlp=int8", R"(layers\.1\.mlp=f16)"});
  EXPECT_THAT(SpecsOf(recipe.Resolve(Weights())), ElementsAre(kInt4, kF32, kInt4, kInt8, kF16, kF32));
  const Recipe turned = MakeRecipe("dynamic_int4", {R"(layers\.1\.mlp=f16)", "mlp=int8"});
  EXPECT_THAT(SpecsOf(turned.Resolve(Weights())), ElementsAre(kInt4, kF32, kInt4, kInt8, kInt8, kF32));
}

TEST(RecipeTest, PatternsAreFoundAnywhereUnlessTied) {
  EXPECT_THAT(SpecsOf(MakeRecipe("f16", {"v_proj=int8"}).Resolve(Weights())), ElementsAre(kF16, kF32, kInt8, kF16, kF16, kF32));
  EXPECT_EQ(MakeRecipe("f16", {"^v_proj=int8"}).Resolve(Weights()).error().code, ErrorCode::kRecipeUnmatched);
  EXPECT_TRUE(MakeRecipe("f16", {R"(^model\..*v_proj\.weight$=int8)"}).Resolve(Weights()).has_value());
}

TEST(RecipeTest, APatternMayHoldAnEqualsSign) {
  const Recipe recipe = MakeRecipe("f16", {"a=b=int8"});
  EXPECT_EQ(recipe.rules.back().pattern, "a=b");
}

TEST(RecipeTest, SmallWeightsStayFloatWhenAPatternSweepsOverThem) {
  const Recipe recipe = MakeRecipe("dynamic_int4", {R"(layers\.0\.=int8)"});
  EXPECT_THAT(SpecsOf(recipe.Resolve(Weights())), ElementsAre(kInt4, kF32, kInt8, kInt8, kInt4, kF32));
}

TEST(RecipeTest, APatternForSmallWeightsOnlyIsRefusedUnlessItAsksForF32) {
  const Result<std::vector<ResolvedWeight>> specs = MakeRecipe("dynamic_int4", {"norm=int8"}).Resolve(Weights());
  ASSERT_FALSE(specs.has_value());
  EXPECT_EQ(specs.error().code, ErrorCode::kRecipeUnmatched);
  EXPECT_THAT(specs.error().message, HasSubstr("pattern \"norm\" (int8) matches 2 weights, all of them norms"));
  EXPECT_TRUE(MakeRecipe("dynamic_int4", {"norm=f32"}).Resolve(Weights()).has_value());
}

TEST(RecipeTest, RulesMaySelectByClassOrByClassAndPattern) {
  const Recipe recipe{.name = "mixed",
                      .rules = {{.pattern = "", .classes = {QuantClass::kEmbedding, QuantClass::kFeedForward}, .spec = kInt8},
                                {.pattern = "layers\\.1", .classes = {QuantClass::kFeedForward, QuantClass::kHead}, .spec = kInt4}}};
  EXPECT_THAT(SpecsOf(recipe.Resolve(Weights())), ElementsAre(kInt8, kF32, kF32, kInt8, kInt4, kF32));
}

TEST(RecipeTest, APatternThatMatchesNothingIsRefused) {
  const Result<std::vector<ResolvedWeight>> specs = MakeRecipe("dynamic_int4", {"dwon_proj=int8"}).Resolve(Weights());
  ASSERT_FALSE(specs.has_value());
  EXPECT_EQ(specs.error().code, ErrorCode::kRecipeUnmatched);
  EXPECT_THAT(specs.error().message, HasSubstr("dwon_proj"));
  EXPECT_THAT(specs.error().message, HasSubstr("model.language_model.embed_tokens.weight"));
}

TEST(RecipeTest, BrokenTensorTypeRulesAreRefused) {
  struct Lie {
    std::string_view rule;
    std::string_view message;
  };
  for (const Lie& lie :
       {Lie{"", "not REGEX=TYPE"}, Lie{"down_proj", "not REGEX=TYPE"}, Lie{"=int8", "not REGEX=TYPE"},
        Lie{"down_proj=", "unknown type \"\""}, Lie{"down_proj=int5", "did you mean int8?"}, Lie{"down_proj=int44", "did you mean int4?"},
        Lie{"embed=int2", "int2 is not written"}, Lie{"(down_proj=int8", "missing )"}, Lie{"*a=int8", "no argument"},
        Lie{"[z-a]=int8", "character class range"}, Lie{"(a)\\1=int8", "escape"}, Lie{"(?=a)x=int8", "(?="}}) {
    Recipe recipe = MakeRecipe("dynamic_int4");
    const Status added = AddTensorTypeRule(recipe, lie.rule);
    ASSERT_FALSE(added.has_value()) << lie.rule;
    EXPECT_EQ(added.error().code, ErrorCode::kRecipeSyntax) << lie.rule;
    EXPECT_THAT(added.error().message, HasSubstr(lie.message)) << lie.rule;
    EXPECT_EQ(recipe.rules.size(), 1U) << lie.rule;
  }
}

TEST(RecipeTest, ABrokenPatternInARecipeIsRefusedByResolve) {
  const Recipe recipe{.name = "r", .rules = {{.pattern = "(", .classes = {}, .spec = kInt4}}};
  EXPECT_EQ(recipe.Resolve(Weights()).error().code, ErrorCode::kRecipeSyntax);
}

TEST(RecipeTest, HostilePatternsAreQuickOrRefused) {
  const std::vector<WeightToQuantize> weights = {{std::string(20000, 'a'), QuantClass::kHead}};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(MakeRecipe("f16", {"(a*)*(a*)*(a*)*b=int8"}).Resolve(weights).error().code, ErrorCode::kRecipeUnmatched);
  Recipe recipe = MakeRecipe("f16");
  EXPECT_EQ(AddTensorTypeRule(recipe, "((a{1,1000}){1,1000}){1,1000}=int8").error().code, ErrorCode::kRecipeSyntax);
  EXPECT_EQ(AddTensorTypeRule(recipe, std::string(100000, '(') + "=int8").error().code, ErrorCode::kRecipeSyntax);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(RecipeTest, TheRecipeAndItsResolutionPrintOneLineEach) {
  Recipe recipe = MakeRecipe("dynamic_int4", {R"(layers\.1\.=f16)"});
  recipe.rules.push_back({.pattern = "embed", .classes = {QuantClass::kEmbedding, QuantClass::kPerLayerEmbedding}, .spec = kInt8});
  EXPECT_EQ(FormatRecipe(recipe),
            "recipe dynamic_int4, scales by absmax\n"
            "  int4          *\n"
            "  f16           \"layers\\.1\\.\"\n"
            "  int8          embedding,per_layer_embedding \"embed\"\n");
  const std::vector<WeightToQuantize> weights = Weights();
  EXPECT_EQ(ResolvedRecipeText(std::span(weights).first(2), recipe.Resolve(weights).value()),
            "int8 absmax embedding           model.language_model.embed_tokens.weight\n"
            "f32  -      small               model.language_model.layers.0.input_layernorm.weight\n");
}

TEST(RecipeTest, TheMethodIsThatOfAllIntegerWeightsAndPrinted) {
  Recipe recipe = MakeRecipe("dynamic_int4", {"v_proj=f16", "layers\\.0\\.mlp=int8"});
  recipe.method = QuantMethod::kClip;
  const std::vector<WeightToQuantize> weights = Weights();
  const std::vector<ResolvedWeight> resolved = recipe.Resolve(weights).value();
  for (const ResolvedWeight& weight : resolved) {
    EXPECT_EQ(weight.spec.method, weight.spec.is_quantized() ? QuantMethod::kClip : QuantMethod::kAbsmax);
  }
  EXPECT_THAT(ResolvedRecipeText(weights, resolved), HasSubstr("int4 clip   embedding"));
  EXPECT_THAT(FormatRecipe(recipe), HasSubstr("scales by clip"));
}

TEST(RecipeTest, BlockRecipesKeepTablesAndOddMatricesPerRowAndSayWhy) {
  const std::vector<WeightToQuantize> weights = {{"embed", QuantClass::kEmbedding, 64},
                                                 {"ple", QuantClass::kPerLayerEmbedding, 64},
                                                 {"head", QuantClass::kHead, 64},
                                                 {"odd", QuantClass::kAttention, 96},
                                                 {"norm", QuantClass::kSmall, 5}};
  const std::vector<ResolvedWeight> resolved = MakeRecipe("dynamic_int4_block64").Resolve(weights).value();
  EXPECT_THAT(SpecsOf(resolved), ElementsAre(kInt4, kInt4, QuantSpec{.type = DType::kI4, .block_size = 64}, kInt4, kF32));
  const std::string text = ResolvedRecipeText(weights, resolved);
  EXPECT_THAT(text, HasSubstr("int4_block64 absmax head                head\n"));
  EXPECT_THAT(text, HasSubstr("odd (rows of 96 columns are not whole blocks of 64)\n"));
  EXPECT_THAT(text, HasSubstr("embed (tables are looked up by row"));
}

TEST(RecipeTest, TwoTermsAreForMatricesOfIntegers) {
  constexpr QuantSpec kTwoTerms{.type = DType::kI8, .two_terms = true};
  EXPECT_THAT(SpecsOf(MakeRecipe("dynamic_int8_two_terms").Resolve(Weights())),
              ElementsAre(kInt8, kF32, kTwoTerms, kTwoTerms, kTwoTerms, kF32));
  EXPECT_THAT(SpecsOf(MakeRecipe("dynamic_int8", {"down_proj=int8_two_terms"}).Resolve(Weights())),
              ElementsAre(kInt8, kF32, kInt8, kTwoTerms, kTwoTerms, kF32));
  for (const std::string_view name : {"int8_two_terms", "int4_two_terms", "int4_block64_two_terms"}) {
    const std::optional<QuantSpec> spec = QuantSpecFromName(name);
    ASSERT_TRUE(spec.has_value()) << name;
    EXPECT_TRUE(spec->two_terms);
    EXPECT_EQ(NameOf(*spec), name);
  }
  for (const std::string_view name : {"f32_two_terms", "f16_two_terms", "_two_terms", "int8_two_terms_two_terms"}) {
    EXPECT_EQ(QuantSpecFromName(name), std::nullopt) << name;
  }
  const Result<std::vector<ResolvedWeight>> table = MakeRecipe("f32", {"embed=int8_two_terms"}).Resolve(Weights());
  ASSERT_FALSE(table.has_value());
  EXPECT_EQ(table.error().code, ErrorCode::kQuantShape);
  EXPECT_THAT(table.error().message, HasSubstr("embed_tokens.weight\" cannot be int8_two_terms: tables are looked up"));
}

TEST(RecipeTest, ARequestForBlocksThatCannotBeIsRefused) {
  const std::vector<WeightToQuantize> weights = {{"embed", QuantClass::kEmbedding, 64}, {"odd", QuantClass::kAttention, 96}};
  for (const auto& [rule, message] : {std::pair("odd=int4_block64", "\"odd\" cannot be int4_block64: rows of 96 columns"),
                                      std::pair("embed=int4_block32", "tables are looked up by row")}) {
    const Result<std::vector<ResolvedWeight>> resolved = MakeRecipe("dynamic_int4", {rule}).Resolve(weights);
    ASSERT_FALSE(resolved.has_value()) << rule;
    EXPECT_EQ(resolved.error().code, ErrorCode::kQuantShape);
    EXPECT_THAT(resolved.error().message, HasSubstr(message));
  }
  EXPECT_TRUE(MakeRecipe("dynamic_int4", {"odd=int4_block32"}).Resolve(weights).has_value());
}

}  // namespace
}  // namespace taskpress
