#include "tests/reference/gemma3n_reference.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <utility>

#include "tests/reference/plain_math.h"
#include "tests/reference/trusting_safetensors.h"

// Letters: T tokens, L kept layers, H hidden, A AltUp streams, P per-layer input width, F FFN width, N query heads, K key/value heads,
// D head width, R LAuReL rank, V vocabulary. Equations follow the Gemma 3n model of Hugging Face transformers (modeling_gemma3n).
namespace taskpress::oracle {
namespace {

using Streams = std::vector<Matrix>;  // A times [T, H]
using Vector = std::vector<float>;

struct AltUp {
  Vector router_norm;       // [H]
  Weight modality_router;   // [A, H]
  Vector prediction_coefs;  // [A * A, A], clipped
  Vector correction_coefs;  // [A, A], clipped
  Vector output_scale;      // [H]
};

struct Layer {
  bool full_attention = false;
  bool owns_kv = true;
  double sparsity = 0;    // share of gate values that become zero
  int64_t ple_block = 0;  // which P columns of the per-layer tables, counted as stored
  AltUp altup;
  Weight q_proj, k_proj, v_proj, o_proj;  // [N * D, H], [K * D, H] twice, [H, N * D]
  Vector q_norm, k_norm;                  // [D]
  Weight gate_proj, up_proj, down_proj;   // [F, H] twice, [H, F]
  Weight laurel_left, laurel_right;       // [R, H], [H, R]
  Weight per_layer_input_gate;            // [P, H]
  Weight per_layer_projection;            // [H, P]
  Vector input_norm, post_attention_norm, pre_feedforward_norm, post_feedforward_norm, post_laurel_norm, post_per_layer_input_norm;  // [H]
};

}  // namespace

struct Gemma3nReference::Model {
  // Keys and values of the last layer that made them, normed and rotated: what KV-shared layers of the same kind read. [T, K * D]
  struct KeysAndValues {
    Matrix keys{0, 0};
    Matrix values{0, 0};
  };

  Model(const std::filesystem::path& folder, const MatformerSlice& slice);
  void LoadLayer(int64_t stored_index, int64_t ffn_width, const nlohmann::json& config);

  [[nodiscard]] Matrix Embed(std::span<const int32_t> tokens) const;
  [[nodiscard]] Streams PerLayerInputs(std::span<const int32_t> tokens, const Matrix& embedding) const;
  [[nodiscard]] Streams Expand(const Matrix& embedding) const;
  [[nodiscard]] Streams RunLayer(const Layer& layer, const Streams& x, const Matrix& per_layer_input, KeysAndValues& shared) const;
  [[nodiscard]] Matrix Route(const AltUp& altup, Matrix x) const;
  [[nodiscard]] Streams Predict(const AltUp& altup, const Streams& x) const;
  [[nodiscard]] Streams Correct(const AltUp& altup, const Streams& predicted, const Matrix& activated) const;
  [[nodiscard]] Matrix Attend(const Layer& layer, const Matrix& x, KeysAndValues& shared) const;
  [[nodiscard]] Matrix FeedForward(const Layer& layer, const Matrix& x) const;
  [[nodiscard]] Matrix Collapse(const Streams& x) const;
  [[nodiscard]] Matrix Logits(const Matrix& x) const;

  [[nodiscard]] Weight WeightOf(const std::string& name) const;
  [[nodiscard]] Vector VectorOf(const std::string& name) const { return tensors.Get(prefix + name).Floats(); }

