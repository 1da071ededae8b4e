#include "converter/config_fields.h"

#include "schema/base/text.h"

namespace taskpress {
namespace {

int64_t IntegerOrDefault(ConfigReader& reader, std::string_view field, int64_t fallback, int64_t low, int64_t high) {
  return fallback == 0 ? reader.Integer(field, low, high) : reader.IntegerOr(field, fallback, low, high);
}

double NumberOrDefault(ConfigReader& reader, std::string_view field, double fallback, double low, double high) {
  return fallback == 0 ? reader.Number(field, low, high) : reader.NumberOr(field, fallback, low, high);
}

// {"rope_type": "linear", "factor": 8.0}; the type's older spelling is "type".
double ReadScaling(ConfigReader& reader) {
  const std::string type = reader.StringOr("rope_type", reader.StringOr("type", "default"));
  if (type == "linear") return reader.Number("factor", 1e-3, 1e6);
  if (type != "default") reader.Unsupported("rope_type", Format("\"{}\", only \"default\" and \"linear\" are supported", Printable(type)));
  return 1;
}

struct Rope {
  double base = 1;
  double linear_factor = 1;
};

// What newer files give under rope_parameters.<type>.
Rope ReadRopeParameters(ConfigReader& reader, const Json& parameters, std::string_view type) {
  if (!parameters.is_object() || !parameters.contains(type)) {
    reader.Problem("rope_parameters", Format("lacks \"{}\"", type));
    return {};
  }
  ConfigReader inner(parameters[type], Format("rope_parameters.{}", type));
  Rope rope;
  rope.base = inner.Number("rope_theta", 1, kMaxRopeBase);
  rope.linear_factor = ReadScaling(inner);
  for (const std::string& unknown : inner.UnknownFields()) inner.Unsupported(unknown, "not understood");
  reader.Adopt(inner);
  return rope;
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "; ") + line;
  return text;
}

}  // namespace

