#include "quantizer/gptq_tile.h"

#include <algorithm>
#include <cmath>

namespace taskpress {
namespace {

constexpr int64_t kLazyBatch = 128;

size_t Size(int64_t count) { return static_cast<size_t>(count); }

// Whole blocks, so that all of a block's feedback is there when its scale is chosen.
int64_t BatchSize(int64_t columns, int64_t block_size) {
  if (block_size == columns) return std::min(kLazyBatch, columns);
  return block_size > kLazyBatch ? block_size : kLazyBatch / block_size * block_size;
}

}  // namespace

GptqTile::GptqTile(const GptqFactor& factor, const GptqGrid& grid, const DenseKernels& kernels, int64_t panels)
    : factor_(factor),
      grid_(grid),
      kernels_(kernels),
      columns_(factor.columns()),
      block_size_(grid.block_size == 0 ? columns_ : grid.block_size),
      blocks_(columns_ / block_size_),
      batch_capacity_(NumPanels(BatchSize(columns_, block_size_)) * kPanelWidth),
      given_scales_(Size(panels * blocks_ * kPanelWidth)),
      scales_(given_scales_.size()),
      weights_(Size(panels * columns_ * kPanelWidth)),
      codes_(weights_.size()),
      errors_(weights_.size()),
      residuals_(weights_.size()),
      scratch_(weights_.size()),
      feedback_(Size(panels * batch_capacity_ * kPanelWidth)),
      packed_(Size(batch_capacity_ * kMaxDepth)),
      objectives_(Size(panels)) {}

GptqTile::Batch GptqTile::BatchBelow(int64_t hi) const { return {std::max<int64_t>(0, hi - BatchSize(columns_, block_size_)), hi}; }

void GptqTile::Load(std::span<const float> values, std::span<const float> scales, int64_t rows) {
  rows_ = rows;
  panels_ = NumPanels(rows);
  for (int64_t panel = 0; panel < panels_; ++panel) {
    for (int64_t i = 0; i < kPanelWidth; ++i) {
      const int64_t row = panel * kPanelWidth + i;
      for (int64_t block = 0; block < blocks_; ++block) {
        ScalesOf(given_scales_, panel, block)[i] = row < rows ? scales[Size(row * blocks_ + block)] : 1.0F;
      }
      for (int64_t r = 0; r < columns_; ++r) {
        At(weights_, panel, r)[i] = row < rows ? values[Size(row * columns_ + factor_.order()[Size(r)])] : 0.0F;
      }
    }
  }
  scales_ = given_scales_;
}

void GptqTile::SetCodes(std::span<const int8_t> codes) {
  for (int64_t row = 0; row < panels_ * kPanelWidth; ++row) {
    for (int64_t r = 0; r < columns_; ++r) {
      At(codes_, row / kPanelWidth, r)[row % kPanelWidth] =
          row < rows_ ? static_cast<float>(codes[Size(row * columns_ + factor_.order()[Size(r)])]) : 0.0F;
    }
  }
}

void GptqTile::ErrorsOf(int64_t panel, int64_t column, const float* codes, std::vector<float>& scales, float* errors) const {
  const float* const scale = ScalesOf(scales, panel, BlockOf(column));
  const float* const weights = At(weights_, panel, column);
  for (int64_t i = 0; i < kPanelWidth; ++i) errors[i] = weights[i] - scale[i] * codes[i];
}

void GptqTile::CollectFeedback(const Batch& batch, int64_t first, int64_t end, const Matrix& errors, std::span<const char> active) {
  std::ranges::fill(feedback_, 0.0F);
  const int64_t size = batch.hi - batch.lo;
  const int64_t groups = NumPanels(size);
  for (int64_t k = first; k < end; k += kMaxDepth) {
    const int64_t depth = std::min(kMaxDepth, end - k);
    // Rows of L lie pages apart; brought together they serve all panels.
    for (int64_t group = 0; group < groups; ++group) {
      const auto width = std::min(kPanelWidth, size - group * kPanelWidth);
      float* const to = packed_.data() + group * kMaxDepth * kPanelWidth;
      if (width < kPanelWidth) std::fill_n(to, depth * kPanelWidth, 0.0F);
      for (int64_t n = 0; n < depth; ++n) {
        std::copy_n(factor_.row(k + n) + batch.lo + group * kPanelWidth, width, to + n * kPanelWidth);
      }
    }
    for (int64_t panel = 0; panel < panels_; ++panel) {
      if (active[Size(panel)] == 0) continue;
      for (int64_t group = 0; group < groups; ++group) {
        kernels_.multiply(packed_.data() + group * kMaxDepth * kPanelWidth, At(errors, panel, k), depth,
                          FeedbackOf(panel, group * kPanelWidth), kPanelWidth, Accumulate::kAdd);
      }
    }
  }
}

void GptqTile::ChooseScales(int64_t panel, const Batch& batch, int64_t column) {
  const int64_t block = BlockOf(column);
  std::vector<float> values(Size(block_size_));
  std::vector<double> importance(Size(block_size_));
  for (int64_t n = 0; n < block_size_; ++n) importance[Size(n)] = factor_.pivots()[Size(column - n)];
  for (int64_t i = 0; i < std::min(kPanelWidth, rows_ - panel * kPanelWidth); ++i) {
    for (int64_t n = 0; n < block_size_; ++n) {
      values[Size(n)] = At(weights_, panel, column - n)[i] + FeedbackOf(panel, column - n - batch.lo)[i];
    }
    ScalesOf(scales_, panel, block)[i] = grid_.choose_scale(values, importance);
  }
}

void GptqTile::RoundBatch(int64_t panel, const Batch& batch) {
  const auto lo = static_cast<float>(grid_.lo);
  const auto hi = static_cast<float>(grid_.hi);
  std::array<float, kPanelWidth> wanted{};
  for (int64_t r = batch.hi - 1; r >= batch.lo; --r) {
    if (grid_.choose_scale && (columns_ - 1 - r) % block_size_ == 0) ChooseScales(panel, batch, r);
    const float* const scale = ScalesOf(scales_, panel, BlockOf(r));
    const float* const weights = At(weights_, panel, r);
    const float* const feedback = FeedbackOf(panel, r - batch.lo);
    float* const codes = At(codes_, panel, r);
    float* const errors = At(errors_, panel, r);
    float* const residuals = At(residuals_, panel, r);
    for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = weights[i] + feedback[i];
    kernels_.round(wanted.data(), scale, lo, hi, codes);
    ErrorsOf(panel, r, codes, scales_, errors);
    const double pivot = factor_.pivots()[Size(r)];
    PanelSums& sums = objectives_[Size(panel)];
    for (size_t i = 0; i < wanted.size(); ++i) {
      // Not wanted - scale * code: MeasureCodes has to find the same bits.
      residuals[i] = errors[i] + feedback[i];
      sums[i] += pivot * static_cast<double>(residuals[i]) * static_cast<double>(residuals[i]);
    }
    kernels_.outer_add(factor_.row(r) + batch.lo, errors, r - batch.lo, FeedbackOf(panel, 0));
  }
}

void GptqTile::Quantize() {
  const std::vector<char> all(Size(panels_), 1);
  std::ranges::fill(objectives_, PanelSums{});
  for (int64_t top = columns_; top > 0;) {
    const Batch batch = BatchBelow(top);
    CollectFeedback(batch, top, columns_, errors_, all);
    for (int64_t panel = 0; panel < panels_; ++panel) RoundBatch(panel, batch);
    top = batch.lo;
  }
}

void GptqTile::MultiplyBatch(int64_t panel, const Batch& batch, const Batch& inside, const Matrix& errors, Matrix& out, PanelSums* sums) {
  for (int64_t r = batch.hi - 1; r >= batch.lo; --r) {
    const float* const feedback = FeedbackOf(panel, r - batch.lo);
    const float* const error = At(errors, panel, r);
    float* const result = At(out, panel, r);
    const bool is_inside = r >= inside.lo && r < inside.hi;
    const double pivot = factor_.pivots()[Size(r)];
    for (size_t i = 0; i < Size(kPanelWidth); ++i) {
      result[i] = is_inside ? error[i] + feedback[i] : feedback[i];
      if (sums != nullptr) (*sums)[i] += pivot * static_cast<double>(result[i]) * static_cast<double>(result[i]);
    }
    if (is_inside) kernels_.outer_add(factor_.row(r) + batch.lo, error, r - batch.lo, FeedbackOf(panel, 0));
  }
}

void GptqTile::MeasureCodes() {
  const std::vector<char> all(Size(panels_), 1);
  for (int64_t panel = 0; panel < panels_; ++panel) {
    for (int64_t r = 0; r < columns_; ++r) ErrorsOf(panel, r, At(codes_, panel, r), scales_, At(errors_, panel, r));
  }
  std::ranges::fill(objectives_, PanelSums{});
  for (int64_t top = columns_; top > 0;) {
    const Batch batch = BatchBelow(top);
    CollectFeedback(batch, top, columns_, errors_, all);
    for (int64_t panel = 0; panel < panels_; ++panel) {
      MultiplyBatch(panel, batch, {0, columns_}, errors_, residuals_, &objectives_[Size(panel)]);
    }
    top = batch.lo;
  }
}

int64_t GptqTile::TakeBetterPlainRows() {
  const auto lo = static_cast<float>(grid_.lo);
  const auto hi = static_cast<float>(grid_.hi);
  std::array<float, kPanelWidth> codes{};
  for (int64_t panel = 0; panel < panels_; ++panel) {
    for (int64_t r = 0; r < columns_; ++r) {
      kernels_.round(At(weights_, panel, r), ScalesOf(given_scales_, panel, BlockOf(r)), lo, hi, codes.data());
      ErrorsOf(panel, r, codes.data(), given_scales_, At(errors_, panel, r));
    }
  }
  std::vector<PanelSums> sums(Size(panels_));
  std::vector<char> active(Size(panels_), 1);
  const auto any_below = [&](int64_t panel) {
    for (size_t i = 0; i < Size(kPanelWidth); ++i) {
      if (panel * kPanelWidth + static_cast<int64_t>(i) < rows_ && sums[Size(panel)][i] < objectives_[Size(panel)][i]) return true;
    }
    return false;
  };
  // No term of the sum is negative: a panel is done with as soon as all its rows have lost, after a fraction of the work as a rule.
  for (int64_t top = columns_; top > 0;) {
    const Batch batch = BatchBelow(top);
    for (int64_t panel = 0; panel < panels_; ++panel) active[Size(panel)] = active[Size(panel)] != 0 && any_below(panel) ? 1 : 0;
    if (std::ranges::find(active, 1) == active.end()) return 0;
    CollectFeedback(batch, top, columns_, errors_, active);
    for (int64_t panel = 0; panel < panels_; ++panel) {
      if (active[Size(panel)] != 0) MultiplyBatch(panel, batch, {0, columns_}, errors_, scratch_, &sums[Size(panel)]);
    }
    top = batch.lo;
  }
  int64_t taken = 0;
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t panel = row / kPanelWidth;
    const auto i = Size(row % kPanelWidth);
    if (active[Size(panel)] == 0 || !(sums[Size(panel)][i] < objectives_[Size(panel)][i])) continue;
    ++taken;
    objectives_[Size(panel)][i] = sums[Size(panel)][i];
    for (int64_t block = 0; block < blocks_; ++block) ScalesOf(scales_, panel, block)[i] = ScalesOf(given_scales_, panel, block)[i];
    for (int64_t r = 0; r < columns_; ++r) {
      const float quotient = At(weights_, panel, r)[i] / ScalesOf(given_scales_, panel, BlockOf(r))[i];
      At(codes_, panel, r)[i] = std::clamp(std::nearbyint(quotient), lo, hi);
      At(residuals_, panel, r)[i] = At(scratch_, panel, r)[i];
    }
  }
  return taken;
}

void GptqTile::Store(std::span<float> scales, std::span<int8_t> codes) const {
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t panel = row / kPanelWidth;
    const int64_t i = row % kPanelWidth;
    for (int64_t block = 0; block < blocks_; ++block) {
      scales[Size(row * blocks_ + block)] = scales_[Size((panel * blocks_ + block) * kPanelWidth + i)];
    }
    for (int64_t r = 0; r < columns_; ++r) {
      codes[Size(row * columns_ + factor_.order()[Size(r)])] = static_cast<int8_t>(At(codes_, panel, r)[i]);
    }
  }
}

}  // namespace taskpress
