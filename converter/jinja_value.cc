#include "converter/jinja_value.h"

#include <algorithm>
#include <limits>

#include "schema/base/utf8.h"

namespace taskpress {
namespace {

constexpr int kMaxValueDepth = 64;

int DepthOf(const std::vector<JinjaValue>& items) {
  int depth = 0;
  for (const JinjaValue& item : items) depth = std::max(depth, item.depth());
  return depth + 1;
}

int DepthOf(const std::vector<std::pair<std::string, JinjaValue>>& items) {
  int depth = 0;
  for (const auto& [key, item] : items) depth = std::max(depth, item.depth());
  return depth + 1;
}

std::unexpected<Error> TooDeep() { return Fail(ErrorCode::kChatTemplate, "values nested deeper than {}", kMaxValueDepth); }

// Python's repr() of a string, for characters whose spelling is the same in every version of Python.
Result<std::string> QuoteAsPython(std::string_view text) {
  const char quote = text.contains('\'') && !text.contains('"') ? '"' : '\'';
  std::string quoted(1, quote);
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x20 && c != '\n' && c != '\t' && c != '\r') {
      return Fail(ErrorCode::kChatTemplate, "printing a list with control characters is not supported");
    }
    if (static_cast<uint8_t>(c) >= 0x7F)
      return Fail(ErrorCode::kChatTemplate, "printing a list with characters beyond ASCII is not supported");
    if (c == quote || c == '\\') quoted.push_back('\\');
    if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (c == '\r') {
      quoted += "\\r";
    } else {
      quoted.push_back(c);
    }
  }
  quoted.push_back(quote);
  return quoted;
}

}  // namespace

const JinjaValue* JinjaMap::Find(std::string_view key) const {
  const auto found = std::ranges::find(items, key, &std::pair<std::string, JinjaValue>::first);
  return found == items.end() ? nullptr : &found->second;
}

JinjaValue::JinjaValue(JinjaMap map) : value_(std::make_shared<const JinjaMap>(std::move(map))) {}

Result<JinjaValue> JinjaValue::MakeList(std::vector<JinjaValue> items, JinjaListKind kind) {
  const int depth = DepthOf(items);
  if (depth > kMaxValueDepth) return TooDeep();
  JinjaValue value;
  value.value_ = std::make_shared<const JinjaList>(JinjaList{kind, depth, std::move(items)});
  return value;
}

Result<JinjaValue> JinjaValue::MakeMap(std::vector<std::pair<std::string, JinjaValue>> items) {
  const int depth = DepthOf(items);
  if (depth > kMaxValueDepth) return TooDeep();
  return JinjaValue(JinjaMap{false, depth, std::move(items)});
}

Result<JinjaValue> JinjaValue::FromJson(const OrderedJson& json) {
  if (json.is_null()) return JinjaValue(JinjaNone{});
  if (json.is_boolean()) return JinjaValue(json.get<bool>());
  if (json.is_string()) return JinjaValue(json.get<std::string>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Fail(ErrorCode::kChatTemplate, "a variable is larger than 64 bits");
  }
  if (json.is_number_integer()) return JinjaValue(json.get<int64_t>());
  if (json.is_array()) {
    std::vector<JinjaValue> items;
    for (const OrderedJson& item : json) items.push_back(TRY(FromJson(item)));
    return MakeList(std::move(items), JinjaListKind::kList);
  }
  if (json.is_object()) {
    std::vector<std::pair<std::string, JinjaValue>> items;
    for (const auto& [key, item] : json.items()) items.emplace_back(key, TRY(FromJson(item)));
    return MakeMap(std::move(items));
  }
  return Fail(ErrorCode::kChatTemplate, "a variable is a floating point number");
}

std::optional<int64_t> JinjaValue::AsInteger() const {
  if (const auto* integer = std::get_if<int64_t>(&value_)) return *integer;
  if (const bool* boolean = AsBoolean()) return *boolean ? 1 : 0;
  return std::nullopt;
}

const std::string* JinjaValue::AsString() const {
  const auto* text = std::get_if<std::shared_ptr<const std::string>>(&value_);
  return text == nullptr ? nullptr : text->get();
}

const JinjaList* JinjaValue::AsList() const {
  const auto* list = std::get_if<std::shared_ptr<const JinjaList>>(&value_);
  return list == nullptr ? nullptr : list->get();
}

