#include "quantizer/recipe.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <utility>

namespace taskpress {
namespace {

constexpr std::array<std::string_view, 9> kClassNames = {"attention", "feed_forward",        "laurel", "altup", "per_layer", "head",
                                                         "embedding", "per_layer_embedding", "small"};

struct NamedRecipe {
  std::string_view name;
  QuantSpec spec;
  std::array<std::string_view, 3> aliases;  // AEQ's spelling, then those of other tools
};
// Every class the same type: the sensitive ones are promoted by rules (--tensor-type) until there is evidence for a better default.
constexpr auto kRecipes = std::to_array<NamedRecipe>({
    {"f32", {.type = DType::kF32}, {"float32", "fp32"}},
    {"f16", {.type = DType::kF16}, {"float16", "fp16"}},
    {"dynamic_int8", {.type = DType::kI8}, {"dynamic_wi8_afp32", "int8", "q8"}},
    {"dynamic_int4", {.type = DType::kI4}, {"dynamic_wi4_afp32", "int4", "q4"}},
    {"dynamic_int4_block32", {.type = DType::kI4, .block_size = 32}, {"dynamic_wi4_b32_afp32", "int4_block32", "q4_block32"}},
    {"dynamic_int4_block64", {.type = DType::kI4, .block_size = 64}, {"dynamic_wi4_b64_afp32", "int4_block64", "q4_block64"}},
    {"dynamic_int4_block128", {.type = DType::kI4, .block_size = 128}, {"dynamic_wi4_b128_afp32", "int4_block128", "q4_block128"}},
});

// Levenshtein distance, one row of the table at a time.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({row[j] + 1, row[j + 1] + 1, replaced}));
    }
  }
  return row[b.size()];
}

// " (did you mean dynamic_int4?)" when something is near, else nothing.
std::string Suggestion(std::string_view unknown, std::span<const std::string_view> known) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, unknown.size() / 3) + 1;
  for (const std::string_view name : known) {
    const size_t distance = EditDistance(unknown.substr(0, 64), name);
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best.empty() ? std::string() : Format(" (did you mean {}?)", best);
}

Result<std::unique_ptr<RE2>> Compile(const std::string& pattern) {
  auto regex = std::make_unique<RE2>(pattern, RE2::Quiet);
  if (!regex->ok()) return Fail(ErrorCode::kRecipeSyntax, "pattern \"{}\": {}", pattern, regex->error());
  return regex;
}

struct CompiledRule {
  const RecipeRule* rule;
  std::unique_ptr<RE2> regex;  // null without a pattern
  size_t matches = 0;
  size_t small_matches = 0;

  [[nodiscard]] bool Matches(const WeightToQuantize& weight) const {
    const bool class_fits = rule->classes.empty() || std::ranges::contains(rule->classes, weight.quant_class);
    return class_fits && (regex == nullptr || RE2::PartialMatch(weight.name, *regex));
  }
};

Result<std::vector<CompiledRule>> CompileRules(std::span<const RecipeRule> rules) {
  std::vector<CompiledRule> compiled;
  for (const RecipeRule& rule : rules) {
    compiled.push_back({.rule = &rule, .regex = nullptr});
    if (!rule.pattern.empty()) compiled.back().regex = TRY(Compile(rule.pattern));
  }
  return compiled;
}

// A pattern that has no effect is a typing error more often than not.
Status CheckEffect(const CompiledRule& compiled, std::span<const WeightToQuantize> weights) {
  const RecipeRule& rule = *compiled.rule;
  if (rule.pattern.empty()) return {};
  if (compiled.matches == 0) {
    return Fail(ErrorCode::kRecipeUnmatched, "pattern \"{}\" ({}) matches none of {} weights{}", rule.pattern, NameOf(rule.spec),
                weights.size(), weights.empty() ? std::string() : Format("; their names look like {}", weights.front().name));
  }
  if (compiled.small_matches == compiled.matches && rule.spec.type != DType::kF32) {
    return Fail(ErrorCode::kRecipeUnmatched,
                "pattern \"{}\" ({}) matches {} weights, all of them norms, routers or coefficients, which are always stored as f32",
                rule.pattern, NameOf(rule.spec), compiled.matches);
  }
  return {};
}

// Why a weight cannot be stored in blocks, or empty.
std::string NoBlocks(const WeightToQuantize& weight, const QuantSpec& spec) {
  if (spec.block_size == 0) return "";
  if (weight.quant_class == QuantClass::kEmbedding || weight.quant_class == QuantClass::kPerLayerEmbedding) {
    return "tables are looked up by row, in blocks only by the newest clients";
  }
  if (weight.columns % spec.block_size == 0) return "";
  return Format("rows of {} columns are not whole blocks of {}", weight.columns, spec.block_size);
}

