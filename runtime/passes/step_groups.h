// From a plan's operators to the steps that are run: which of them are taken together.
//
// A pass looks for a pattern among the operators of a plan and groups them; what matches no pattern stays a group of its own, so a graph
// that we did not write runs all the same. Passes are pure functions of graph and plan; the executor makes one step of a group.
#ifndef TASKPRESS_RUNTIME_PASSES_STEP_GROUPS_H_
#define TASKPRESS_RUNTIME_PASSES_STEP_GROUPS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/kernels.h"
#include "runtime/plan.h"
#include "runtime/xnnpack_kernels.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// softmax(q K^T + mask) V as one step.
struct AttentionGroup {
  TensorId queries = kNone;  // token-major [.., tokens, heads, head_dim], or head-major [.., heads, tokens, head_dim]
  bool queries_by_head = false;
  TensorId keys = kNone;    // [1, kv_heads, positions, head_dim]
  TensorId values = kNone;  // the same, or [1, kv_heads, head_dim, positions]
  bool transposed_values = false;
  TensorId positions = kNone;  // i32 [seen]: which rows of keys and values are looked at; kNone: all
  TensorId mask = kNone;       // tokens * seen floats
  TensorId out = kNone;        // as queries
  bool out_by_head = false;
  int64_t tokens = 0;
  int64_t kv_heads = 0;
  int64_t group = 0;
  int64_t head_dim = 0;
  int64_t seen = 0;
};

// Operators that work row by row, and int8 copies of their results.
struct RowGroup {
  int64_t tokens = 0;
  std::vector<int32_t> quantized_inputs;  // indices of the QuantizedInputPlans that are filled here
};

// FULLY_CONNECTED W_up -> row-wise operators, the last of them MUL by what a RELU has left of the gate -> FULLY_CONNECTED W_down.
struct SparseGroup {
  int64_t tokens = 0;
  int32_t up = kNone;
  std::vector<int32_t> rows;  // between them, without the MUL
  int32_t mul = kNone;
  int32_t down = kNone;
  TensorId gate = kNone;
  int32_t down_input = kNone;  // the QuantizedInputPlan that is not filled, because nobody else reads it
};

struct StepGroup {
  std::vector<int32_t> ops;  // ascending, next to each other in Plan::ops
  std::variant<std::monostate, AttentionGroup, RowGroup, SparseGroup> fused;
};

// Which pass made a group; empty for a single operator.
[[nodiscard]] std::string_view PassOf(const StepGroup& group);

// A pass by name, for --disable-pass and reports.
struct PassInfo {
  std::string_view name;
  std::string_view what;
};
std::span<const PassInfo> AllPasses();
// kUsage for a name that is not one of them.
Status CheckPassName(std::string_view name);

// [ops] whether nothing but the int8 copy of its first input is read: constant weights with scales that XNNPACK and our own loops take.
std::vector<bool> OpsThatReadCodes(const Graph& graph, const Subgraph& subgraph, std::span<const QuantizedInputPlan> quantized);

// `quantized` as PlanQuantizedInputs has it; an input that no group fills is filled before its first reader. `reads_codes`: of
// OpsThatReadCodes.
std::vector<StepGroup> GroupSteps(const Graph& graph, const Subgraph& subgraph, const Plan& plan,
                                  std::span<const QuantizedInputPlan> quantized, const std::vector<bool>& reads_codes,
                                  const PassNames& disabled);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PASSES_STEP_GROUPS_H_
