// Chooses the factors of a model's folds so that rounding costs least.
#ifndef TASKPRESS_CONVERTER_CHOOSE_FOLDS_H_
#define TASKPRESS_CONVERTER_CHOOSE_FOLDS_H_

#include <functional>
#include <string>
#include <vector>

#include "converter/folds.h"
#include "converter/text_weights.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

using InputStrengths = std::function<Result<MeasuredInputs>(const std::string& weight, int64_t columns)>;

// For every fold of the family whose factors reach a quantized matrix or table. Strengths of channels are measured ones where `inputs` has
// them, else estimated from the weights before the channel. Candidates s = x^a / w^b (x: strength of a channel, w: root mean square of its
// columns) are tried on a sample of rows, quantized as the recipe says, against
//   sum over matrices of [ sum_ij (e_ij / s_j)^2 x_j^2 + step^2 / 12 sum_ij (w_ij s_j)^2 ] / sum_ij w_ij^2 x_j^2
// (e: rounding error of the scaled weights, step: of the activations' 8 bits, of two terms that of the limited one); the least wins, no
// fold where nothing is won. `weights` has a recipe and no folds yet. `names`: of rows of the family's table, empty for all. kUsage for a
// name that none has, and the errors of reading.
Result<std::vector<Fold>> ChooseFolds(const TextWeights& weights, const TextConfig& config, std::span<const std::string> names,
                                      const InputStrengths& inputs, const RowWork& work = {});

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CHOOSE_FOLDS_H_
