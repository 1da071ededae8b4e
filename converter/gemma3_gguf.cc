#include "converter/gguf_model.h"

namespace taskpress {

Status AddGemma3Fields(const GgufFields& fields, Json& config) {
  // The 27B model alone scales queries by its width per head; llama.cpp, too, knows it by its number of layers.
  constexpr int64_t kLayersOf27b = 62;
  const bool is_27b = config["num_hidden_layers"] == kLayersOf27b;
  if (is_27b && config["hidden_size"].is_number() && config["num_attention_heads"].is_number()) {
    config["query_pre_attn_scalar"] = config["hidden_size"].get<double>() / config["num_attention_heads"].get<double>();
  } else {
    config["query_pre_attn_scalar"] = config["head_dim"];
  }
  if (const Json cap = fields.Find("final_logit_softcapping"); !cap.is_null()) config["final_logit_softcapping"] = cap;
  return {};
}

}  // namespace taskpress
