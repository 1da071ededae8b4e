// Values of a running Jinja template. They behave as Python's do; what would need more of Python is refused.
#ifndef TASKPRESS_CONVERTER_JINJA_VALUE_H_
#define TASKPRESS_CONVERTER_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

class JinjaValue;

struct JinjaUndefined {};
struct JinjaNone {};
// The namespaces of a run live in its renderer, so values cannot form cycles.
struct JinjaNamespace {
  size_t index = 0;
};

// kView: what items(), keys() and range() give; it can be walked through, but not printed or indexed.
enum class JinjaListKind : uint8_t { kList, kTuple, kView };
struct JinjaList {
  JinjaListKind kind = JinjaListKind::kList;
  int depth = 1;
  std::vector<JinjaValue> items;
};
// In order of insertion. An opaque map is not a dictionary but an object with attributes: the variable `loop`.
struct JinjaMap {
  bool opaque = false;
  int depth = 1;
  std::vector<std::pair<std::string, JinjaValue>> items;

  [[nodiscard]] const JinjaValue* Find(std::string_view key) const;
};

class JinjaValue {
 public:
  JinjaValue() = default;
  explicit JinjaValue(JinjaNone none) : value_(none) {}
  explicit JinjaValue(bool value) : value_(value) {}
  explicit JinjaValue(int64_t value) : value_(value) {}
  explicit JinjaValue(std::string value) : value_(std::make_shared<const std::string>(std::move(value))) {}
  explicit JinjaValue(JinjaNamespace value) : value_(value) {}
  explicit JinjaValue(JinjaMap map);

  // Values may not be nested without bound: they are destroyed recursively. kChatTemplate.
  static Result<JinjaValue> MakeList(std::vector<JinjaValue> items, JinjaListKind kind);
  static Result<JinjaValue> MakeMap(std::vector<std::pair<std::string, JinjaValue>> items);
  // No floating point numbers. kChatTemplate.
  static Result<JinjaValue> FromJson(const OrderedJson& json);

  [[nodiscard]] bool IsUndefined() const { return std::holds_alternative<JinjaUndefined>(value_); }
  [[nodiscard]] bool IsNone() const { return std::holds_alternative<JinjaNone>(value_); }
  [[nodiscard]] const bool* AsBoolean() const { return std::get_if<bool>(&value_); }
  // Python's bool is an int.
  [[nodiscard]] std::optional<int64_t> AsInteger() const;
  [[nodiscard]] const std::string* AsString() const;
  [[nodiscard]] const JinjaList* AsList() const;
  // Dictionaries only.
  [[nodiscard]] const JinjaMap* AsMap() const;
  [[nodiscard]] const JinjaMap* AsObject() const;
  [[nodiscard]] const JinjaNamespace* AsNamespace() const { return std::get_if<JinjaNamespace>(&value_); }

  [[nodiscard]] bool IsTrue() const;
  [[nodiscard]] int depth() const;
  // "str", "list", ...
  [[nodiscard]] std::string_view TypeName() const;
  // Python's ==.
  [[nodiscard]] bool Equals(const JinjaValue& other) const;
  // Python's str(). kChatTemplate for values whose spelling is an accident of Python.
  [[nodiscard]] Result<std::string> ToText() const;

 private:
  [[nodiscard]] Result<std::string> Repr() const;

  std::variant<JinjaUndefined, JinjaNone, bool, int64_t, std::shared_ptr<const std::string>, std::shared_ptr<const JinjaList>,
               std::shared_ptr<const JinjaMap>, JinjaNamespace>
      value_;
};

// Text as Python sees it: one string per character.
std::vector<std::string_view> JinjaCharacters(std::string_view text);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_JINJA_VALUE_H_
