#include "quantizer/recipe.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "quantizer/suggestion.h"

namespace taskpress {
namespace {

constexpr std::array<std::string_view, 9> kClassNames = {"attention", "feed_forward",        "laurel", "altup", "per_layer", "head",
                                                         "embedding", "per_layer_embedding", "small"};

struct ClassAlias {
  std::string_view name;
  QuantClass quant_class;
};
constexpr auto kClassAliases = std::to_array<ClassAlias>({{"attn", QuantClass::kAttention},
                                                          {"ffn", QuantClass::kFeedForward},
                                                          {"mlp", QuantClass::kFeedForward},
                                                          {"ple", QuantClass::kPerLayerEmbedding},
                                                          {"norms", QuantClass::kSmall}});

struct NamedRecipe {
  std::string_view name;
  QuantSpec spec;
  std::array<std::string_view, 4> aliases;  // AEQ's spellings, then those of other tools
};
// Every class the same type: the sensitive ones are promoted by rules (--tensor-type) until there is evidence for a better default.
constexpr auto kRecipes = std::to_array<NamedRecipe>({
    {"f32", {.type = DType::kF32}, {"float32", "fp32"}},
    {"f16", {.type = DType::kF16}, {"float16", "fp16"}},
    {"dynamic_int8", {.type = DType::kI8}, {"dynamic_wi8_afp32", "int8", "q8"}},
    {"dynamic_int8_two_terms", {.type = DType::kI8, .two_terms = true}, {"int8_two_terms"}},
    {"dynamic_int4", {.type = DType::kI4}, {"dynamic_wi4_afp32", "int4", "q4"}},
    {"dynamic_int4_block32",
     {.type = DType::kI4, .block_size = 32},
     {"dynamic_wi4b32_afp32", "dynamic_wi4_b32_afp32", "int4_block32", "q4_block32"}},
    {"dynamic_int4_block64",
     {.type = DType::kI4, .block_size = 64},
     {"dynamic_wi4b64_afp32", "dynamic_wi4_b64_afp32", "int4_block64", "q4_block64"}},
    {"dynamic_int4_block128",
     {.type = DType::kI4, .block_size = 128},
     {"dynamic_wi4b128_afp32", "dynamic_wi4_b128_afp32", "int4_block128", "q4_block128"}},
});

// "mixed.toml:12: ", or nothing.
std::string Before(const std::string& where) { return where.empty() ? "" : where + ": "; }

Result<std::unique_ptr<RE2>> Compile(const std::string& pattern, const std::string& where = "") {
  auto regex = std::make_unique<RE2>(pattern, RE2::Quiet);
  if (!regex->ok()) return Fail(ErrorCode::kRecipeSyntax, "{}pattern \"{}\": {}", Before(where), pattern, regex->error());
  return regex;
}

struct CompiledRule {
  const RecipeRule* rule;
  std::unique_ptr<RE2> regex;  // null without a pattern
  size_t matches = 0;
  size_t small_matches = 0;

