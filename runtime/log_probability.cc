#include "runtime/log_probability.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace taskpress {

double LogSumExp(std::span<const float> logits) {
  const auto largest = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

double LogProbability(std::span<const float> logits, int32_t token) {
  const auto largest = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return static_cast<double>(logits[static_cast<size_t>(token)]) - largest - std::log(sum);
}

std::vector<int32_t> TopTokens(std::span<const float> logits, size_t count) {
  std::vector<int32_t> tokens(logits.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto likelier = [logits](int32_t a, int32_t b) {
    const float logit_a = logits[static_cast<size_t>(a)];
    const float logit_b = logits[static_cast<size_t>(b)];
    return logit_a != logit_b ? logit_a > logit_b : a < b;
  };
  const auto end = tokens.begin() + static_cast<ptrdiff_t>(std::min(count, tokens.size()));
  std::ranges::partial_sort(tokens, end, likelier);
  tokens.erase(end, tokens.end());
  return tokens;
}

double OverlapOf(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t count = std::min(a.size(), b.size());
  if (count == 0) return 0;
  const auto shared = std::ranges::count_if(a.first(count), [&](int32_t token) { return std::ranges::contains(b.first(count), token); });
  return static_cast<double>(shared) / static_cast<double>(count);
}

}  // namespace taskpress
