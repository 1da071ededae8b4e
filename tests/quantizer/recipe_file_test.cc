#include "quantizer/recipe_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace taskpress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr QuantSpec kF32{.type = DType::kF32};
constexpr QuantSpec kF16{.type = DType::kF16};
constexpr QuantSpec kInt8{.type = DType::kI8};
constexpr QuantSpec kInt4{.type = DType::kI4};
constexpr QuantSpec kBlock32{.type = DType::kI4, .block_size = 32};

QuantSpec With(QuantSpec spec, QuantMethod method) {
  spec.method = method;
  return spec;
}

std::vector<WeightToQuantize> Weights() {
  return {{"embed_tokens.weight", QuantClass::kEmbedding, 64},
          {"layers.0.self_attn.v_proj.weight", QuantClass::kAttention, 64},
          {"layers.0.mlp.down_proj.weight", QuantClass::kFeedForward, 48},
          {"layers.1.mlp.down_proj.weight", QuantClass::kFeedForward, 64},
          {"lm_head.weight", QuantClass::kHead, 64},
          {"norm.weight", QuantClass::kSmall, 64}};
}

std::vector<QuantSpec> Specs(const Result<Recipe>& recipe) {
  EXPECT_TRUE(recipe.has_value()) << recipe.error().message;
  const Result<std::vector<ResolvedWeight>> resolved = recipe->Resolve(Weights());
  EXPECT_TRUE(resolved.has_value()) << resolved.error().message;
  std::vector<QuantSpec> specs;
  for (const ResolvedWeight& weight : *resolved) specs.push_back(weight.spec);
  return specs;
}

TEST(RecipeFileTest, RulesChangeABaseInTheirOrder) {
  const Result<Recipe> recipe = ParseRecipeFile(R"(
# comments are free
base = "dynamic_int4"
method = "clip"

[[rule]]
class = ["ffn", "head"]
type = "int8"

[[rule]]
weights = '^layers\.1\.'
type = "int4_block32"
method = "absmax"

[[rule]]
names = ["lm_head.weight"]
type = "f16"
)",
                                                "mixed.toml");
  EXPECT_THAT(Specs(recipe), ElementsAre(With(kInt4, QuantMethod::kClip), With(kInt4, QuantMethod::kClip), With(kInt8, QuantMethod::kClip),
                                         With(kBlock32, QuantMethod::kAbsmax), kF16, kF32));
  EXPECT_EQ(recipe->name, "mixed.toml");
}

TEST(RecipeFileTest, WithoutABaseWeightsThatNoRuleNamesAreFloats) {
  EXPECT_THAT(Specs(ParseRecipeFile("[[rule]]\nclass = 'attention'\ntype = 'int8'\n", "a.toml")),
              ElementsAre(kF32, kInt8, kF32, kF32, kF32, kF32));
}

TEST(RecipeFileTest, ATestOfEachKindMustPass) {
  EXPECT_THAT(Specs(ParseRecipeFile("[[rule]]\nclass = 'ffn'\nweights = 'layers.1'\ntype = 'int8'\n", "a.toml")),
              ElementsAre(kF32, kF32, kF32, kInt8, kF32, kF32));
}

TEST(RecipeFileTest, BlocksThatDoNotFitAreAnErrorUnlessTheRuleYields) {
  const std::string rule = "[[rule]]\nclass = 'mlp'\ntype = 'int4_block32'\n";
  const Result<std::vector<ResolvedWeight>> refused = ParseRecipeFile(rule, "a.toml")->Resolve(Weights());
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kQuantShape);
  EXPECT_THAT(refused.error().message, StartsWith("a.toml:1: \"layers.0.mlp.down_proj.weight\" cannot be int4_block32"));
  EXPECT_THAT(Specs(ParseRecipeFile(rule + "if_possible = true\n", "a.toml")), ElementsAre(kF32, kF32, kInt4, kBlock32, kF32, kF32));
}

