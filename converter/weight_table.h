// One row per weight of the Gemma 3n text model: the facts that loader, slicer, planner, quantizer, docs and tests all loop over.
#ifndef TASKPRESS_CONVERTER_WEIGHT_TABLE_H_
#define TASKPRESS_CONVERTER_WEIGHT_TABLE_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "converter/gemma3n_config.h"
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
};

struct WeightRow {
  std::string_view name;  // below the text model's prefix: "layers.{}.mlp.gate_proj.weight"
  Repeats repeats;
  Shape (*shape)(const Gemma3nConfig& config, int64_t index);
  MatFormerAxis axis;
  QuantClass quant_class;
  WeightTransform transform;
  // Keys and values of KV-shared layers are stored in published checkpoints and never read; newer files leave them out.
  bool unused_when_kv_shared;
};

std::span<const WeightRow> Gemma3nWeightTable();

// "layers.3.mlp.gate_proj.weight"
std::string WeightName(const WeightRow& row, int64_t index);
// How many indices the row has under this config.
int64_t WeightCount(const WeightRow& row, const Gemma3nConfig& config);
// True when index `layer` of the row is a weight the model does not read.
bool IsUnused(const WeightRow& row, const Gemma3nConfig& config, int64_t index);

struct ParameterCount {
  int64_t text = 0;       // every weight of the table
  int64_t effective = 0;  // text without embed_tokens and the per-layer table, as the model cards count
};
// Keys and values of KV-shared layers included, as published totals do.
ParameterCount CountParameters(const Gemma3nConfig& config);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_WEIGHT_TABLE_H_
