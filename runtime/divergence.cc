#include "runtime/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/log_probability.h"

namespace taskpress {
namespace {

// log(sum(exp(x))), shifted by the largest.
double LogSumExp(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
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

void Divergence::AddWindow(std::span<const int32_t> tokens, std::span<const float> rows_a, std::span<const float> rows_b) {
  const auto vocab = static_cast<size_t>(vocab_size_);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::span<const float> a = rows_a.subspan(i * vocab, vocab);
    const std::span<const float> b = rows_b.subspan(i * vocab, vocab);
    kl_.push_back(KlDivergence(b, a));
    if (std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin()) ++agreed_;
    for (size_t j = 0; j < vocab; ++j)
      max_abs_difference_ = std::max(max_abs_difference_, std::abs(static_cast<double>(a[j]) - static_cast<double>(b[j])));
    if (i + 1 == tokens.size()) continue;
    nll_a_ -= LogProbability(a, tokens[i + 1]);
    nll_b_ -= LogProbability(b, tokens[i + 1]);
    ++predicted_;
  }
}

DivergenceSummary Divergence::Summarize() const {
  DivergenceSummary summary{.positions = static_cast<int64_t>(kl_.size()), .max_abs_difference = max_abs_difference_};
  if (kl_.empty()) return summary;
  const auto count = static_cast<double>(kl_.size());
  summary.kl_mean = std::accumulate(kl_.begin(), kl_.end(), 0.0) / count;
  std::vector<double> sorted = kl_;
  std::ranges::sort(sorted);
  summary.kl_p99 = sorted[static_cast<size_t>(0.99 * (count - 1))];
  summary.top1_agreement = static_cast<double>(agreed_) / count;
  const auto predicted = static_cast<double>(std::max<int64_t>(predicted_, 1));
  summary.perplexity_a = std::exp(nll_a_ / predicted);
  summary.perplexity_b = std::exp(nll_b_ / predicted);
  return summary;
}

}  // namespace taskpress
