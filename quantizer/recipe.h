// A recipe says how each weight is stored: ordered rules, the last match wins, nothing is silent.
#ifndef TASKPRESS_QUANTIZER_RECIPE_H_
#define TASKPRESS_QUANTIZER_RECIPE_H_

#include <cstdint>
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

struct RecipeRule {
  std::string pattern;              // regular expression over the whole weight name; empty: match by class
  std::vector<QuantClass> classes;  // empty with an empty pattern: matches everything but kSmall
  QuantSpec spec;
};

struct WeightToQuantize {
  std::string name;
  QuantClass quant_class = QuantClass::kSmall;
};

struct Recipe {
  std::string name;  // "dynamic_int4"
  std::vector<RecipeRule> rules;

  // One spec per weight, in order. kSmall weights are f32 whatever the rules say, unless a pattern names them: then an error.
  // kRecipeUnmatched for a pattern that matches no weight; kRecipeSyntax for a broken pattern.
  [[nodiscard]] Result<std::vector<QuantSpec>> Resolve(std::span<const WeightToQuantize> weights) const;
};

// f32, f16, dynamic_int8, dynamic_int4 and the spellings users know (dynamic_wi4_afp32, dynamic_wi8_afp32, int4, q4, int8, q8).
Result<Recipe> RecipeFromName(std::string_view name);
std::vector<std::string_view> RecipeNames();
// "REGEX=TYPE" of --tensor-type, appended as the last (winning) rule. kRecipeSyntax.
Status AddTensorTypeRule(Recipe& recipe, std::string_view rule);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_RECIPE_H_
