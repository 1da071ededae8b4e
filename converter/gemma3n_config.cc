#include "converter/gemma3n_config.h"

#include "converter/config_reader.h"
#include "schema/base/text.h"

namespace taskpress {
namespace {

// Sanity bounds: far above any published model, far below anything that could overflow.
constexpr int64_t kMaxLayers = 256;
constexpr int64_t kMaxVocab = 1 << 20;
constexpr int64_t kMaxDim = 1 << 17;

void ReadSizes(ConfigReader& reader, Gemma3nConfig& config) {
  config.vocab_size = reader.Integer("vocab_size", 1, kMaxVocab);
  config.vocab_size_per_layer_input = reader.Integer("vocab_size_per_layer_input", 1, kMaxVocab);
  config.hidden_size = reader.Integer("hidden_size", 2, kMaxDim);
  config.hidden_size_per_layer_input = reader.Integer("hidden_size_per_layer_input", 2, kMaxDim);
  config.num_attention_heads = reader.Integer("num_attention_heads", 1, 1024);
  config.num_key_value_heads = reader.Integer("num_key_value_heads", 1, 1024);
  config.head_dim = reader.Integer("head_dim", 2, 4096);
  config.rms_norm_eps = reader.Number("rms_norm_eps", 1e-12, 1e-2);
  config.max_position_embeddings = reader.Integer("max_position_embeddings", 1, 1 << 24);
  config.sliding_window = reader.Integer("sliding_window", 1, 1 << 24);
  config.laurel_rank = reader.Integer("laurel_rank", 2, kMaxDim);
  config.final_logit_softcapping = reader.NumberOrNull("final_logit_softcapping", 1e-3, 1e6).value_or(0);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.Problem("num_attention_heads",
                   Format("{} is not a multiple of num_key_value_heads {}", config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) reader.Problem("head_dim", "must be even for rotary embeddings");
  if (config.vocab_size_per_layer_input > config.vocab_size) reader.Problem("vocab_size_per_layer_input", "larger than vocab_size");
}

void ReadAltup(ConfigReader& reader, Gemma3nConfig& config) {
  config.altup_num_inputs = reader.Integer("altup_num_inputs", 2, 16);
  config.altup_coef_clip = reader.NumberOrNull("altup_coef_clip", 1e-3, 1e9).value_or(0);
  config.altup_correct_scale = reader.Boolean("altup_correct_scale");
  if (reader.IntegerOr("altup_active_idx", 0, 0, 15) != 0) reader.Unsupported("altup_active_idx", "only 0 is supported");
}

constexpr double kMaxRopeBase = 1e12;

// The base that newer files give under rope_parameters.<type>.
double ReadRopeParameters(ConfigReader& reader, const Json& parameters, std::string_view type) {
  if (!parameters.is_object() || !parameters.contains(type)) {
    reader.Problem("rope_parameters", Format("lacks \"{}\"", type));
    return 1;
  }
  ConfigReader inner(parameters[type], Format("rope_parameters.{}", type));
  const double base = inner.Number("rope_theta", 1, kMaxRopeBase);
  inner.OnlyString("rope_type", "default");
  for (const std::string& unknown : inner.UnknownFields()) inner.Unsupported(unknown, "not understood");
  reader.Adopt(inner);
  return base;
}

// Two spellings of the two bases; files may have both if they agree.
void ReadRope(ConfigReader& reader, Gemma3nConfig& config) {
  struct Base {
    const char* field;
    const char* type;
    double& value;
  };
  const Json* parameters = reader.Find("rope_parameters");
  for (const Base& base : {Base{"rope_theta", "full_attention", config.rope_theta},
                           Base{"rope_local_base_freq", "sliding_attention", config.rope_local_base_freq}}) {
    const bool is_spelled_the_old_way = parameters == nullptr || reader.Find(base.field) != nullptr;
    if (is_spelled_the_old_way) base.value = reader.Number(base.field, 1, kMaxRopeBase);
    if (parameters == nullptr) continue;
    const double newer = ReadRopeParameters(reader, *parameters, base.type);
    if (is_spelled_the_old_way && newer != base.value) {
      reader.Problem(base.field, Format("{} contradicts rope_parameters.{}, {}", base.value, base.type, newer));
    }
    base.value = newer;
  }
  reader.OnlyNull("rope_scaling");
}

std::vector<LayerType> ReadLayerTypes(ConfigReader& reader, int64_t layers) {
  std::vector<std::string> names = reader.StringListOrEmpty("layer_types");
  if (names.empty()) {  // transformers' default: every fifth layer sees everything
    for (int64_t layer = 0; layer < layers; ++layer) names.emplace_back((layer + 1) % 5 == 0 ? "full_attention" : "sliding_attention");
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

void ReadLayers(ConfigReader& reader, Gemma3nConfig& config) {
  const size_t problems = reader.problems().size();
  config.num_hidden_layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  config.num_kv_shared_layers = reader.Integer("num_kv_shared_layers", 0, kMaxLayers);
  if (reader.problems().size() > problems) {  // nothing to compare the lists with
    for (const char* field : {"intermediate_size", "activation_sparsity_pattern", "layer_types"}) reader.Ignore(field);
    return;
  }
  config.intermediate_size = reader.IntegerOrList("intermediate_size", config.num_hidden_layers, 2, kMaxDim);
  config.activation_sparsity_pattern = reader.NumberOrList("activation_sparsity_pattern", config.num_hidden_layers, 0.0, 0.9999999);
  config.layer_types = ReadLayerTypes(reader, config.num_hidden_layers);
  if (config.num_kv_shared_layers >= config.num_hidden_layers) {
    reader.Problem("num_kv_shared_layers", "no layer is left that owns keys and values");
    return;
  }
  for (int64_t layer = config.first_kv_shared_layer(); layer < config.num_hidden_layers; ++layer) {
    if (config.kv_source_layer(layer) < 0) {
      reader.Problem("layer_types", Format("layer {} shares keys and values, but no owning layer below it has its type", layer));
    }
  }
}

// What the text model does not have, and what has no influence on it.
void CheckFixedFields(ConfigReader& reader) {
  reader.OnlyString("model_type", "gemma3n_text");
  reader.OnlyString("hidden_activation", "gelu_pytorch_tanh");
  reader.OnlyBoolean("attention_bias", false);
  reader.OnlyBoolean("tie_word_embeddings", true);
  // query_pre_attn_scalar is in shipped files and must not be used: the attention scale of Gemma 3n is 1.
  for (const char* field : {"attention_dropout", "initializer_range", "use_cache", "pad_token_id", "eos_token_id", "bos_token_id",
                            "query_pre_attn_scalar", "altup_lr_multiplier", "torch_dtype", "dtype", "cache_implementation", "architectures",
                            "transformers_version", "_name_or_path", "_attn_implementation_autoset"}) {
    reader.Ignore(field);
  }
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "; ") + line;
  return text;
}

}  // namespace

int64_t Gemma3nConfig::kv_source_layer(int64_t layer) const {
  if (layer < first_kv_shared_layer()) return layer;
  for (int64_t source = first_kv_shared_layer() - 1; source >= 0; --source) {
    if (layer_types[static_cast<size_t>(source)] == layer_types[static_cast<size_t>(layer)]) return source;
  }
  return -1;
}

Result<Gemma3nConfig> ParseGemma3nConfig(const Json& json) {
  if (!json.is_object()) return Fail(ErrorCode::kConfigField, "a JSON object is needed");
  ConfigReader outer(json, "config");
  const std::string model_type = outer.StringOr("model_type", "");
  if (model_type != "gemma3n" && model_type != "gemma3n_text") {
    return Fail(ErrorCode::kModelTypeUnsupported, "model_type is \"{}\"; supported: \"gemma3n\", \"gemma3n_text\"", Printable(model_type));
  }
  const Json* text = &json;
  if (model_type == "gemma3n") {
    text = outer.Find("text_config");
    if (text == nullptr || !text->is_object()) return Fail(ErrorCode::kConfigField, "config.text_config: missing");
    outer.OnlyBoolean("tie_word_embeddings", true);
  }
  ConfigReader reader(*text, model_type == "gemma3n" ? "text_config" : "config");
  Gemma3nConfig config;
  ReadSizes(reader, config);
  ReadAltup(reader, config);
  ReadRope(reader, config);
  ReadLayers(reader, config);
  CheckFixedFields(reader);
  outer.Adopt(reader);
  if (!outer.problems().empty()) return Fail(ErrorCode::kConfigField, "{}", Joined(outer.problems()));
  if (!outer.unsupported().empty()) return Fail(ErrorCode::kConfigUnsupported, "{}", Joined(outer.unsupported()));
  for (const std::string& field : reader.UnknownFields())
    config.notes.push_back(Format("config field {} is not known and not used", Printable(field)));
  return config;
}

Result<Gemma3nConfig> ReadGemma3nConfig(const std::filesystem::path& config_json) {
  const Json json = TRY(ReadJsonFile(config_json));
  Result<Gemma3nConfig> config = ParseGemma3nConfig(json);
  if (!config) return std::unexpected(WithContext(std::move(config).error(), config_json.string()));
  return config;
}

}  // namespace taskpress
