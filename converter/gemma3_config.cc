#include "converter/config_fields.h"
#include "converter/gemma3.h"

namespace taskpress {
namespace {

// transformers, Gemma3TextConfig. The text_config of the published 4B, 12B and 27B models leaves these out.
constexpr ConfigDefaults kDefaults{.vocab_size = 262208,
                                   .num_attention_heads = 8,
                                   .num_key_value_heads = 4,
                                   .head_dim = 256,
                                   .rms_norm_eps = 1e-6,
                                   .max_position_embeddings = 131072,
                                   .rope_theta = 1e6,
                                   .rope_local_base_freq = 1e4};
constexpr double kQueryPreAttnScalar = 256;
constexpr int64_t kFullAttentionEvery = 6;

// The published name, and the one that newer files are saved with.
int64_t ReadPattern(ConfigReader& reader) {
  const int64_t newer = reader.IntegerOr("_sliding_window_pattern", kFullAttentionEvery, 1, kMaxLayers);
  return reader.IntegerOr("sliding_window_pattern", newer, 1, kMaxLayers);
}

}  // namespace

Result<TextConfig> ParseGemma3Config(const Json& json) {
  TextPart part = TRY(FindTextPart(json, "gemma3_text"));
  ConfigReader& reader = part.text;
  TextConfig config;
  ReadSizes(reader, kDefaults, config);
  // In a model with vision, ids from the image token on are places for soft tokens.
  const int64_t image_token = part.outer.IntegerOr("image_token_index", config.vocab_size, 1, kMaxVocab);
  config.text_vocab_size = std::min(config.vocab_size, image_token);
  config.query_pre_attn_scalar = reader.NumberOr("query_pre_attn_scalar", kQueryPreAttnScalar, 1e-3, 1e6);
  ReadRope(reader, kDefaults, config);
  const size_t problems = reader.problems().size();
  config.num_hidden_layers = reader.Integer("num_hidden_layers", 1, kMaxLayers);
  const int64_t pattern = ReadPattern(reader);
  if (reader.problems().size() == problems) {
    config.intermediate_size = reader.IntegerOrList("intermediate_size", config.num_hidden_layers, 2, kMaxDim);
    config.layer_types = ReadLayerTypes(reader, config.num_hidden_layers, pattern);
  }
  CheckFixedFields(reader, "gemma3_text");
  reader.OnlyNull("final_logit_softcapping");
  reader.OnlyNull("attn_logit_softcapping");
  reader.OnlyBoolean("use_bidirectional_attention", false);
  TRY(FinishConfig(part, config));
  return config;
}

}  // namespace taskpress
