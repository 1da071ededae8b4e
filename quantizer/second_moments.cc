#include "quantizer/second_moments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "quantizer/quant_spec.h"
#include "quantizer/row_kernels.h"

namespace taskpress {
namespace {

constexpr int64_t kGroupPanels = 8;  // 256 columns: both operands of a tile fit the second cache
constexpr uint32_t kInfinityBits = 0x7f800000;
// Dense kernels do sixteen or more multiply-adds while a sparse one looks up where to go.
constexpr int64_t kSparseShare = 8;  // at most one value in so many is not zero

size_t Size(int64_t count) { return static_cast<size_t>(count); }

// Of one token, for int8.
double StepSquared(std::span<const float> row) {
  float low = 0;
  float high = 0;
  for (const float value : row) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  const double step = (static_cast<double>(high) - static_cast<double>(low)) / 255;
  return step * step;
}

}  // namespace

Result<SecondMoments> MakeMoments(int64_t columns, MomentKind kind) {
  if (columns < 1 || columns > kMaxMomentColumns) {
    return Fail(ErrorCode::kQuantShape, "second moments of {} columns; 1 to {} are possible", columns, kMaxMomentColumns);
  }
  SecondMoments moments;
  moments.columns = columns;
  moments.sums.resize(Size(columns));
  moments.squares.resize(Size(columns));
  moments.max_magnitudes.resize(Size(columns));
  if (kind == MomentKind::kFull) moments.products.resize(Size(columns * columns));
  return moments;
}

double TwoTermStep2(double mean_square) {
  const double step = 2 * static_cast<double>(kTermLimit) / 255;
  return step * step * mean_square;
}

double TwoTermStep2(const SecondMoments& moments) {
  return TwoTermStep2(std::accumulate(moments.squares.begin(), moments.squares.end(), 0.0) / static_cast<double>(moments.columns));
}

Status AddMoments(SecondMoments& into, const SecondMoments& other) {
  if (into.columns != other.columns || into.kind() != other.kind()) {
    return Fail(ErrorCode::kQuantShape, "second moments of {} and of {} columns, or of different kinds, cannot be added", into.columns,
                other.columns);
  }
  into.tokens += other.tokens;
  into.activation_step2 += other.activation_step2;
  for (size_t i = 0; i < into.sums.size(); ++i) {
    into.sums[i] += other.sums[i];
    into.squares[i] += other.squares[i];
    into.max_magnitudes[i] = std::max(into.max_magnitudes[i], other.max_magnitudes[i]);
  }
  if (into.kind() == MomentKind::kDiagonal) return {};
  for (size_t row = 0; row < Size(into.columns); ++row) {
    float* out = into.products.data() + row * Size(into.columns);
    const float* from = other.products.data() + row * Size(into.columns);
    for (size_t column = 0; column <= row; ++column) out[column] += from[column];
  }
  return {};
}

Status CheckMoments(const SecondMoments& moments) {
  const size_t columns = Size(moments.columns);
  if (moments.columns < 1 || moments.columns > kMaxMomentColumns || moments.tokens < 0 || moments.sums.size() != columns ||
      moments.squares.size() != columns || moments.max_magnitudes.size() != columns ||
      (!moments.products.empty() && moments.products.size() != columns * columns)) {
    return Fail(ErrorCode::kQuantShape, "second moments of {} columns have vectors of other sizes", moments.columns);
  }
  if (!std::isfinite(moments.activation_step2) || moments.activation_step2 < 0) {
    return Fail(ErrorCode::kNotFinite, "second moments: the sum of squared activation steps is {}", moments.activation_step2);
  }
  for (size_t i = 0; i < columns; ++i) {
    const double square = moments.squares[i];
    const float magnitude = moments.max_magnitudes[i];
    if (!std::isfinite(moments.sums[i]) || !std::isfinite(square) || square < 0 || !std::isfinite(magnitude) || magnitude < 0) {
      return Fail(ErrorCode::kNotFinite, "second moments, column {}: sum {}, sum of squares {}, largest magnitude {}", i, moments.sums[i],
                  square, magnitude);
    }
  }
  for (size_t row = 0; row * columns < moments.products.size(); ++row) {
    const std::span<const float> values = std::span(moments.products).subspan(row * columns, row + 1);
    if (VectorRowKernels().max_magnitude_bits(values) >= kInfinityBits || values.back() < 0) {
      return Fail(ErrorCode::kNotFinite, "second moments, row {}: a product is not finite, or the diagonal is negative", row);
    }
  }
  return {};
}

MomentAccumulator::MomentAccumulator(SecondMoments moments, MomentKind kind, const DenseKernels& kernels)
    : moments_(std::move(moments)),
      kind_(kind),
      kernels_(&kernels),
      block_(Size(NumPanels(moments_.columns) * kMaxDepth * kPanelWidth)),
      nonzero_(Size(NumPanels(moments_.columns))),
      sparse_(kind == MomentKind::kFull ? nonzero_.size() : 0) {}

Result<MomentAccumulator> MomentAccumulator::Make(int64_t columns, MomentKind kind, const DenseKernels& kernels) {
  SecondMoments moments = TRY(MakeMoments(columns, kind));
  return MomentAccumulator(std::move(moments), kind, kernels);
}

Status MomentAccumulator::Add(std::span<const float> values, int64_t rows, const RowWork& work) {
  const int64_t columns = moments_.columns;
  if (rows < 0 || values.size() != Size(rows) * Size(columns)) {
    return Fail(ErrorCode::kQuantShape, "{} values do not make [{}, {}]", values.size(), rows, columns);
  }
  const auto row_of = [&](int64_t row) { return values.subspan(Size(row * columns), Size(columns)); };
  std::vector<double> steps(Size(rows));
  TRY(ForEachRowBlock(rows, 16, work, [&](const RowRange& range) -> Status {
    for (int64_t row = range.first_row; row < range.first_row + range.count; ++row) {
      if (VectorRowKernels().max_magnitude_bits(row_of(row)) >= kInfinityBits) {
        const auto bad = std::ranges::find_if(row_of(row), [](float value) { return !std::isfinite(value); });
        return Fail(ErrorCode::kNotFinite, "token {}, column {}: the input is {}", moments_.tokens + row, bad - row_of(row).begin(), *bad);
      }
      steps[Size(row)] = StepSquared(row_of(row));
    }
    return {};
  }));
  for (const double step : steps) moments_.activation_step2 += step;
  for (int64_t done = 0; done < rows;) {
    const int64_t count = std::min(rows - done, kMaxDepth - in_block_);
    TRY(ForEachRowBlock(NumPanels(columns), kGroupPanels, work, [&](const RowRange& range) -> Status {
      for (int64_t panel = range.first_row; panel < range.first_row + range.count; ++panel) {
        const int64_t first = panel * kPanelWidth;
        const auto width = Size(std::min(kPanelWidth, columns - first));
        float* out = block_.data() + (panel * kMaxDepth + in_block_) * kPanelWidth;
        for (int64_t row = done; row < done + count; ++row, out += kPanelWidth) {
          std::ranges::copy(row_of(row).subspan(Size(first), width), out);
        }
      }
      return {};
    }));
    done += count;
    in_block_ += count;
    moments_.tokens += count;
    if (in_block_ == kMaxDepth) TRY(AddBlock(work));
  }
  return {};
}

void MomentAccumulator::SumPanel(int64_t panel) {
  const float* x = Panel(panel);
  std::array<double, kPanelWidth> sums{};
  std::array<double, kPanelWidth> squares{};
  std::array<float, kPanelWidth> magnitudes{};
  const int64_t first = panel * kPanelWidth;
  const int64_t width = std::min(kPanelWidth, moments_.columns - first);
  std::copy_n(moments_.sums.begin() + first, width, sums.begin());
  std::copy_n(moments_.squares.begin() + first, width, squares.begin());
  std::copy_n(moments_.max_magnitudes.begin() + first, width, magnitudes.begin());
  int64_t nonzero = 0;
  for (int64_t token = 0; token < in_block_; ++token, x += kPanelWidth) {
    for (size_t i = 0; i < Size(kPanelWidth); ++i) {
      const double value = static_cast<double>(x[i]);
      sums[i] += value;
      squares[i] += value * value;
      magnitudes[i] = std::max(magnitudes[i], std::abs(x[i]));
      nonzero += x[i] != 0 ? 1 : 0;
    }
  }
  std::copy_n(sums.begin(), width, moments_.sums.begin() + first);
  std::copy_n(squares.begin(), width, moments_.squares.begin() + first);
  std::copy_n(magnitudes.begin(), width, moments_.max_magnitudes.begin() + first);
  nonzero_[Size(panel)] = nonzero;
  if (kind_ == MomentKind::kFull && IsSparse(panel)) FindNonzero(panel);
}

Status MomentAccumulator::AddBlock(const RowWork& work) {
  TRY(ForEachRowBlock(NumPanels(moments_.columns), 1, work, [&](const RowRange& range) -> Status {
    SumPanel(range.first_row);
    return {};
  }));
  if (kind_ == MomentKind::kFull) TRY(AddProducts(work));
  in_block_ = 0;
  return {};
}

Status MomentAccumulator::AddProducts(const RowWork& work) {
  const int64_t groups = (NumPanels(moments_.columns) + kGroupPanels - 1) / kGroupPanels;
  return ForEachRowBlock(groups * (groups + 1) / 2, 1, work, [&](const RowRange& range) {
    const auto [row_group, column_group] = LowerTile(range.first_row);
    return AddTile(row_group, column_group);
  });
}

bool MomentAccumulator::IsSparse(int64_t panel) const { return nonzero_[Size(panel)] <= in_block_ * kPanelWidth / kSparseShare; }

void MomentAccumulator::FindNonzero(int64_t panel) {
  const float* x = Panel(panel);
  SparsePanel& sparse = sparse_[Size(panel)];
  sparse.values.clear();
  sparse.at.clear();
  for (size_t i = 0; i < Size(kPanelWidth); ++i) {
    sparse.begin[i] = std::ssize(sparse.values);
    for (size_t token = 0; token < Size(in_block_); ++token) {
      const float value = x[token * Size(kPanelWidth) + i];
      if (value == 0) continue;
      sparse.values.push_back(value);
      sparse.at.push_back(static_cast<uint16_t>(token));
    }
  }
  sparse.begin[Size(kPanelWidth)] = std::ssize(sparse.values);
}

// The column panel is full.
void MomentAccumulator::AddSparse(int64_t row_panel, int64_t column_panel) {
  const int64_t columns = moments_.columns;
  const SparsePanel& sparse = sparse_[Size(row_panel)];
  float* c = moments_.products.data() + row_panel * kPanelWidth * columns + column_panel * kPanelWidth;
  const int64_t rows = std::min(kPanelWidth, columns - row_panel * kPanelWidth);
  // The sums come from memory and are done with at once: the next panel's are fetched meanwhile.
  const int64_t ahead = column_panel < row_panel ? kPanelWidth : 0;
  for (int64_t i = 0; i < rows; ++i) {
    __builtin_prefetch(c + i * columns + ahead, 1);
    __builtin_prefetch(c + i * columns + ahead + kPanelWidth / 2, 1);
    const int64_t begin = sparse.begin[Size(i)];
    const int64_t count = sparse.begin[Size(i + 1)] - begin;
    if (count == 0) continue;
    kernels_->multiply_sparse(&sparse.values[Size(begin)], &sparse.at[Size(begin)], count, Panel(column_panel), c + i * columns);
  }
}

Status MomentAccumulator::AddTile(int64_t row_group, int64_t column_group) {
  const int64_t columns = moments_.columns;
  for (int64_t p = row_group * kGroupPanels; p < std::min((row_group + 1) * kGroupPanels, NumPanels(columns)); ++p) {
    const int64_t rows = std::min(kPanelWidth, columns - p * kPanelWidth);
    for (int64_t q = column_group * kGroupPanels; q < std::min((column_group + 1) * kGroupPanels, p + 1); ++q) {
      if (nonzero_[Size(p)] == 0 || nonzero_[Size(q)] == 0) continue;
      const int64_t width = std::min(kPanelWidth, columns - q * kPanelWidth);
      if (IsSparse(p) && width == kPanelWidth) {
        AddSparse(p, q);
        continue;
      }
      float* c = moments_.products.data() + p * kPanelWidth * columns + q * kPanelWidth;
      MultiplyCorner(*kernels_, Panel(p), Panel(q), in_block_, c, columns, rows, width, Accumulate::kAdd);
    }
  }
  return {};
}

Result<SecondMoments> MomentAccumulator::Finish(const RowWork& work) {
  if (in_block_ > 0) TRY(AddBlock(work));
  TRY(CheckMoments(moments_));
  return std::move(moments_);
}

Result<SecondMoments> ComputeMomentsPlain(std::span<const float> values, int64_t rows, int64_t columns, MomentKind kind) {
  SecondMoments moments = TRY(MakeMoments(columns, kind));
  if (rows < 0 || values.size() != Size(rows) * Size(columns)) {
    return Fail(ErrorCode::kQuantShape, "{} values do not make [{}, {}]", values.size(), rows, columns);
  }
  const auto at = [&](int64_t row, int64_t column) { return values[Size(row * columns + column)]; };
  moments.tokens = rows;
  for (int64_t row = 0; row < rows; ++row) moments.activation_step2 += StepSquared(values.subspan(Size(row * columns), Size(columns)));
  for (int64_t i = 0; i < columns; ++i) {
    for (int64_t row = 0; row < rows; ++row) {
      moments.sums[Size(i)] += static_cast<double>(at(row, i));
      moments.squares[Size(i)] += static_cast<double>(at(row, i)) * static_cast<double>(at(row, i));
      moments.max_magnitudes[Size(i)] = std::max(moments.max_magnitudes[Size(i)], std::abs(at(row, i)));
    }
    for (int64_t j = 0; kind == MomentKind::kFull && j <= i; ++j) {
      for (int64_t first = 0; first < rows; first += kMaxDepth) {
        float sum = 0;
        for (int64_t row = first; row < std::min(rows, first + kMaxDepth); ++row) sum = std::fma(at(row, i), at(row, j), sum);
        moments.products[Size(i * columns + j)] += sum;
      }
    }
  }
  TRY(CheckMoments(moments));
  return moments;
}

}  // namespace taskpress
