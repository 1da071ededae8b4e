#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "quantizer/gptq.h"

namespace taskpress {
namespace {

using DoubleMatrix = std::vector<std::vector<double>>;

// H with its damping; the mean is over columns that are not dead.
DoubleMatrix DampedHessian(const SecondMoments& moments, const GptqOptions& options) {
  const auto n = static_cast<size_t>(moments.columns);
  DoubleMatrix h(n, std::vector<double>(n));
  double sum = 0;
  double live = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) h[i][j] = static_cast<double>(moments.products[std::max(i, j) * n + std::min(i, j)]);
    sum += h[i][i];
    live += h[i][i] > 0 ? 1 : 0;
  }
  const double mean = live > 0 ? sum / live : 1.0;
  for (size_t i = 0; i < n; ++i) {
    const double extra = options.extra_diagonal.empty() ? 0.0 : options.extra_diagonal[i];
    h[i][i] = h[i][i] * (1 + options.own_damping) + options.damping * mean + options.added_diagonal + extra;
    if (h[i][i] == 0) h[i][i] = mean;
  }
  return h;
}

// Gauss and Jordan, without pivoting: the matrix is positive definite.
DoubleMatrix Inverse(DoubleMatrix a) {
  const size_t n = a.size();
  for (size_t k = 0; k < n; ++k) {
    const double pivot = a[k][k];
    a[k][k] = 1;
    for (double& value : a[k]) value /= pivot;
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = std::exchange(a[i][k], 0.0);
      for (size_t j = 0; j < n; ++j) a[i][j] -= factor * a[k][j];
    }
  }
  return a;
}

}  // namespace

Result<std::vector<int8_t>> GptqQuantizePlain(const SecondMoments& moments, const GptqOptions& options, const GptqGrid& grid,
                                              std::span<const float> values, int64_t rows, std::span<const float> scales) {
  TRY(CheckMoments(moments));
  const auto n = static_cast<size_t>(moments.columns);
  const size_t block = grid.block_size == 0 ? n : static_cast<size_t>(grid.block_size);
  if (moments.kind() != MomentKind::kFull || rows < 0 || values.size() != static_cast<size_t>(rows) * n ||
      scales.size() != static_cast<size_t>(rows) * (n / block)) {
    return Fail(ErrorCode::kQuantShape, "{} values and {} scales for {} rows of {} columns", values.size(), scales.size(), rows, n);
  }
  const DoubleMatrix h = DampedHessian(moments, options);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  if (options.act_order) {
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return moments.products[a * n + a] > moments.products[b * n + b]; });
  }
  std::vector<double> w(values.begin(), values.end());
  std::vector<int8_t> codes(values.size());
  DoubleMatrix inverse = Inverse(h);
  for (size_t step = 0; step < n; ++step) {
    const size_t j = order[step];
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      double* const weights = &w[row * n];
      const auto scale = static_cast<double>(scales[row * (n / block) + j / block]);
      const double code = std::clamp(std::nearbyint(weights[j] / scale), static_cast<double>(grid.lo), static_cast<double>(grid.hi));
      codes[row * n + j] = static_cast<int8_t>(code);
      const double error = (weights[j] - scale * code) / inverse[j][j];
      for (size_t later = step + 1; later < n; ++later) weights[order[later]] -= error * inverse[j][order[later]];
    }
    // The inverse without row and column j.
    const std::vector<double> of_j = inverse[j];
    for (size_t a = 0; a < n; ++a) {
      for (size_t b = 0; b < n; ++b) inverse[a][b] -= of_j[a] * of_j[b] / of_j[j];
    }
  }
  return codes;
}

}  // namespace taskpress
