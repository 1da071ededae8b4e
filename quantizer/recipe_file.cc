#include "quantizer/recipe_file.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "quantizer/suggestion.h"

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.hpp>

namespace taskpress {
namespace {

constexpr auto kTopKeys = std::to_array<std::string_view>({"name", "base", "method", "rule"});
constexpr auto kRuleKeys = std::to_array<std::string_view>({"class", "weights", "names", "type", "method", "if_possible", "optional"});

std::string Where(const std::string& file, const toml::source_region& source) { return Format("{}:{}", file, source.begin.line); }

// Of values under a key, each with its place.
class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  template <typename... Args>
  std::unexpected<Error> Refuse(const toml::source_region& source, std::format_string<const Args&...> format, const Args&... args) const {
    return Fail(ErrorCode::kRecipeSyntax, "{}: {}", Where(file_, source), Format<Args...>(format, args...));
  }

  Status CheckKeys(const toml::table& table, std::span<const std::string_view> known) const {
    for (const auto& [key, value] : table) {
      if (std::ranges::contains(known, key.str())) continue;
      std::string names;
      for (const std::string_view name : known) names += (names.empty() ? "" : ", ") + std::string(name);
      return Refuse(key.source(), "unknown key \"{}\"{}; known: {}", key.str(), Suggestion(key.str(), known), names);
    }
    return {};
  }

  // Empty without the key.
  Result<std::string> Text(const toml::table& table, std::string_view key) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return "";
    const std::optional<std::string> text = node->value_exact<std::string>();
    if (!text) return Refuse(node->source(), "{} is a string in quotes", key);
    if (text->empty()) return Refuse(node->source(), "{} is empty", key);
    return *text;
  }

  Result<bool> Flag(const toml::table& table, std::string_view key) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return false;
    const std::optional<bool> flag = node->value_exact<bool>();
    if (!flag) return Refuse(node->source(), "{} is true or false", key);
    return *flag;
  }

  // One string or a list of them.
  Result<std::vector<std::string>> Texts(const toml::table& table, std::string_view key) const {
    const toml::node* node = table.get(key);
    if (node == nullptr || !node->is_array()) {
      std::string text = TRY(Text(table, key));
      return text.empty() ? std::vector<std::string>() : std::vector<std::string>{std::move(text)};
    }
    std::vector<std::string> texts;
    for (const toml::node& element : *node->as_array()) {
      std::optional<std::string> text = element.value_exact<std::string>();
      if (!text || text->empty()) return Refuse(element.source(), "{} is a string in quotes, or a list of them", key);
      texts.push_back(std::move(*text));
    }
    if (texts.empty()) return Refuse(node->source(), "{} is an empty list", key);
    return texts;
  }

  Result<std::optional<QuantMethod>> Method(const toml::table& table) const {
    const std::string name = TRY(Text(table, "method"));
    if (name.empty()) return std::nullopt;
    const std::optional<QuantMethod> method = QuantMethodFromName(name);
    if (!method) return Refuse(table.get("method")->source(), "unknown method \"{}\"; known: absmax, clip, gptq", name);
    return method;
  }

  Result<std::vector<QuantClass>> Classes(const toml::table& table) const {
    std::vector<QuantClass> classes;
    for (const std::string& name : TRY(Texts(table, "class"))) {
      const std::optional<QuantClass> found = QuantClassFromName(name);
      if (!found) return Refuse(table.get("class")->source(), "unknown class \"{}\"; known: {}", name, QuantClassNames());
      classes.push_back(*found);
    }
    return classes;
  }

  Result<RecipeRule> Rule(const toml::table& table) const {
    TRY(CheckKeys(table, kRuleKeys));
    RecipeRule rule;
    rule.where = Where(file_, table.source());
    rule.pattern = TRY(Text(table, "weights"));
    rule.classes = TRY(Classes(table));
    rule.names = TRY(Texts(table, "names"));
    rule.method = TRY(Method(table));
    rule.yields = TRY(Flag(table, "if_possible"));
    rule.optional = TRY(Flag(table, "optional"));
    const std::string type = TRY(Text(table, "type"));
    if (type.empty()) return Refuse(table.source(), "the rule has no type; known: {}", QuantSpecNames());
    const Result<QuantSpec> spec = RuleTypeFromName(type);
    if (!spec) return Refuse(table.get("type")->source(), "{}", spec.error().message);
    rule.spec = *spec;
    if (rule.pattern.empty() && rule.classes.empty() && rule.names.empty())
      return Refuse(table.source(), "the rule matches nothing: give it class, weights or names");
    if (rule.method && !rule.spec.is_quantized())
      return Refuse(table.get("method")->source(), "{} is not rounded to integers; method has no effect", type);
    if (!rule.pattern.empty()) {
      const RE2 regex(rule.pattern, RE2::Quiet);
      if (!regex.ok()) return Refuse(table.get("weights")->source(), "pattern \"{}\": {}", rule.pattern, regex.error());
    }
    return rule;
  }

  Status Rules(const toml::table& table, Recipe& recipe) const {
    const toml::node* node = table.get("rule");
    if (node == nullptr) return {};
    const toml::array* rules = node->as_array();
    if (rules == nullptr || !rules->is_homogeneous<toml::table>())
      return Refuse(node->source(), "rules are tables, each below a line [[rule]]");
    for (const toml::node& rule : *rules) recipe.rules.push_back(TRY(Rule(*rule.as_table())));
    return {};
  }

 private:
  const std::string& file_;
};

