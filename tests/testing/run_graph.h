// Runs the first subgraph of a graph once and hands back an output.
#ifndef TASKPRESS_TESTS_TESTING_RUN_GRAPH_H_
#define TASKPRESS_TESTS_TESTING_RUN_GRAPH_H_

#include <span>
#include <string>
#include <variant>
#include <vector>

#include "runtime/executor.h"
#include "schema/graph.h"

namespace taskpress::testing {

using Values = std::variant<std::vector<float>, std::vector<int32_t>>;

struct RunOptions {
  Kernels kernels = Kernels::kReference;
  int threads = 1;
};

struct RunResult {
  std::vector<std::byte> bytes;  // of the first output
  KernelKind last_kernel = KernelKind::kReference;

  [[nodiscard]] std::vector<float> floats() const;
  [[nodiscard]] std::vector<int32_t> ints() const;
};

// `inputs` in the order of the subgraph's.
Result<RunResult> RunGraph(const Graph& graph, const std::vector<Values>& inputs, RunOptions options = {});

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_RUN_GRAPH_H_
