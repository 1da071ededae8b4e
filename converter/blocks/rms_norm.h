// RMSNorm: x / sqrt(mean(x^2) + eps) * gain. A family that stores gain - 1 has the one added before (WeightTransform).
#ifndef TASKPRESS_CONVERTER_BLOCKS_RMS_NORM_H_
#define TASKPRESS_CONVERTER_BLOCKS_RMS_NORM_H_

#include "converter/blocks/block_context.h"

namespace taskpress {

// Over the last dimension; without gain.
Value RmsNorm(BlockContext& c, Value x);
// gain: [last dimension]
Value RmsNorm(BlockContext& c, Value x, Value gain);
// z scaled to the root mean square that `like` has: AltUp keeps its streams at the size of stream 0. Streams smaller than 1e-5 (squared)
// are not blown up.
Value MatchMagnitude(BlockContext& c, Value z, Value rms_of_like);
// sqrt(mean(x^2)), [..., 1]
Value RootMeanSquare(BlockContext& c, Value x);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_RMS_NORM_H_
