#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "quantizer/gptq.h"

namespace taskpress {
namespace {

constexpr int64_t kBlock = 128;          // columns factored at a time
constexpr int64_t kGroupPanels = 8;      // a tile of the update: 256 x 256
constexpr double kPivotFloor = 0x1p-18;  // of the diagonal: sqrt(columns) roundings of float32

size_t Size(int64_t count) { return static_cast<size_t>(count); }

Status CheckOptions(const SecondMoments& moments, const GptqOptions& options) {
  if (moments.kind() != MomentKind::kFull) {
    return Fail(ErrorCode::kQuantShape, "second moments hold the diagonal only; this needs all products");
  }
  if (!options.extra_diagonal.empty() && options.extra_diagonal.size() != Size(moments.columns)) {
    return Fail(ErrorCode::kQuantShape, "{} values to be added to a diagonal of {}", options.extra_diagonal.size(), moments.columns);
  }
  const auto bad = [](double value) { return !std::isfinite(value) || value < 0; };
  if (bad(options.damping) || bad(options.own_damping) || bad(options.added_diagonal) || std::ranges::any_of(options.extra_diagonal, bad)) {
    return Fail(ErrorCode::kQuantValue, "what is added to the diagonal must be finite and not negative");
  }
  return {};
}

}  // namespace

// [columns], and sets the order and the count of dead columns.
std::vector<double> GptqFactor::DampedDiagonal(const SecondMoments& moments, const GptqOptions& options) {
  std::vector<double> diagonal(Size(columns_));
  double sum = 0;
  for (int64_t i = 0; i < columns_; ++i) {
    diagonal[Size(i)] = static_cast<double>(moments.products[Size(i * columns_ + i)]);
    sum += diagonal[Size(i)];
    dead_columns_ += diagonal[Size(i)] == 0 ? 1 : 0;
  }
  // Row r of the factor is rounded after all rows above r.
  order_.resize(Size(columns_));
  std::iota(order_.rbegin(), order_.rend(), 0);
  if (options.act_order) {
    std::stable_sort(order_.rbegin(), order_.rend(), [&](int64_t a, int64_t b) { return diagonal[Size(a)] > diagonal[Size(b)]; });
  }
  const int64_t live = columns_ - dead_columns_;
  const double mean = live > 0 ? sum / static_cast<double>(live) : 1.0;
  for (size_t i = 0; i < diagonal.size(); ++i) {
    const double extra = options.extra_diagonal.empty() ? 0.0 : options.extra_diagonal[i];
    diagonal[i] = diagonal[i] * (1 + options.own_damping) + options.damping * mean + options.added_diagonal + extra;
    if (diagonal[i] == 0) diagonal[i] = mean;  // dead and not damped: any weight will do
  }
  return diagonal;
}

// Rows and columns into the order of the factor. The upper triangle serves as the mirror of the lower one, so that whole rows move.
Status GptqFactor::Permute(const RowWork& work) {
  constexpr int64_t kTile = 64;
  float* const h = unit_lower_.data();
  TRY(ForEachRowBlock(columns_, kTile, work, [&](const RowRange& range) -> Status {
    for (int64_t first = 0; first < range.first_row + range.count; first += kTile) {
      for (int64_t i = range.first_row; i < range.first_row + range.count; ++i) {
        for (int64_t j = first; j < std::min(first + kTile, i); ++j) h[j * columns_ + i] = h[i * columns_ + j];
      }
    }
    return {};
  }));
  std::vector<float> saved(Size(columns_));
  std::vector<bool> done(Size(columns_));
  for (int64_t start = 0; start < columns_; ++start) {
    if (done[Size(start)]) continue;
    std::copy_n(h + start * columns_, columns_, saved.data());
    int64_t to = start;
    for (int64_t from = order_[Size(to)]; from != start; to = from, from = order_[Size(to)]) {
      std::copy_n(h + from * columns_, columns_, h + to * columns_);
      done[Size(to)] = true;
    }
    std::copy_n(saved.data(), columns_, h + to * columns_);
    done[Size(to)] = true;
  }
  return ForEachRowBlock(columns_, kTile, work, [&](const RowRange& range) -> Status {
    std::vector<float> old(Size(columns_));
    for (int64_t i = range.first_row; i < range.first_row + range.count; ++i) {
      std::copy_n(h + i * columns_, columns_, old.data());
      for (int64_t j = 0; j <= i; ++j) h[i * columns_ + j] = old[Size(order_[Size(j)])];
    }
    return {};
  });
}

// Cholesky of [size, size] on the diagonal, in double.
void GptqFactor::FactorBlock(int64_t first, int64_t size, std::span<const double> diagonal) {
  std::vector<double> block(Size(size * size));
  float* const h = unit_lower_.data() + first * columns_ + first;
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i; ++j) block[Size(i * size + j)] = static_cast<double>(h[i * columns_ + j]);
  }
  std::vector<double> column(Size(size));
  for (int64_t k = 0; k < size; ++k) {
    const double floor = kPivotFloor * diagonal[Size(order_[Size(first + k)])];
    double pivot = block[Size(k * size + k)];
    if (!(pivot >= floor)) {
      pivot = floor;
      ++raised_pivots_;
    }
    pivots_[Size(first + k)] = pivot;
    const double root = std::sqrt(pivot);
    block[Size(k * size + k)] = root;
    for (int64_t i = k + 1; i < size; ++i) column[Size(i)] = block[Size(i * size + k)] /= root;
    for (int64_t i = k + 1; i < size; ++i) {
      double* const out = &block[Size(i * size)];
      const double factor = column[Size(i)];
      for (int64_t j = k + 1; j <= i; ++j) out[j] -= factor * column[Size(j)];
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j <= i; ++j) h[i * columns_ + j] = static_cast<float>(block[Size(i * size + j)]);
  }
}