  [[nodiscard]] bool Matches(const WeightToQuantize& weight) const {
    if (!rule->classes.empty() && !std::ranges::contains(rule->classes, weight.quant_class)) return false;
    return (rule->names.empty() || std::ranges::contains(rule->names, weight.name)) &&
           (regex == nullptr || RE2::PartialMatch(weight.name, *regex));
  }
};

Result<std::vector<CompiledRule>> CompileRules(std::span<const RecipeRule> rules) {
  std::vector<CompiledRule> compiled;
  for (const RecipeRule& rule : rules) {
    compiled.push_back({.rule = &rule, .regex = nullptr});
    if (!rule.pattern.empty()) compiled.back().regex = TRY(Compile(rule.pattern, rule.where));
  }
  return compiled;
}

std::string RuleText(const RecipeRule& rule) {
  std::string text;
  for (const QuantClass quant_class : rule.classes) {
    text += text.empty() ? "" : ",";
    text += NameOf(quant_class);
  }
  if (!rule.pattern.empty()) text += Format("{}\"{}\"", text.empty() ? "" : " ", rule.pattern);
  if (!rule.names.empty()) {
    const std::string more = rule.names.size() == 1 ? "" : Format(" and {} more", rule.names.size() - 1);
    text += Format("{}{}{}", text.empty() ? "" : " ", rule.names.front(), more);
  }
  return text.empty() ? "*" : text;
}

// "pattern "down_proj"", "class laurel", or both
std::string Subject(const RecipeRule& rule) {
  if (!rule.pattern.empty() && rule.classes.empty()) return Format("pattern \"{}\"", rule.pattern);
  return Format("{} {}", rule.classes.empty() ? "rule" : "class", RuleText(rule));
}

Status CheckNames(const RecipeRule& rule, std::span<const WeightToQuantize> weights) {
  std::vector<std::string_view> known;
  for (const WeightToQuantize& weight : weights) known.push_back(weight.name);
  for (const std::string& name : rule.names) {
    if (std::ranges::contains(known, std::string_view(name))) continue;
    return Fail(ErrorCode::kRecipeUnmatched, "{}no weight is called \"{}\"{}", Before(rule.where), name, Suggestion(name, known));
  }
  return {};
}

// A rule that has no effect is a typing error more often than not.
Status CheckEffect(const CompiledRule& compiled, std::span<const WeightToQuantize> weights) {
  const RecipeRule& rule = *compiled.rule;
  const bool everything = rule.pattern.empty() && rule.classes.empty() && rule.names.empty();
  if (everything || (rule.optional && compiled.matches == 0)) return {};
  TRY(CheckNames(rule, weights));
  if (compiled.matches == 0) {
    return Fail(ErrorCode::kRecipeUnmatched, "{}{} ({}) matches none of {} weights{}", Before(rule.where), Subject(rule), NameOf(rule.spec),
                weights.size(), weights.empty() ? std::string() : Format("; their names look like {}", weights.front().name));
  }
  if (compiled.small_matches == compiled.matches && rule.spec.type != DType::kF32) {
    return Fail(ErrorCode::kRecipeUnmatched,
                "{}{} ({}) matches {} weights, all of them norms, routers or coefficients, which are always stored as f32",
                Before(rule.where), Subject(rule), NameOf(rule.spec), compiled.matches);
  }
  return {};
}

bool IsTable(const WeightToQuantize& weight) {
  return weight.quant_class == QuantClass::kEmbedding || weight.quant_class == QuantClass::kPerLayerEmbedding;
}

// Why a weight cannot be stored in blocks, or empty.
std::string NoBlocks(const WeightToQuantize& weight, const QuantSpec& spec) {
  if (spec.block_size == 0) return "";
  if (IsTable(weight)) {
    return "tables are looked up by row, in blocks only by the newest clients";
  }
  if (weight.columns % spec.block_size == 0) return "";
  return Format("rows of {} columns are not whole blocks of {}", weight.columns, spec.block_size);
}

// What a rule makes of a weight.
Result<ResolvedWeight> Apply(const RecipeRule& rule, QuantMethod method, const WeightToQuantize& weight) {
  ResolvedWeight resolved{.spec = rule.spec, .note = NoBlocks(weight, rule.spec)};
  if (resolved.spec.is_quantized()) resolved.spec.method = rule.method.value_or(method);
  if (resolved.spec.two_terms && IsTable(weight)) {
    if (!rule.yields) {
      return Fail(ErrorCode::kQuantShape, "{}\"{}\" cannot be {}: tables are looked up, there are no inputs to split", Before(rule.where),
                  weight.name, NameOf(rule.spec));
    }
    resolved.spec.two_terms = false;
  }
  if (resolved.note.empty()) return resolved;
  if (!rule.yields) {
    return Fail(ErrorCode::kQuantShape, "{}\"{}\" cannot be {}: {}; int4 stores it per row", Before(rule.where), weight.name,
                NameOf(rule.spec), resolved.note);
  }
  resolved.spec.block_size = 0;
  return resolved;
}

// What "int4" does not say.
std::string Granularity(const QuantSpec& spec) {
  if (!spec.is_quantized()) return "floats, no scales";
  const std::string_view type = spec.type == DType::kI4 ? "int4" : "int8";
  const std::string_view inputs =
      spec.two_terms ? "inputs as two rows, each rounded to int8 as it comes" : "inputs rounded to int8 as they come";
  if (spec.block_size == 0) return Format("{}, one scale per row of each matrix and table, {}", type, inputs);
  return Format("{}, one scale per {} columns of a matrix, tables one per row, {}", type, spec.block_size, inputs);
}

}  // namespace

std::string_view NameOf(QuantClass quant_class) { return kClassNames[std::to_underlying(quant_class)]; }

std::optional<QuantClass> QuantClassFromName(std::string_view name) {
  const auto* const found = std::ranges::find(kClassNames, name);
  if (found != kClassNames.end()) return static_cast<QuantClass>(found - kClassNames.begin());
  const auto* const alias = std::ranges::find(kClassAliases, name, &ClassAlias::name);
  return alias == kClassAliases.end() ? std::nullopt : std::optional(alias->quant_class);
}

std::string QuantClassNames() {
  std::string names;
  for (const std::string_view name : kClassNames) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

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
      Recipe made{.name = std::string(recipe.name), .rules = {{.pattern = "", .classes = {}, .spec = recipe.spec, .yields = true}}};
      if (recipe.name != name) made.note = Format("{} is {}: {}", name, recipe.name, Granularity(recipe.spec));
      return made;
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

Result<QuantSpec> RuleTypeFromName(std::string_view type) {
  const std::optional<QuantSpec> spec = QuantSpecFromName(type);
  if (spec) return *spec;
  if (type == "int2") {
    return Fail(ErrorCode::kRecipeSyntax,
                "int2 is not written: only clients of 2026 read it, in tables alone; int4 is the smallest type (docs/quantization.md)");
  }
  constexpr std::array<std::string_view, 7> kTypes = {"f32", "f16", "int8", "int4", "int4_block32", "int4_block64", "int4_block128"};
  return Fail(ErrorCode::kRecipeSyntax, "unknown type \"{}\"{}; known: {}", type, Suggestion(type, kTypes), QuantSpecNames());
}

Status AddTensorTypeRule(Recipe& recipe, std::string_view rule) {
  const size_t equals = rule.rfind('=');
  if (equals == std::string_view::npos || equals == 0) {
    return Fail(ErrorCode::kRecipeSyntax, "tensor type rule \"{}\" is not REGEX=TYPE, for example 'down_proj=int8'", rule);
  }
  const Result<QuantSpec> spec = RuleTypeFromName(rule.substr(equals + 1));
  if (!spec) return std::unexpected(WithContext(spec.error(), Format("tensor type rule \"{}\"", rule)));
  std::string pattern(rule.substr(0, equals));
  TRY(Compile(pattern));
  recipe.rules.push_back({.pattern = std::move(pattern), .classes = {}, .spec = *spec});
  return {};
}

std::string FormatRecipe(const Recipe& recipe) {
  std::string text = Format("recipe {}, scales by {}\n", recipe.name, NameOf(recipe.method));
  for (const RecipeRule& rule : recipe.rules) {
    text += Format("  {:<13} {}{}\n", NameOf(rule.spec), RuleText(rule), rule.method ? Format(" by {}", NameOf(*rule.method)) : "");
  }
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