void ReadSizes(ConfigReader& reader, const ConfigDefaults& defaults, TextConfig& config) {
  config.vocab_size = IntegerOrDefault(reader, "vocab_size", defaults.vocab_size, 1, kMaxVocab);
  config.hidden_size = reader.Integer("hidden_size", 2, kMaxDim);
  config.num_attention_heads = IntegerOrDefault(reader, "num_attention_heads", defaults.num_attention_heads, 1, 1024);
  config.num_key_value_heads = IntegerOrDefault(reader, "num_key_value_heads", defaults.num_key_value_heads, 1, 1024);
  config.head_dim = IntegerOrDefault(reader, "head_dim", defaults.head_dim, 2, 4096);
  config.rms_norm_eps = NumberOrDefault(reader, "rms_norm_eps", defaults.rms_norm_eps, 1e-12, 1e-2);
  config.max_position_embeddings = IntegerOrDefault(reader, "max_position_embeddings", defaults.max_position_embeddings, 1, 1 << 24);
  config.sliding_window = reader.Integer("sliding_window", 1, 1 << 24);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.Problem("num_attention_heads",
                   Format("{} is not a multiple of num_key_value_heads {}", config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) reader.Problem("head_dim", "must be even for rotary embeddings");
}

void ReadRope(ConfigReader& reader, const ConfigDefaults& defaults, TextConfig& config) {
  double sliding_factor = 1;
  struct Spelling {
    const char* field;
    double fallback;
    const char* type;
    double& base;
    double& linear_factor;
  };
  const Json* scaling = reader.Find("rope_scaling");
  if (scaling != nullptr && scaling->is_object()) {
    ConfigReader inner(*scaling, "rope_scaling");
    config.rope_linear_factor = ReadScaling(inner);
    for (const std::string& unknown : inner.UnknownFields()) inner.Unsupported(unknown, "not understood");
    reader.Adopt(inner);
  } else if (scaling != nullptr) {
    reader.Problem("rope_scaling", "an object or null is needed");
  }
  const Json* parameters = reader.Find("rope_parameters");
  for (const Spelling& each : {Spelling{"rope_theta", defaults.rope_theta, "full_attention", config.rope_theta, config.rope_linear_factor},
                               Spelling{"rope_local_base_freq", defaults.rope_local_base_freq, "sliding_attention",
                                        config.rope_local_base_freq, sliding_factor}}) {
    const bool is_spelled_the_old_way = parameters == nullptr || reader.Find(each.field) != nullptr;
    if (is_spelled_the_old_way) each.base = NumberOrDefault(reader, each.field, each.fallback, 1, kMaxRopeBase);
    if (parameters == nullptr) continue;
    const Rope newer = ReadRopeParameters(reader, *parameters, each.type);
    if (is_spelled_the_old_way && newer.base != each.base) {
      reader.Problem(each.field, Format("{} contradicts rope_parameters.{}, {}", each.base, each.type, newer.base));
    }
    if (scaling != nullptr && newer.linear_factor != each.linear_factor) {
      reader.Problem("rope_scaling", Format("contradicts rope_parameters.{}", each.type));
    }
    each.base = newer.base;
    each.linear_factor = newer.linear_factor;
  }
  if (sliding_factor != 1) reader.Unsupported("rope_parameters.sliding_attention", "scaling is supported on full attention alone");
}

std::vector<LayerType> ReadLayerTypes(ConfigReader& reader, int64_t layers, int64_t pattern) {
  std::vector<std::string> names = reader.StringListOrEmpty("layer_types");
  if (names.empty()) {
    for (int64_t layer = 0; layer < layers; ++layer)
      names.emplace_back((layer + 1) % pattern == 0 ? "full_attention" : "sliding_attention");
  }
  if (names.size() != static_cast<size_t>(layers)) {
    reader.Problem("layer_types", Format("{} entries for {} layers", names.size(), layers));
    names.resize(static_cast<size_t>(layers), "full_attention");
  }
  std::vector<LayerType> types;
  for (const std::string& name : names) {
    if (name != "full_attention" && name != "sliding_attention") {
      reader.Problem("layer_types", Format("unknown type \"{}\"", Printable(name)));
    }
    types.push_back(name == "full_attention" ? LayerType::kFull : LayerType::kSliding);
  }
  return types;
}

void CheckFixedFields(ConfigReader& reader, std::string_view model_type) {
  reader.OnlyString("model_type", model_type);
  reader.OnlyString("hidden_activation", "gelu_pytorch_tanh");
  reader.OnlyBoolean("attention_bias", false);
  reader.OnlyBoolean("tie_word_embeddings", true);
  for (const char* field :
       {"attention_dropout", "initializer_range", "use_cache", "pad_token_id", "eos_token_id", "bos_token_id", "torch_dtype", "dtype",
        "cache_implementation", "architectures", "transformers_version", "_name_or_path", "_attn_implementation_autoset"}) {
    reader.Ignore(field);
  }
}

Result<TextPart> FindTextPart(const Json& config, std::string_view text_type) {
  ConfigReader outer(config, "config");
  if (outer.StringOr("model_type", "") == text_type) return TextPart{.outer = outer, .text = ConfigReader(config, "config")};
  const Json* text = outer.Find("text_config");
  if (text == nullptr || !text->is_object()) return Fail(ErrorCode::kConfigField, "config.text_config: missing");
  outer.OnlyBoolean("tie_word_embeddings", true);
  return TextPart{.outer = outer, .text = ConfigReader(*text, "text_config")};
}

Status FinishConfig(TextPart& part, TextConfig& config) {
  part.outer.Adopt(part.text);
  if (!part.outer.problems().empty()) return Fail(ErrorCode::kConfigField, "{}", Joined(part.outer.problems()));
  if (!part.outer.unsupported().empty()) return Fail(ErrorCode::kConfigUnsupported, "{}", Joined(part.outer.unsupported()));
  for (const std::string& field : part.text.UnknownFields())
    config.notes.push_back(Format("config field {} is not known and not used", Printable(field)));
  return {};
}

}  // namespace taskpress