  TrustingSafetensors tensors;
  std::string prefix = "model.language_model.";
  int64_t hidden = 0, heads = 0, kv_heads = 0, head_width = 0, ple_width = 0, ple_rows = 0, streams = 0, window = 0;
  double eps = 0, theta_full = 0, theta_sliding = 0, softcap = 0, coef_clip = 0;
  Weight embed_tokens;                                               // [V, H], also the head
  Weight embed_tokens_per_layer;                                     // [V without multimodal ids, stored L * P]
  Weight per_layer_model_projection;                                 // [stored L * P, H]
  Vector per_layer_projection_norm;                                  // [P], one for all layers
  std::vector<Weight> altup_projections, altup_unembed_projections;  // A - 1 times [H, H]
  Vector norm;                                                       // [H]
  std::vector<Layer> layers;
};

// ---- The forward pass -----------------------------------------------------------------------------------------------------------

// e = E[id] * sqrt(H) -> [T, H]
Matrix Gemma3nReference::Model::Embed(std::span<const int32_t> tokens) const {
  Matrix e(static_cast<int64_t>(tokens.size()), hidden);
  const float scale = std::sqrt(static_cast<float>(hidden));
  for (int64_t t = 0; t < e.rows; ++t) {
    embed_tokens.stored->ReadRow(tokens[static_cast<size_t>(t)], 0, e[t]);
    for (float& value : e[t]) value *= scale;
  }
  return e;
}

// ple[l] = (RMS(c[l]; w) + u[l]) / sqrt(2) -> L times [T, P], where
// u[l] = PLE[id][l] * sqrt(P), with id 0 for ids beyond the table, and c[l] = (W_projection e)[l] / sqrt(H).
Streams Gemma3nReference::Model::PerLayerInputs(std::span<const int32_t> tokens, const Matrix& embedding) const {
  Matrix context = Linear(embedding, per_layer_model_projection);  // [T, stored L * P]
  for (float& value : context.values) value /= std::sqrt(static_cast<float>(hidden));
  const float scale = std::sqrt(static_cast<float>(ple_width));
  Streams result;
  Vector looked_up(static_cast<size_t>(ple_width));
  for (const Layer& layer : layers) {
    const int64_t first = layer.ple_block * ple_width;
    Matrix& inputs = result.emplace_back(embedding.rows, ple_width);
    for (int64_t t = 0; t < inputs.rows; ++t) {
      std::ranges::copy(context[t].subspan(static_cast<size_t>(first), looked_up.size()), inputs[t].begin());
      RmsNormInPlace(inputs[t], per_layer_projection_norm, eps);
      const int32_t id = tokens[static_cast<size_t>(t)];
      embed_tokens_per_layer.stored->ReadRow(id < ple_rows ? id : 0, first, looked_up);
      for (size_t p = 0; p < looked_up.size(); ++p) inputs[t][p] = (inputs[t][p] + looked_up[p] * scale) / std::numbers::sqrt2_v<float>;
    }
  }
  return result;
}

// AltUp expansion: X_0 = e, X_i = W_i e at the magnitude of e -> A times [T, H]
Streams Gemma3nReference::Model::Expand(const Matrix& embedding) const {
  Streams x{embedding};
  for (const Weight& projection : altup_projections) x.push_back(MatchMagnitude(Linear(embedding, projection), embedding));
  return x;
}

Streams Gemma3nReference::Model::RunLayer(const Layer& layer, const Streams& x, const Matrix& per_layer_input,
                                          KeysAndValues& shared) const {
  const Streams predicted = Predict(layer.altup, x);
  const Matrix& active = predicted[0];                           // [T, H]
  const Matrix normed = RmsNorm(active, layer.input_norm, eps);  // [T, H]
  // LAuReL: its residual is the normed input.
  const Matrix low_rank = Linear(Linear(normed, layer.laurel_left), layer.laurel_right);
  const Matrix laurel = Add(normed, RmsNorm(low_rank, layer.post_laurel_norm, eps));
  const Matrix attention = Add(active, RmsNorm(Attend(layer, normed, shared), layer.post_attention_norm, eps));
  const Matrix combined = Add(attention, laurel, 1 / std::numbers::sqrt2_v<float>);
  const Matrix feed_forward = FeedForward(layer, RmsNorm(combined, layer.pre_feedforward_norm, eps));
  Streams corrected = Correct(layer.altup, predicted, Add(combined, RmsNorm(feed_forward, layer.post_feedforward_norm, eps)));

  // Per-layer input: gated by stream 0, added to the others. The output scale is for the gate only; stream 0 leaves unscaled.
  Matrix scaled = corrected[0];
  for (int64_t t = 0; t < scaled.rows; ++t) {
    for (size_t h = 0; h < scaled[t].size(); ++h) scaled[t][h] *= layer.altup.output_scale[h];
  }
  Matrix gate = Linear(scaled, layer.per_layer_input_gate);  // [T, P]
  for (size_t i = 0; i < gate.values.size(); ++i) gate.values[i] = Gelu(gate.values[i]) * per_layer_input.values[i];
  const Matrix delta = RmsNorm(Linear(gate, layer.per_layer_projection), layer.post_per_layer_input_norm, eps);
  for (size_t stream = 1; stream < corrected.size(); ++stream) corrected[stream] = Add(std::move(corrected[stream]), delta);
  return corrected;
}

// rho(x) = tanh(W_router (RMS(x; w_router) / H)) -> [T, A]
Matrix Gemma3nReference::Model::Route(const AltUp& altup, Matrix x) const {
  x = RmsNorm(std::move(x), altup.router_norm, eps);
  for (float& value : x.values) value /= static_cast<float>(hidden);
  Matrix modalities = Linear(x, altup.modality_router);
  for (float& value : modalities.values) value = std::tanh(value);
  return modalities;
}

// Pr_i = X_i + sum_j c_ij X_j, c_ij = sum_p W_prediction[i A + j, p] rho(X_0)_p
Streams Gemma3nReference::Model::Predict(const AltUp& altup, const Streams& x) const {
  const Matrix rho = Route(altup, x[0]);
  const size_t count = x.size();
  Streams predicted = x;
  for (int64_t t = 0; t < rho.rows; ++t) {
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < count; ++j) {
        const auto c = static_cast<float>(Dot(std::span(altup.prediction_coefs).subspan((i * count + j) * count, count), rho[t]));
        for (size_t h = 0; h < x[j][t].size(); ++h) predicted[i][t][h] += c * x[j][t][h];
      }
    }
  }
  return predicted;
}

