#include "runtime/passes/fit_storages.h"

#include <algorithm>

namespace taskpress {
namespace {

constexpr int32_t kNobody = -1;
constexpr int32_t kSeveral = -2;

class Fitter {
 public:
  Fitter(const Subgraph& subgraph, std::span<const StepGroup> groups, std::span<const QuantizedInputPlan> quantized,
         const std::vector<bool>& reads_codes, Plan& plan)
      : subgraph_(subgraph),
        groups_(groups),
        quantized_(quantized),
        reads_codes_(reads_codes),
        plan_(plan),
        users_(plan.storages.size(), kNobody),
        elements_(plan.storages.size(), 0) {}

  std::vector<bool> Run() {
    for (const TensorId id : subgraph_.inputs) Touch(id, kSeveral);
    for (const TensorId id : subgraph_.outputs) Touch(id, kSeveral);
    for (const Plan::CopyBack& copy : plan_.copy_backs) Touch(copy.tensor, kSeveral);
    for (size_t g = 0; g < groups_.size(); ++g) TouchAll(static_cast<int32_t>(g));
    for (const QuantizedInputPlan& input : quantized_) {
      const int32_t filler = FillerOf(input);
      if (filler == kNobody) Touch(input.value, kSeveral);  // filled by a step of its own
    }
    std::vector<bool> local(users_.size());
    for (size_t s = 0; s < users_.size(); ++s) {
      local[s] = users_[s] >= 0 && std::holds_alternative<RowGroup>(groups_[static_cast<size_t>(users_[s])].fused);
      if (local[s]) plan_.storages[s].bytes = 0;
    }
    return local;
  }

 private:
  const Placement& PlacementOf(TensorId id) const { return plan_.placements[static_cast<size_t>(id)]; }

  int32_t FillerOf(const QuantizedInputPlan& input) const {
    const auto index = static_cast<int32_t>(&input - quantized_.data());
    for (size_t g = 0; g < groups_.size(); ++g) {
      const RowGroup* rows = std::get_if<RowGroup>(&groups_[g].fused);
      if (rows != nullptr && std::ranges::contains(rows->quantized_inputs, index)) return static_cast<int32_t>(g);
    }
    return kNobody;
  }

  void Touch(TensorId id, int32_t user) {
    if (id == kNone || PlacementOf(id).kind != Placement::Kind::kArena) return;
    const auto s = static_cast<size_t>(PlacementOf(id).index);
    // Of several tokens, every tensor in this memory must have its tokens at the same places.
    const int64_t elements = NumElements(subgraph_.tensors[static_cast<size_t>(id)].shape).value_or(0);
    const RowGroup* rows = user >= 0 ? std::get_if<RowGroup>(&groups_[static_cast<size_t>(user)].fused) : nullptr;
    const bool same = elements_[s] == 0 || elements_[s] == elements;
    if (rows != nullptr && rows->tokens != 1 && (PlacementOf(id).offset != 0 || !same)) user = kSeveral;
    elements_[s] = elements;
    users_[s] = users_[s] == kNobody || users_[s] == user ? user : kSeveral;
  }

  void TouchAll(int32_t g) {
    const StepGroup& group = groups_[static_cast<size_t>(g)];
    for (const int32_t index : group.ops) {
      const Op& op = subgraph_.ops[static_cast<size_t>(index)];
      const TensorId squared = plan_.squared_inputs[static_cast<size_t>(index)];
      for (size_t i = 0; i < op.inputs.size(); ++i) {
        const TensorId input = i == 0 && squared != kNone ? squared : op.inputs[i];
        if (i != 0 || !reads_codes_[static_cast<size_t>(index)]) Touch(input, g);
        Extend(input, group);
      }
      for (const TensorId output : op.outputs) {
        Touch(output, g);
        Extend(output, group);
      }
    }
  }

  void Extend(TensorId id, const StepGroup& group) {
    if (id == kNone || PlacementOf(id).kind != Placement::Kind::kArena) return;
    Storage& storage = plan_.storages[static_cast<size_t>(PlacementOf(id).index)];
    storage.first = std::min(storage.first, group.ops.front());
    storage.last = std::max(storage.last, group.ops.back());
  }

  const Subgraph& subgraph_;
  std::span<const StepGroup> groups_;
  std::span<const QuantizedInputPlan> quantized_;
  const std::vector<bool>& reads_codes_;
  Plan& plan_;
  std::vector<int32_t> users_;     // [storages] a group, kNobody or kSeveral
  std::vector<int64_t> elements_;  // [storages] of the tensors in it
};

}  // namespace

std::vector<bool> FitStorages(const Subgraph& subgraph, std::span<const StepGroup> groups, std::span<const QuantizedInputPlan> quantized,
                              const std::vector<bool>& reads_codes, Plan& plan) {
  return Fitter(subgraph, groups, quantized, reads_codes, plan).Run();
}

}  // namespace taskpress
