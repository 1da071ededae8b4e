// Strict JSON for files we did not write: size and depth are bounded, duplicate keys and invalid UTF-8 are errors.
#ifndef TASKPRESS_SCHEMA_JSON_H_
#define TASKPRESS_SCHEMA_JSON_H_

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

// Compiled once, in json_templates.cc, instead of in every file that touches a document.
extern template class nlohmann::basic_json<>;
extern template class nlohmann::basic_json<nlohmann::ordered_map>;
extern template nlohmann::json nlohmann::json::parse(std::string&, nlohmann::json::parser_callback_t, bool, bool);
extern template nlohmann::json nlohmann::json::parse(const std::string&, nlohmann::json::parser_callback_t, bool, bool);
extern template nlohmann::json nlohmann::json::parse(std::ifstream&, nlohmann::json::parser_callback_t, bool, bool);

namespace taskpress {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

struct JsonLimits {
  uint64_t max_bytes = 16 << 20;
  int max_depth = 64;
};

// kBadJson with byte offset and reason.
Result<Json> ParseJson(ByteView text, JsonLimits limits = {});
// Reads and parses; the file name is in every message.
Result<Json> ReadJsonFile(const std::filesystem::path& path, JsonLimits limits = {});

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_JSON_H_
