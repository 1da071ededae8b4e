#include "converter/gemma3.h"
#include "converter/weight_shapes.h"

namespace taskpress {
namespace {

using namespace weight_shapes;  // the formulas of the shape column

constexpr auto kOnce = Repeats::kOnce;
constexpr auto kPerLayer = Repeats::kPerLayer;
constexpr auto kWhole = MatFormerAxis::kWhole;
constexpr auto kAsIs = WeightTransform::kAsIs;
constexpr auto kPlusOne = WeightTransform::kPlusOne;
constexpr auto kQueryGain = WeightTransform::kQueryGain;

// clang-format off
constexpr auto kTable = std::to_array<WeightRow>({
    {"embed_tokens.weight",                               "token_embd.weight",                 kOnce,          VocabByHidden,          kWhole,                       QuantClass::kEmbedding,            kAsIs,         false},
    {"norm.weight",                                       "output_norm.weight",                kOnce,          Hidden,                 kWhole,                       QuantClass::kSmall,                kPlusOne,      false},
    {"layers.{}.self_attn.q_proj.weight",                 "blk.{}.attn_q.weight",              kPerLayer,      QueryByHidden,          kWhole,                       QuantClass::kAttention,            kAsIs,         false},
    {"layers.{}.self_attn.k_proj.weight",                 "blk.{}.attn_k.weight",              kPerLayer,      KeyByHidden,            kWhole,                       QuantClass::kAttention,            kAsIs,         false},
    {"layers.{}.self_attn.v_proj.weight",                 "blk.{}.attn_v.weight",              kPerLayer,      KeyByHidden,            kWhole,                       QuantClass::kAttention,            kAsIs,         false},
    {"layers.{}.self_attn.o_proj.weight",                 "blk.{}.attn_output.weight",         kPerLayer,      HiddenByQuery,          kWhole,                       QuantClass::kAttention,            kAsIs,         false},
    {"layers.{}.self_attn.q_norm.weight",                 "blk.{}.attn_q_norm.weight",         kPerLayer,      HeadDim,                kWhole,                       QuantClass::kSmall,                kQueryGain,    false},
    {"layers.{}.self_attn.k_norm.weight",                 "blk.{}.attn_k_norm.weight",         kPerLayer,      HeadDim,                kWhole,                       QuantClass::kSmall,                kPlusOne,      false},
    {"layers.{}.mlp.gate_proj.weight",                    "blk.{}.ffn_gate.weight",            kPerLayer,      FfnByHidden,            kWhole,                       QuantClass::kFeedForward,          kAsIs,         false},
    {"layers.{}.mlp.up_proj.weight",                      "blk.{}.ffn_up.weight",              kPerLayer,      FfnByHidden,            kWhole,                       QuantClass::kFeedForward,          kAsIs,         false},
    {"layers.{}.mlp.down_proj.weight",                    "blk.{}.ffn_down.weight",            kPerLayer,      HiddenByFfn,            kWhole,                       QuantClass::kFeedForward,          kAsIs,         false},
    {"layers.{}.input_layernorm.weight",                  "blk.{}.attn_norm.weight",           kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kPlusOne,      false},
    {"layers.{}.post_attention_layernorm.weight",         "blk.{}.post_attention_norm.weight", kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kPlusOne,      false},
    {"layers.{}.pre_feedforward_layernorm.weight",        "blk.{}.ffn_norm.weight",            kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kPlusOne,      false},
    {"layers.{}.post_feedforward_layernorm.weight",       "blk.{}.post_ffw_norm.weight",       kPerLayer,      Hidden,                 kWhole,                       QuantClass::kSmall,                kPlusOne,      false},
});
// clang-format on

}  // namespace

std::span<const WeightRow> Gemma3WeightTable() { return kTable; }

}  // namespace taskpress
