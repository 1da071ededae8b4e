// What the grouping of operators into steps means for the memory plan.
#ifndef TASKPRESS_RUNTIME_PASSES_FIT_STORAGES_H_
#define TASKPRESS_RUNTIME_PASSES_FIT_STORAGES_H_

#include <span>
#include <vector>

#include "runtime/passes/step_groups.h"

namespace taskpress {

// A group runs token by token, not operator by operator: a storage that one of its operators touches stays alive from its first operator to
// its last. Storages that only one row group uses are held in that step's scratch memory: their size in the plan becomes 0, and the result,
// [storages], says which they are. `reads_codes` [ops]: of its first input the operator reads the int8 copy only.
std::vector<bool> FitStorages(const Subgraph& subgraph, std::span<const StepGroup> groups, std::span<const QuantizedInputPlan> quantized,
                              const std::vector<bool>& reads_codes, Plan& plan);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PASSES_FIT_STORAGES_H_
