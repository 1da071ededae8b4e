// How far two models' predictions are apart, position by position: Kullback-Leibler divergence, agreement of the most likely token,
// perplexities.
#ifndef TASKPRESS_RUNTIME_DIVERGENCE_H_
#define TASKPRESS_RUNTIME_DIVERGENCE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace taskpress {

struct DivergenceSummary {
  int64_t positions = 0;  // rows compared
  double kl_mean = 0;     // KL(b || a) in nats: b is the reference
  double kl_p99 = 0;
  double top1_agreement = 0;  // share of rows with the same most likely token
  double perplexity_a = 0;    // of the given tokens
  double perplexity_b = 0;
  double max_abs_difference = 0;  // of two logits
};

class Divergence {
 public:
  explicit Divergence(int64_t vocab_size) : vocab_size_(vocab_size) {}
  // tokens [n]; rows [n, vocab]: row i predicts token i + 1. The last row predicts nothing known and counts for KL and agreement only.
  void AddWindow(std::span<const int32_t> tokens, std::span<const float> rows_a, std::span<const float> rows_b);
  [[nodiscard]] DivergenceSummary Summarize() const;

 private:
  int64_t vocab_size_;
  std::vector<double> kl_;
  int64_t agreed_ = 0;
  int64_t predicted_ = 0;
  double nll_a_ = 0;
  double nll_b_ = 0;
  double max_abs_difference_ = 0;
};

// KL(p || q) of two rows of logits, in float64.
double KlDivergence(std::span<const float> p_logits, std::span<const float> q_logits);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_DIVERGENCE_H_
