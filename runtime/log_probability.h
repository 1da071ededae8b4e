// The log-probability that a row of logits gives to a token.
#ifndef TASKPRESS_RUNTIME_LOG_PROBABILITY_H_
#define TASKPRESS_RUNTIME_LOG_PROBABILITY_H_

#include <cstdint>
#include <span>

namespace taskpress {

// Natural logarithm of softmax(logits)[token], in float64: logit - max - log(sum(exp(logits - max))). `token` must lie in the row.
double LogProbability(std::span<const float> logits, int32_t token);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_LOG_PROBABILITY_H_