TEST(RecipeFileTest, RulesThatMatchNothingAreRefusedWithTheirLine) {
  struct Lie {
    std::string_view rule;
    std::string_view message;
  };
  for (const Lie& lie : {Lie{"class = 'laurel'", "m.toml:3: class laurel (int8) matches none of 6 weights"},
                         Lie{"class = ['laurel', 'altup']", "m.toml:3: class laurel,altup (int8) matches none"},
                         Lie{"weights = 'dwon_proj'", "m.toml:3: pattern \"dwon_proj\" (int8) matches none"},
                         Lie{"class = 'head'\nweights = 'mlp'", "m.toml:3: class head \"mlp\" (int8) matches none"},
                         Lie{"names = ['lm_head.weight', 'lm_haed.weight']",
                             "m.toml:3: no weight is called \"lm_haed.weight\" (did you mean lm_head.weight?)"},
                         Lie{"class = 'norms'", "m.toml:3: class small (int8) matches 1 weights, all of them norms"}}) {
    const Result<Recipe> recipe = ParseRecipeFile(Format("base = 'int4'\n\n[[rule]]\n{}\ntype = 'int8'\n", lie.rule), "m.toml");
    ASSERT_TRUE(recipe.has_value()) << recipe.error().message;
    const Result<std::vector<ResolvedWeight>> resolved = recipe->Resolve(Weights());
    ASSERT_FALSE(resolved.has_value()) << lie.rule;
    EXPECT_EQ(resolved.error().code, ErrorCode::kRecipeUnmatched);
    EXPECT_THAT(resolved.error().message, StartsWith(lie.message));
  }
}

TEST(RecipeFileTest, OptionalRulesMayMatchNothing) {
  EXPECT_THAT(Specs(ParseRecipeFile("base = 'f16'\n[[rule]]\nclass = 'laurel'\ntype = 'int8'\noptional = true\n", "a.toml")),
              ElementsAre(kF16, kF16, kF16, kF16, kF16, kF32));
}

TEST(RecipeFileTest, AFileOfLiesIsRefusedWithTheLine) {
  struct Lie {
    std::string_view text;
    std::string_view message;
  };
  for (const Lie& lie : {
           Lie{"", "r.toml: neither base nor [[rule]]"},
           Lie{"base = 'dynamic_in4'", "r.toml:1: unknown recipe \"dynamic_in4\" (did you mean dynamic_int4?)"},
           Lie{"\nbase = 4", "r.toml:2: base is a string in quotes"},
           Lie{"base = ''", "r.toml:1: base is empty"},
           Lie{"base = 'int4'\nmehtod = 'clip'",
               "r.toml:2: unknown key \"mehtod\" (did you mean method?); known: name, base, method, rule"},
           Lie{"base = 'int4'\nmethod = 'best'", "r.toml:2: unknown method \"best\"; known: absmax, clip, gptq"},
           Lie{"base = 'int4'\nbase = 'int8'", "r.toml:2: "},
           Lie{"base = \"int4", "r.toml:1: "},
           Lie{"base = 'int4'\n[rule]\ntype = 'int8'", "r.toml:2: rules are tables"},
           Lie{"rule = 'int8'", "r.toml:1: rules are tables"},
           Lie{"rule = ['int8']", "r.toml:1: rules are tables"},
           Lie{"rule = [{type = 'int8', class = 'head'}, 3]", "r.toml:1: rules are tables"},
           Lie{"rule = []", "r.toml:1: rules are tables"},
           Lie{"[[rule]]\nclass = 'head'", "r.toml:1: the rule has no type; known: f32, f16, int8"},
           Lie{"[[rule]]\ntype = 'int8'", "r.toml:1: the rule matches nothing: give it class"},
           Lie{"[[rule]]\nclass = 'head'\ntype = 'int5'", "r.toml:3: unknown type \"int5\" (did you mean int8?)"},
           Lie{"[[rule]]\nclass = 'heads'\ntype = 'int8'", "r.toml:2: unknown class \"heads\"; known: attention, feed_forward"},
           Lie{"[[rule]]\nclass = ['head', 3]\ntype = 'int8'", "r.toml:2: class is a string in quotes, or a list"},
           Lie{"[[rule]]\nclass = []\ntype = 'int8'", "r.toml:2: class is an empty list"},
           Lie{"[[rule]]\nweights = '(a'\ntype = 'int8'", "r.toml:2: pattern \"(a\": missing )"},
           Lie{"[[rule]]\nweights = ['a']\ntype = 'int8'", "r.toml:2: weights is a string"},
           Lie{"[[rule]]\nnames = [['a']]\ntype = 'int8'", "r.toml:2: names is a string"},
           Lie{"[[rule]]\nclass = 'head'\ntype = 'int8'\noptional = 'yes'", "r.toml:4: optional is true or false"},
           Lie{"[[rule]]\nclass = 'head'\ntype = 'int8'\nif_possible = 1", "r.toml:4: if_possible is true or false"},
           Lie{"[[rule]]\nclass = 'head'\ntype = 'int8'\nbits = 4", "r.toml:4: unknown key \"bits\""},
           Lie{"[[rule]]\nclass = 'head'\ntype = 'f16'\nmethod = 'clip'", "r.toml:4: f16 is not rounded"},
           Lie{"[[rule]]\nclass = 'head'\ntype = 'int8'\nmethod = 'rtn'", "r.toml:4: unknown method \"rtn\""},
       }) {
    const Result<Recipe> recipe = ParseRecipeFile(lie.text, "r.toml");
    ASSERT_FALSE(recipe.has_value()) << lie.text;
    EXPECT_EQ(recipe.error().code, ErrorCode::kRecipeSyntax);
    EXPECT_THAT(recipe.error().message, StartsWith(lie.message)) << lie.text;
  }
}

