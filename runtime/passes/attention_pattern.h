// Finds softmax(q K^T + mask) V among the operators of a graph.
#ifndef TASKPRESS_RUNTIME_PASSES_ATTENTION_PATTERN_H_
#define TASKPRESS_RUNTIME_PASSES_ATTENTION_PATTERN_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/passes/graph_facts.h"
#include "runtime/passes/step_groups.h"

namespace taskpress {

struct AttentionMatch {
  AttentionGroup group;
  std::vector<int32_t> ops;  // ascending: matrix products, mask, softmax, and what only moves their operands
};

// Around a SOFTMAX: BATCH_MATMUL(q, K, adj_y) -> ADD(mask) -> SOFTMAX -> BATCH_MATMUL(V), each result read by the next one alone. K and V
// may be rows that a GATHER takes out of a cache, both by the same indices; queries and results may be transposed between tokens and heads.
// The heads of a group are rows of one matrix; the mask is the same for all heads.
std::optional<AttentionMatch> MatchAttention(const GraphFacts& facts, int32_t softmax);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PASSES_ATTENTION_PATTERN_H_