// C_i = Pr_i + k_i (y - Pr_0), k_i = 1 + sum_p W_correction[i, p] rho(y)_p
Streams Gemma3nReference::Model::Correct(const AltUp& altup, const Streams& predicted, const Matrix& activated) const {
  const Matrix rho = Route(altup, activated);
  const size_t count = predicted.size();
  Streams corrected = predicted;
  for (int64_t t = 0; t < rho.rows; ++t) {
    for (size_t i = 0; i < count; ++i) {
      const auto k = static_cast<float>(1 + Dot(std::span(altup.correction_coefs).subspan(i * count, count), rho[t]));
      for (size_t h = 0; h < activated[t].size(); ++h) corrected[i][t][h] += k * (activated[t][h] - predicted[0][t][h]);
    }
  }
  return corrected;
}

// softmax(q k^T) v, without 1/sqrt(D); causal, sliding layers see the last `window` positions, themselves included.
Matrix Gemma3nReference::Model::Attend(const Layer& layer, const Matrix& x, KeysAndValues& shared) const {
  const auto width = static_cast<size_t>(head_width);
  const double theta = layer.full_attention ? theta_full : theta_sliding;
  const auto head_of = [width](auto row, int64_t head) { return row.subspan(static_cast<size_t>(head) * width, width); };

  Matrix queries = Linear(x, layer.q_proj);  // [T, N * D]
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t n = 0; n < heads; ++n) {
      RmsNormInPlace(head_of(queries[t], n), layer.q_norm, eps);
      RotateInPlace(head_of(queries[t], n), t, theta);
    }
  }
  if (layer.owns_kv) {
    shared = {.keys = Linear(x, layer.k_proj), .values = Linear(x, layer.v_proj)};  // [T, K * D]
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t n = 0; n < kv_heads; ++n) {
        RmsNormInPlace(head_of(shared.keys[t], n), layer.k_norm, eps);
        RotateInPlace(head_of(shared.keys[t], n), t, theta);
        RmsNormInPlace(head_of(shared.values[t], n), {}, eps);
      }
    }
  }
  const KeysAndValues& kv = shared;
  Matrix mixed(x.rows, heads * head_width);
  for (int64_t t = 0; t < x.rows; ++t) {
    const int64_t oldest = layer.full_attention ? 0 : std::max<int64_t>(0, t - window + 1);
    for (int64_t n = 0; n < heads; ++n) {
      const int64_t kv_head = n / (heads / kv_heads);
      std::vector<double> scores;  // [t - oldest + 1]
      for (int64_t s = oldest; s <= t; ++s) scores.push_back(Dot(head_of(queries[t], n), head_of(kv.keys[s], kv_head)));
      SoftmaxInPlace(scores);
      std::vector<double> sum(width);
      for (int64_t s = oldest; s <= t; ++s) {
        const std::span<const float> value = head_of(kv.values[s], kv_head);
        for (size_t d = 0; d < width; ++d) sum[d] += scores[static_cast<size_t>(s - oldest)] * static_cast<double>(value[d]);
      }
      std::ranges::transform(sum, head_of(mixed[t], n).begin(), [](double value) { return static_cast<float>(value); });
    }
  }
  return Linear(mixed, layer.o_proj);  // [T, H]
}