// What a rule makes of a weight.
Result<ResolvedWeight> Apply(const RecipeRule& rule, QuantMethod method, const WeightToQuantize& weight) {
  ResolvedWeight resolved{.spec = rule.spec, .note = NoBlocks(weight, rule.spec)};
  if (resolved.spec.is_quantized()) resolved.spec.method = method;
  if (resolved.note.empty()) return resolved;
  if (!rule.yields) {
    return Fail(ErrorCode::kQuantShape, "\"{}\" cannot be {}: {}; int4 stores it per row", weight.name, NameOf(rule.spec), resolved.note);
  }
  resolved.spec.block_size = 0;
  return resolved;
}

std::string RuleText(const RecipeRule& rule) {
  std::string text;
  for (const QuantClass quant_class : rule.classes) {
    text += text.empty() ? "" : ",";
    text += NameOf(quant_class);
  }
  if (!rule.pattern.empty()) text += Format("{}\"{}\"", text.empty() ? "" : " ", rule.pattern);
  return text.empty() ? "*" : text;
}

}  // namespace

std::string_view NameOf(QuantClass quant_class) { return kClassNames[std::to_underlying(quant_class)]; }

Result<std::vector<ResolvedWeight>> Recipe::Resolve(std::span<const WeightToQuantize> weights) const {
  std::vector<CompiledRule> compiled = TRY(CompileRules(rules));
  std::vector<ResolvedWeight> resolved;
  resolved.reserve(weights.size());
  for (const WeightToQuantize& weight : weights) {
    const bool small = weight.quant_class == QuantClass::kSmall;
    const RecipeRule* last = nullptr;
    for (CompiledRule& candidate : compiled) {
      if (!candidate.Matches(weight)) continue;
      ++candidate.matches;
      candidate.small_matches += small ? 1 : 0;
      last = candidate.rule;
    }
    if (last == nullptr || small) {
      resolved.push_back({.spec = {.type = DType::kF32}, .note = ""});
    } else {
      resolved.push_back(TRY(Apply(*last, method, weight)));
    }
  }
  for (const CompiledRule& rule : compiled) TRY(CheckEffect(rule, weights));
  return resolved;
}

Result<Recipe> RecipeFromName(std::string_view name) {
  std::vector<std::string_view> known;
  std::string names;
  for (const NamedRecipe& recipe : kRecipes) {
    if (recipe.name == name || (!name.empty() && std::ranges::contains(recipe.aliases, name))) {
      return Recipe{.name = std::string(recipe.name), .rules = {{.pattern = "", .classes = {}, .spec = recipe.spec, .yields = true}}};
    }
    known.push_back(recipe.name);
    names += (names.empty() ? "" : ", ") + std::string(recipe.name);
    std::ranges::copy_if(recipe.aliases, std::back_inserter(known), [](std::string_view alias) { return !alias.empty(); });
  }
  return Fail(ErrorCode::kRecipeSyntax, "unknown recipe \"{}\"{}; known: {}", name, Suggestion(name, known), names);
}

std::vector<std::string_view> RecipeNames() {
  std::vector<std::string_view> names;
  for (const NamedRecipe& recipe : kRecipes) names.push_back(recipe.name);
  return names;
}

Status AddTensorTypeRule(Recipe& recipe, std::string_view rule) {
  const size_t equals = rule.rfind('=');
  if (equals == std::string_view::npos || equals == 0) {
    return Fail(ErrorCode::kRecipeSyntax, "tensor type rule \"{}\" is not REGEX=TYPE, for example 'down_proj=int8'", rule);
  }
  const std::string_view type = rule.substr(equals + 1);
  const std::optional<QuantSpec> spec = QuantSpecFromName(type);
  if (!spec) {
    constexpr std::array<std::string_view, 7> kTypes = {"f32", "f16", "int8", "int4", "int4_block32", "int4_block64", "int4_block128"};
    return Fail(ErrorCode::kRecipeSyntax, "tensor type rule \"{}\": unknown type \"{}\"{}; known: {}", rule, type, Suggestion(type, kTypes),
                QuantSpecNames());
  }
  std::string pattern(rule.substr(0, equals));
  TRY(Compile(pattern));
  recipe.rules.push_back({.pattern = std::move(pattern), .classes = {}, .spec = *spec});
  return {};
}

std::string FormatRecipe(const Recipe& recipe) {
  std::string text = Format("recipe {}, scales by {}\n", recipe.name, NameOf(recipe.method));
  for (const RecipeRule& rule : recipe.rules) text += Format("  {:<13} {}\n", NameOf(rule.spec), RuleText(rule));
  return text;
}

std::string ResolvedRecipeText(std::span<const WeightToQuantize> weights, std::span<const ResolvedWeight> resolved) {
  size_t width = 0;
  for (const ResolvedWeight& weight : resolved) width = std::max(width, NameOf(weight.spec).size());
  std::string text;
  for (size_t i = 0; i < std::min(weights.size(), resolved.size()); ++i) {
    const auto& [spec, note] = resolved[i];
    text += Format("{:<{}} {:<6} {:<19} {}{}\n", NameOf(spec), width, spec.is_quantized() ? NameOf(spec.method) : "-",
                   NameOf(weights[i].quant_class), weights[i].name, note.empty() ? "" : Format(" ({})", note));
  }
  return text;
}

}  // namespace taskpress
