// One row per weight of a family's text model: the facts that loaders, slicer, planner, quantizer, docs and tests all loop over.
#ifndef TASKPRESS_CONVERTER_WEIGHT_TABLE_H_
#define TASKPRESS_CONVERTER_WEIGHT_TABLE_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "converter/text_config.h"
#include "quantizer/recipe.h"
#include "schema/shape.h"

namespace taskpress {

// Where published and re-saved checkpoints put the text model.
inline constexpr auto kTextPrefixes = std::to_array<std::string_view>({"model.language_model.", "language_model.model.", "model."});

// How often a row's name occurs in a checkpoint; "{}" in the name is the index.
enum class Repeats : uint8_t { kOnce, kPerLayer, kPerAltupProjection };

// Which dimension a MatFormer slice cuts.
enum class MatFormerAxis : uint8_t {
  kWhole,
  kFfnRows,       // the first f rows stay
  kFfnColumns,    // the first f columns stay
  kLayerRows,     // blocks of rows, one per layer: kept layers stay
  kLayerColumns,  // blocks of columns, one per layer: kept layers stay
};

// What happens to the values on the way from checkpoint to bundle.
enum class WeightTransform : uint8_t {
  kAsIs,
  kClipAltup,  // to +-altup_coef_clip, as the model was trained; transformers clips while training, other implementations whenever they run
  kPlusOne,    // Gemma 3 stores a norm's gain minus one
  kQueryGain,  // kPlusOne, times query_pre_attn_scalar^-0.5: the scale of attention, which the block itself takes to be one
};

struct WeightRow {
  std::string_view name;  // below the text model's prefix: "layers.{}.mlp.gate_proj.weight"
  // In a GGUF file. A repeated row whose name has no "{}" is stacked there: one tensor with an outer dimension.
  std::string_view gguf_name;
  Repeats repeats;
  Shape (*shape)(const TextConfig& config, int64_t index);
  MatFormerAxis axis;
  QuantClass quant_class;
  WeightTransform transform;
  // Keys and values of KV-shared layers are stored in published checkpoints and never read; newer files leave them out.
  bool unused_when_kv_shared;
};

// "{}" replaced by the index.
std::string WithIndex(std::string_view name, int64_t index);
// "layers.3.mlp.gate_proj.weight"
std::string WeightName(const WeightRow& row, int64_t index);
// "blk.3.ffn_gate.weight"
std::string GgufName(const WeightRow& row, int64_t index);
bool IsStackedInGguf(const WeightRow& row);
// How many indices the row has under this config.
int64_t WeightCount(const WeightRow& row, const TextConfig& config);
// True when index `layer` of the row is a weight the model does not read.
bool IsUnused(const WeightRow& row, const TextConfig& config, int64_t index);

// True when a tensor of this name is a weight that the text model reads, wherever the checkpoint has its text model.
bool TextModelReads(const TextConfig& config, std::string_view checkpoint_name);

struct ParameterCount {
  int64_t text = 0;       // every weight of the table
  int64_t effective = 0;  // text without embed_tokens and the per-layer table, as the model cards count
};
// Keys and values of KV-shared layers included, as published totals do.
ParameterCount CountParameters(const TextConfig& config);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_WEIGHT_TABLE_H_
