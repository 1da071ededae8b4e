// AltUp: A parallel residual streams of which each layer computes one (stream 0) and predicts, then corrects, the others.
#ifndef TASKPRESS_CONVERTER_BLOCKS_ALTUP_H_
#define TASKPRESS_CONVERTER_BLOCKS_ALTUP_H_

#include <vector>

#include "converter/blocks/block_context.h"

namespace taskpress {

using Streams = std::vector<Value>;  // A values [1, tokens, hidden]

// x0 [1, tokens, hidden] -> stream 0 is x0, stream i its projection at x0's magnitude.
Streams AltupExpand(BlockContext& c, Value x0);
// Pr_i = X_i + sum_j c[i][j] X_j, with c from a router that looks at stream 0.
Streams AltupPredict(BlockContext& c, int64_t layer, const Streams& streams);
// C_i = Pr_i + k_i (y - Pr_0), with k from the same router looking at y, the layer's result.
Streams AltupCorrect(BlockContext& c, int64_t layer, const Streams& predicted, Value y);
// Back to one stream: the mean of all, each at stream 0's magnitude.
Value AltupCollapse(BlockContext& c, const Streams& streams);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_ALTUP_H_