// Right-looking: a block of columns is finished, then what lies below and right of it is updated.
Status GptqFactor::Factor(std::span<const double> diagonal, const RowWork& work, const DenseKernels& kernels) {
  float* const h = unit_lower_.data();
  std::vector<float> packed(Size(NumPanels(columns_) * kBlock * kPanelWidth));  // the block's rows as panels [kBlock][32]
  for (int64_t first = 0; first < columns_; first += kBlock) {
    const int64_t size = std::min(kBlock, columns_ - first);
    FactorBlock(first, size, diagonal);
    const int64_t below = first + size;
    const int64_t panels = NumPanels(columns_ - below);
    const auto panel_of = [&](int64_t panel) { return packed.data() + panel * kBlock * kPanelWidth; };
    const auto rows_of = [&](int64_t panel) { return std::min(kPanelWidth, columns_ - below - panel * kPanelWidth); };
    TRY(ForEachRowBlock(panels, 1, work, [&](const RowRange& range) -> Status {
      float* const x = panel_of(range.first_row);
      float* const rows = h + (below + range.first_row * kPanelWidth) * columns_ + first;
      for (int64_t i = 0; i < kPanelWidth; ++i) {
        for (int64_t c = 0; c < size; ++c) x[c * kPanelWidth + i] = i < rows_of(range.first_row) ? rows[i * columns_ + c] : 0.0F;
      }
      kernels.solve(h + first * columns_ + first, columns_, size, x);
      for (int64_t i = 0; i < rows_of(range.first_row); ++i) {
        for (int64_t c = 0; c < size; ++c) rows[i * columns_ + c] = x[c * kPanelWidth + i];
      }
      return {};
    }));
    const int64_t groups = (panels + kGroupPanels - 1) / kGroupPanels;
    TRY(ForEachRowBlock(groups * (groups + 1) / 2, 1, work, [&](const RowRange& range) -> Status {
      const auto [row_group, column_group] = LowerTile(range.first_row);
      for (int64_t p = row_group * kGroupPanels; p < std::min((row_group + 1) * kGroupPanels, panels); ++p) {
        for (int64_t q = column_group * kGroupPanels; q < std::min((column_group + 1) * kGroupPanels, p + 1); ++q) {
          float* const c = h + (below + p * kPanelWidth) * columns_ + below + q * kPanelWidth;
          MultiplyCorner(kernels, panel_of(p), panel_of(q), size, c, columns_, rows_of(p), rows_of(q), Accumulate::kSubtract);
        }
      }
      return {};
    }));
  }
  return {};
}

Result<GptqFactor> GptqFactor::Make(SecondMoments moments, const GptqOptions& options, const RowWork& work, const DenseKernels& kernels) {
  TRY(CheckMoments(moments));
  TRY(CheckOptions(moments, options));
  GptqFactor factor;
  factor.columns_ = moments.columns;
  factor.act_order_ = options.act_order;
  const std::vector<double> diagonal = factor.DampedDiagonal(moments, options);
  factor.unit_lower_ = std::move(moments.products);
  factor.pivots_.resize(diagonal.size());
  TRY(factor.Permute(work));
  const int64_t columns = factor.columns_;
  float* const h = factor.unit_lower_.data();
  for (int64_t r = 0; r < columns; ++r) h[r * columns + r] = static_cast<float>(diagonal[Size(factor.order_[Size(r)])]);
  TRY(factor.Factor(diagonal, work, kernels));
  // L D L^T instead of L L^T.
  std::vector<float> roots(Size(columns));
  for (int64_t r = 0; r < columns; ++r) roots[Size(r)] = h[r * columns + r];
  TRY(ForEachRowBlock(columns, 64, work, [&](const RowRange& range) -> Status {
    for (int64_t r = range.first_row; r < range.first_row + range.count; ++r) {
      for (int64_t j = 0; j < r; ++j) h[r * columns + j] /= roots[Size(j)];
      h[r * columns + r] = 1.0F;
    }
    return {};
  }));
  return factor;
}

}  // namespace taskpress
