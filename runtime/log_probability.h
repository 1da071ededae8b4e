// What a row of logits says: log-probabilities, and the most likely tokens.
#ifndef TASKPRESS_RUNTIME_LOG_PROBABILITY_H_
#define TASKPRESS_RUNTIME_LOG_PROBABILITY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace taskpress {

// log(sum(exp(logits))) in float64, shifted by the largest. At least one logit.
double LogSumExp(std::span<const float> logits);

// Natural logarithm of softmax(logits)[token], in float64: logit - max - log(sum(exp(logits - max))). `token` must lie in the row.
double LogProbability(std::span<const float> logits, int32_t token);

// The most likely tokens, likeliest first; of equals the lower id. As many as there are, at most.
std::vector<int32_t> TopTokens(std::span<const float> logits, size_t count);

// Share of the tokens of two lists, cut to the shorter length, that both have.
double OverlapOf(std::span<const int32_t> a, std::span<const int32_t> b);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_LOG_PROBABILITY_H_
