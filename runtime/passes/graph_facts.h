// What passes ask of a plan: who makes a value, who reads it.
#ifndef TASKPRESS_RUNTIME_PASSES_GRAPH_FACTS_H_
#define TASKPRESS_RUNTIME_PASSES_GRAPH_FACTS_H_

#include <cstdint>
#include <vector>

#include "runtime/plan.h"
#include "schema/graph.h"

namespace taskpress {

// Of operators that run (Plan::ops): views are looked through, by Plan::values. A value is known by the tensor whose bytes it is.
class GraphFacts {
 public:
  // All outlive this.
  GraphFacts(const Graph& graph, const Subgraph& subgraph, const Plan& plan);

  [[nodiscard]] const Tensor& tensor(TensorId id) const { return subgraph_->tensors[static_cast<size_t>(id)]; }
  [[nodiscard]] const Op& op(int32_t index) const { return subgraph_->ops[static_cast<size_t>(index)]; }
  [[nodiscard]] TensorId value(TensorId id) const { return plan_->values[static_cast<size_t>(id)]; }
  [[nodiscard]] int64_t elements(TensorId id) const;

  // What the operator reads: a MEAN that squares reads what is squared. kNone for an absent input.
  [[nodiscard]] std::vector<TensorId> Inputs(int32_t index) const;
  // The operator that makes a value, kNone for inputs, constants and values made of parts of others.
  [[nodiscard]] int32_t Producer(TensorId id) const { return producers_[static_cast<size_t>(value(id))]; }
  // The only operator that reads the value or a view of it, if it reads it once; kNone otherwise, and for outputs of the graph.
  [[nodiscard]] int32_t OnlyReader(TensorId id) const;
  // The values of a small i32 constant; empty when it is none.
  [[nodiscard]] std::vector<int32_t> SmallInts(TensorId id) const;

 private:
  const Graph* graph_;
  const Subgraph* subgraph_;
  const Plan* plan_;
  std::vector<int32_t> producers_;             // [tensors]
  std::vector<std::vector<int32_t>> readers_;  // [tensors] by value
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PASSES_GRAPH_FACTS_H_
