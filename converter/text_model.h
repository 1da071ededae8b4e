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
  // Adds calibrate_<T>: what the head multiplies, of every position. Run in memory (RunCalibration), never written to a bundle.
  std::optional<int64_t> calibration_length = std::nullopt;
  WindowForm window = WindowForm::kGather;
};

// What a signature is after, beside the caches.
enum class DecoderOutput : uint8_t {
  kCaches,  // nothing else: what lies above the last owning layer is not needed
  kHidden,  // the head's input, [1, T, hidden]
  kLogits,  // [1, T, vocab]
};

// What a family's decoder works on in one signature of T tokens.
struct DecoderInputs {
  Value embeddings;                     // [1, T, hidden], scaled
  std::optional<Value> per_layer_rows;  // [1, T, layers, per_layer], scaled; families with a per-layer embedder
  AttentionInputs attention;
  DecoderOutput output = DecoderOutput::kCaches;
};
using KvCaches = std::vector<KvCache>;  // one per owning layer
// Writes one call of the decoder: takes the caches before it and leaves those after it. Returns what
// DecoderInputs::output asks for, of kCaches nothing that counts.
using DecoderFigure = Value (*)(BlockContext& c, const DecoderInputs& inputs, KvCaches& caches);

// The last layer's stream [1, T, hidden] -> kHidden: after the final norm; kLogits: times the tied head, with the soft-cap that the config
// asks for.
Value FinishDecoder(BlockContext& c, DecoderOutput output, Value stream);

// token_ids i32 [1, 1] -> embeddings f32 [1, 1, hidden], scaled by sqrt(hidden)
Result<Graph> BuildEmbedder(const TextConfig& config, TextWeights& weights);
// token_ids i32 [1, 1] -> per_layer_embeddings f32 [1, 1, layers, per_layer], scaled by sqrt(per_layer). Families that have one.
Result<Graph> BuildPerLayerEmbedder(const TextConfig& config, TextWeights& weights);
// prefill_<T>: caches only, layers above the last owning one left out. decode: caches and logits [1, 1, vocab]. score_<T>: logits [1, T,
// vocab]. calibrate_<T>: hidden [1, T, hidden], the head's input. Inputs of each: embeddings [1, T, hidden], per_layer_embeddings [1, T,
// layers, per_layer] where the family has them, input_pos i32 [T], mask [1, 1, T, context], caches. kUsage for a context or a length that
// is not possible. `place`: where this model lies in the one that `weights` and the embedders are of, null: it is that model.
Result<Graph> BuildPrefillDecode(const TextConfig& config, TextWeights& weights, const TextModelOptions& options,
                                 const ModelPlace* place = nullptr);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TEXT_MODEL_H_
