#include "runtime/roofline.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <tuple>
#include <vector>

#include "runtime/executor.h"
#include "runtime/plan.h"
#include "runtime/shared_runtime.h"
#include "runtime/tensor_buffer.h"

namespace taskpress {
namespace {

using std::chrono::steady_clock;

constexpr int kPasses = 7;  // others may be at work on the machine; the best pass met fewest of them

template <typename Work>
Result<double> BestSeconds(Work work) {
  double best = 0;
  for (int pass = 0; pass <= kPasses; ++pass) {
    const auto start = steady_clock::now();
    TRY(work());
    const double seconds = std::chrono::duration<double>(steady_clock::now() - start).count();
    if (pass > 0 && (best == 0 || seconds < best)) best = seconds;  // the first one warms up
  }
  return best;
}

// x f32 [rows, in] with one constant matrix of arbitrary bytes.
Graph OneMatrix(const MatrixShape& shape, int64_t rows) {
  Graph graph;
  std::vector<std::byte> bytes(NumBytes(shape.type, Shape{shape.out, shape.in}).value_or(0));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 & 0x77);  // floats of it are finite, too
  const std::vector<float> scales(static_cast<size_t>(shape.out), 0.01F);
  graph.buffers = {Buffer{}, Buffer{.bytes = MakeMemorySource(ByteView(bytes))}};
  Tensor weights{.name = "weights", .type = shape.type, .shape = {shape.out, shape.in}, .buffer = 1};
  if (shape.type != DType::kF32) {
    graph.quantizations.push_back({.axis = 0, .num_scales = shape.out, .scales = MakeMemorySource(std::span<const float>(scales))});
    weights.quantization = 0;
  }
  Subgraph& subgraph = graph.subgraphs.emplace_back();
  subgraph.name = "one_matrix";
  subgraph.tensors = {Tensor{.name = "x", .type = DType::kF32, .shape = {rows, shape.in}}, std::move(weights),
                      Tensor{.name = "y", .type = DType::kF32, .shape = {rows, shape.out}}};
  subgraph.inputs = {0};
  subgraph.outputs = {2};
  subgraph.ops.push_back({.kind = OpKind::kFullyConnected, .inputs = {0, 1}, .outputs = {2}, .attributes = FullyConnectedAttributes{}});
  return graph;
}

}  // namespace

Result<MatrixWork> MatrixWorkOf(const Graph& graph, int32_t index) {
  const Plan plan = TRY(MakePlan(graph, index, {}));
  const Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(index)];
  MatrixWork work;
  std::map<std::tuple<DType, int64_t, int64_t>, uint64_t> products;
  for (const int32_t number : plan.ops) {
    const Op& op = subgraph.ops[static_cast<size_t>(number)];
    if (op.kind != OpKind::kFullyConnected) continue;
    const Tensor& x = subgraph.tensors[static_cast<size_t>(op.inputs[0])];
    const Tensor& weights = subgraph.tensors[static_cast<size_t>(op.inputs[1])];
    if (weights.shape.size() != 2) continue;
    const auto count = static_cast<uint64_t>(NumElements(x.shape).value_or(0)) * static_cast<uint64_t>(weights.shape[0]);
    work.products += count;
    work.weight_bytes += NumBytes(weights.type, weights.shape).value_or(0);
    products[{weights.type, weights.shape[1], weights.shape[0]}] += count;
  }
  const auto most = std::ranges::max_element(products, {}, [](const auto& entry) { return entry.second; });
  if (most != products.end()) {
    const auto& [type, in, out] = most->first;
    work.largest = {.type = type, .in = in, .out = out};
  }
  return work;
}

Result<double> MeasureMatrixPeak(const MatrixShape& shape, int64_t rows, Kernels kernels, int threads) {
  const Graph graph = OneMatrix(shape, rows);
  const std::unique_ptr<SharedRuntime> shared = TRY(SharedRuntime::Create({.kernels = kernels, .threads = threads}));
  Executor executor = TRY(Executor::Create(graph, 0, *shared));
  const std::span<float> x = executor.InputAs<float>(0);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8.0F;
  const double seconds = TRY(BestSeconds([&] { return executor.Run(); }));
  return static_cast<double>(rows) * static_cast<double>(shape.in) * static_cast<double>(shape.out) / std::max(seconds, 1e-9);
}

Result<double> MeasureReadBandwidth(const ThreadPool& threads) {
  constexpr uint64_t kBytes = uint64_t{256} << 20;  // more than caches hold
  constexpr int64_t kTasks = 64;
  TensorBuffer buffer = TRY(TensorBuffer::Make(kBytes));
  std::ranges::fill(buffer.bytes(), std::byte{1});  // pages that nobody wrote to are one page
  std::vector<uint64_t> sums(kTasks);
  auto read = [&](int64_t task) {
    constexpr size_t kLanes = 8;
    std::array<uint64_t, kLanes> lanes = {};
    const auto* words = reinterpret_cast<const uint64_t*>(buffer.data()) + kBytes / sizeof(uint64_t) / kTasks * static_cast<uint64_t>(task);
    for (uint64_t i = 0; i < kBytes / sizeof(uint64_t) / kTasks; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += words[i + lane];
    }
    for (const uint64_t lane : lanes) sums[static_cast<size_t>(task)] += lane;
  };
  const double seconds = TRY(BestSeconds([&]() -> Status {
    threads.ForEach(kTasks, read);
    return {};
  }));
  // The sums are used, or the loops would be no work.
  const uint64_t sum = std::ranges::max(sums);
  return sum == 0 ? 0.0 : static_cast<double>(kBytes) / std::max(seconds, 1e-9);
}

}  // namespace taskpress
