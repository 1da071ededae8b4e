#include "converter/jinja_builtins.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "schema/base/utf8.h"

namespace taskpress {
namespace {

std::unexpected<Error> Wrong(std::string_view what, std::string_view name) {
  return Fail(ErrorCode::kChatTemplate, "{} \"{}\"", what, name);
}

Status CheckArguments(const JinjaArguments& arguments, size_t at_most, std::string_view name) {
  if (!arguments.named.empty() || arguments.positional.size() > at_most) return Wrong("unsupported arguments of", name);
  return {};
}

Result<std::string> StringArgument(const JinjaArguments& arguments, size_t index, std::string_view name) {
  if (index >= arguments.positional.size() || arguments.positional[index].AsString() == nullptr)
    return Wrong("expected a string for", name);
  return *arguments.positional[index].AsString();
}

// ---- strings ----

enum class Side : uint8_t { kLeft, kRight, kBoth };

// Python's strip: white space, or any of the given characters.
Result<JinjaValue> Strip(const std::string& text, const JinjaArguments& arguments, Side side, std::string_view name) {
  TRY(CheckArguments(arguments, 1, name));
  std::string_view rest = text;
  if (arguments.positional.empty() || arguments.positional[0].IsNone()) {
    if (side != Side::kRight) rest = TrimLeft(rest);
    if (side != Side::kLeft) rest = TrimRight(rest);
    return JinjaValue(std::string(rest));
  }
  const std::string characters = TRY(StringArgument(arguments, 0, name));
  const std::vector<std::string_view> stripped = JinjaCharacters(characters);
  const std::vector<std::string_view> all = JinjaCharacters(text);
  size_t begin = 0;
  size_t end = all.size();
  while (side != Side::kRight && begin < end && std::ranges::find(stripped, all[begin]) != stripped.end()) ++begin;
  while (side != Side::kLeft && begin < end && std::ranges::find(stripped, all[end - 1]) != stripped.end()) --end;
  std::string kept;
  for (size_t i = begin; i < end; ++i) kept += all[i];
  return JinjaValue(std::move(kept));
}

enum class LetterCase : uint8_t { kUpper, kLower, kCapitalized };

// Letters beyond ASCII would need the tables of Unicode.
Result<JinjaValue> ChangeCase(std::string text, LetterCase wanted) {
  bool first = true;
  for (char& c : text) {
    if (static_cast<uint8_t>(c) >= 0x80)
      return Fail(ErrorCode::kChatTemplate, "changing the case of letters beyond ASCII is not supported");
    const bool upper = wanted == LetterCase::kUpper || (wanted == LetterCase::kCapitalized && first);
    if (upper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!upper && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    first = false;
  }
  return JinjaValue(std::move(text));
}

Result<JinjaValue> Replace(const std::string& text, const JinjaArguments& arguments, size_t max_bytes) {
  TRY(CheckArguments(arguments, 2, "replace"));
  const std::string from = TRY(StringArgument(arguments, 0, "replace"));
  const std::string to = TRY(StringArgument(arguments, 1, "replace"));
  if (from.empty()) return Fail(ErrorCode::kChatTemplate, "replacing \"\" is not supported");
  std::string out;
  size_t position = 0;
  while (true) {
    const size_t found = text.find(from, position);
    out.append(text, position, found - position);
    if (found == std::string::npos) return JinjaValue(std::move(out));
    out += to;
    if (out.size() > max_bytes) return Fail(ErrorCode::kChatTemplate, "a text exceeds {} bytes", max_bytes);
    position = found + from.size();
  }
}

Result<JinjaValue> Split(const std::string& text, const JinjaArguments& arguments) {
  TRY(CheckArguments(arguments, 1, "split"));
  std::vector<JinjaValue> parts;
  if (arguments.positional.empty() || arguments.positional[0].IsNone()) {
    std::string_view rest = TrimLeft(text);
    while (!rest.empty()) {
      size_t length = 0;
      while (length < rest.size()) {
        const Utf8Char next = FirstUtf8Char(rest.substr(length));
        if (IsUnicodeSpace(next.code_point)) break;
        length += std::max<size_t>(next.length, 1);
      }
      parts.emplace_back(std::string(rest.substr(0, length)));
      rest = TrimLeft(rest.substr(length));
    }
  } else {
    const std::string separator = TRY(StringArgument(arguments, 0, "split"));
    if (separator.empty()) return Fail(ErrorCode::kChatTemplate, "split at an empty separator");
    size_t position = 0;
    while (true) {
      const size_t found = text.find(separator, position);
      parts.emplace_back(text.substr(position, found - position));
      if (found == std::string::npos) break;
      position = found + separator.size();
    }
  }
  return JinjaValue::MakeList(std::move(parts), JinjaListKind::kList);
}

Result<JinjaValue> Join(const std::vector<JinjaValue>& items, const std::string& separator, bool strings_only, size_t max_bytes) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (strings_only && items[i].AsString() == nullptr) return Wrong("expected strings for", "join");
    if (i > 0) out += separator;
    out += TRY(items[i].ToText());
    if (out.size() > max_bytes) return Fail(ErrorCode::kChatTemplate, "a text exceeds {} bytes", max_bytes);
  }
  return JinjaValue(std::move(out));
}

Result<JinjaValue> CallStringMethod(const std::string& text, std::string_view name, const JinjaArguments& arguments, size_t max_bytes) {
  if (name == "strip") return Strip(text, arguments, Side::kBoth, name);
  if (name == "lstrip") return Strip(text, arguments, Side::kLeft, name);
  if (name == "rstrip") return Strip(text, arguments, Side::kRight, name);
  if (name == "split") return Split(text, arguments);
  if (name == "replace") return Replace(text, arguments, max_bytes);
  if (name == "startswith" || name == "endswith") {
    TRY(CheckArguments(arguments, 1, name));
    const std::string part = TRY(StringArgument(arguments, 0, name));
    return JinjaValue(name == "startswith" ? text.starts_with(part) : text.ends_with(part));
  }
  if (name == "join") {
    TRY(CheckArguments(arguments, 1, name));
    if (arguments.positional.empty()) return Wrong("expected a list for", name);
    return Join(TRY(JinjaItems(arguments.positional[0])), text, true, max_bytes);
  }
  if (name == "upper" || name == "lower" || name == "capitalize") {
    TRY(CheckArguments(arguments, 0, name));
    return ChangeCase(text, name == "upper" ? LetterCase::kUpper : name == "lower" ? LetterCase::kLower : LetterCase::kCapitalized);
  }
  return Wrong("unsupported method", name);
}

// ---- dictionaries ----

Result<JinjaValue> ItemsOf(const JinjaMap& map) {
  std::vector<JinjaValue> pairs;
  for (const auto& [key, item] : map.items) pairs.push_back(TRY(JinjaValue::MakeList({JinjaValue(key), item}, JinjaListKind::kTuple)));
  return JinjaValue::MakeList(std::move(pairs), JinjaListKind::kView);
}

Result<JinjaValue> CallMapMethod(const JinjaMap& map, std::string_view name, const JinjaArguments& arguments) {
  if (name == "get") {
    TRY(CheckArguments(arguments, 2, name));
    const JinjaValue* found = map.Find(TRY(StringArgument(arguments, 0, name)));
    if (found != nullptr) return *found;
    return arguments.positional.size() > 1 ? arguments.positional[1] : JinjaValue(JinjaNone{});
  }
  TRY(CheckArguments(arguments, 0, name));
  if (name == "items") return ItemsOf(map);
  if (name == "keys" || name == "values") {
    std::vector<JinjaValue> parts;
    for (const auto& [key, item] : map.items) parts.push_back(name == "keys" ? JinjaValue(key) : item);
    return JinjaValue::MakeList(std::move(parts), JinjaListKind::kView);
  }
  return Wrong("unsupported method", name);
}

// ---- filters ----

Result<JinjaValue> Default(const JinjaValue& value, const JinjaArguments& arguments) {
  bool for_false_too = arguments.positional.size() > 1 && arguments.positional[1].IsTrue();
  for (const auto& [name, argument] : arguments.named) {
    if (name != "boolean") return Wrong("unsupported arguments of", "default");
    for_false_too = argument.IsTrue();
  }
  if (arguments.positional.size() > 2) return Wrong("unsupported arguments of", "default");
  if (!value.IsUndefined() && (value.IsTrue() || !for_false_too)) return value;
  return arguments.positional.empty() ? JinjaValue(std::string()) : arguments.positional[0];
}

Result<JinjaValue> Length(const JinjaValue& value) {
  const JinjaList* list = value.AsList();
  if (list != nullptr && list->kind == JinjaListKind::kView) return Wrong("unsupported value for", "length");
  return JinjaValue(static_cast<int64_t>(TRY(JinjaItems(value)).size()));
}

// int(): what Python's int() takes, else 0.
Result<JinjaValue> ToInteger(const JinjaValue& value) {
  if (const std::optional<int64_t> integer = value.AsInteger()) return JinjaValue(*integer);
  if (value.AsString() == nullptr) return Wrong("unsupported value for", "int");
  const std::string_view text = Trim(*value.AsString());
  int64_t number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || problem != std::errc() || end != text.data() + text.size()) return Wrong("unsupported value for", "int");
  return JinjaValue(number);
}

