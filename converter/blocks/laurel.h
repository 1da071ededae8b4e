// LAuReL: a low-rank learned residual beside attention. Its residual is the normed input, not the stream.
#ifndef TASKPRESS_CONVERTER_BLOCKS_LAUREL_H_
#define TASKPRESS_CONVERTER_BLOCKS_LAUREL_H_

#include "converter/blocks/block_context.h"

namespace taskpress {

// n [1, tokens, hidden] -> n + RMS(W_right (W_left n); w)
Value Laurel(BlockContext& c, int64_t layer, Value n);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_LAUREL_H_