TEST(RecipeFileTest, HostileTextIsRefused) {
  std::string deep = "a = ";
  deep.append(100000, '[');
  for (const std::string& text : {deep, std::string("\xff\xfe"), std::string("a\0b", 3), std::string(kMaxRecipeFileBytes + 1, ' ')}) {
    const Result<Recipe> recipe = ParseRecipeFile(text, "r.toml");
    ASSERT_FALSE(recipe.has_value());
    EXPECT_EQ(recipe.error().code, ErrorCode::kRecipeSyntax);
  }
}

TEST(RecipeFileTest, EveryTruncationIsARecipeOrAnErrorWithALine) {
  const std::string text = "base = 'int4'\n[[rule]]\nclass = ['head']\nweights = 'h\\.w'\nnames = ['a', 'b']\ntype = 'int8'\n";
  for (size_t size = 0; size < text.size(); ++size) {
    const Result<Recipe> recipe = ParseRecipeFile(std::string_view(text).substr(0, size), "r.toml");
    if (!recipe) {
      EXPECT_THAT(recipe.error().message, StartsWith("r.toml:"));
    }
  }
}

TEST(RecipeFileTest, ARecipeWrittenAndReadIsTheSame) {
  Recipe recipe{.name = "it's \"mine\"\n", .rules = RecipeFromName("dynamic_int4_block32")->rules, .method = QuantMethod::kClip};
  recipe.rules.push_back({.pattern = R"(^layers\.1\.)", .classes = {QuantClass::kFeedForward, QuantClass::kHead}, .spec = kInt8});
  recipe.rules.push_back({.pattern = "it's \\.|\x01.", .classes = {}, .spec = kF16, .optional = true});
  recipe.rules.push_back({.pattern = "", .classes = {}, .spec = kBlock32, .names = {"lm_head.weight"}, .method = QuantMethod::kAbsmax});
  const std::string text = FormatRecipeFile(recipe);
  const Result<Recipe> again = ParseRecipeFile(text, "again.toml");
  ASSERT_TRUE(again.has_value()) << again.error().message << "\n" << text;
  EXPECT_EQ(FormatRecipeFile(*again), text);
  EXPECT_EQ(again->name, recipe.name);
  EXPECT_EQ(Specs(again), Specs(recipe));
  EXPECT_EQ(again->rules[2].pattern, recipe.rules[2].pattern);
}

}  // namespace
}  // namespace taskpress
