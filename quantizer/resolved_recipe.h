// What a recipe came to for one model, as bundles keep it ("taskpress.recipe", see ResolvedRecipeText): read back and summed up.
#ifndef TASKPRESS_QUANTIZER_RESOLVED_RECIPE_H_
#define TASKPRESS_QUANTIZER_RESOLVED_RECIPE_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantizer/recipe.h"
#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

struct RecipeLine {
  std::string type;
  std::string method;  // "-" for floats
  std::string quant_class;
  std::string name;
  std::string note;  // or empty
  bool operator==(const RecipeLine&) const = default;
};

// kMetadataMalformed naming the first line that is none of ResolvedRecipeText's.
Result<std::vector<RecipeLine>> ParseResolvedRecipe(std::string_view text);
// Lines alike are one: type, method, class and how many weights; up to three are named. In the order of the classes in QuantClass, the
// frequent types of a class first.
[[nodiscard]] std::string RecipeSummary(std::span<const RecipeLine> lines);
// One that gives the same weights the same types again, by their names. kMetadataMalformed for types and methods that are not known.
Result<Recipe> RecipeFromLines(const std::string& name, std::span<const RecipeLine> lines);
[[nodiscard]] OrderedJson RecipeJson(std::span<const RecipeLine> lines);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_RESOLVED_RECIPE_H_
