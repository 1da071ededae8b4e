#include <array>

#include "converter/gguf_model.h"
#include "converter/model_family.h"
#include "schema/base/text.h"

// V5 and V6 are rules of FORMATS.md, section GGUF.
namespace taskpress {
namespace {

// V5: keys below the architecture that mean the same in every family.
struct SharedField {
  std::string_view key;
  std::string_view field;  // of config.json
  bool required;
};
constexpr auto kSharedFields = std::to_array<SharedField>({
    {"context_length", "max_position_embeddings", true},
    {"embedding_length", "hidden_size", true},
    {"block_count", "num_hidden_layers", true},
    {"feed_forward_length", "intermediate_size", true},
    {"attention.head_count", "num_attention_heads", true},
    {"attention.head_count_kv", "num_key_value_heads", true},
    {"attention.key_length", "head_dim", true},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
    {"attention.sliding_window", "sliding_window", true},
    {"rope.freq_base", "rope_theta", true},
    {"rope.freq_base_swa", "rope_local_base_freq", false},
});
// llama.cpp's own default for sliding layers; its converter writes no key.
constexpr double kLocalRopeBase = 1e4;

Json ToJson(const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    Json list = Json::array();
    for (const GgufValue& element : *array) list.push_back(ToJson(element));
    return list;
  }
  if (const auto* boolean = std::get_if<bool>(&value)) return *boolean;
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  if (const auto* natural = std::get_if<uint64_t>(&value)) return *natural;
  if (const auto* number = std::get_if<double>(&value)) return *number;
  return std::get<std::string_view>(value);
}

// rope.scaling: none, or linear on full attention.
Status AddRopeScaling(const GgufFields& fields, Json& config) {
  const Json type = fields.Find("rope.scaling.type");
  if (type.is_null() || type == "none") return {};
  if (type != "linear") return Fail(ErrorCode::kGgufUnsupported, "rope scaling {}, only linear is converted", Printable(type.dump()));
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", TRY(fields.Require("rope.scaling.factor"))}};
  return {};
}

// One truth value per layer: true slides. Files without it follow their family's pattern.
Status AddLayerTypes(const GgufFields& fields, Json& config) {
  const Json pattern = fields.Find("attention.sliding_window_pattern");
  if (pattern.is_null()) return {};
  Json types = Json::array();
  for (const Json& slides : pattern) {
    if (!slides.is_boolean()) return Fail(ErrorCode::kGgufHeader, "attention.sliding_window_pattern is no array of truth values");
    types.push_back(slides.get<bool>() ? "sliding_attention" : "full_attention");
  }
  config["layer_types"] = std::move(types);
  return {};
}

}  // namespace

Json GgufFields::Find(std::string_view key) const {
  const GgufValue* value = gguf_->Find(Format("{}.{}", architecture_, key));
  return value == nullptr ? Json() : ToJson(*value);
}

Result<Json> GgufFields::Require(std::string_view key) const {
  Json value = Find(key);
  if (value.is_null()) return Fail(ErrorCode::kGgufHeader, "no key \"{}.{}\"", architecture_, key);
  return value;
}

Result<const GgufTensor*> GgufFields::RequireTensor(std::string_view name) const {
  const GgufTensor* tensor = gguf_->FindTensor(name);
  if (tensor == nullptr || tensor->shape.empty()) return Fail(ErrorCode::kWeightsMismatch, "no tensor \"{}\"", name);
  return tensor;
}

Result<Json> ConfigOfGguf(const GgufFile& gguf, const ModelFamily& family) {
  const GgufFields fields(gguf, family.name);
  Json config{{"model_type", family.config_types[1]}, {"rope_local_base_freq", kLocalRopeBase}};
  for (const SharedField& shared : kSharedFields) {
    Json value = shared.required ? TRY(fields.Require(shared.key)) : fields.Find(shared.key);
    if (!value.is_null()) config[shared.field] = std::move(value);
  }
  if (const Json width = fields.Find("attention.value_length"); !width.is_null() && width != config["head_dim"]) {  // V6
    return Fail(ErrorCode::kGgufUnsupported, "values of {} per head beside keys of {}", width.dump(), config["head_dim"].dump());
  }
  config["vocab_size"] = TRY(fields.RequireTensor("token_embd.weight"))->shape[0];
  TRY(AddRopeScaling(fields, config));
  TRY(AddLayerTypes(fields, config));
  TRY(family.add_gguf_fields(fields, config));
  return config;
}

}  // namespace taskpress
