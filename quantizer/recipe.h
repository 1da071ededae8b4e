// A recipe says how each weight is stored: ordered rules, the last match wins, nothing is silent.
#ifndef TASKPRESS_QUANTIZER_RECIPE_H_
#define TASKPRESS_QUANTIZER_RECIPE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantizer/quant_spec.h"
#include "schema/base/error.h"

namespace taskpress {

// What a weight is used for; the weight table gives every weight one. Rules may name a class instead of a pattern.
enum class QuantClass : uint8_t {
  kAttention,          // q, k, v, o projections
  kFeedForward,        // gate, up, down projections
  kLaurel,             // low-rank pair
  kAltup,              // altup (un)embed projections [hidden, hidden]
  kPerLayer,           // per-layer-embedding gate and projection, and the model projection
  kHead,               // logits
  kEmbedding,          // token embedding table
  kPerLayerEmbedding,  // per-layer embedding tables
  kSmall,              // norms, routers, coefficients: always f32
};
std::string_view NameOf(QuantClass quant_class);
// NameOf's names, and ffn, mlp, attn, ple, norms.
std::optional<QuantClass> QuantClassFromName(std::string_view name);
// All of NameOf's, "attention, feed_forward, ..."
std::string QuantClassNames();

// A rule matches a weight that passes all tests; a test left empty passes everything.
struct RecipeRule {
  // RE2 syntax, found anywhere in the weight name as in llama-quantize's --tensor-type; ^ and $ tie it to the ends.
  std::string pattern;
  std::vector<QuantClass> classes;
  QuantSpec spec;
  // Of a named recipe: a weight that blocks do not fit is stored as int4 per row, and its note says so. Otherwise that is an error.
  bool yields = false;
  std::vector<std::string> names = {};     // whole names; each must be one of a weight
  std::optional<QuantMethod> method = {};  // instead of the recipe's
  bool optional = false;                   // may match nothing: of a recipe that serves several families
  std::string where = {};                  // "mixed.toml:12", in front of messages about the rule
};

struct WeightToQuantize {
  std::string name;
  QuantClass quant_class = QuantClass::kSmall;
  int64_t columns = 0;  // of its rows; 0: not known, nothing is checked
};

struct ResolvedWeight {
  QuantSpec spec;
  std::string note;  // why it is not what the recipe's name says, or empty
  bool operator==(const ResolvedWeight&) const = default;
};

struct Recipe {
  std::string name;  // "dynamic_int4"
  std::vector<RecipeRule> rules;
  QuantMethod method = QuantMethod::kAbsmax;  // of weights that are stored as integers, where a rule does not name another
  std::string note = {};                      // what a name that tools understand in different ways was taken for, or empty

  // One per weight, in order; f32 for a weight that no rule matches. kSmall weights are f32 whatever the rules say.
  // kQuantShape for a rule that does not yield and asks for blocks of a table or of rows that are not whole blocks.
  // kRecipeUnmatched for a rule that matches no weight and is not optional, or asks for another type than f32 and matches kSmall weights
  // only, and for names that are no weight's.
  // kRecipeSyntax for a broken pattern.
  [[nodiscard]] Result<std::vector<ResolvedWeight>> Resolve(std::span<const WeightToQuantize> weights) const;
};

// f32, f16, dynamic_int8, dynamic_int8_two_terms, dynamic_int4, dynamic_int4_block32, 64, 128 and the spellings users know
// (dynamic_wi4_afp32, dynamic_wi8_afp32, dynamic_wi4b32_afp32, int4, q4, int8, q8). In block recipes tables stay int4 per row, as clients
// look them up. Names of others come with a note of what they were taken for.
Result<Recipe> RecipeFromName(std::string_view name);
std::vector<std::string_view> RecipeNames();
// A type that rules may name. kRecipeSyntax with what is near and what is known.
Result<QuantSpec> RuleTypeFromName(std::string_view type);
// "REGEX=TYPE" of --tensor-type, appended as the last (winning) rule; the last '=' separates. kRecipeSyntax.
Status AddTensorTypeRule(Recipe& recipe, std::string_view rule);

// The rules, one a line.
[[nodiscard]] std::string FormatRecipe(const Recipe& recipe);
// What Resolve decided, one weight a line in the order given: type, method ("-" for floats), class, name, note. Stored in bundles and
// printed.
[[nodiscard]] std::string ResolvedRecipeText(std::span<const WeightToQuantize> weights, std::span<const ResolvedWeight> resolved);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_RECIPE_H_
