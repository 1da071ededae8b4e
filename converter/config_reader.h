// Reads the fields of one JSON object and collects every problem, so that a bad config.json is reported whole.
#ifndef TASKPRESS_CONVERTER_CONFIG_READER_H_
#define TASKPRESS_CONVERTER_CONFIG_READER_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

class ConfigReader {
 public:
  // `where` names the object in messages: "text_config".
  ConfigReader(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {}

  // Required unless a fallback is given; null counts as absent. A bad value is noted and the lower bound (or fallback) returned, so that
  // reading goes on.
  int64_t Integer(std::string_view field, int64_t low, int64_t high);
  int64_t IntegerOr(std::string_view field, int64_t fallback, int64_t low, int64_t high);
  double Number(std::string_view field, double low, double high);
  double NumberOr(std::string_view field, double fallback, double low, double high);
  // Here null has a meaning of its own: nothing. The field must be there.
  std::optional<double> NumberOrNull(std::string_view field, double low, double high);
  bool Boolean(std::string_view field);
  bool BooleanOr(std::string_view field, bool fallback);
  // One value for all, or a list of `count`.
  std::vector<int64_t> IntegerOrList(std::string_view field, int64_t count, int64_t low, int64_t high);
  std::vector<double> NumberOrList(std::string_view field, int64_t count, double low, double high);
  std::vector<std::string> StringListOrEmpty(std::string_view field);
  std::string StringOr(std::string_view field, std::string_view fallback);
  // The field may be absent or null; any other value than `only` is unsupported.
  void OnlyBoolean(std::string_view field, bool only);
  void OnlyString(std::string_view field, std::string_view only);
  void OnlyNull(std::string_view field);
  // Seen, and without influence on the converted model.
  void Ignore(std::string_view field) { known_.emplace(field); }
  // Null when the field is absent or null.
  [[nodiscard]] const Json* Find(std::string_view field);

  void Problem(std::string_view field, std::string_view what);
  void Unsupported(std::string_view field, std::string_view what);
  // Takes over what another reader found.
  void Adopt(const ConfigReader& other);

  // Names of the fields nobody asked for.
  [[nodiscard]] std::vector<std::string> UnknownFields() const;
  [[nodiscard]] const std::vector<std::string>& problems() const { return problems_; }
  [[nodiscard]] const std::vector<std::string>& unsupported() const { return unsupported_; }

 private:
  bool CheckInteger(std::string_view field, const Json& value, int64_t low, int64_t high);
  bool CheckNumber(std::string_view field, const Json& value, double low, double high);
  // A list of `count` entries, or one entry that stands for all; empty with a problem noted when it is neither.
  std::vector<const Json*> Entries(std::string_view field, int64_t count);

  const Json* object_;
  std::string where_;
  std::set<std::string, std::less<>> known_;
  std::vector<std::string> problems_;
  std::vector<std::string> unsupported_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CONFIG_READER_H_
