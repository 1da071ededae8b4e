#include "converter/gemma3n.h"

namespace taskpress {
namespace {

bool CorrectsScale(const TextConfig& config) { return config.altup_correct_scale; }

constexpr auto kPerLayer = Repeats::kPerLayer;
constexpr auto kOnce = Repeats::kOnce;
constexpr auto kGain = FoldSide::kGain;
constexpr auto kRows = FoldSide::kRows;
constexpr auto kTableColumns = FoldSide::kTable;
constexpr auto kColumns = FoldSide::kColumns;

// The input norm is not among them: what it norms is also added to the residual stream by LAuReL. Nor are values: their norm has no gain
// and would undo any factor.
constexpr std::string_view kFfnNorm = "layers.{}.pre_feedforward_layernorm.weight";
constexpr std::string_view kScale = "layers.{}.altup.correct_output_scale";
constexpr std::string_view kProjectionNorm = "per_layer_projection_norm.weight";

// clang-format off
constexpr auto kTable = std::to_array<FoldRow>({
    {.name = "ffn_norm",    .repeats = kPerLayer, .strength = ChannelStrength::kGain,     .gain = kFfnNorm,        .parts = {{{kFfnNorm, kGain}, {"layers.{}.mlp.gate_proj.weight", kColumns}, {"layers.{}.mlp.up_proj.weight", kColumns}}}},
    {.name = "up_to_down",  .repeats = kPerLayer, .strength = ChannelStrength::kGated,    .gain = kFfnNorm,        .parts = {{{"layers.{}.mlp.up_proj.weight", kRows}, {"layers.{}.mlp.down_proj.weight", kColumns}}}},
    {.name = "altup_scale", .repeats = kPerLayer, .strength = ChannelStrength::kGain,     .gain = kScale,          .parts = {{{kScale, kGain}, {"layers.{}.per_layer_input_gate.weight", kColumns}}}, .applies = CorrectsScale},
    {.name = "per_layer",   .repeats = kOnce,     .strength = ChannelStrength::kPerLayer, .gain = kProjectionNorm, .parts = {{{kProjectionNorm, kGain}, {"embed_tokens_per_layer.weight", kTableColumns}, {"layers.{}.per_layer_projection.weight", kColumns}}}},
    {.name = "final_norm",  .repeats = kOnce,     .strength = ChannelStrength::kGain,     .gain = "norm.weight",   .parts = {{{"norm.weight", kGain}, {"lm_head.weight", kColumns}}}},
});
// clang-format on

}  // namespace

std::span<const FoldRow> Gemma3nFoldTable() { return kTable; }

}  // namespace taskpress
