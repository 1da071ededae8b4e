// The text model of Gemma 3: its config, its weights, its figure.
#ifndef TASKPRESS_CONVERTER_GEMMA3_H_
#define TASKPRESS_CONVERTER_GEMMA3_H_

#include <span>

#include "converter/folds.h"
#include "converter/text_model.h"
#include "converter/weight_table.h"
#include "schema/json.h"

namespace taskpress {

// config.json of model_type gemma3 or gemma3_text. Errors: ParseTextConfig().
Result<TextConfig> ParseGemma3Config(const Json& config);
std::span<const WeightRow> Gemma3WeightTable();
std::span<const FoldRow> Gemma3FoldTable();
Value Gemma3Decoder(BlockContext& c, const DecoderInputs& inputs, KvCaches& caches);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_GEMMA3_H_