// W_down(gelu(gate) * up). Sparse layers first subtract c = mean + z * standard deviation (of the population) from the gate and
// cut at zero: survivors are shifted, not passed through. z is the normal quantile of the share that becomes zero.
Matrix Gemma3nReference::Model::FeedForward(const Layer& layer, const Matrix& x) const {
  Matrix gate = Linear(x, layer.gate_proj);    // [T, F]
  const Matrix up = Linear(x, layer.up_proj);  // [T, F]
  if (layer.sparsity > 0) {
    const double z = NormalQuantile(layer.sparsity);
    const auto count = static_cast<double>(gate.columns);
    for (int64_t t = 0; t < x.rows; ++t) {
      double mean = 0;
      double variance = 0;
      for (const float value : gate[t]) mean += value / count;
      for (const float value : gate[t]) variance += (value - mean) * (value - mean) / count;
      const auto cutoff = static_cast<float>(mean + z * std::sqrt(variance));
      for (float& value : gate[t]) value = std::max(value - cutoff, 0.0F);
    }
  }
  for (size_t i = 0; i < gate.values.size(); ++i) gate.values[i] = Gelu(gate.values[i]) * up.values[i];
  return Linear(gate, layer.down_proj);  // [T, H]
}

// RMS of the mean of the streams, each brought back by its own matrix at the magnitude of stream 0 -> [T, H]
Matrix Gemma3nReference::Model::Collapse(const Streams& x) const {
  Matrix sum = x[0];
  for (size_t i = 1; i < x.size(); ++i) sum = Add(std::move(sum), MatchMagnitude(Linear(x[i], altup_unembed_projections[i - 1]), x[0]));
  for (float& value : sum.values) value /= static_cast<float>(streams);
  return RmsNorm(std::move(sum), norm, eps);
}

// softcap * tanh(E x / softcap), with the table as stored -> [T, V]
Matrix Gemma3nReference::Model::Logits(const Matrix& x) const {
  Matrix logits = Linear(x, embed_tokens);
  if (softcap > 0) {
    const auto cap = static_cast<float>(softcap);
    for (float& value : logits.values) value = cap * std::tanh(value / cap);
  }
  return logits;
}