Result<JinjaValue> FirstOrLast(const JinjaValue& value, bool first) {
  const std::vector<JinjaValue> items = TRY(JinjaItems(value));
  if (items.empty()) return JinjaValue();
  return first ? items.front() : items.back();
}

Result<JinjaValue> ApplyTextFilter(std::string_view name, const JinjaValue& value, const JinjaArguments& arguments, size_t max_bytes) {
  // Jinja's text filters turn other values into text first.
  const std::string text = TRY(value.ToText());
  if (name == "trim") return Strip(text, arguments, Side::kBoth, name);
  return CallStringMethod(text, name, arguments, max_bytes);
}

}  // namespace

Result<JinjaValue> ApplyJinjaFilter(std::string_view name, const JinjaValue& value, const JinjaArguments& arguments, size_t max_bytes) {
  if (name == "default" || name == "d") return Default(value, arguments);
  if (name == "trim" || name == "upper" || name == "lower" || name == "capitalize" || name == "replace") {
    return ApplyTextFilter(name, value, arguments, max_bytes);
  }
  if (name == "join") {
    TRY(CheckArguments(arguments, 1, name));
    const std::string separator = arguments.positional.empty() ? "" : TRY(StringArgument(arguments, 0, name));
    return Join(TRY(JinjaItems(value)), separator, false, max_bytes);
  }
  TRY(CheckArguments(arguments, 0, name));
  if (name == "length" || name == "count") return Length(value);
  if (name == "string") return JinjaValue(TRY(value.ToText()));
  if (name == "int") return ToInteger(value);
  if (name == "list") return JinjaValue::MakeList(TRY(JinjaItems(value)), JinjaListKind::kList);
  if (name == "first" || name == "last") return FirstOrLast(value, name == "first");
  if (name == "items") {
    if (value.IsUndefined()) return JinjaValue::MakeList({}, JinjaListKind::kView);
    if (value.AsMap() != nullptr) return ItemsOf(*value.AsMap());
    return Wrong("expected a dictionary for", name);
  }
  return Wrong("unsupported filter", name);
}

