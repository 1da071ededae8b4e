#include <algorithm>
#include <array>

#include "quantizer/gptq_tile.h"

namespace taskpress {
namespace {

size_t Size(int64_t count) { return static_cast<size_t>(count); }

}  // namespace

// Changing a block's scale from s to t changes the residuals u by (s - t) g, g = L^T (the block's codes): the best t - s is <u, g> / <g,
// g>, products weighted by D.
int64_t GptqTile::ApplyRefit(int64_t panel, int64_t block, int64_t top) {
  PanelSums ug{};
  PanelSums gg{};
  for (int64_t r = 0; r < top; ++r) {
    const float* const u = At(residuals_, panel, r);
    const float* const g = At(scratch_, panel, r);
    const double pivot = factor_.pivots()[Size(r)];
    for (size_t i = 0; i < Size(kPanelWidth); ++i) {
      ug[i] += pivot * static_cast<double>(u[i]) * static_cast<double>(g[i]);
      gg[i] += pivot * static_cast<double>(g[i]) * static_cast<double>(g[i]);
    }
  }
  std::array<float, kPanelWidth> change{};
  float* const scales = ScalesOf(scales_, panel, block);
  for (size_t i = 0; i < Size(kPanelWidth); ++i) {
    if (!(gg[i] > 0)) continue;
    const auto best = static_cast<float>(static_cast<double>(scales[i]) + ug[i] / gg[i]);
    change[i] = std::clamp(best, 0.5F * scales[i], 2.0F * scales[i]) - scales[i];
  }
  PanelSums before{};
  PanelSums after{};
  for (int64_t r = 0; r < top; ++r) {
    const float* const u = At(residuals_, panel, r);
    const float* const g = At(scratch_, panel, r);
    const double pivot = factor_.pivots()[Size(r)];
    for (size_t i = 0; i < Size(kPanelWidth); ++i) {
      const float changed = u[i] - change[i] * g[i];
      before[i] += pivot * static_cast<double>(u[i]) * static_cast<double>(u[i]);
      after[i] += pivot * static_cast<double>(changed) * static_cast<double>(changed);
    }
  }
  int64_t refitted = 0;
  for (size_t i = 0; i < Size(kPanelWidth); ++i) {
    const bool better = after[i] < before[i] && panel * kPanelWidth + static_cast<int64_t>(i) < rows_;
    if (!better) {
      change[i] = 0;
      continue;
    }
    ++refitted;
    scales[i] += change[i];
    objectives_[Size(panel)][i] += after[i] - before[i];
  }
  for (int64_t r = 0; r < top; ++r) {
    for (size_t i = 0; i < Size(kPanelWidth); ++i) At(residuals_, panel, r)[i] -= change[i] * At(scratch_, panel, r)[i];
  }
  return refitted;
}

int64_t GptqTile::RefitBlock(int64_t block) {
  const int64_t hi = columns_ - block * block_size_;
  const Batch columns{hi - block_size_, hi};
  const std::vector<char> all(Size(panels_), 1);
  // The batches as they were rounded, from the one that holds the block's first column.
  int64_t top = columns_;
  while (BatchBelow(top).lo >= hi) top = BatchBelow(top).lo;
  while (top > 0) {
    const Batch batch = BatchBelow(top);
    CollectFeedback(batch, std::max(top, columns.lo), std::max(top, hi), codes_, all);
    for (int64_t panel = 0; panel < panels_; ++panel) MultiplyBatch(panel, batch, columns, codes_, scratch_, nullptr);
    top = batch.lo;
  }
  int64_t refitted = 0;
  for (int64_t panel = 0; panel < panels_; ++panel) refitted += ApplyRefit(panel, block, hi);
  return refitted;
}

int64_t GptqTile::RefitScales() {
  int64_t refitted = 0;
  for (int64_t block = 0; block < blocks_; ++block) refitted += RefitBlock(block);
  return refitted;
}

}  // namespace taskpress
