// Gemma 3n: its config, its weights, its figure.
#ifndef TASKPRESS_CONVERTER_GEMMA3N_H_
#define TASKPRESS_CONVERTER_GEMMA3N_H_

#include <span>

#include "converter/folds.h"
#include "converter/text_model.h"
#include "converter/weight_table.h"
#include "schema/json.h"

namespace taskpress {

// config.json of model_type gemma3n or gemma3n_text. Errors: ParseTextConfig().
Result<TextConfig> ParseGemma3nConfig(const Json& config);
std::span<const WeightRow> Gemma3nWeightTable();
std::span<const FoldRow> Gemma3nFoldTable();
Value Gemma3nDecoder(BlockContext& c, const DecoderInputs& inputs, KvCaches& caches);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_GEMMA3N_H_