const JinjaMap* JinjaValue::AsObject() const {
  const auto* map = std::get_if<std::shared_ptr<const JinjaMap>>(&value_);
  return map == nullptr ? nullptr : map->get();
}

const JinjaMap* JinjaValue::AsMap() const {
  const JinjaMap* map = AsObject();
  return map == nullptr || map->opaque ? nullptr : map;
}

bool JinjaValue::IsTrue() const {
  if (IsUndefined() || IsNone()) return false;
  if (const std::optional<int64_t> integer = AsInteger()) return *integer != 0;
  if (const std::string* text = AsString()) return !text->empty();
  if (const JinjaList* list = AsList()) return !list->items.empty();
  if (const JinjaMap* map = AsMap()) return !map->items.empty();
  return true;
}

int JinjaValue::depth() const {
  if (const JinjaList* list = AsList()) return list->depth;
  if (const JinjaMap* map = AsObject()) return map->depth;
  return 0;
}

std::string_view JinjaValue::TypeName() const {
  if (IsUndefined()) return "undefined";
  if (IsNone()) return "none";
  if (AsBoolean() != nullptr) return "bool";
  if (AsInteger()) return "int";
  if (AsString() != nullptr) return "str";
  if (AsList() != nullptr) return "list";
  if (AsMap() != nullptr) return "dict";
  return "object";
}

bool JinjaValue::Equals(const JinjaValue& other) const {
  if (IsUndefined() || other.IsUndefined()) return IsUndefined() && other.IsUndefined();
  if (IsNone() || other.IsNone()) return IsNone() && other.IsNone();
  if (const std::optional<int64_t> integer = AsInteger()) return integer == other.AsInteger();
  if (const std::string* text = AsString()) return other.AsString() != nullptr && *text == *other.AsString();
  if (const JinjaList* list = AsList()) {
    const JinjaList* others = other.AsList();
    return others != nullptr && list->kind == others->kind &&
           std::ranges::equal(list->items, others->items, [](const JinjaValue& x, const JinjaValue& y) { return x.Equals(y); });
  }
  if (const JinjaMap* map = AsMap()) {
    const JinjaMap* others = other.AsMap();
    return others != nullptr && map->items.size() == others->items.size() && std::ranges::all_of(map->items, [others](const auto& item) {
             const JinjaValue* found = others->Find(item.first);
             return found != nullptr && item.second.Equals(*found);
           });
  }
  const JinjaNamespace* space = AsNamespace();
  return space != nullptr && other.AsNamespace() != nullptr && space->index == other.AsNamespace()->index;
}

Result<std::string> JinjaValue::ToText() const {
  if (IsUndefined()) return std::string();
  if (const std::string* text = AsString()) return *text;
  return Repr();
}

Result<std::string> JinjaValue::Repr() const {
  if (IsNone()) return "None";
  if (const bool* boolean = AsBoolean()) return *boolean ? "True" : "False";
  if (const std::optional<int64_t> integer = AsInteger()) return std::to_string(*integer);
  if (const std::string* text = AsString()) return QuoteAsPython(*text);
  const JinjaList* list = AsList();
  if (list != nullptr && list->kind != JinjaListKind::kView) {
    const bool is_tuple = list->kind == JinjaListKind::kTuple;
    std::string text = is_tuple ? "(" : "[";
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) text += ", ";
      text += TRY(list->items[i].Repr());
    }
    if (is_tuple && list->items.size() == 1) text += ",";
    return text + (is_tuple ? ")" : "]");
  }
  if (const JinjaMap* map = AsMap()) {
    std::string text = "{";
    for (const auto& [key, item] : map->items) {
      if (text.size() > 1) text += ", ";
      text += TRY(QuoteAsPython(key));
      text += ": ";
      text += TRY(item.Repr());
    }
    return text + "}";
  }
  return Fail(ErrorCode::kChatTemplate, "a value of this kind cannot be printed");
}

std::vector<std::string_view> JinjaCharacters(std::string_view text) {
  std::vector<std::string_view> characters;
  while (!text.empty()) {
    characters.push_back(text.substr(0, std::max<size_t>(FirstUtf8Char(text).length, 1)));
    text.remove_prefix(characters.back().size());
  }
  return characters;
}

}  // namespace taskpress
