// How sure a share of right answers is, and whether two models differ on the same questions.
#ifndef TASKPRESS_RUNTIME_INTERVALS_H_
#define TASKPRESS_RUNTIME_INTERVALS_H_

#include <cstdint>

namespace taskpress {

struct Interval {
  double low = 0;
  double high = 1;
};

// Wilson's score interval of 95 % for `successes` in `count` independent trials (E. B. Wilson 1927, "Probable inference, the law of
// succession, and statistical inference"): with z = 1.96, (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). [0, 1] for
// no trials.
Interval WilsonInterval(int64_t successes, int64_t count);

// Standard error of the share: sqrt(p (1 - p) / (n - 1)), as lm-evaluation-harness has it; 0 for fewer than two trials.
double ShareStandardError(int64_t successes, int64_t count);

// McNemar's test in its exact form: of the questions that only one of two models answered rightly, `only_a` and `only_b`, how likely is a
// split at least as uneven if both are equally good? Two-sided, from the binomial distribution with p = 1/2; 1 when there are none.
double McNemarPValue(int64_t only_a, int64_t only_b);

// Standard error of the difference of two shares over the same `count` questions: sqrt(b + c - (b - c)^2 / n) / n.
double PairedStandardError(int64_t only_a, int64_t only_b, int64_t count);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_INTERVALS_H_
