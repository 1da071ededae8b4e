#include <cmath>
#include <numbers>

#include "converter/gguf_model.h"
#include "quantizer/ggml_blocks.h"

// V7 and V8 are rules of FORMATS.md, section GGUF.
namespace taskpress {
namespace {

// Not in the file; constants of the architecture, in llama.cpp as in transformers.
constexpr double kAltupCoefClip = 120.0;
constexpr double kSoftCap = 30.0;

// V7: the file has the normal quantile of a layer's sparsity, in float32; -inf is none. Files of Hugging Face write the sparsity as a short
// decimal, and the quantile is exact to six digits.
Result<Json> Sparsity(const Json& scales) {
  if (!scales.is_array()) return Fail(ErrorCode::kGgufHeader, "gemma3n.activation_sparsity_scale is no array");
  Json pattern = Json::array();
  for (const Json& scale : scales) {
    if (!scale.is_number()) return Fail(ErrorCode::kGgufHeader, "gemma3n.activation_sparsity_scale holds {}", scale.dump());
    const double sparsity = 0.5 * std::erfc(-scale.get<double>() / std::numbers::sqrt2);
    constexpr double kDigits = 1e6;
    pattern.push_back(std::round(sparsity * kDigits) / kDigits);
  }
  return pattern;
}

// V8: rows of the per-layer table up to the last that is not zero. llama.cpp pads the table with zeros to the size of embed_tokens.
Result<int64_t> TextVocabSize(const GgufFields& fields) {
  const GgufTensor& table = *TRY(fields.RequireTensor("per_layer_token_embd.weight"));
  if (table.shape.size() != 2) return table.shape[0];
  const uint64_t row_bytes = table.bytes.size() / static_cast<uint64_t>(table.shape[0]);
  std::vector<float> row(static_cast<size_t>(table.shape[1]));
  for (int64_t rows = table.shape[0]; rows > 0; --rows) {
    DequantizeGgml(table.type, table.bytes.subspan(static_cast<uint64_t>(rows - 1) * row_bytes, row_bytes), row);
    if (std::ranges::any_of(row, [](float value) { return value != 0; })) return rows;
  }
  return table.shape[0];
}

}  // namespace

Status AddGemma3nFields(const GgufFields& fields, Json& config) {
  config["hidden_size_per_layer_input"] = TRY(fields.Require("embedding_length_per_layer_input"));
  config["altup_num_inputs"] = TRY(fields.Require("altup.num_inputs"));
  config["altup_active_idx"] = TRY(fields.Require("altup.active_idx"));
  config["altup_coef_clip"] = kAltupCoefClip;
  config["altup_correct_scale"] = true;
  // Published files have it as a float.
  const Json shared = TRY(fields.Require("attention.shared_kv_layers"));
  const bool whole = shared.is_number() && shared.get<double>() == std::floor(shared.get<double>()) && std::abs(shared.get<double>()) < 1e6;
  config["num_kv_shared_layers"] = whole ? Json(static_cast<int64_t>(shared.get<double>())) : shared;
  config["activation_sparsity_pattern"] = TRY(Sparsity(TRY(fields.Require("activation_sparsity_scale"))));
  config["laurel_rank"] = TRY(fields.RequireTensor("blk.0.laurel_l.weight"))->shape[0];
  config["vocab_size_per_layer_input"] = TRY(TextVocabSize(fields));
  const Json cap = fields.Find("final_logit_softcapping");
  config["final_logit_softcapping"] = cap.is_null() ? Json(kSoftCap) : cap;
  return {};
}

}  // namespace taskpress