std::vector<float> Gemma3nReference::Forward(std::span<const int32_t> tokens, Trace* trace) const {
  const Matrix embedding = model_->Embed(tokens);
  const Streams per_layer_inputs = model_->PerLayerInputs(tokens, embedding);
  Streams x = model_->Expand(embedding);
  Model::KeysAndValues sliding;
  Model::KeysAndValues full;
  if (trace != nullptr) *trace = {.embedding = embedding.values, .per_layer_inputs = {}, .layers = {}, .final_hidden = {}};
  for (size_t l = 0; l < model_->layers.size(); ++l) {
    const Layer& layer = model_->layers[l];
    x = model_->RunLayer(layer, x, per_layer_inputs[l], layer.full_attention ? full : sliding);
    if (trace != nullptr) {
      std::vector<float>& leaving = trace->layers.emplace_back();
      for (const Matrix& stream : x) leaving.insert(leaving.end(), stream.values.begin(), stream.values.end());
    }
  }
  const Matrix final_hidden = model_->Collapse(x);
  if (trace != nullptr) {
    trace->final_hidden = final_hidden.values;
    for (int64_t t = 0; t < embedding.rows; ++t) {
      for (const Matrix& inputs : per_layer_inputs) {
        trace->per_layer_inputs.insert(trace->per_layer_inputs.end(), inputs[t].begin(), inputs[t].end());
      }
    }
  }
  return std::move(model_->Logits(final_hidden).values);
}

// ---- Loading --------------------------------------------------------------------------------------------------------------------

Weight Gemma3nReference::Model::WeightOf(const std::string& name) const {
  const StoredTensor& tensor = tensors.Get(prefix + name + ".weight");
  return {.stored = &tensor, .rows = tensor.rows(), .columns = tensor.columns()};
}

Gemma3nReference::Model::Model(const std::filesystem::path& folder, const MatformerSlice& slice)
    : tensors(TrustingSafetensors::Open(folder)) {
  std::ifstream file(folder / "config.json");
  const nlohmann::json root = nlohmann::json::parse(file);
  const nlohmann::json& config = root.contains("text_config") ? root["text_config"] : root;
  if (!tensors.Has(prefix + "norm.weight")) prefix = "model.";  // saved as a text-only model
  hidden = config.at("hidden_size");
  heads = config.at("num_attention_heads");
  kv_heads = config.at("num_key_value_heads");
  head_width = config.at("head_dim");
  ple_width = config.at("hidden_size_per_layer_input");
  ple_rows = config.at("vocab_size_per_layer_input");
  streams = config.at("altup_num_inputs");
  window = config.at("sliding_window");
  eps = config.at("rms_norm_eps");
  softcap = config.at("final_logit_softcapping").is_null() ? 0.0 : config["final_logit_softcapping"].get<double>();
  coef_clip = config.at("altup_coef_clip").is_null() ? HUGE_VAL : config["altup_coef_clip"].get<double>();
  // Newer files keep both rotary bases in one object.
  const bool newer = config.contains("rope_parameters");
  theta_full = newer ? config["rope_parameters"]["full_attention"]["rope_theta"] : config["rope_theta"];
  theta_sliding = newer ? config["rope_parameters"]["sliding_attention"]["rope_theta"] : config["rope_local_base_freq"];

  embed_tokens = WeightOf("embed_tokens");
  embed_tokens_per_layer = WeightOf("embed_tokens_per_layer");
  per_layer_model_projection = WeightOf("per_layer_model_projection");
  per_layer_projection_norm = VectorOf("per_layer_projection_norm.weight");
  norm = VectorOf("norm.weight");
  for (int64_t i = 0; i + 1 < streams; ++i) {
    altup_projections.push_back(WeightOf("altup_projections." + std::to_string(i)));
    altup_unembed_projections.push_back(WeightOf("altup_unembed_projections." + std::to_string(i)));
  }
  const int64_t stored_layers = config.at("num_hidden_layers");
  for (int64_t stored = 0; stored < stored_layers; ++stored) {
    if (std::ranges::contains(slice.skipped_layers, stored)) continue;
    LoadLayer(stored, slice.ffn_widths.empty() ? 0 : slice.ffn_widths.at(layers.size()), config);
  }
}

