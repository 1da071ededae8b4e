// How strong the channels of a fold are, estimated without running the model.
#ifndef TASKPRESS_CONVERTER_CHANNEL_STRENGTH_H_
#define TASKPRESS_CONVERTER_CHANNEL_STRENGTH_H_

#include <vector>

#include "converter/folds.h"
#include "converter/text_weights.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

// Root mean square of each channel [FoldChannels()] as its consumer number `repeat` sees it (folds that occur once have one consumer per
// layer), up to a common factor. Normed values count as independent with unit variance; pre-activations as normal.
Result<std::vector<float>> EstimateStrength(const FoldRow& row, int64_t index, int64_t repeat, const TextWeights& weights,
                                            const TextConfig& config, const RowWork& work = {});

// Root mean square of gelu_tanh(z) for a normal z of this deviation.
double GeluStrength(double deviation);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CHANNEL_STRENGTH_H_
