// Recipes as TOML files, for people to write and for programs to keep:
//
//   base = "dynamic_int4"        # a named recipe that the rules change; f32 without
//   method = "clip"              # of what is stored as integers; absmax without
//
//   [[rule]]                     # in order, the last match wins
//   class = ["ffn", "laurel"]    # QuantClassFromName; one or several
//   weights = "layers\\.[0-3]\\." # a pattern, found anywhere in the weight's name
//   names = ["lm_head.weight"]   # whole names, each of which must exist
//   type = "int4_block32"        # QuantSpecFromName
//   method = "gptq"              # instead of the recipe's
//   if_possible = true           # int4 per row where blocks do not fit, one term in tables; without: an error
//   optional = true              # may match nothing; without: an error
//
// A rule needs type and one of class, weights and names; weights that pass all of what is given take it.
#ifndef TASKPRESS_QUANTIZER_RECIPE_FILE_H_
#define TASKPRESS_QUANTIZER_RECIPE_FILE_H_

#include <string>
#include <string_view>

#include "quantizer/recipe.h"
#include "schema/base/error.h"

namespace taskpress {

// A recipe is written by hand: what is larger is something else.
inline constexpr size_t kMaxRecipeFileBytes = 4 << 20;

// `file` is its name, for messages, which begin "file:line: ". kRecipeSyntax for text that is no TOML, unknown keys, classes, types and
// methods, values of another type, rules that say too little, broken patterns. What depends on the model's weights is found by Resolve().
Result<Recipe> ParseRecipeFile(std::string_view text, const std::string& file);
// A file that means the same.
[[nodiscard]] std::string FormatRecipeFile(const Recipe& recipe);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_RECIPE_FILE_H_
