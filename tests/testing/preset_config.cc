#include <array>
#include <string_view>

#include "tests/testing/checkpoint_generator.h"

namespace taskpress {
namespace {

struct Preset {
  std::string_view name;
  int layers, hidden, ffn, heads, kv_heads, head_dim;
  int per_layer_width, laurel_rank, shared_layers, sparse_layers, window;
  int vocabulary, per_layer_vocabulary;
};

constexpr auto kPresets = std::to_array<Preset>({
    {"micro", 15, 128, 512, 4, 2, 32, 16, 16, 5, 5, 32, 2304, 2048},
    {"e2b", 30, 2048, 8192, 8, 2, 256, 256, 64, 10, 10, 512, 262'400, 262'144},
    {"e4b", 35, 2048, 16384, 8, 2, 256, 256, 64, 15, 10, 512, 262'400, 262'144},
});

OrderedJson TextConfig(const Preset& preset) {
  OrderedJson sparsity = OrderedJson::array();
  OrderedJson layer_types = OrderedJson::array();
  for (int layer = 0; layer < preset.layers; ++layer) {
    sparsity.push_back(layer < preset.sparse_layers ? 0.95 : 0.0);
    layer_types.push_back((layer + 1) % 5 == 0 ? "full_attention" : "sliding_attention");
  }
  return {{"activation_sparsity_pattern", sparsity},
          {"altup_active_idx", 0},
          {"altup_coef_clip", 120.0},
          {"altup_correct_scale", true},
          {"altup_lr_multiplier", 1.0},
          {"altup_num_inputs", 4},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"final_logit_softcapping", 30.0},
          {"head_dim", preset.head_dim},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"hidden_size", preset.hidden},
          {"hidden_size_per_layer_input", preset.per_layer_width},
          {"initializer_range", 0.02},
          {"intermediate_size", preset.ffn},
          {"laurel_rank", preset.laurel_rank},
          {"layer_types", layer_types},
          {"max_position_embeddings", 32768},
          {"model_type", "gemma3n_text"},
          {"num_attention_heads", preset.heads},
          {"num_hidden_layers", preset.layers},
          {"num_key_value_heads", preset.kv_heads},
          {"num_kv_shared_layers", preset.shared_layers},
          {"query_pre_attn_scalar", 256},
          {"rms_norm_eps", 1e-6},
          {"rope_local_base_freq", 10000.0},
          {"rope_scaling", nullptr},
          {"rope_theta", 1000000.0},
          {"sliding_window", preset.window},
          {"tie_word_embeddings", true},
          {"torch_dtype", "bfloat16"},
          {"use_cache", true},
          {"vocab_size", preset.vocabulary},
          {"vocab_size_per_layer_input", preset.per_layer_vocabulary}};
}

}  // namespace

Result<OrderedJson> PresetConfig(std::string_view name) {
  for (const Preset& preset : kPresets) {
    if (preset.name != name) continue;
    return OrderedJson{{"architectures", OrderedJson::array({"Gemma3nForConditionalGeneration"})},
                       {"bos_token_id", 2},
                       {"eos_token_id", OrderedJson::array({1, 106})},
                       {"initializer_range", 0.02},
                       {"model_type", "gemma3n"},
                       {"pad_token_id", 0},
                       {"text_config", TextConfig(preset)},
                       {"tie_word_embeddings", true},
                       {"torch_dtype", "bfloat16"}};
  }
  return Fail(ErrorCode::kUsage, "preset \"{}\": expected micro, e2b or e4b", name);
}

}  // namespace taskpress
