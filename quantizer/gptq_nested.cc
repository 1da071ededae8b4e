#include "quantizer/gptq_nested.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "quantizer/gptq_source.h"
#include "quantizer/quantize.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

size_t Size(int64_t count) { return static_cast<size_t>(count); }

bool AllFinite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

// H22^-1 x for 32 right-hand sides, columns in the order of the factor.   x: [columns][32], in place
void SolveDamped(const GptqFactor& own, const DenseKernels& kernels, float* x) {
  const int64_t columns = own.columns();
  kernels.solve(own.row(0), columns, columns, x);
  for (int64_t r = 0; r < columns; ++r) {
    for (int64_t i = 0; i < kPanelWidth; ++i) {
      x[r * kPanelWidth + i] = static_cast<float>(static_cast<double>(x[r * kPanelWidth + i]) / own.pivots()[Size(r)]);
    }
  }
  std::array<float, kPanelWidth> minus{};
  for (int64_t r = columns - 1; r >= 0; --r) {
    for (size_t i = 0; i < minus.size(); ++i) minus[i] = -x[r * kPanelWidth + static_cast<int64_t>(i)];
    kernels.outer_add(own.row(r), minus.data(), r, x);
  }
}

Status CheckSizes(const GptqFactor& own, const GptqCross& cross, size_t values, int64_t rows, size_t errors) {
  const std::optional<int64_t> wanted = CheckedMul(rows, own.columns());
  const std::optional<int64_t> before = CheckedMul(rows, cross.before());
  if (rows >= 0 && wanted && before && values == Size(*wanted) && errors == Size(*before)) return {};
  return Fail(ErrorCode::kQuantShape, "{} values and {} errors are not {} rows of {} columns with {} before them", values, errors, rows,
              own.columns(), cross.before());
}

// The packed rows' objective against `targets`, [rows].
Result<std::vector<double>> ObjectiveOf(const GptqFactor& own, const QuantSpec& spec, std::span<const float> targets, int64_t rows,
                                        ByteView packed, std::span<const float> scales) {
  const int64_t columns = own.columns();
  // Codes are the values that scales of one stand for.
  const std::vector<float> ones(scales.size(), 1.0F);
  std::vector<float> floats(targets.size());
  DequantizeRows(spec, packed, ones, rows, columns, floats);
  std::vector<int8_t> codes;
  codes.reserve(floats.size());
  for (const float code : floats) codes.push_back(static_cast<int8_t>(code));
  return GptqObjective(own, spec.block_size, targets, rows, scales, codes, {.threads = 1, .stop = nullptr});
}

}  // namespace

Result<GptqCross> GptqCross::Make(const SecondMoments& moments, int64_t before, const GptqFactor& own) {
  const int64_t all = moments.columns;
  if (before < 0 || before + own.columns() != all || moments.kind() != MomentKind::kFull) {
    return Fail(ErrorCode::kQuantShape, "{} columns behind {} others, in moments of {}", own.columns(), before, all);
  }
  GptqCross cross;
  cross.before_ = before;
  cross.panels_.resize(Size(NumPanels(own.columns()) * before * kPanelWidth));
  for (int64_t r = 0; r < own.columns(); ++r) {
    const float* const products = moments.products.data() + (before + own.order()[Size(r)]) * all;
    float* const to = cross.panels_.data() + r / kPanelWidth * before * kPanelWidth + r % kPanelWidth;
    for (int64_t k = 0; k < before; ++k) to[k * kPanelWidth] = products[k];
  }
  return cross;
}

Result<std::vector<float>> NestedTargets(const GptqFactor& own, const GptqCross& cross, std::span<const float> values, int64_t rows,
                                         std::span<const float> errors, const DenseKernels& kernels) {
  TRY(CheckSizes(own, cross, values.size(), rows, errors.size()));
  if (!AllFinite(errors)) return Fail(ErrorCode::kQuantValue, "an error of the columns before is not finite");
  const int64_t columns = own.columns();
  const int64_t before = cross.before();
  std::vector<float> targets(values.begin(), values.end());
  std::vector<float> panel(Size(before * kPanelWidth));                        // errors, [before][32]
  std::vector<float> x(Size(NumPanels(columns) * kPanelWidth * kPanelWidth));  // [columns][32], padded to whole panels
  for (int64_t first = 0; first < rows; first += kPanelWidth) {
    const int64_t count = std::min(kPanelWidth, rows - first);
    std::ranges::fill(panel, 0.0F);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t k = 0; k < before; ++k) panel[Size(k * kPanelWidth + i)] = errors[Size((first + i) * before + k)];
    }
    std::ranges::fill(x, 0.0F);
    for (int64_t group = 0; group < NumPanels(columns); ++group) {
      for (int64_t k = 0; k < before; k += kMaxDepth) {
        kernels.multiply(cross.panel(group) + k * kPanelWidth, panel.data() + k * kPanelWidth, std::min(kMaxDepth, before - k),
                         x.data() + group * kPanelWidth * kPanelWidth, kPanelWidth, Accumulate::kAdd);
      }
    }
    SolveDamped(own, kernels, x.data());
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t r = 0; r < columns; ++r) {
        targets[Size((first + i) * columns + own.order()[Size(r)])] += x[Size(r * kPanelWidth + i)];
      }
    }
  }
  if (!AllFinite(targets)) return Fail(ErrorCode::kQuantValue, "what a piece is to make up for is not finite");
  return targets;
}

Status NestedGptqRows(const GptqFactor& own, const GptqCross& cross, const QuantSpec& spec, std::span<const float> importance,
                      std::span<const float> values, int64_t num_rows, std::span<const float> errors, ByteSpan packed,
                      std::span<float> scales, int64_t first_row) {
  TRY(GptqRows(own, spec, importance, values, num_rows, packed, scales, first_row));
  const std::vector<float> targets = TRY(NestedTargets(own, cross, values, num_rows, errors));
  std::vector<std::byte> nested(packed.size());
  std::vector<float> nested_scales(scales.size());
  TRY(GptqRows(own, spec, importance, targets, num_rows, nested, nested_scales, first_row));
  const std::vector<double> alone = TRY(ObjectiveOf(own, spec, targets, num_rows, packed, scales));
  const std::vector<double> together = TRY(ObjectiveOf(own, spec, targets, num_rows, nested, nested_scales));
  const size_t row_bytes = num_rows > 0 ? packed.size() / Size(num_rows) : 0;
  const size_t per_row = num_rows > 0 ? scales.size() / Size(num_rows) : 0;
  for (size_t row = 0; row < Size(num_rows); ++row) {
    if (alone[row] < together[row]) continue;
    std::ranges::copy(std::span(nested).subspan(row * row_bytes, row_bytes), packed.subspan(row * row_bytes).begin());
    std::ranges::copy(std::span(nested_scales).subspan(row * per_row, per_row), scales.subspan(row * per_row).begin());
  }
  return {};
}

}  // namespace taskpress
