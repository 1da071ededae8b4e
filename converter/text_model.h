// The text members of a bundle as Graphs: embedder, per-layer embedder, and the model itself with one signature per call length. What a
// signature computes is the family's figure; what goes in and comes out is the same for all.
#ifndef TASKPRESS_CONVERTER_TEXT_MODEL_H_
#define TASKPRESS_CONVERTER_TEXT_MODEL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "converter/blocks/attention.h"
#include "converter/model_place.h"
#include "converter/text_config.h"
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

// What a family's decoder works on in one signature of T tokens.
struct DecoderInputs {
  Value embeddings;                     // [1, T, hidden], scaled
  std::optional<Value> per_layer_rows;  // [1, T, layers, per_layer], scaled; families with a per-layer embedder
  AttentionInputs attention;
  bool logits = false;  // without them nothing above the last owning layer is needed
};
using KvCaches = std::vector<KvCache>;  // one per owning layer
// Writes one call of the decoder: takes the caches before it and leaves those after it. Returns logits [1, T, vocab] when they are asked
// for, else nothing that counts.
using DecoderFigure = Value (*)(BlockContext& c, const DecoderInputs& inputs, KvCaches& caches);

// Final norm, tied head and the soft-cap the config asks for: [1, T, hidden] -> [1, T, vocab]
Value Logits(BlockContext& c, Value hidden);

// token_ids i32 [1, 1] -> embeddings f32 [1, 1, hidden], scaled by sqrt(hidden)
Result<Graph> BuildEmbedder(const TextConfig& config, TextWeights& weights);
// token_ids i32 [1, 1] -> per_layer_embeddings f32 [1, 1, layers, per_layer], scaled by sqrt(per_layer). Families that have one.
Result<Graph> BuildPerLayerEmbedder(const TextConfig& config, TextWeights& weights);
// prefill_<T>: caches only, layers above the last owning one left out. decode: caches and logits [1, 1, vocab]. score_<T>: logits [1, T,
// vocab]. Inputs of each: embeddings [1, T, hidden], per_layer_embeddings [1, T, layers, per_layer] where the family has them, input_pos
// i32 [T], mask [1, 1, T, context], caches. kUsage for a context or a length that is not possible.
// `place`: where this model lies in the one that `weights` and the embedders are of, null: it is that model.
Result<Graph> BuildPrefillDecode(const TextConfig& config, TextWeights& weights, const TextModelOptions& options,
                                 const ModelPlace* place = nullptr);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TEXT_MODEL_H_