void Gemma3nReference::Model::LoadLayer(int64_t stored_index, int64_t ffn_width, const nlohmann::json& config) {
  const std::string name = "layers." + std::to_string(stored_index) + ".";
  const auto index = static_cast<size_t>(stored_index);
  const auto clipped = [this](Vector values) {
    for (float& value : values) value = static_cast<float>(std::clamp<double>(value, -coef_clip, coef_clip));
    return values;
  };
  Layer layer;
  layer.full_attention = config.at("layer_types").at(index) == "full_attention";
  layer.owns_kv = stored_index < config.at("num_hidden_layers").get<int64_t>() - config.at("num_kv_shared_layers").get<int64_t>();
  const nlohmann::json& sparsity = config.at("activation_sparsity_pattern");
  layer.sparsity = sparsity.is_array() ? sparsity.at(index).get<double>() : sparsity.is_null() ? 0.0 : sparsity.get<double>();
  layer.ple_block = stored_index;
  layer.altup = {.router_norm = VectorOf(name + "altup.router_norm.weight"),
                 .modality_router = WeightOf(name + "altup.modality_router"),
                 .prediction_coefs = clipped(VectorOf(name + "altup.prediction_coefs.weight")),
                 .correction_coefs = clipped(VectorOf(name + "altup.correction_coefs.weight")),
                 .output_scale = VectorOf(name + "altup.correct_output_scale")};
  layer.q_proj = WeightOf(name + "self_attn.q_proj");
  layer.o_proj = WeightOf(name + "self_attn.o_proj");
  layer.q_norm = VectorOf(name + "self_attn.q_norm.weight");
  if (layer.owns_kv) {
    layer.k_proj = WeightOf(name + "self_attn.k_proj");
    layer.v_proj = WeightOf(name + "self_attn.v_proj");
    layer.k_norm = VectorOf(name + "self_attn.k_norm.weight");
  }
  layer.gate_proj = WeightOf(name + "mlp.gate_proj");
  layer.up_proj = WeightOf(name + "mlp.up_proj");
  layer.down_proj = WeightOf(name + "mlp.down_proj");
  if (ffn_width > 0) layer.gate_proj.rows = layer.up_proj.rows = layer.down_proj.columns = ffn_width;
  layer.laurel_left = WeightOf(name + "laurel.linear_left");
  layer.laurel_right = WeightOf(name + "laurel.linear_right");
  layer.per_layer_input_gate = WeightOf(name + "per_layer_input_gate");
  layer.per_layer_projection = WeightOf(name + "per_layer_projection");
  layer.input_norm = VectorOf(name + "input_layernorm.weight");
  layer.post_attention_norm = VectorOf(name + "post_attention_layernorm.weight");
  layer.pre_feedforward_norm = VectorOf(name + "pre_feedforward_layernorm.weight");
  layer.post_feedforward_norm = VectorOf(name + "post_feedforward_layernorm.weight");
  layer.post_laurel_norm = VectorOf(name + "laurel.post_laurel_norm.weight");
  layer.post_per_layer_input_norm = VectorOf(name + "post_per_layer_input_norm.weight");
  layers.push_back(std::move(layer));
}

Gemma3nReference::Gemma3nReference(std::unique_ptr<const Model> model) : model_(std::move(model)) {}

Gemma3nReference::~Gemma3nReference() = default;

std::unique_ptr<Gemma3nReference> Gemma3nReference::Open(const std::filesystem::path& folder, const MatformerSlice& slice) {
  return std::unique_ptr<Gemma3nReference>(new Gemma3nReference(std::make_unique<const Model>(folder, slice)));
}

int64_t Gemma3nReference::vocabulary() const { return model_->embed_tokens.rows; }

int64_t Gemma3nReference::layers() const { return static_cast<int64_t>(model_->layers.size()); }

int64_t Gemma3nReference::hidden() const { return model_->hidden; }

}  // namespace taskpress::oracle
