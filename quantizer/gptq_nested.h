// GPTQ for a matrix whose columns are stored in pieces, where a small model has the first pieces alone and a bigger one more of them.
//
// A piece's integers serve every model that has it, so they are decided once, in the order of the pieces: the first for the smallest model,
// each later one for the model that ends with it, given what rounding left in the pieces before. With H the moments of that model's inputs,
// 1 the columns before, 2 the piece's own and E = W - Q what rounding took off,
//   E^T H E = (E2 + M E1)^T H22 (E2 + M E1) + E1^T (H11 - H12 M) E1,   M = H22^-1 H21,
// and only the first term is still open: the piece is rounded as if its weights were W2 + M E1.
#ifndef TASKPRESS_QUANTIZER_GPTQ_NESTED_H_
#define TASKPRESS_QUANTIZER_GPTQ_NESTED_H_

#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/dense_kernels.h"
#include "quantizer/gptq.h"
#include "quantizer/quant_spec.h"
#include "quantizer/second_moments.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// The products of a piece's inputs with those of the columns before it: H21, in the order of the piece's factor.
class GptqCross {
 public:
  // `moments` of columns [0, before + own.columns()); `own` is made of those from `before` on. kQuantShape when the sizes disagree or there
  // are no products.
  static Result<GptqCross> Make(const SecondMoments& moments, int64_t before, const GptqFactor& own);

  [[nodiscard]] int64_t before() const { return before_; }
  // The first 32 columns of the factor from `panel` * 32 on, by columns before: [before][32].
  [[nodiscard]] const float* panel(int64_t panel) const { return panels_.data() + panel * before_ * kPanelWidth; }

 private:
  GptqCross() = default;
  int64_t before_ = 0;
  std::vector<float> panels_;  // [panels][before][32]; columns that are missing are zero
};

// W2 + M E1.   values: [rows, own.columns()]; errors: [rows, cross.before()], E1. Rows are independent of each other. kQuantShape when
// sizes disagree, kQuantValue for errors or targets that are not finite.
Result<std::vector<float>> NestedTargets(const GptqFactor& own, const GptqCross& cross, std::span<const float> values, int64_t rows,
                                         std::span<const float> errors, const DenseKernels& kernels = VectorDenseKernels());

// GptqRows of a piece, given the errors of the columns before it. A row's E^T H E (H as `own` is damped) is never above that of GptqRows,
// which does not look at what is before: the better of the two is taken.
Status NestedGptqRows(const GptqFactor& own, const GptqCross& cross, const QuantSpec& spec, std::span<const float> importance,
                      std::span<const float> values, int64_t num_rows, std::span<const float> errors, ByteSpan packed,
                      std::span<float> scales, int64_t first_row = 0);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_GPTQ_NESTED_H_
