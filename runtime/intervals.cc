#include "runtime/intervals.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace taskpress {
namespace {

// The 0.975 quantile of the standard normal distribution.
constexpr double kZ = 1.959963984540054;

}  // namespace

Interval WilsonInterval(int64_t successes, int64_t count) {
  if (count <= 0) return {};
  const auto n = static_cast<double>(count);
  const double p = static_cast<double>(successes) / n;
  const double middle = p + kZ * kZ / (2 * n);
  const double half = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 + kZ * kZ / n;
  // At the ends the formula is exact but for rounding.
  return {.low = successes == 0 ? 0.0 : (middle - half) / scale, .high = successes == count ? 1.0 : (middle + half) / scale};
}

double ShareStandardError(int64_t successes, int64_t count) {
  if (count < 2) return 0;
  const double p = static_cast<double>(successes) / static_cast<double>(count);
  return std::sqrt(p * (1 - p) / static_cast<double>(count - 1));
}

double McNemarPValue(int64_t only_a, int64_t only_b) {
  const int64_t n = only_a + only_b;
  if (n <= 0) return 1;
  // log of binomial(n, k) / 2^n; sums of thousands of trials stay far from overflow.
  const auto log_term = [n](int64_t k) {
    const auto real = [](int64_t value) { return static_cast<double>(value); };
    return std::lgamma(real(n + 1)) - std::lgamma(real(k + 1)) - std::lgamma(real(n - k + 1)) - real(n) * std::numbers::ln2;
  };
  double tail = 0;
  for (int64_t k = 0; k <= std::min(only_a, only_b); ++k) tail += std::exp(log_term(k));
  return std::min(1.0, 2 * tail);
}

double PairedStandardError(int64_t only_a, int64_t only_b, int64_t count) {
  if (count <= 0) return 0;
  const auto n = static_cast<double>(count);
  const auto difference = static_cast<double>(only_a - only_b);
  return std::sqrt(std::max(0.0, static_cast<double>(only_a + only_b) - difference * difference / n)) / n;
}

}  // namespace taskpress
