// The text members of a Gemma 3n bundle as Graphs: embedder, per-layer embedder, and the model itself with one signature per call length.
#ifndef TASKPRESS_CONVERTER_TEXT_MODEL_H_
#define TASKPRESS_CONVERTER_TEXT_MODEL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "converter/blocks/attention.h"
#include "converter/gemma3n_config.h"
#include "converter/text_weights.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

struct TextModelOptions {
  int64_t context = 4096;  // slots of the KV cache
  std::vector<int64_t> prefill_lengths = {1024, 128, 32, 8};
  std::optional<int64_t> score_length;  // adds score_<T>: the logits of every position
  WindowForm window = WindowForm::kGather;
};

// token_ids i32 [1, 1] -> embeddings f32 [1, 1, hidden], scaled by sqrt(hidden)
Result<Graph> BuildEmbedder(const Gemma3nConfig& config, TextWeights& weights);
// token_ids i32 [1, 1] -> per_layer_embeddings f32 [1, 1, layers, per_layer], scaled by sqrt(per_layer)
Result<Graph> BuildPerLayerEmbedder(const Gemma3nConfig& config, TextWeights& weights);
// prefill_<T>: caches only, layers above the last owning one left out. decode: caches and logits [1, 1, vocab]. score_<T>: logits [1, T,
// vocab]. Inputs of each: embeddings [1, T, hidden], per_layer_embeddings [1, T, layers, per_layer], input_pos i32 [T], mask [1, 1, T,
// context], caches. kUsage for a context or a length that is not possible.
Result<Graph> BuildPrefillDecode(const Gemma3nConfig& config, TextWeights& weights, const TextModelOptions& options);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TEXT_MODEL_H_
