// What the inputs of a linear layer look like: sums over tokens of x, x^2 and, if wanted, x x^T (the Hessian of the layer's squared error).
#ifndef TASKPRESS_QUANTIZER_SECOND_MOMENTS_H_
#define TASKPRESS_QUANTIZER_SECOND_MOMENTS_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/dense_kernels.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

// full: x x^T; diagonal: x^2 only.
enum class MomentKind { kDiagonal, kFull };

struct SecondMoments {
  int64_t columns = 0;  // d
  int64_t tokens = 0;
  std::vector<double> sums;           // [d] sum of x
  std::vector<double> squares;        // [d] sum of x^2
  std::vector<float> max_magnitudes;  // [d] max |x|
  // Sum over tokens of step^2, step = (max(0, max x) - min(0, min x)) / 255: that of asymmetric int8, one scale per token, as dynamically
  // quantized layers round their input. Its noise has the variance step^2 / 12 per column.
  double activation_step2 = 0;
  // [d, d] sum of x x^T, row-major, the lower triangle; above it anything. Empty if only the diagonal is kept.
  std::vector<float> products;

  [[nodiscard]] MomentKind kind() const { return products.empty() ? MomentKind::kDiagonal : MomentKind::kFull; }
};

// 2^17: of no model; what a file may ask for.
inline constexpr int64_t kMaxMomentColumns = 1 << 17;

// All zeros. kQuantShape unless 1 <= columns <= kMaxMomentColumns.
Result<SecondMoments> MakeMoments(int64_t columns, MomentKind kind);
// The square of the int8 step of the limited term, where inputs of this mean square come as two (QuantSpec::two_terms).
double TwoTermStep2(double mean_square);
// What activation_step2 is then.
double TwoTermStep2(const SecondMoments& moments);
// into += other. kQuantShape unless columns and kinds are equal. Not associative: merge in a fixed order.
Status AddMoments(SecondMoments& into, const SecondMoments& other);
// kNotFinite where a sum is not finite or a square is negative; kQuantShape where sizes disagree.
Status CheckMoments(const SecondMoments& moments);

// Takes tokens in any portions: the result depends on their order alone, not on the cuts, the number of threads or the CPU. Products are
// summed in float32 over 256 tokens at a time and these sums added in order; sums and squares in double, token by token. Columns that are
// mostly zero cost little, with the same bits. Memory: the moments and one block, [256, d] floats.
class MomentAccumulator {
 public:
  static Result<MomentAccumulator> Make(int64_t columns, MomentKind kind, const DenseKernels& kernels = VectorDenseKernels());

  // values: [rows, columns]. kNotFinite naming token and column of NaN or infinity: nothing of these rows was added then.
  Status Add(std::span<const float> values, int64_t rows, const RowWork& work = {});
  // The moments; the accumulator is spent. kNotFinite where squares have overflowed.
  Result<SecondMoments> Finish(const RowWork& work = {});
  [[nodiscard]] int64_t tokens() const { return moments_.tokens; }

 private:
  MomentAccumulator(SecondMoments moments, MomentKind kind, const DenseKernels& kernels);
  // Where the values of a panel that are not zero lie in the block, column by column.
  struct SparsePanel {
    std::vector<float> values;
    std::vector<uint16_t> at;
    std::array<int64_t, kPanelWidth + 1> begin;
  };
  Status AddBlock(const RowWork& work);
  Status AddProducts(const RowWork& work);
  Status AddTile(int64_t row_group, int64_t column_group);
  void SumPanel(int64_t panel);
  void FindNonzero(int64_t panel);
  void AddSparse(int64_t row_panel, int64_t column_panel);
  [[nodiscard]] bool IsSparse(int64_t panel) const;
  [[nodiscard]] const float* Panel(int64_t panel) const { return block_.data() + panel * kMaxDepth * kPanelWidth; }

  SecondMoments moments_;
  MomentKind kind_;
  const DenseKernels* kernels_;
  std::vector<float> block_;         // panels of [256][32]: tokens not yet summed
  int64_t in_block_ = 0;             // tokens there
  std::vector<int64_t> nonzero_;     // per panel: values that are not zero in the block
  std::vector<SparsePanel> sparse_;  // per panel; valid where few are
};

// The plain twin: one token after the other, the same rule, one value at a time.
Result<SecondMoments> ComputeMomentsPlain(std::span<const float> values, int64_t rows, int64_t columns, MomentKind kind);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_SECOND_MOMENTS_H_
