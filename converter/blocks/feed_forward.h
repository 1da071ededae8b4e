// The gated feed-forward block, with Gaussian top-k sparsity where it is asked for.
#ifndef TASKPRESS_CONVERTER_BLOCKS_FEED_FORWARD_H_
#define TASKPRESS_CONVERTER_BLOCKS_FEED_FORWARD_H_

#include "converter/blocks/block_context.h"

namespace taskpress {

// x [1, tokens, hidden] -> W_down(gelu(gate) * up). With sparsity s > 0 the gate is first cut: max(gate - (mean + std * z), 0), z the
// s-quantile of the normal distribution, mean and population std over the layer's own width.
Value FeedForward(BlockContext& c, int64_t layer, Value x, double sparsity = 0);

// Inverse of the standard normal distribution function, 0 < p < 1, to double precision.
double NormalQuantile(double p);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_FEED_FORWARD_H_
