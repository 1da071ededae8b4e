// Shapes of weights as formulas of the config, named by what they span; the families' weight tables are written with them.
#ifndef TASKPRESS_CONVERTER_WEIGHT_SHAPES_H_
#define TASKPRESS_CONVERTER_WEIGHT_SHAPES_H_

#include "converter/text_config.h"
#include "schema/shape.h"

namespace taskpress::weight_shapes {

inline int64_t Ffn(const TextConfig& c, int64_t layer) { return c.intermediate_size[static_cast<size_t>(layer)]; }
inline int64_t QueryWidth(const TextConfig& c) { return c.num_attention_heads * c.head_dim; }
inline int64_t KeyWidth(const TextConfig& c) { return c.num_key_value_heads * c.head_dim; }
inline int64_t PerLayerWidth(const TextConfig& c) { return c.num_hidden_layers * c.hidden_size_per_layer_input; }

inline Shape Hidden(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size}; }
inline Shape HiddenByHidden(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size, c.hidden_size}; }
inline Shape VocabByHidden(const TextConfig& c, int64_t /*i*/) { return {c.vocab_size, c.hidden_size}; }
inline Shape TextVocabByPerLayer(const TextConfig& c, int64_t /*i*/) { return {c.text_vocab_size, PerLayerWidth(c)}; }
inline Shape PerLayerByHidden(const TextConfig& c, int64_t /*i*/) { return {PerLayerWidth(c), c.hidden_size}; }
inline Shape PerLayerInput(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size_per_layer_input}; }
inline Shape PerLayerInputByHidden(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size_per_layer_input, c.hidden_size}; }
inline Shape HiddenByPerLayerInput(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size, c.hidden_size_per_layer_input}; }
inline Shape QueryByHidden(const TextConfig& c, int64_t /*i*/) { return {QueryWidth(c), c.hidden_size}; }
inline Shape HiddenByQuery(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size, QueryWidth(c)}; }
inline Shape KeyByHidden(const TextConfig& c, int64_t /*i*/) { return {KeyWidth(c), c.hidden_size}; }
inline Shape HeadDim(const TextConfig& c, int64_t /*i*/) { return {c.head_dim}; }
inline Shape FfnByHidden(const TextConfig& c, int64_t layer) { return {Ffn(c, layer), c.hidden_size}; }
inline Shape HiddenByFfn(const TextConfig& c, int64_t layer) { return {c.hidden_size, Ffn(c, layer)}; }
inline Shape RankByHidden(const TextConfig& c, int64_t /*i*/) { return {c.laurel_rank, c.hidden_size}; }
inline Shape HiddenByRank(const TextConfig& c, int64_t /*i*/) { return {c.hidden_size, c.laurel_rank}; }
inline Shape StreamsByStreams(const TextConfig& c, int64_t /*i*/) { return {c.altup_num_inputs, c.altup_num_inputs}; }
inline Shape StreamPairsByStreams(const TextConfig& c, int64_t /*i*/) {
  return {c.altup_num_inputs * c.altup_num_inputs, c.altup_num_inputs};
}
inline Shape StreamsByHidden(const TextConfig& c, int64_t /*i*/) { return {c.altup_num_inputs, c.hidden_size}; }

}  // namespace taskpress::weight_shapes

#endif  // TASKPRESS_CONVERTER_WEIGHT_SHAPES_H_
