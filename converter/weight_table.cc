#include "converter/weight_table.h"

#include <array>

namespace taskpress {
namespace {

using Config = Gemma3nConfig;

int64_t Ffn(const Config& c, int64_t layer) { return c.intermediate_size[static_cast<size_t>(layer)]; }
int64_t QueryWidth(const Config& c) { return c.num_attention_heads * c.head_dim; }
int64_t KeyWidth(const Config& c) { return c.num_key_value_heads * c.head_dim; }
int64_t PerLayerWidth(const Config& c) { return c.num_hidden_layers * c.hidden_size_per_layer_input; }

// Shapes as formulas of the config, named by what they span.
Shape Hidden(const Config& c, int64_t /*i*/) { return {c.hidden_size}; }
Shape HiddenByHidden(const Config& c, int64_t /*i*/) { return {c.hidden_size, c.hidden_size}; }
Shape VocabByHidden(const Config& c, int64_t /*i*/) { return {c.vocab_size, c.hidden_size}; }
Shape TextVocabByPerLayer(const Config& c, int64_t /*i*/) { return {c.vocab_size_per_layer_input, PerLayerWidth(c)}; }
Shape PerLayerByHidden(const Config& c, int64_t /*i*/) { return {PerLayerWidth(c), c.hidden_size}; }
Shape PerLayerInput(const Config& c, int64_t /*i*/) { return {c.hidden_size_per_layer_input}; }
Shape PerLayerInputByHidden(const Config& c, int64_t /*i*/) { return {c.hidden_size_per_layer_input, c.hidden_size}; }
Shape HiddenByPerLayerInput(const Config& c, int64_t /*i*/) { return {c.hidden_size, c.hidden_size_per_layer_input}; }
Shape QueryByHidden(const Config& c, int64_t /*i*/) { return {QueryWidth(c), c.hidden_size}; }
Shape HiddenByQuery(const Config& c, int64_t /*i*/) { return {c.hidden_size, QueryWidth(c)}; }
Shape KeyByHidden(const Config& c, int64_t /*i*/) { return {KeyWidth(c), c.hidden_size}; }
Shape HeadDim(const Config& c, int64_t /*i*/) { return {c.head_dim}; }
Shape FfnByHidden(const Config& c, int64_t layer) { return {Ffn(c, layer), c.hidden_size}; }
Shape HiddenByFfn(const Config& c, int64_t layer) { return {c.hidden_size, Ffn(c, layer)}; }
Shape RankByHidden(const Config& c, int64_t /*i*/) { return {c.laurel_rank, c.hidden_size}; }
Shape HiddenByRank(const Config& c, int64_t /*i*/) { return {c.hidden_size, c.laurel_rank}; }
Shape StreamsByStreams(const Config& c, int64_t /*i*/) { return {c.altup_num_inputs, c.altup_num_inputs}; }
Shape StreamPairsByStreams(const Config& c, int64_t /*i*/) { return {c.altup_num_inputs * c.altup_num_inputs, c.altup_num_inputs}; }
Shape StreamsByHidden(const Config& c, int64_t /*i*/) { return {c.altup_num_inputs, c.hidden_size}; }

constexpr auto kOnce = Repeats::kOnce;
constexpr auto kPerLayer = Repeats::kPerLayer;
constexpr auto kPerProjection = Repeats::kPerAltupProjection;
constexpr auto kWhole = MatFormerAxis::kWhole;
constexpr auto kAsIs = WeightTransform::kAsIs;
constexpr auto kClip = WeightTransform::kClipAltup;

// clang-format off
constexpr auto kTable = std::to_array<WeightRow>({
    {"embed_tokens.weight",                              kOnce, VocabByHidden,       kWhole,                       QuantClass::kEmbedding,         kAsIs, false},
    {"embed_tokens_per_layer.weight",                    kOnce, TextVocabByPerLayer, MatFormerAxis::kLayerColumns, QuantClass::kPerLayerEmbedding, kAsIs, false},
    {"per_layer_model_projection.weight",                kOnce, PerLayerByHidden,    MatFormerAxis::kLayerRows,    QuantClass::kPerLayer,          kAsIs, false},
    {"per_layer_projection_norm.weight",                 kOnce, PerLayerInput,       kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"altup_projections.{}.weight",             kPerProjection, HiddenByHidden,      kWhole,                       QuantClass::kAltup,             kAsIs, false},
    {"altup_unembed_projections.{}.weight",     kPerProjection, HiddenByHidden,      kWhole,                       QuantClass::kAltup,             kAsIs, false},
    {"norm.weight",                                      kOnce, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},

    {"layers.{}.self_attn.q_proj.weight",            kPerLayer, QueryByHidden,       kWhole,                       QuantClass::kAttention,         kAsIs, false},
    {"layers.{}.self_attn.k_proj.weight",            kPerLayer, KeyByHidden,         kWhole,                       QuantClass::kAttention,         kAsIs, true},
    {"layers.{}.self_attn.v_proj.weight",            kPerLayer, KeyByHidden,         kWhole,                       QuantClass::kAttention,         kAsIs, true},
    {"layers.{}.self_attn.o_proj.weight",            kPerLayer, HiddenByQuery,       kWhole,                       QuantClass::kAttention,         kAsIs, false},
    {"layers.{}.self_attn.q_norm.weight",            kPerLayer, HeadDim,             kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.self_attn.k_norm.weight",            kPerLayer, HeadDim,             kWhole,                       QuantClass::kSmall,             kAsIs, true},
    {"layers.{}.mlp.gate_proj.weight",               kPerLayer, FfnByHidden,         MatFormerAxis::kFfnRows,      QuantClass::kFeedForward,       kAsIs, false},
    {"layers.{}.mlp.up_proj.weight",                 kPerLayer, FfnByHidden,         MatFormerAxis::kFfnRows,      QuantClass::kFeedForward,       kAsIs, false},
    {"layers.{}.mlp.down_proj.weight",               kPerLayer, HiddenByFfn,         MatFormerAxis::kFfnColumns,   QuantClass::kFeedForward,       kAsIs, false},
    {"layers.{}.input_layernorm.weight",             kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.post_attention_layernorm.weight",    kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.pre_feedforward_layernorm.weight",   kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.post_feedforward_layernorm.weight",  kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.altup.correct_output_scale",         kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.altup.correction_coefs.weight",      kPerLayer, StreamsByStreams,    kWhole,                       QuantClass::kSmall,             kClip, false},
    {"layers.{}.altup.prediction_coefs.weight",      kPerLayer, StreamPairsByStreams, kWhole,                      QuantClass::kSmall,             kClip, false},
    {"layers.{}.altup.modality_router.weight",       kPerLayer, StreamsByHidden,     kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.altup.router_norm.weight",           kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.laurel.linear_left.weight",          kPerLayer, RankByHidden,        kWhole,                       QuantClass::kLaurel,            kAsIs, false},
    {"layers.{}.laurel.linear_right.weight",         kPerLayer, HiddenByRank,        kWhole,                       QuantClass::kLaurel,            kAsIs, false},
    {"layers.{}.laurel.post_laurel_norm.weight",     kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
    {"layers.{}.per_layer_input_gate.weight",        kPerLayer, PerLayerInputByHidden, kWhole,                     QuantClass::kPerLayer,          kAsIs, false},
    {"layers.{}.per_layer_projection.weight",        kPerLayer, HiddenByPerLayerInput, kWhole,                     QuantClass::kPerLayer,          kAsIs, false},
    {"layers.{}.post_per_layer_input_norm.weight",   kPerLayer, Hidden,              kWhole,                       QuantClass::kSmall,             kAsIs, false},
});
// clang-format on

}  // namespace

std::span<const WeightRow> Gemma3nWeightTable() { return kTable; }

std::string WeightName(const WeightRow& row, int64_t index) {
  const size_t place = row.name.find("{}");
  if (place == std::string_view::npos) return std::string(row.name);
  return Format("{}{}{}", row.name.substr(0, place), index, row.name.substr(place + 2));
}

int64_t WeightCount(const WeightRow& row, const Gemma3nConfig& config) {
  switch (row.repeats) {
    case Repeats::kOnce:
      return 1;
    case Repeats::kPerLayer:
      return config.num_hidden_layers;
    case Repeats::kPerAltupProjection:
      return config.altup_num_inputs - 1;
  }
  return 0;
}

bool IsUnused(const WeightRow& row, const Gemma3nConfig& config, int64_t index) {
  return row.unused_when_kv_shared && index >= config.first_kv_shared_layer();
}

ParameterCount CountParameters(const Gemma3nConfig& config) {
  ParameterCount count;
  for (const WeightRow& row : kTable) {
    for (int64_t index = 0; index < WeightCount(row, config); ++index) {
      const int64_t elements = NumElements(row.shape(config, index)).value_or(0);
      count.text += elements;
      const bool table = row.quant_class == QuantClass::kEmbedding || row.quant_class == QuantClass::kPerLayerEmbedding;
      if (!table) count.effective += elements;
    }
  }
  return count;
}

}  // namespace taskpress
