#include "runtime/plan_report.h"

#include "runtime/passes/step_groups.h"
#include "runtime/plan.h"
#include "runtime/xnnpack_kernels.h"

namespace taskpress {

Result<PlanReport> ReportPlan(const Graph& graph, int32_t index) {
  TRY(ValidateGraph(graph));
  const Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(index)];
  const Plan plan = TRY(MakePlan(graph, index, {}, {.fuse_mean_of_squares = true}));
  const std::vector<QuantizedInputPlan> quantized = PlanQuantizedInputs(subgraph, plan, /*packed=*/true);
  const std::vector<StepGroup> groups = GroupSteps(graph, subgraph, plan, quantized, OpsThatReadCodes(graph, subgraph, quantized), {});
  PlanReport report{.operators = static_cast<int64_t>(subgraph.ops.size()),
                    .views = static_cast<int64_t>(plan.elided.size()),
                    .steps = static_cast<int64_t>(groups.size())};
  report.dead = report.operators - report.views - static_cast<int64_t>(plan.ops.size());
  for (const PassInfo& pass : AllPasses()) {
    PassCount count{.pass = pass.name};
    for (const StepGroup& group : groups) {
      if (PassOf(group) != pass.name) continue;
      ++count.steps;
      count.operators += static_cast<int64_t>(group.ops.size());
    }
    report.passes.push_back(count);
  }
  return report;
}

}  // namespace taskpress