// Single quotes where the text allows it: backslashes of patterns stay single.
std::string Quoted(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (!text.contains('\'') && std::ranges::none_of(text, control)) return Format("'{}'", text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += control(c) ? Format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c))) : std::string(1, c);
  }
  return quoted + "\"";
}

std::string FormatRule(const RecipeRule& rule) {
  std::string text = "\n[[rule]]\n";
  std::string classes;
  for (const QuantClass quant_class : rule.classes) classes += (classes.empty() ? "" : ", ") + Quoted(NameOf(quant_class));
  if (!classes.empty()) text += Format("class = [{}]\n", classes);
  if (!rule.pattern.empty()) text += Format("weights = {}\n", Quoted(rule.pattern));
  std::string names;
  for (const std::string& name : rule.names) names += Format("  {},\n", Quoted(name));
  if (!names.empty()) text += Format("names = [\n{}]\n", names);
  if (classes.empty() && rule.pattern.empty() && names.empty()) text += "weights = '.'\n";
  text += Format("type = {}\n", Quoted(NameOf(rule.spec)));
  if (rule.method) text += Format("method = {}\n", Quoted(NameOf(*rule.method)));
  if (rule.yields) text += "if_possible = true\n";
  if (rule.optional) text += "optional = true\n";
  return text;
}

}  // namespace

Result<Recipe> ParseRecipeFile(std::string_view text, const std::string& file) {
  if (text.size() > kMaxRecipeFileBytes)
    return Fail(ErrorCode::kRecipeSyntax, "{}: {} bytes; a recipe has {} at most", file, text.size(), kMaxRecipeFileBytes);
  const toml::parse_result parsed = toml::parse(text, file);
  if (!parsed) return Fail(ErrorCode::kRecipeSyntax, "{}: {}", Where(file, parsed.error().source()), parsed.error().description());
  const Reader reader(file);
  const toml::table& table = parsed.table();
  TRY(reader.CheckKeys(table, kTopKeys));
  Recipe recipe;
  const std::string base = TRY(reader.Text(table, "base"));
  if (!base.empty()) {
    Result<Recipe> named = RecipeFromName(base);
    if (!named) return reader.Refuse(table.get("base")->source(), "{}", named.error().message);
    recipe = *std::move(named);
  }
  const std::string name = TRY(reader.Text(table, "name"));
  recipe.name = name.empty() ? file : name;
  recipe.method = TRY(reader.Method(table)).value_or(QuantMethod::kAbsmax);
  TRY(reader.Rules(table, recipe));
  if (recipe.rules.empty()) return Fail(ErrorCode::kRecipeSyntax, "{}: neither base nor [[rule]]: nothing to do", file);
  return recipe;
}

std::string FormatRecipeFile(const Recipe& recipe) {
  std::string text = Format("name = {}\nmethod = {}\n", Quoted(recipe.name), Quoted(NameOf(recipe.method)));
  for (const RecipeRule& rule : recipe.rules) text += FormatRule(rule);
  return text;
}

}  // namespace taskpress
