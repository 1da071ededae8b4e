#include "converter/gemma3n.h"
#include "converter/weight_shapes.h"

namespace taskpress {
namespace {

using namespace weight_shapes;  // the formulas of the shape column

constexpr auto kOnce = Repeats::kOnce;
constexpr auto kPerLayer = Repeats::kPerLayer;
constexpr auto kPerProjection = Repeats::kPerAltupProjection;
constexpr auto kWhole = MatFormerAxis::kWhole;
constexpr auto kAsIs = WeightTransform::kAsIs;
constexpr auto kClip = WeightTransform::kClipAltup;

// clang-format off
constexpr auto kTable = std::to_array<WeightRow>({
    {"embed_tokens.weight",                               "token_embd.weight",                 kOnce,          VocabByHidden,          kWhole,                       QuantClass::kEmbedding,            kAsIs,         false},
    {"embed_tokens_per_layer.weight",                     "per_layer_token_embd.weight",       kOnce,          TextVocabByPerLayer,    MatFormerAxis::kLayerColumns, QuantClass::kPerLayerEmbedding,    kAsIs,         false},
    {"per_layer_model_projection.weight",                 "per_layer_model_proj.weight",       kOnce,          PerLayerByHidden,       MatFormerAxis::kLayerRows,    QuantClass::kPerLayer,             kAsIs,         false},
    {"per_layer_projection_norm.weight",                  "per_layer_proj_norm.weight",        kOnce,          PerLayerInput,          kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"altup_projections.{}.weight",                       "altup_proj.weight",                 kPerProjection, HiddenByHidden,         kWhole,                       QuantClass::kAltup,                kAsIs,         false},
    {"altup_unembed_projections.{}.weight",               "altup_unembd_proj.weight",          kPerProjection, HiddenByHidden,         kWhole,                       QuantClass::kAltup,                kAsIs,         false},
    {"norm.weight",                                       "output_norm.weight",                kOnce,          Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.self_attn.q_proj.weight",                 "blk.{}.attn_q.weight",              kPerLayer,      QueryByHidden,          kWhole,                       QuantClass::kAttention,            kAsIs,         false},
    {"layers.{}.self_attn.k_proj.weight",                 "blk.{}.attn_k.weight",              kPerLayer,      KeyByHidden,            kWhole,                       QuantClass::kAttention,            kAsIs,         true},
    {"layers.{}.self_attn.v_proj.weight",                 "blk.{}.attn_v.weight",              kPerLayer,      KeyByHidden,            kWhole,                       QuantClass::kAttention,            kAsIs,         true},
    {"layers.{}.self_attn.o_proj.weight",                 "blk.{}.attn_output.weight",         kPerLayer,      HiddenByQuery,          kWhole,                       QuantClass::kAttention,            kAsIs,         false},
    {"layers.{}.self_attn.q_norm.weight",                 "blk.{}.attn_q_norm.weight",         kPerLayer,      HeadDim,                kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.self_attn.k_norm.weight",                 "blk.{}.attn_k_norm.weight",         kPerLayer,      HeadDim,                kWhole,                       QuantClass::kSmall,                kAsIs,         true},
    {"layers.{}.mlp.gate_proj.weight",                    "blk.{}.ffn_gate.weight",            kPerLayer,      FfnByHidden,            MatFormerAxis::kFfnRows,      QuantClass::kFeedForward,          kAsIs,         false},
    {"layers.{}.mlp.up_proj.weight",                      "blk.{}.ffn_up.weight",              kPerLayer,      FfnByHidden,            MatFormerAxis::kFfnRows,      QuantClass::kFeedForward,          kAsIs,         false},
    {"layers.{}.mlp.down_proj.weight",                    "blk.{}.ffn_down.weight",            kPerLayer,      HiddenByFfn,            MatFormerAxis::kFfnColumns,   QuantClass::kFeedForward,          kAsIs,         false},
    {"layers.{}.input_layernorm.weight",                  "blk.{}.attn_norm.weight",           kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.post_attention_layernorm.weight",         "blk.{}.post_attention_norm.weight", kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.pre_feedforward_layernorm.weight",        "blk.{}.ffn_norm.weight",            kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.post_feedforward_layernorm.weight",       "blk.{}.post_ffw_norm.weight",       kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.altup.correct_output_scale",              "blk.{}.altup_correct_scale.weight", kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.altup.correction_coefs.weight",           "blk.{}.altup_correct_coef.weight",  kPerLayer,      StreamsByStreams,       kWhole,                       QuantClass::kSmall,                kClip,         false},
    {"layers.{}.altup.prediction_coefs.weight",           "blk.{}.altup_predict_coef.weight",  kPerLayer,      StreamPairsByStreams,   kWhole,                       QuantClass::kSmall,                kClip,         false},
    {"layers.{}.altup.modality_router.weight",            "blk.{}.altup_router.weight",        kPerLayer,      StreamsByHidden,        kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.altup.router_norm.weight",                "blk.{}.altup_router_norm.weight",   kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.laurel.linear_left.weight",               "blk.{}.laurel_l.weight",            kPerLayer,      RankByHidden,           kWhole,                       QuantClass::kLaurel,               kAsIs,         false},
    {"layers.{}.laurel.linear_right.weight",              "blk.{}.laurel_r.weight",            kPerLayer,      HiddenByRank,           kWhole,                       QuantClass::kLaurel,               kAsIs,         false},
    {"layers.{}.laurel.post_laurel_norm.weight",          "blk.{}.laurel_post_norm.weight",    kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
    {"layers.{}.per_layer_input_gate.weight",             "blk.{}.inp_gate.weight",            kPerLayer,      PerLayerInputByHidden,  kWhole,                       QuantClass::kPerLayer,             kAsIs,         false},
    {"layers.{}.per_layer_projection.weight",             "blk.{}.proj.weight",                kPerLayer,      HiddenByPerLayerInput,  kWhole,                       QuantClass::kPerLayer,             kAsIs,         false},
    {"layers.{}.post_per_layer_input_norm.weight",        "blk.{}.post_norm.weight",           kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kAsIs,         false},
});
// clang-format on

}  // namespace

std::span<const WeightRow> Gemma3nWeightTable() { return kTable; }

}  // namespace taskpress