Result<bool> ApplyJinjaTest(std::string_view name, const JinjaValue& value, const JinjaArguments& arguments) {
  if (name == "equalto" || name == "eq" || name == "in") {
    if (arguments.positional.size() != 1 || !arguments.named.empty()) return Wrong("expected one argument of", name);
    if (name == "in") return JinjaContains(arguments.positional[0], value);
    return value.Equals(arguments.positional[0]);
  }
  TRY(CheckArguments(arguments, 0, name));
  const bool is_container = value.AsString() != nullptr || value.AsList() != nullptr || value.AsMap() != nullptr;
  if (name == "defined") return !value.IsUndefined();
  if (name == "undefined") return value.IsUndefined();
  if (name == "none") return value.IsNone();
  if (name == "string") return value.AsString() != nullptr;
  if (name == "mapping") return value.AsMap() != nullptr;
  if (name == "iterable" || name == "sequence") {
    if (value.AsNamespace() != nullptr || (value.AsObject() != nullptr && value.AsMap() == nullptr))
      return Wrong("unsupported value for", name);
    if (name == "sequence" && value.AsList() != nullptr && value.AsList()->kind == JinjaListKind::kView)
      return Wrong("unsupported value for", name);
    return is_container || value.IsUndefined();
  }
  if (name == "boolean") return value.AsBoolean() != nullptr;
  if (name == "true" || name == "false") return value.AsBoolean() != nullptr && *value.AsBoolean() == (name == "true");
  if (name == "number") return value.AsInteger().has_value();
  if (name == "integer") return value.AsInteger().has_value() && value.AsBoolean() == nullptr;
  if (name == "odd" || name == "even") {
    if (!value.AsInteger()) return Wrong("expected an integer for", name);
    return (*value.AsInteger() % 2 != 0) == (name == "odd");
  }
  return Wrong("unsupported test", name);
}

