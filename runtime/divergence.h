// How far two models' predictions are apart: Kullback-Leibler divergence, agreement of the most likely tokens, perplexities.
#ifndef TASKPRESS_RUNTIME_DIVERGENCE_H_
#define TASKPRESS_RUNTIME_DIVERGENCE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "schema/teacher_file.h"

namespace taskpress {

// The most likely tokens that are compared as a set.
inline constexpr size_t kOverlapTokens = 5;

struct DivergenceSummary {
  int64_t positions = 0;  // rows compared
  double kl_mean = 0;     // KL(b || a) in nats: b is the reference
  double kl_median = 0;
  double kl_p99 = 0;
  double kl_max = 0;
  // Of kl_mean, from the spread of the positions as if they were independent; and from that of the windows' sums, which sees that positions
  // of one text hang together (0 for one window).
  double kl_standard_error = 0;
  double kl_window_standard_error = 0;
  double top1_agreement = 0;  // share of rows with the same most likely token
  double top5_overlap = 0;    // mean share of the five most likely tokens that both have
  double perplexity_a = 0;    // of the given tokens
  double perplexity_b = 0;
  double perplexity_ratio = 1;  // a / b
  // Of the ratio: exp of a mean of differences, token by token, so what makes a token hard for both does not count.
  double perplexity_ratio_standard_error = 0;
  double rms_delta_p = 0;                          // root mean square of what a gives the token that follows, minus what b gives it
  std::optional<double> max_abs_difference = 0.0;  // of two logits; none when b is a teacher file
};

// What one position contributes. b is the reference.
struct PositionDivergence {
  double kl = 0;
  bool top1 = false;
  double top5 = 0;
  // Of the token that follows, where there is one.
  std::optional<double> next_a = std::nullopt;
  std::optional<double> next_b = std::nullopt;
  std::optional<double> max_abs_difference = std::nullopt;
};

class Divergence {
 public:
  explicit Divergence(int64_t vocab_size) : vocab_size_(vocab_size) {}
  // tokens [n]; rows [n, vocab]: row i predicts token i + 1. The last row predicts nothing known and counts for KL and agreement only.
  void AddWindow(std::span<const int32_t> tokens, std::span<const float> rows_a, std::span<const float> rows_b);
  // The same position by position; positions between two calls of BeginWindow belong together.
  void BeginWindow() { windows_.push_back({}); }
  void AddPosition(const PositionDivergence& position);
  [[nodiscard]] DivergenceSummary Summarize() const;

 private:
  struct Window {
    double kl = 0;
    int64_t positions = 0;
  };
  int64_t vocab_size_;
  std::vector<double> kl_;
  std::vector<Window> windows_;
  int64_t agreed_ = 0;
  double overlap_ = 0;
  std::vector<double> nll_difference_;  // of every predicted token, a - b
  double nll_a_ = 0;
  double nll_b_ = 0;
  double squared_delta_p_ = 0;
  std::optional<double> max_abs_difference_ = 0.0;
};

// KL(p || q) of two rows of logits, in float64.
double KlDivergence(std::span<const float> p_logits, std::span<const float> q_logits);

// Rows of logits [vocab]; `next` is the token that follows.
PositionDivergence ComparePosition(std::span<const float> a, std::span<const float> b, std::optional<int32_t> next);

// A row of logits as a teacher file keeps it; `next` is the token that follows. info: kind and top.
TeacherRow MakeTeacherRow(std::span<const float> logits, std::optional<int32_t> next, const TeacherInfo& info);
// Against a row of a file. Of kFull the divergence is that of the distribution that float16 keeps, normalized. Of kTop it is that of the
// named tokens and one bucket for all others, which is never above the true one (log sum inequality).
PositionDivergence CompareWithTeacher(std::span<const float> a, const TeacherRow& b, TeacherKind kind, std::optional<int32_t> next);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_DIVERGENCE_H_
