#include "tests/testing/run_graph.h"

#include <algorithm>
#include <cstring>

namespace taskpress::testing {
namespace {

template <typename T>
std::vector<T> As(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

std::vector<float> RunResult::floats() const { return As<float>(bytes); }
std::vector<int32_t> RunResult::ints() const { return As<int32_t>(bytes); }

Result<RunResult> RunGraph(const Graph& graph, const std::vector<Values>& inputs, RunOptions options) {
  const std::unique_ptr<SharedRuntime> shared = TRY(SharedRuntime::Create({.kernels = options.kernels, .threads = options.threads}));
  Executor executor = TRY(Executor::Create(graph, 0, *shared));
  const Subgraph& subgraph = graph.subgraphs[0];
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ByteSpan to = executor.Input(subgraph.inputs[i]);
    const ByteView from = std::visit([](const auto& values) { return std::as_bytes(std::span(values)); }, inputs[i]);
    if (to.size() != from.size()) return Fail(ErrorCode::kUsage, "input {} takes {} bytes, the test gives {}", i, to.size(), from.size());
    std::ranges::copy(from, to.begin());
  }
  TRY(executor.Run());
  RunResult result;
  const ByteView output = executor.Output(subgraph.outputs[0]);
  result.bytes.assign(output.begin(), output.end());
  if (!executor.steps().empty()) result.last_kernel = executor.steps().back().kernel;
  return result;
}

}  // namespace taskpress::testing
