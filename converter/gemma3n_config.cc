#include "converter/config_fields.h"
#include "converter/gemma3n.h"

namespace taskpress {
namespace {

constexpr int64_t kFullAttentionEvery = 5;

void ReadPerLayerEmbedding(ConfigReader& reader, TextConfig& config) {
  config.text_vocab_size = reader.Integer("vocab_size_per_layer_input", 1, kMaxVocab);
  config.hidden_size_per_layer_input = reader.Integer("hidden_size_per_layer_input", 2, kMaxDim);
  if (config.text_vocab_size > config.vocab_size) reader.Problem("vocab_size_per_layer_input", "larger than vocab_size");
}

void ReadAltup(ConfigReader& reader, TextConfig& config) {
  config.altup_num_inputs = reader.Integer("altup_num_inputs", 2, 16);
  config.altup_coef_clip = reader.NumberOrNull("altup_coef_clip", 1e-3, 1e9).value_or(0);
  config.altup_correct_scale = reader.Boolean("altup_correct_scale");
  if (reader.IntegerOr("altup_active_idx", 0, 0, 15) != 0) reader.Unsupported("altup_active_idx", "only 0 is supported");
}

void ReadLayers(ConfigReader& reader, TextConfig& config) {
  const size_t problems = reader.problems().size();
  config.num_hidden_layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  config.num_kv_shared_layers = reader.Integer("num_kv_shared_layers", 0, kMaxLayers);
  if (reader.problems().size() > problems) {  // nothing to compare the lists with
    for (const char* field : {"intermediate_size", "activation_sparsity_pattern", "layer_types"}) reader.Ignore(field);
    return;
  }
  config.intermediate_size = reader.IntegerOrList("intermediate_size", config.num_hidden_layers, 2, kMaxDim);
  config.activation_sparsity_pattern = reader.NumberOrList("activation_sparsity_pattern", config.num_hidden_layers, 0.0, 0.9999999);
  config.layer_types = ReadLayerTypes(reader, config.num_hidden_layers, kFullAttentionEvery);
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

}  // namespace

Result<TextConfig> ParseGemma3nConfig(const Json& json) {
  TextPart part = TRY(FindTextPart(json, "gemma3n_text"));
  ConfigReader& reader = part.text;
  TextConfig config;
  ReadSizes(reader, {}, config);
  ReadPerLayerEmbedding(reader, config);
  ReadAltup(reader, config);
  config.laurel_rank = reader.Integer("laurel_rank", 2, kMaxDim);
  config.final_logit_softcapping = reader.NumberOrNull("final_logit_softcapping", 1e-3, 1e6).value_or(0);
  ReadRope(reader, {}, config);
  ReadLayers(reader, config);
  CheckFixedFields(reader, "gemma3n_text");
  // query_pre_attn_scalar is in shipped files and must not be used: the attention scale of Gemma 3n is 1.
  for (const char* field : {"query_pre_attn_scalar", "altup_lr_multiplier"}) reader.Ignore(field);
  TRY(FinishConfig(part, config));
  return config;
}

}  // namespace taskpress
