// What the fast kernels make of a signature, for reports.
#ifndef TASKPRESS_RUNTIME_PLAN_REPORT_H_
#define TASKPRESS_RUNTIME_PLAN_REPORT_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

struct PassCount {
  std::string_view pass;
  int64_t steps = 0;      // that it made
  int64_t operators = 0;  // in them
};

struct PlanReport {
  int64_t operators = 0;  // of the graph
  int64_t dead = 0;       // whose results nobody reads
  int64_t views = 0;      // that move no bytes
  int64_t steps = 0;      // groups of operators, int8 copies of inputs not counted
  std::vector<PassCount> passes;
};

// Errors of MakePlan. Reads no weights.
Result<PlanReport> ReportPlan(const Graph& graph, int32_t subgraph);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PLAN_REPORT_H_
