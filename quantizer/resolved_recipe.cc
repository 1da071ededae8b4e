#include "quantizer/resolved_recipe.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

namespace taskpress {
namespace {

constexpr size_t kNamed = 3;

// The next word, and what follows the blanks behind it.
std::string TakeWord(std::string_view& line) {
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  return std::string(word);
}

std::optional<RecipeLine> ParseLine(std::string_view line) {
  RecipeLine parsed;
  for (std::string* field : {&parsed.type, &parsed.method, &parsed.quant_class, &parsed.name}) *field = TakeWord(line);
  if (parsed.name.empty() || !QuantClassFromName(parsed.quant_class)) return std::nullopt;
  if (line.empty()) return parsed;
  if (!line.starts_with('(') || !line.ends_with(')')) return std::nullopt;
  parsed.note = line.substr(1, line.size() - 2);
  return parsed;
}

struct Group {
  const RecipeLine* first;
  std::vector<std::string_view> names;
};

bool Alike(const RecipeLine& a, const RecipeLine& b) {
  return std::tie(a.type, a.method, a.quant_class, a.note) == std::tie(b.type, b.method, b.quant_class, b.note);
}

std::vector<Group> GroupsOf(std::span<const RecipeLine> lines) {
  std::vector<Group> groups;
  for (const RecipeLine& line : lines) {
    const auto known = std::ranges::find_if(groups, [&](const Group& group) { return Alike(*group.first, line); });
    if (known == groups.end()) {
      groups.push_back({.first = &line, .names = {line.name}});
    } else {
      known->names.push_back(line.name);
    }
  }
  std::ranges::stable_sort(groups, [](const Group& a, const Group& b) {
    const auto rank = [](const Group& group) {
      return std::pair(QuantClassFromName(group.first->quant_class), -static_cast<int64_t>(group.names.size()));
    };
    return rank(a) < rank(b);
  });
  return groups;
}

}  // namespace

Result<std::vector<RecipeLine>> ParseResolvedRecipe(std::string_view text) {
  std::vector<RecipeLine> lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    std::optional<RecipeLine> parsed = ParseLine(line);
    if (!parsed) return Fail(ErrorCode::kMetadataMalformed, "line {} of the recipe is \"{}\"", lines.size() + 1, line.substr(0, 80));
    lines.push_back(*std::move(parsed));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return lines;
}

std::string RecipeSummary(std::span<const RecipeLine> lines) {
  std::string text;
  size_t width = 13;
  for (const RecipeLine& line : lines) width = std::max(width, line.type.size());
  for (const Group& group : GroupsOf(lines)) {
    std::string names;
    if (group.names.size() <= kNamed) {
      for (const std::string_view name : group.names) names += (names.empty() ? "  " : ", ") + std::string(name);
    }
    text += Format("  {:<{}} {:<6} {:<19} {:>4}{}{}\n", group.first->type, width, group.first->method, group.first->quant_class,
                   group.names.size(), names, group.first->note.empty() ? "" : Format(" ({})", group.first->note));
  }
  return text;
}

Result<Recipe> RecipeFromLines(const std::string& name, std::span<const RecipeLine> lines) {
  Recipe recipe{.name = name, .rules = {}};
  for (const RecipeLine& line : lines) {
    const std::optional<QuantSpec> spec = QuantSpecFromName(line.type);
    const std::optional<QuantMethod> method = QuantMethodFromName(line.method);
    if (!spec || (!method && spec->is_quantized()))
      return Fail(ErrorCode::kMetadataMalformed, "{}: {} is stored as \"{}\" by \"{}\"", name, line.name, line.type, line.method);
    if (line.quant_class == NameOf(QuantClass::kSmall)) continue;
    const auto known = std::ranges::find_if(
        recipe.rules, [&](const RecipeRule& rule) { return rule.spec == *spec && (!spec->is_quantized() || rule.method == method); });
    if (known != recipe.rules.end()) {
      known->names.push_back(line.name);
    } else {
      recipe.rules.push_back({.pattern = "", .classes = {}, .spec = *spec, .names = {line.name}});
      if (spec->is_quantized()) recipe.rules.back().method = method;
    }
  }
  return recipe;
}

OrderedJson RecipeJson(std::span<const RecipeLine> lines) {
  OrderedJson rows = OrderedJson::array();
  for (const RecipeLine& line : lines) {
    OrderedJson row{{"name", line.name}, {"class", line.quant_class}, {"type", line.type}, {"method", line.method}};
    if (!line.note.empty()) row["note"] = line.note;
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace taskpress
