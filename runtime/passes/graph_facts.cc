#include "runtime/passes/graph_facts.h"

#include "runtime/kernels/op_shapes.h"

namespace taskpress {
namespace {

constexpr int32_t kTheCaller = -2;

}  // namespace

GraphFacts::GraphFacts(const Graph& graph, const Subgraph& subgraph, const Plan& plan)
    : graph_(&graph), subgraph_(&subgraph), plan_(&plan), producers_(subgraph.tensors.size(), kNone), readers_(subgraph.tensors.size()) {
  for (const int32_t index : plan.ops) {
    for (const TensorId output : op(index).outputs) producers_[static_cast<size_t>(output)] = index;
    for (const TensorId input : Inputs(index)) {
      if (input != kNone) readers_[static_cast<size_t>(value(input))].push_back(index);
    }
  }
  // A view of a part has other bytes: who reads it reads some of the whole.
  for (const int32_t index : plan.elided) {
    const TensorId whole = op(index).inputs[0];
    if (value(op(index).outputs[0]) != value(whole)) readers_[static_cast<size_t>(value(whole))].push_back(kTheCaller);
  }
  for (const TensorId output : subgraph.outputs) readers_[static_cast<size_t>(value(output))].push_back(kTheCaller);
}

int64_t GraphFacts::elements(TensorId id) const { return NumElements(tensor(id).shape).value_or(0); }

std::vector<TensorId> GraphFacts::Inputs(int32_t index) const {
  std::vector<TensorId> inputs = op(index).inputs;
  const TensorId squared = plan_->squared_inputs[static_cast<size_t>(index)];
  if (squared != kNone) inputs[0] = squared;
  return inputs;
}

int32_t GraphFacts::OnlyReader(TensorId id) const {
  const std::vector<int32_t>& readers = readers_[static_cast<size_t>(value(id))];
  return readers.size() == 1 && readers[0] != kTheCaller ? readers[0] : kNone;
}

std::vector<int32_t> GraphFacts::SmallInts(TensorId id) const {
  const Tensor& found = tensor(id);
  if (!found.is_constant() || found.type != DType::kI32 || elements(id) > static_cast<int64_t>(kMaxRank)) return {};
  std::vector<int32_t> values(static_cast<size_t>(elements(id)));
  const SharedBytes& bytes = graph_->buffers[static_cast<size_t>(found.buffer)].bytes;
  if (!bytes->Read(0, std::as_writable_bytes(std::span(values)))) return {};
  return values;
}

}  // namespace taskpress
