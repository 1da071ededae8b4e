// Rounding that knows the inputs (GPTQ; Frantar et al. 2022) for symmetric grids: each column's rounding error is made up for in the
// columns that follow, so that sum over tokens of ((w - q) x)^2 = (w - q)^T H (w - q) is small.
//
// In the form of LDLQ (Chee et al. 2023, theorem 1), which needs no inverse. With H = L D L^T, L unit lower triangular, columns in the
// order of the factor and rounded from the last to the first,
//   q_j = round(w_j + sum over k > j of L[k][j] (w_k - q_k)),   (w - q)^T H (w - q) = sum over j of D_j (L^T (w - q))_j^2,
// and (L^T (w - q))_j is what rounding took off at j.
#ifndef TASKPRESS_QUANTIZER_GPTQ_H_
#define TASKPRESS_QUANTIZER_GPTQ_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quantizer/dense_kernels.h"
#include "quantizer/parallel_rows.h"
#include "quantizer/second_moments.h"
#include "schema/base/error.h"

namespace taskpress {

struct GptqOptions {
  // The diagonal becomes H_jj (1 + own_damping) + damping * mean + added_diagonal + extra_diagonal[j]; the mean is over columns that are
  // not dead. All >= 0. With fewer than about four tokens per column 1 % of the mean is too little.
  double damping = 0.01;
  double own_damping = 0;
  double added_diagonal = 0;                    // in units of the sums, such as activation_step2 / 12
  std::span<const double> extra_diagonal = {};  // [columns], or none
  // Columns of the largest diagonal first, where all later columns can make up for them; for one scale per row. Else in their order.
  bool act_order = true;
};

class GptqFactor {
 public:
  // Factors in place, in the memory of the moments, with one block of columns beside it. About columns^3 / 3 multiply-adds; the bits do not
  // depend on threads, kernels or CPU. kQuantShape when there are no products or a size disagrees, kNotFinite as CheckMoments, kQuantValue
  // for a negative or infinite damping.
  static Result<GptqFactor> Make(SecondMoments moments, const GptqOptions& options, const RowWork& work = {},
                                 const DenseKernels& kernels = VectorDenseKernels());

  [[nodiscard]] int64_t columns() const { return columns_; }
  [[nodiscard]] bool act_order() const { return act_order_; }
  // [columns]; order()[r] is the column of row r of the factor. Columns are rounded from the last row to the first.
  [[nodiscard]] std::span<const int64_t> order() const { return order_; }
  // [columns] D, by rows of the factor: what an error there costs that no later column makes up for.
  [[nodiscard]] std::span<const double> pivots() const { return pivots_; }
  // Row r of L: [r] coefficients of the rows below r; the diagonal is one.
  [[nodiscard]] const float* row(int64_t r) const { return unit_lower_.data() + r * columns_; }
  // Columns whose input was zero for every token: rounded plainly.
  [[nodiscard]] int64_t dead_columns() const { return dead_columns_; }
  // Pivots below what float32 can tell from zero, raised to it: columns that are combinations of others, damped too little.
  [[nodiscard]] int64_t raised_pivots() const { return raised_pivots_; }

 private:
  GptqFactor() = default;
  std::vector<double> DampedDiagonal(const SecondMoments& moments, const GptqOptions& options);
  Status Permute(const RowWork& work);
  Status Factor(std::span<const double> diagonal, const RowWork& work, const DenseKernels& kernels);
  void FactorBlock(int64_t first, int64_t size, std::span<const double> diagonal);

  int64_t columns_ = 0;
  bool act_order_ = false;
  int64_t dead_columns_ = 0;
  int64_t raised_pivots_ = 0;
  std::vector<int64_t> order_;
  std::vector<double> pivots_;
  std::vector<float> unit_lower_;  // [columns, columns], the lower triangle
};

// A new scale for a block whose first column is about to be rounded. values: [block] weights with the errors so far made up for;
// importance: [block] pivots. Finite and > 0; called from several threads at once.
using ChooseBlockScale = std::function<float(std::span<const float> values, std::span<const double> importance)>;

struct GptqGrid {
  int lo = -7;  // -128 <= lo < hi <= 127
  int hi = 7;
  int64_t block_size = 0;              // columns per scale; 0: one scale per row. Blocks need a factor without act_order
  ChooseBlockScale choose_scale = {};  // for blocks; empty: scales stay as given
  // At the end, codes unchanged, each scale by least squares under H, where the objective falls; between half and twice the old one.
  bool refit_scales = false;
};

struct GptqResult {
  std::vector<double> objectives;  // [rows] (w - q)^T H (w - q) of what was chosen, H as damped
  int64_t plain_rows = 0;          // rows where plain rounding with the scales as given was better and was taken
  int64_t refitted_scales = 0;
};

// values: [rows, columns]; scales: [rows, columns / block_size], given and perhaps changed; codes: [rows, columns], set.
// A row's objective is never above that of plain rounding (round-half-even(w / scale), clamped) with the scales given. Rows are
// independent: any split gives the same bytes. kQuantShape when sizes disagree, kQuantValue for values or scales that are not finite
// (scales: positive and normal) or whose objective is not.
Result<GptqResult> GptqQuantize(const GptqFactor& factor, const GptqGrid& grid, std::span<const float> values, int64_t rows,
                                std::span<float> scales, std::span<int8_t> codes, const RowWork& work = {},
                                const DenseKernels& kernels = VectorDenseKernels());

// [rows] (w - scale * code)^T H (w - scale * code), H as damped. Errors as GptqQuantize.
Result<std::vector<double>> GptqObjective(const GptqFactor& factor, int64_t block_size, std::span<const float> values, int64_t rows,
                                          std::span<const float> scales, std::span<const int8_t> codes, const RowWork& work = {},
                                          const DenseKernels& kernels = VectorDenseKernels());

// The plain twin, as the paper has it: columns one after the other, each error spread by the inverse Hessian, in double; the inverse by
// Gauss and Jordan. Neither compares with plain rounding nor refits. For small matrices.
Result<std::vector<int8_t>> GptqQuantizePlain(const SecondMoments& moments, const GptqOptions& options, const GptqGrid& grid,
                                              std::span<const float> values, int64_t rows, std::span<const float> scales);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_GPTQ_H_
