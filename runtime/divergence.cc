#include "runtime/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/log_probability.h"

namespace taskpress {
namespace {

double Square(double x) { return x * x; }

// Of the mean of `values`: sqrt(sum (x - mean)^2 / (n - 1) / n).
double StandardErrorOfMean(std::span<const double> values, double mean) {
  if (values.size() < 2) return 0;
  double sum = 0;
  for (const double value : values) sum += Square(value - mean);
  const auto count = static_cast<double>(values.size());
  return std::sqrt(sum / (count - 1) / count);
}

}  // namespace

double KlDivergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  const double p_norm = LogSumExp(p_logits);
  const double q_norm = LogSumExp(q_logits);
  double kl = 0;
  for (size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = static_cast<double>(p_logits[i]) - p_norm;
    const double log_q = static_cast<double>(q_logits[i]) - q_norm;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return std::max(kl, 0.0);  // rounding can leave a negative zero
}

PositionDivergence ComparePosition(std::span<const float> a, std::span<const float> b, std::optional<int32_t> next) {
  PositionDivergence position{.kl = KlDivergence(b, a)};
  const std::vector<int32_t> top_a = TopTokens(a, kOverlapTokens);
  const std::vector<int32_t> top_b = TopTokens(b, kOverlapTokens);
  position.top1 = top_a.front() == top_b.front();
  position.top5 = OverlapOf(top_a, top_b);
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  position.max_abs_difference = largest;
  if (next) {
    position.next_a = LogProbability(a, *next);
    position.next_b = LogProbability(b, *next);
  }
  return position;
}

void Divergence::AddPosition(const PositionDivergence& position) {
  if (windows_.empty()) BeginWindow();
  kl_.push_back(position.kl);
  windows_.back().kl += position.kl;
  ++windows_.back().positions;
  if (position.top1) ++agreed_;
  overlap_ += position.top5;
  if (!position.max_abs_difference) max_abs_difference_.reset();
  if (max_abs_difference_) max_abs_difference_ = std::max(*max_abs_difference_, *position.max_abs_difference);
  if (!position.next_a || !position.next_b) return;
  nll_a_ -= *position.next_a;
  nll_b_ -= *position.next_b;
  nll_difference_.push_back(*position.next_b - *position.next_a);
  squared_delta_p_ += Square(std::exp(*position.next_a) - std::exp(*position.next_b));
}

void Divergence::AddWindow(std::span<const int32_t> tokens, std::span<const float> rows_a, std::span<const float> rows_b) {
  const auto vocab = static_cast<size_t>(vocab_size_);
  BeginWindow();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::optional<int32_t> next = i + 1 < tokens.size() ? std::optional(tokens[i + 1]) : std::nullopt;
    AddPosition(ComparePosition(rows_a.subspan(i * vocab, vocab), rows_b.subspan(i * vocab, vocab), next));
  }
}

DivergenceSummary Divergence::Summarize() const {
  DivergenceSummary summary{.positions = static_cast<int64_t>(kl_.size()), .max_abs_difference = max_abs_difference_};
  if (kl_.empty()) return summary;
  const auto count = static_cast<double>(kl_.size());
  summary.kl_mean = std::accumulate(kl_.begin(), kl_.end(), 0.0) / count;
  summary.kl_standard_error = StandardErrorOfMean(kl_, summary.kl_mean);
  // A ratio of sums over windows of unequal length, linearized: sqrt(w / (w - 1) sum (kl_w - n_w mean)^2) / n.
  if (const auto windows = static_cast<double>(windows_.size()); windows > 1) {
    double sum = 0;
    for (const Window& window : windows_) sum += Square(window.kl - static_cast<double>(window.positions) * summary.kl_mean);
    summary.kl_window_standard_error = std::sqrt(windows / (windows - 1) * sum) / count;
  }
  std::vector<double> sorted = kl_;
  std::ranges::sort(sorted);
  summary.kl_median = (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  summary.kl_p99 = sorted[static_cast<size_t>(0.99 * (count - 1))];
  summary.kl_max = sorted.back();
  summary.top1_agreement = static_cast<double>(agreed_) / count;
  summary.top5_overlap = overlap_ / count;
  const auto predicted = static_cast<double>(std::max<size_t>(nll_difference_.size(), 1));
  summary.perplexity_a = std::exp(nll_a_ / predicted);
  summary.perplexity_b = std::exp(nll_b_ / predicted);
  const double mean_difference = (nll_a_ - nll_b_) / predicted;
  summary.perplexity_ratio = std::exp(mean_difference);
  summary.perplexity_ratio_standard_error = summary.perplexity_ratio * StandardErrorOfMean(nll_difference_, mean_difference);
  summary.rms_delta_p = std::sqrt(squared_delta_p_ / predicted);
  return summary;
}

}  // namespace taskpress
