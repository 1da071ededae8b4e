// Some rows of a matrix on their way through GPTQ. Inside of quantizer/gptq_rows.cc.
#ifndef TASKPRESS_QUANTIZER_GPTQ_TILE_H_
#define TASKPRESS_QUANTIZER_GPTQ_TILE_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/gptq.h"

namespace taskpress {

// One number per row of a panel.
using PanelSums = std::array<double, kPanelWidth>;

// Up to `panels` panels of 32 rows: matrices [columns][32], columns in the order of the factor. Rows that are missing are zero.
class GptqTile {
 public:
  // `codes` may be empty: then there are none yet.
  GptqTile(const GptqFactor& factor, const GptqGrid& grid, const DenseKernels& kernels, int64_t panels);

  // values: [rows, columns], scales: [rows, blocks]; rows <= 32 * panels.
  void Load(std::span<const float> values, std::span<const float> scales, int64_t rows);
  void SetCodes(std::span<const int8_t> codes);
  void Quantize();      // codes, residuals and objectives, with feedback; scales chosen on the way
  void MeasureCodes();  // residuals and objectives of the codes that are there
  // Rows where rounding without feedback, with the scales as loaded, has the smaller objective take it. The number of them.
  int64_t TakeBetterPlainRows();
  int64_t RefitScales();  // the number of scales that changed
  void Store(std::span<float> scales, std::span<int8_t> codes) const;
  [[nodiscard]] double objective(int64_t row) const {
    return objectives_[static_cast<size_t>(row / kPanelWidth)][static_cast<size_t>(row % kPanelWidth)];
  }

 private:
  using Matrix = std::vector<float>;  // [panels][columns][32]

  // Columns [lo, hi) of the factor, rounded one after the other between two products.
  struct Batch {
    int64_t lo = 0;
    int64_t hi = 0;
  };
  [[nodiscard]] Batch BatchBelow(int64_t hi) const;
  [[nodiscard]] float* At(Matrix& matrix, int64_t panel, int64_t column) const {
    return matrix.data() + (panel * columns_ + column) * kPanelWidth;
  }
  [[nodiscard]] const float* At(const Matrix& matrix, int64_t panel, int64_t column) const {
    return matrix.data() + (panel * columns_ + column) * kPanelWidth;
  }
  [[nodiscard]] float* FeedbackOf(int64_t panel, int64_t column_in_batch) {
    return feedback_.data() + (panel * batch_capacity_ + column_in_batch) * kPanelWidth;
  }
  [[nodiscard]] int64_t BlockOf(int64_t column) const { return (columns_ - 1 - column) / block_size_; }
  [[nodiscard]] float* ScalesOf(std::vector<float>& scales, int64_t panel, int64_t block) const {
    return scales.data() + (panel * blocks_ + block) * kPanelWidth;
  }
  // feedback_ = sum over k in [first, end) of L[k][batch] * errors[k], for the panels that are active.
  void CollectFeedback(const Batch& batch, int64_t first, int64_t end, const Matrix& errors, std::span<const char> active);
  void RoundBatch(int64_t panel, const Batch& batch);
  void ChooseScales(int64_t panel, const Batch& batch, int64_t column);
  // out[batch] = L^T errors, of errors in the columns `inside` only; feedback_ holds what comes from above. Its objective is added to
  // `sums`.
  void MultiplyBatch(int64_t panel, const Batch& batch, const Batch& inside, const Matrix& errors, Matrix& out, PanelSums* sums);
  int64_t RefitBlock(int64_t block);
  int64_t ApplyRefit(int64_t panel, int64_t block, int64_t top);
  void ErrorsOf(int64_t panel, int64_t column, const float* codes, std::vector<float>& scales, float* errors) const;

  const GptqFactor& factor_;
  const GptqGrid& grid_;
  const DenseKernels& kernels_;
  const int64_t columns_;
  const int64_t block_size_;
  const int64_t blocks_;
  const int64_t batch_capacity_;
  int64_t rows_ = 0;
  int64_t panels_ = 0;
  std::vector<float> given_scales_;  // [panels][blocks][32]
  std::vector<float> scales_;
  Matrix weights_;
  Matrix codes_;      // as floats
  Matrix errors_;     // weights - scales * codes
  Matrix residuals_;  // L^T errors
  Matrix scratch_;
  std::vector<float> feedback_;        // [panels][batch][32]
  std::vector<float> packed_;          // panels [256][32] of L
  std::vector<PanelSums> objectives_;  // [panels]
};

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_GPTQ_TILE_H_
