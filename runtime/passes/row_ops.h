// Which operators can be part of a row program, judged by their shapes.
#ifndef TASKPRESS_RUNTIME_PASSES_ROW_OPS_H_
#define TASKPRESS_RUNTIME_PASSES_ROW_OPS_H_

#include <cstdint>
#include <optional>

#include "runtime/passes/graph_facts.h"

namespace taskpress {

// How many tokens a call of this graph has: the number of rows that most of its FULLY_CONNECTED operators multiply; rows that were put side
// by side count once. A wrong guess costs
// speed, nothing else. 0 when there are none.
int64_t GuessTokens(const GraphFacts& facts, const Plan& plan);

// Whether every token's part of the result depends on the same token's part of the operands only, in a form that row programs know.
bool IsRowOp(const GraphFacts& facts, int32_t op, int64_t tokens);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PASSES_ROW_OPS_H_
