// Filters, tests and methods of the Jinja subset. Each does what jinja2 or Python does for the values it takes, and refuses others.
#ifndef TASKPRESS_CONVERTER_JINJA_BUILTINS_H_
#define TASKPRESS_CONVERTER_JINJA_BUILTINS_H_

#include <span>
#include <string>
#include <string_view>

#include "converter/jinja_value.h"
#include "schema/base/error.h"

namespace taskpress {

struct JinjaArguments {
  std::vector<JinjaValue> positional;
  std::vector<std::pair<std::string, JinjaValue>> named;
};

// All kChatTemplate, without the line. The results are at most as large as `max_bytes` of text.
Result<JinjaValue> ApplyJinjaFilter(std::string_view name, const JinjaValue& value, const JinjaArguments& arguments, size_t max_bytes);
Result<bool> ApplyJinjaTest(std::string_view name, const JinjaValue& value, const JinjaArguments& arguments);
Result<JinjaValue> CallJinjaMethod(const JinjaValue& object, std::string_view name, const JinjaArguments& arguments, size_t max_bytes);
// True for names that mean a method of this kind of object in Python, so that `x.items` is not the key "items".
bool IsJinjaMethod(const JinjaValue& object, std::string_view name);

// What `for` and `in` see: items, characters, keys.
Result<std::vector<JinjaValue>> JinjaItems(const JinjaValue& value);
Result<bool> JinjaContains(const JinjaValue& container, const JinjaValue& item);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_JINJA_BUILTINS_H_
