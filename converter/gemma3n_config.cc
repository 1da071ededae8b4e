#include "converter/gemma3n_config.h"

#include "converter/config_reader.h"

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
  config.num_hidden_layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  config.intermediate_size = reader.IntegerOrList("intermediate_size", config.num_hidden_layers, 2, kMaxDim);
  config.num_attention_heads = reader.Integer("num_attention_heads", 1, 1024);
  config.num_key_value_heads = reader.Integer("num_key_value_heads", 1, 1024);
  config.head_dim = reader.Integer("head_dim", 2, 4096);
  config.rms_norm_eps = reader.Number("rms_norm_eps", 1e-12, 1e-2);
  config.max_position_embeddings = reader.Integer("max_position_embeddings", 1, 1 << 24);
  config.laurel_rank = reader.Integer("laurel_rank", 2, kMaxDim);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.Problem("num_attention_heads",
                   std::format("{} is not a multiple of num_key_value_heads {}", config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) reader.Problem("head_dim", "must be even for rotary embeddings");
  if (config.vocab_size_per_layer_input > config.vocab_size) reader.Problem("vocab_size_per_layer_input", "larger than vocab_size");
}

void ReadAltup(ConfigReader& reader, Gemma3nConfig& config) {
  config.altup_num_inputs = reader.Integer("altup_num_inputs", 2, 16);
  config.altup_coef_clip = reader.NumberOr("altup_coef_clip", 0, 0, 1e9);
  config.altup_correct_scale = reader.BooleanOr("altup_correct_scale", true);
  if (reader.IntegerOr("altup_active_idx", 0, 0, 15) != 0) reader.Unsupported("altup_active_idx", "only 0 is supported");
}

void ReadRope(ConfigReader& reader, Gemma3nConfig& config) {
  config.rope_theta = reader.NumberOr("rope_theta", 1e6, 1, 1e12);
  config.rope_local_base_freq = reader.NumberOr("rope_local_base_freq", 1e4, 1, 1e12);
  reader.OnlyNull("rope_scaling");
  // Newer files spell the two bases per layer type.
  const Json* parameters = reader.Find("rope_parameters");
  if (parameters == nullptr) return;
  for (const auto& [type, target] :
       {std::pair{"full_attention", &config.rope_theta}, std::pair{"sliding_attention", &config.rope_local_base_freq}}) {
    if (!parameters->is_object() || !parameters->contains(type)) {
      reader.Problem("rope_parameters", std::format("lacks \"{}\"", type));
      continue;
    }
    ConfigReader inner((*parameters)[type], "rope_parameters");
    *target = inner.Number("rope_theta", 1, 1e12);
    inner.OnlyString("rope_type", "default");
    for (const std::string& problem : inner.problems()) reader.Problem(type, problem);
    for (const std::string& problem : inner.unsupported()) reader.Unsupported(type, problem);
    for (const std::string& unknown : inner.UnknownFields()) reader.Unsupported(type, std::format("{} is not understood", unknown));
  }
}

void ReadLayers(ConfigReader& reader, Gemma3nConfig& config) {
  config.sliding_window = reader.Integer("sliding_window", 1, 1 << 24);
  config.num_kv_shared_layers = reader.IntegerOr("num_kv_shared_layers", 0, 0, kMaxLayers);
  config.activation_sparsity_pattern = reader.NumberList("activation_sparsity_pattern", config.num_hidden_layers, 0.0, 0.9999999);
  std::vector<std::string> types = reader.StringListOrEmpty("layer_types");
  if (types.empty()) {  // the published pattern: every fifth layer sees everything
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
      types.emplace_back((layer + 1) % 5 == 0 ? "full_attention" : "sliding_attention");
  }
  if (types.size() != static_cast<size_t>(config.num_hidden_layers)) {
    reader.Problem("layer_types", std::format("{} entries for {} layers", types.size(), config.num_hidden_layers));
    types.resize(static_cast<size_t>(config.num_hidden_layers), "full_attention");
  }
  for (const std::string& type : types) {
    if (type != "full_attention" && type != "sliding_attention") reader.Problem("layer_types", std::format("unknown type \"{}\"", type));
    config.layer_types.push_back(type == "full_attention" ? LayerType::kFull : LayerType::kSliding);
  }
  if (config.num_kv_shared_layers >= config.num_hidden_layers) {
    reader.Problem("num_kv_shared_layers", "no layer is left that owns keys and values");
    config.num_kv_shared_layers = 0;
  }
  for (int64_t layer = config.first_kv_shared_layer(); layer < config.num_hidden_layers; ++layer) {
    if (config.kv_source_layer(layer) < 0) {
      reader.Problem("layer_types", std::format("layer {} shares keys and values, but no owning layer below it has its type", layer));
    }
  }
}

// What the text model does not have, and what has no influence on it.
void CheckFixedFields(ConfigReader& reader) {
  reader.OnlyString("hidden_activation", "gelu_pytorch_tanh");
  reader.OnlyBoolean("attention_bias", false);
  reader.OnlyBoolean("tie_word_embeddings", true);
  // query_pre_attn_scalar is in shipped files and must not be used: the attention scale of Gemma 3n is 1.
  for (const char* field : {"model_type", "attention_dropout", "initializer_range", "use_cache", "pad_token_id", "eos_token_id",
                            "bos_token_id", "query_pre_attn_scalar", "altup_lr_multiplier", "torch_dtype", "dtype", "cache_implementation",
                            "architectures", "transformers_version", "_name_or_path", "_attn_implementation_autoset"}) {
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
    return Fail(ErrorCode::kModelTypeUnsupported, "model_type is \"{}\"; supported: \"gemma3n\", \"gemma3n_text\"", model_type);
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
  config.final_logit_softcapping = reader.NumberOr("final_logit_softcapping", 0, 0, 1e6);
  CheckFixedFields(reader);
  std::vector<std::string> problems = outer.problems();
  problems.insert(problems.end(), reader.problems().begin(), reader.problems().end());
  if (!problems.empty()) return Fail(ErrorCode::kConfigField, "{}", Joined(problems));
  std::vector<std::string> unsupported = outer.unsupported();
  unsupported.insert(unsupported.end(), reader.unsupported().begin(), reader.unsupported().end());
  if (!unsupported.empty()) return Fail(ErrorCode::kConfigUnsupported, "{}", Joined(unsupported));
  for (const std::string& field : reader.UnknownFields()) config.notes.push_back(std::format("{} is not known and not used", field));
  return config;
}

Result<Gemma3nConfig> ReadGemma3nConfig(const std::filesystem::path& config_json) {
  const Json json = TRY(ReadJsonFile(config_json));
  Result<Gemma3nConfig> config = ParseGemma3nConfig(json);
  if (!config) return std::unexpected(WithContext(std::move(config).error(), config_json.string()));
  return config;
}

}  // namespace taskpress
