#include "converter/text_config.h"

#include "converter/config_reader.h"
#include "converter/model_family.h"
#include "schema/base/text.h"

namespace taskpress {
namespace {

std::string SupportedTypes() {
  std::string list;
  for (const ModelFamily& family : ModelFamilies()) {
    for (const std::string_view type : family.config_types) list += Format("{}\"{}\"", list.empty() ? "" : ", ", type);
  }
  return list;
}

}  // namespace

int64_t TextConfig::kv_source_layer(int64_t layer) const {
  if (layer < first_kv_shared_layer()) return layer;
  for (int64_t source = first_kv_shared_layer() - 1; source >= 0; --source) {
    if (layer_types[static_cast<size_t>(source)] == layer_types[static_cast<size_t>(layer)]) return source;
  }
  return -1;
}

Result<TextConfig> ParseTextConfig(const Json& json) {
  if (!json.is_object()) return Fail(ErrorCode::kConfigField, "a JSON object is needed");
  const std::string type = ConfigReader(json, "config").StringOr("model_type", "");
  const ModelFamily* family = FamilyOfConfigType(type);
  if (family == nullptr) {
    return Fail(ErrorCode::kModelTypeUnsupported, "model_type is \"{}\"; supported: {}", Printable(type), SupportedTypes());
  }
  TextConfig config = TRY(family->parse_config(json));
  config.family = family;
  return config;
}

Result<TextConfig> ReadTextConfig(const std::filesystem::path& config_json) {
  const Json json = TRY(ReadJsonFile(config_json));
  Result<TextConfig> config = ParseTextConfig(json);
  if (!config) return std::unexpected(WithContext(std::move(config).error(), config_json.string()));
  return config;
}

}  // namespace taskpress
