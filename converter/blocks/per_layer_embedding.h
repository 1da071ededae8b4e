// Per-layer embeddings (PLE): every layer gets its own small input per token, from a table and from the token's embedding.
#ifndef TASKPRESS_CONVERTER_BLOCKS_PER_LAYER_EMBEDDING_H_
#define TASKPRESS_CONVERTER_BLOCKS_PER_LAYER_EMBEDDING_H_

#include "converter/blocks/altup.h"
#include "converter/blocks/block_context.h"

namespace taskpress {

// x0 [1, tokens, hidden], table rows [1, tokens, layers, per_layer] (scaled) -> [1, tokens, layers, per_layer]:
// (RMS(W x0 / sqrt(hidden); w) + rows) / sqrt(2). Layers are those of the stored model: a smaller size computes a few more than it needs
// (5 of 35 in E2B, 0.1 % of its work) and has no rows of W of its own.
Value PerLayerInputs(BlockContext& c, Value x0, Value table_rows);

// Gates one layer's input by stream 0 and adds the result to the other streams; stream 0 stays as it is.
Streams AddPerLayerInput(BlockContext& c, int64_t layer, const Streams& corrected, Value per_layer_inputs);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_PER_LAYER_EMBEDDING_H_
