// The text model as its checkpoint's config.json describes it, every field checked. Names are the checkpoint's own.
#ifndef TASKPRESS_CONVERTER_TEXT_CONFIG_H_
#define TASKPRESS_CONVERTER_TEXT_CONFIG_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

enum class LayerType : uint8_t { kSliding, kFull };

struct ModelFamily;

struct TextConfig {
  const ModelFamily* family = nullptr;  // never null after parsing

  // Every family.
  int64_t vocab_size = 0;       // rows of embed_tokens
  int64_t text_vocab_size = 0;  // the first of them: tokens a text can hold. Rows beyond are other modalities' places
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  std::vector<int64_t> intermediate_size;  // [layers]: MatFormer slices differ from layer to layer
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  double rms_norm_eps = 0;
  int64_t max_position_embeddings = 0;
  int64_t sliding_window = 0;          // keys a query sees, itself included
  std::vector<LayerType> layer_types;  // [layers]
  double rope_theta = 0;               // full attention
  double rope_linear_factor = 1;       // full attention: frequencies are divided by it
  double rope_local_base_freq = 0;     // sliding attention
  double query_pre_attn_scalar = 1;    // queries are multiplied by its inverse square root
  double final_logit_softcapping = 0;  // 0: none
  int64_t num_kv_shared_layers = 0;    // the last ones

  // Gemma 3n alone; zero and empty elsewhere.
  int64_t hidden_size_per_layer_input = 0;
  int64_t altup_num_inputs = 0;
  double altup_coef_clip = 0;  // 0: none
  bool altup_correct_scale = false;
  int64_t laurel_rank = 0;
  std::vector<double> activation_sparsity_pattern;  // [layers]

  std::vector<std::string> notes;  // fields that were seen and do not change the converted model

  // Layers from here on have no keys and values of their own.
  [[nodiscard]] int64_t first_kv_shared_layer() const { return num_hidden_layers - num_kv_shared_layers; }
  // The layer whose cache `layer` reads: itself, or the last owning layer of the same type.
  [[nodiscard]] int64_t kv_source_layer(int64_t layer) const;
};

// Which family the file is of, then that family's parser. All problems of the file in one error: kConfigField (missing, wrong type, out of
// bounds) or kConfigUnsupported; kModelTypeUnsupported for other families.
Result<TextConfig> ParseTextConfig(const Json& config);
// The same, with the file's name in the messages.
Result<TextConfig> ReadTextConfig(const std::filesystem::path& config_json);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TEXT_CONFIG_H_
