#include "converter/config_reader.h"

#include "schema/base/text.h"

namespace taskpress {
namespace {

// A value as it stands in the file, cut when long.
std::string Shown(const Json& value) { return Printable(value.dump(-1, ' ', false, Json::error_handler_t::replace)); }

}  // namespace

const Json* ConfigReader::Find(std::string_view field) {
  known_.emplace(field);
  if (!object_->is_object()) return nullptr;
  const auto found = object_->find(field);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::Problem(std::string_view field, std::string_view what) { problems_.push_back(Format("{}.{}: {}", where_, field, what)); }

void ConfigReader::Unsupported(std::string_view field, std::string_view what) {
  unsupported_.push_back(Format("{}.{}: {}", where_, field, what));
}

void ConfigReader::Adopt(const ConfigReader& other) {
  problems_.insert(problems_.end(), other.problems_.begin(), other.problems_.end());
  unsupported_.insert(unsupported_.end(), other.unsupported_.begin(), other.unsupported_.end());
}

bool ConfigReader::CheckInteger(std::string_view field, const Json& value, int64_t low, int64_t high) {
  // A JSON number above 2^63 is unsigned and must not wrap.
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) ||
      value.get<int64_t>() < low || value.get<int64_t>() > high) {
    Problem(field, Format("an integer from {} to {} is needed, found {}", low, high, Shown(value)));
    return false;
  }
  return true;
}

bool ConfigReader::CheckNumber(std::string_view field, const Json& value, double low, double high) {
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high)) {
    Problem(field, Format("a number from {} to {} is needed, found {}", low, high, Shown(value)));
    return false;
  }
  return true;
}

int64_t ConfigReader::Integer(std::string_view field, int64_t low, int64_t high) {
  const Json* value = Find(field);
  if (value == nullptr) {
    Problem(field, "missing");
    return low;
  }
  return CheckInteger(field, *value, low, high) ? value->get<int64_t>() : low;
}

int64_t ConfigReader::IntegerOr(std::string_view field, int64_t fallback, int64_t low, int64_t high) {
  const Json* value = Find(field);
  return value != nullptr && CheckInteger(field, *value, low, high) ? value->get<int64_t>() : fallback;
}

double ConfigReader::Number(std::string_view field, double low, double high) {
  const Json* value = Find(field);
  if (value == nullptr) {
    Problem(field, "missing");
    return low;
  }
  return CheckNumber(field, *value, low, high) ? value->get<double>() : low;
}

double ConfigReader::NumberOr(std::string_view field, double fallback, double low, double high) {
  const Json* value = Find(field);
  return value != nullptr && CheckNumber(field, *value, low, high) ? value->get<double>() : fallback;
}

std::optional<double> ConfigReader::NumberOrNull(std::string_view field, double low, double high) {
  const Json* value = Find(field);
  if (value != nullptr) return CheckNumber(field, *value, low, high) ? value->get<double>() : low;
  if (!object_->is_object() || !object_->contains(field)) Problem(field, "missing; null stands for none");
  return std::nullopt;
}

bool ConfigReader::Boolean(std::string_view field) {
  if (Find(field) == nullptr) Problem(field, "missing");
  return BooleanOr(field, false);
}

bool ConfigReader::BooleanOr(std::string_view field, bool fallback) {
  const Json* value = Find(field);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    Problem(field, Format("true or false is needed, found {}", Shown(*value)));
    return fallback;
  }
  return value->get<bool>();
}

std::vector<const Json*> ConfigReader::Entries(std::string_view field, int64_t count) {
  const Json* value = Find(field);
  std::vector<const Json*> entries;
  if (value == nullptr) {
    Problem(field, "missing");
  } else if (!value->is_array()) {
    entries.assign(static_cast<size_t>(count), value);
  } else if (value->size() != static_cast<size_t>(count)) {
    Problem(field, Format("{} entries for {} layers", value->size(), count));
  } else {
    for (const Json& entry : *value) entries.push_back(&entry);
  }
  return entries;
}

std::vector<int64_t> ConfigReader::IntegerOrList(std::string_view field, int64_t count, int64_t low, int64_t high) {
  std::vector<int64_t> all(static_cast<size_t>(count), low);
  const std::vector<const Json*> entries = Entries(field, count);
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool repeated = i > 0 && entries[i] == entries[0];  // one value for all: one problem
    if (repeated) {
      all[i] = all[0];
    } else if (CheckInteger(Format("{}[{}]", field, i), *entries[i], low, high)) {
      all[i] = entries[i]->get<int64_t>();
    }
  }
  return all;
}

std::vector<double> ConfigReader::NumberOrList(std::string_view field, int64_t count, double low, double high) {
  std::vector<double> all(static_cast<size_t>(count), low);
  const std::vector<const Json*> entries = Entries(field, count);
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool repeated = i > 0 && entries[i] == entries[0];
    if (repeated) {
      all[i] = all[0];
    } else if (CheckNumber(Format("{}[{}]", field, i), *entries[i], low, high)) {
      all[i] = entries[i]->get<double>();
    }
  }
  return all;
}

std::vector<std::string> ConfigReader::StringListOrEmpty(std::string_view field) {
  const Json* value = Find(field);
  std::vector<std::string> all;
  if (value == nullptr) return all;
  if (!value->is_array()) {
    Problem(field, "a list of strings is needed");
    return all;
  }
  for (const Json& entry : *value) {
    if (entry.is_string()) {
      all.push_back(entry.get<std::string>());
    } else {
      Problem(field, "a list of strings is needed");
      return {};
    }
  }
  return all;
}

std::string ConfigReader::StringOr(std::string_view field, std::string_view fallback) {
  const Json* value = Find(field);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) {
    Problem(field, "a string is needed");
    return std::string(fallback);
  }
  return value->get<std::string>();
}

void ConfigReader::OnlyBoolean(std::string_view field, bool only) {
  if (BooleanOr(field, only) != only) Unsupported(field, Format("only {} is supported", only));
}

void ConfigReader::OnlyString(std::string_view field, std::string_view only) {
  const std::string value = StringOr(field, only);
  if (value != only) Unsupported(field, Format("only \"{}\" is supported, found \"{}\"", only, Printable(value)));
}

void ConfigReader::OnlyNull(std::string_view field) {
  if (const Json* value = Find(field)) Unsupported(field, Format("only null is supported, found {}", Shown(*value)));
}

std::vector<std::string> ConfigReader::UnknownFields() const {
  std::vector<std::string> unknown;
  if (!object_->is_object()) return unknown;
  for (const auto& [field, value] : object_->items()) {
    if (!known_.contains(field)) unknown.push_back(field);
  }
  return unknown;
}

}  // namespace taskpress
