#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/divergence.h"
#include "runtime/log_probability.h"
#include "schema/base/half.h"

namespace taskpress {
namespace {

// A log-probability as float32; rounding can lift it above 0.
float Stored(double log_probability) { return static_cast<float>(std::min(log_probability, 0.0)); }

// As float16 keeps it, and not lower than it can: a probability of exp(-65504) is none.
float StoredHalf(double log_probability) {
  constexpr double kLowestHalf = -65504;
  return F16ToFloat(FloatToF16(Stored(std::max(log_probability, kLowestHalf))));
}

double KlOfTop(std::span<const float> a, const TeacherRow& b) {
  const double norm = LogSumExp(a);
  double kl = 0;
  std::vector<bool> named(a.size());
  for (size_t i = 0; i < b.ids.size(); ++i) {
    const auto token = static_cast<size_t>(b.ids[i]);
    const auto log_p = static_cast<double>(b.log_probabilities[i]);
    kl += std::exp(log_p) * (log_p - (static_cast<double>(a[token]) - norm));
    named[token] = true;
  }
  if (b.tail == 0) return std::max(kl, 0.0);
  double tail = 0;
  for (size_t token = 0; token < a.size(); ++token) {
    if (!named[token]) tail += std::exp(static_cast<double>(a[token]) - norm);
  }
  // A tail that underflows in a would make the divergence infinite; it is at least the smallest number.
  tail = std::max(tail, std::numeric_limits<double>::min());
  const auto p = static_cast<double>(b.tail);
  return std::max(kl + p * std::log(p / tail), 0.0);
}

}  // namespace

TeacherRow MakeTeacherRow(std::span<const float> logits, std::optional<int32_t> next, const TeacherInfo& info) {
  const double norm = LogSumExp(logits);
  const auto log_probability = [&](int32_t token) { return static_cast<double>(logits[static_cast<size_t>(token)]) - norm; };
  TeacherRow row{.ids = TopTokens(logits, static_cast<size_t>(info.top))};
  if (next) row.next = Stored(log_probability(*next));
  if (info.kind == TeacherKind::kFull) {
    for (int32_t token = 0; std::cmp_less(token, logits.size()); ++token)
      row.log_probabilities.push_back(StoredHalf(log_probability(token)));
    return row;
  }
  // What is left is summed up, not subtracted from 1: it may be tiny.
  std::vector<bool> named(logits.size());
  for (const int32_t token : row.ids) {
    row.log_probabilities.push_back(Stored(log_probability(token)));
    named[static_cast<size_t>(token)] = true;
  }
  double tail = 0;
  for (int32_t token = 0; std::cmp_less(token, logits.size()); ++token) {
    if (!named[static_cast<size_t>(token)]) tail += std::exp(log_probability(token));
  }
  row.tail = static_cast<float>(std::min(tail, 1.0));
  return row;
}

PositionDivergence CompareWithTeacher(std::span<const float> a, const TeacherRow& b, TeacherKind kind, std::optional<int32_t> next) {
  PositionDivergence position{.kl = kind == TeacherKind::kFull ? KlDivergence(b.log_probabilities, a) : KlOfTop(a, b)};
  const std::vector<int32_t> top = TopTokens(a, kOverlapTokens);
  position.top1 = top.front() == b.ids.front();
  position.top5 = OverlapOf(top, b.ids);
  if (next) {
    position.next_a = LogProbability(a, *next);
    position.next_b = static_cast<double>(b.next);
  }
  return position;
}

}  // namespace taskpress