Result<JinjaValue> CallJinjaMethod(const JinjaValue& object, std::string_view name, const JinjaArguments& arguments, size_t max_bytes) {
  if (const std::string* text = object.AsString()) return CallStringMethod(*text, name, arguments, max_bytes);
  if (const JinjaMap* map = object.AsMap()) return CallMapMethod(*map, name, arguments);
  return Fail(ErrorCode::kChatTemplate, "unsupported method \"{}\" of a value of type {}", name, object.TypeName());
}

bool IsJinjaMethod(const JinjaValue& object, std::string_view name) {
  static constexpr std::string_view kOfMaps[] = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                                                 "pop",   "popitem", "setdefault", "update", "values"};
  static constexpr std::string_view kOfStrings[] = {
      "capitalize",   "casefold",   "center",    "count",       "encode",    "endswith",     "expandtabs",   "find",
      "format",       "format_map", "index",     "isalnum",     "isalpha",   "isascii",      "isdecimal",    "isdigit",
      "isidentifier", "islower",    "isnumeric", "isprintable", "isspace",   "istitle",      "isupper",      "join",
      "ljust",        "lower",      "lstrip",    "maketrans",   "partition", "removeprefix", "removesuffix", "replace",
      "rfind",        "rindex",     "rjust",     "rpartition",  "rsplit",    "rstrip",       "split",        "splitlines",
      "startswith",   "strip",      "swapcase",  "title",       "translate", "upper",        "zfill"};
  static constexpr std::string_view kOfLists[] = {"append", "clear", "copy",   "count",   "extend", "index",
                                                  "insert", "pop",   "remove", "reverse", "sort"};
  static constexpr std::string_view kOfIntegers[] = {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
                                                     "from_bytes",       "imag",      "numerator",  "real",      "to_bytes",
                                                     "is_integer"};
  const auto contains = [name](const auto& names) { return std::ranges::find(names, name) != std::end(names) || name.starts_with("__"); };
  if (object.AsMap() != nullptr) return contains(kOfMaps);
  if (object.AsString() != nullptr) return contains(kOfStrings);
  if (object.AsList() != nullptr) return contains(kOfLists);
  if (object.AsInteger()) return contains(kOfIntegers);
  return name.starts_with("__");
}

Result<std::vector<JinjaValue>> JinjaItems(const JinjaValue& value) {
  std::vector<JinjaValue> items;
  if (value.IsUndefined()) return items;
  if (const JinjaList* list = value.AsList()) return list->items;
  if (const std::string* text = value.AsString()) {
    for (const std::string_view character : JinjaCharacters(*text)) items.emplace_back(std::string(character));
    return items;
  }
  if (const JinjaMap* map = value.AsMap()) {
    for (const auto& [key, item] : map->items) items.emplace_back(key);
    return items;
  }
  return Fail(ErrorCode::kChatTemplate, "a value of type {} cannot be iterated", value.TypeName());
}

Result<bool> JinjaContains(const JinjaValue& container, const JinjaValue& item) {
  if (const std::string* text = container.AsString()) {
    if (item.AsString() == nullptr) return Fail(ErrorCode::kChatTemplate, "'in' a text expects a text, found {}", item.TypeName());
    return text->contains(*item.AsString());
  }
  if (const JinjaMap* map = container.AsMap()) {
    if (item.AsList() != nullptr || item.AsMap() != nullptr) return Fail(ErrorCode::kChatTemplate, "a {} cannot be a key", item.TypeName());
    return item.AsString() != nullptr && map->Find(*item.AsString()) != nullptr;
  }
  const std::vector<JinjaValue> items = TRY(JinjaItems(container));
  return std::ranges::any_of(items, [&item](const JinjaValue& other) { return other.Equals(item); });
}

}  // namespace taskpress
