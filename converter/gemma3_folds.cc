#include "converter/gemma3.h"

namespace taskpress {
namespace {

constexpr auto kPerLayer = Repeats::kPerLayer;
constexpr auto kGain = FoldSide::kGain;
constexpr auto kRows = FoldSide::kRows;
constexpr auto kColumns = FoldSide::kColumns;

constexpr std::string_view kInputNorm = "layers.{}.input_layernorm.weight";
constexpr std::string_view kFfnNorm = "layers.{}.pre_feedforward_layernorm.weight";

// clang-format off
constexpr auto kTable = std::to_array<FoldRow>({
    {.name = "input_norm", .repeats = kPerLayer,      .strength = ChannelStrength::kGain,  .gain = kInputNorm,    .parts = {{{kInputNorm, kGain}, {"layers.{}.self_attn.q_proj.weight", kColumns}, {"layers.{}.self_attn.k_proj.weight", kColumns}, {"layers.{}.self_attn.v_proj.weight", kColumns}}}},
    {.name = "v_to_o",     .repeats = kPerLayer,      .strength = ChannelStrength::kValue, .gain = kInputNorm,    .parts = {{{"layers.{}.self_attn.v_proj.weight", kRows}, {"layers.{}.self_attn.o_proj.weight", FoldSide::kQueryHeadColumns}}}},
    {.name = "ffn_norm",   .repeats = kPerLayer,      .strength = ChannelStrength::kGain,  .gain = kFfnNorm,      .parts = {{{kFfnNorm, kGain}, {"layers.{}.mlp.gate_proj.weight", kColumns}, {"layers.{}.mlp.up_proj.weight", kColumns}}}},
    {.name = "up_to_down", .repeats = kPerLayer,      .strength = ChannelStrength::kGated, .gain = kFfnNorm,      .parts = {{{"layers.{}.mlp.up_proj.weight", kRows}, {"layers.{}.mlp.down_proj.weight", kColumns}}}},
    {.name = "final_norm", .repeats = Repeats::kOnce, .strength = ChannelStrength::kGain,  .gain = "norm.weight", .parts = {{{"norm.weight", kGain}, {"lm_head.weight", kColumns}}}},
});
// clang-format on

}  // namespace

std::span<const FoldRow> Gemma3FoldTable() { return kTable; }

}  // namespace taskpress
