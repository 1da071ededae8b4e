// The matrices of Gemma 3n E2B through an executor, kernels side by side, and what this machine could do at most: 8-bit products in
// registers, bytes read from memory. Built when Google Benchmark is installed; not part of ctest. To compare kernels, on a machine that
// does other things as well, best against best:
//   matrix_bench --benchmark_enable_random_interleaving --benchmark_repetitions=9 --benchmark_report_aggregates_only
//   matrix_bench --avx2 leaves the instructions aside that came after AVX2.
#include <benchmark/benchmark.h>
#include <cpuinfo.h>

#include <array>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/executor.h"
#include "runtime/tensor_buffer.h"
#include "tests/testing/toy_graph.h"

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/matrix_bench.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Products of bytes, `steps` times 10 vectors of them, nothing read from memory. Returns the number of products.
int64_t MultiplyInRegisters(int64_t steps, int32_t* sink) {
  const hn::ScalableTag<int32_t> d32;
  const hn::Repartition<int8_t, decltype(d32)> d8;
  const hn::Repartition<uint8_t, decltype(d32)> du8;
  const auto a = hn::BitCast(du8, hn::Set(d32, sink[0]));
  const auto b = hn::BitCast(d8, hn::Set(d32, sink[1]));
  // Unlike each other, so that the compiler does not see ten times the same.
  auto s0 = hn::Set(d32, sink[0]), s1 = hn::Set(d32, sink[1]), s2 = hn::Set(d32, sink[2]), s3 = hn::Set(d32, sink[3]);
  auto s4 = hn::Set(d32, sink[4]), s5 = hn::Set(d32, sink[5]), s6 = hn::Set(d32, sink[6]), s7 = hn::Set(d32, sink[7]);
  auto s8 = hn::Set(d32, sink[8]), s9 = hn::Set(d32, sink[9]);
  for (int64_t i = 0; i < steps; ++i) {
    for (auto* sum : {&s0, &s1, &s2, &s3, &s4, &s5, &s6, &s7, &s8, &s9}) *sum = hn::SumOfMulQuadAccumulate(d32, a, b, *sum);
  }
  for (const auto* sum : {&s1, &s2, &s3, &s4, &s5, &s6, &s7, &s8, &s9}) s0 = hn::Add(s0, *sum);
  sink[0] = hn::ReduceSum(d32, s0) & 0x01010101;
  return steps * 10 * static_cast<int64_t>(hn::Lanes(d8));
}

// Something of every byte of memory, so that all of it is read. `bytes` is a multiple of 1024.
uint64_t ReadMemory(const std::byte* memory, int64_t bytes) {
  const hn::CappedTag<uint64_t, 8> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* from = reinterpret_cast<const uint64_t*>(memory);
  auto s0 = hn::Zero(d);
  auto s1 = s0, s2 = s0, s3 = s0;
  for (int64_t i = 0; i < bytes / 8; i += 4 * lanes) {
    s0 = hn::Xor(s0, hn::Load(d, from + i));
    s1 = hn::Xor(s1, hn::Load(d, from + i + lanes));
    s2 = hn::Xor(s2, hn::Load(d, from + i + 2 * lanes));
    s3 = hn::Xor(s3, hn::Load(d, from + i + 3 * lanes));
  }
  return hn::ReduceSum(d, hn::Xor(hn::Xor(s0, s1), hn::Xor(s2, s3)));
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {
namespace {

HWY_EXPORT(MultiplyInRegisters);
HWY_EXPORT(ReadMemory);

using testing::RandomFloats;
using testing::ToyGraph;

struct Matrix {
  std::string name;
  DType type;
  int64_t in;
  int64_t out;
  int64_t most_rows;  // a head sees one token
};

const std::array kMatrices{
    Matrix{"qo", DType::kI4, 2048, 2048, 1024},       Matrix{"kv", DType::kI4, 2048, 512, 1024},
    Matrix{"gate_up", DType::kI4, 2048, 8192, 1024},  Matrix{"down", DType::kI4, 8192, 2048, 1024},
    Matrix{"laurel_left", DType::kI8, 2048, 64, 512}, Matrix{"laurel_right", DType::kI8, 64, 2048, 512},
    Matrix{"ple_gate", DType::kI8, 2048, 256, 512},   Matrix{"ple_projection", DType::kI8, 256, 2048, 512},
    Matrix{"altup", DType::kI8, 2048, 2048, 512},     Matrix{"model_projection", DType::kI4, 2048, 7680, 512},
    Matrix{"head", DType::kI4, 2048, 262144, 1},
};

std::string_view NameOfKernels(Kernels kernels) { return kernels == Kernels::kXnnpack ? "xnnpack" : "fast"; }

std::vector<std::byte> RandomBytes(uint64_t count) {
  std::mt19937_64 engine(1);
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const uint64_t eight = engine();
    std::memcpy(bytes.data() + i, &eight, 8);
  }
  return bytes;
}

// y = x weights, x [rows, in].
Graph FullyConnected(const Matrix& matrix, int64_t rows) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {rows, matrix.in});
  const TensorId weights = toy.Quantized(matrix.type, {1, 2}, std::vector<float>{0.0F, 1.0F});
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, weights}, {rows, matrix.out}, FullyConnectedAttributes{}));
  Graph graph = toy.Take();
  graph.subgraphs[0].tensors[static_cast<size_t>(weights)].shape = {matrix.out, matrix.in};
  graph.buffers[0].bytes = MakeMemorySource(ByteView(RandomBytes(NumBytes(matrix.type, {matrix.out, matrix.in}).value())));
  const std::vector<float> scales(static_cast<size_t>(matrix.out), 0.01F);
  graph.quantizations[0] = {.axis = 0, .num_scales = matrix.out, .scales = MakeMemorySource(std::span<const float>(scales))};
  return graph;
}

// The input's quantization is a step of its own, shared by several matrices of a model; only the product is measured.
void Multiply(benchmark::State& state, const Matrix& matrix, int64_t rows, Kernels kernels, int threads) {
  const Graph graph = FullyConnected(matrix, rows);
  const auto shared = SharedRuntime::Create({.kernels = kernels, .threads = threads}).value();
  Executor executor = Executor::Create(graph, 0, *shared).value();
  std::ranges::copy(RandomFloats(rows * matrix.in, 2), executor.InputAs<float>(graph.subgraphs[0].inputs[0]).begin());
  const size_t last = executor.steps().size() - 1;
  if (!executor.Run()) return state.SkipWithError("does not run");
  for (auto _ : state) benchmark::DoNotOptimize(executor.RunSteps(last, last + 1));
  const auto times = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["products"] = Counter(times * static_cast<double>(rows * matrix.in * matrix.out), Counter::kIsRate);
  state.counters["weight_bytes"] = Counter(times * static_cast<double>(*NumBytes(matrix.type, {matrix.out, matrix.in})), Counter::kIsRate);
}

// The same on every thread at once.
template <typename Body>
void OnThreads(int threads, const Body& body) {
  std::vector<std::jthread> workers;
  for (int i = 1; i < threads; ++i) workers.emplace_back([&body, i] { body(i); });
  body(0);
}

void ProductsInRegisters(benchmark::State& state, int threads) {
  constexpr int64_t kSteps = 200'000;
  std::array<int64_t, 64> products{};
  for (auto _ : state) {
    OnThreads(threads, [&](int i) {
      std::array<int32_t, 10> sink{0x01020304, 0x05060708, 3, 4, 5, 6, 7, 8, 9, 10};
      products[static_cast<size_t>(i)] = HWY_DYNAMIC_DISPATCH(MultiplyInRegisters)(kSteps, sink.data());
      benchmark::DoNotOptimize(sink);
    });
  }
  const auto all = static_cast<double>(state.iterations() * threads * products[0]);
  state.counters["products"] = benchmark::Counter(all, benchmark::Counter::kIsRate);
}

void MemoryRead(benchmark::State& state, int threads) {
  const int64_t share = (int64_t{512} << 20) / threads;
  TensorBuffer buffer = TensorBuffer::Make(static_cast<uint64_t>(share * threads)).value();
  std::ranges::fill(buffer.bytes(), std::byte{1});
  for (auto _ : state) {
    OnThreads(threads, [&](int i) { benchmark::DoNotOptimize(HWY_DYNAMIC_DISPATCH(ReadMemory)(buffer.data() + i * share, share)); });
  }
  state.counters["weight_bytes"] =
      benchmark::Counter(static_cast<double>(state.iterations() * share * threads), benchmark::Counter::kIsRate);
}

// What others do on the machine only ever makes a run longer: the shortest is the best estimate. Of rates the largest.
template <typename Body>
void Register(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name, body)
      ->UseRealTime()
      ->MeasureProcessCPUTime()
      ->ComputeStatistics("min", [](const std::vector<double>& values) { return *std::ranges::min_element(values); })
      ->ComputeStatistics("max", [](const std::vector<double>& values) { return *std::ranges::max_element(values); });
}

void RegisterAll() {
  for (const int threads : {1, 2}) {
    const std::string suffix = "/threads:" + std::to_string(threads);
    Register("peak/products" + suffix, [=](benchmark::State& state) { ProductsInRegisters(state, threads); });
    Register("peak/memory" + suffix, [=](benchmark::State& state) { MemoryRead(state, threads); });
  }
  for (const Matrix& matrix : kMatrices) {
    for (const int64_t rows : {1, 8, 32, 128, 512, 1024}) {
      if (rows > matrix.most_rows) continue;
      for (const int threads : {1, 2}) {
        for (const Kernels kernels : {Kernels::kXnnpack, Kernels::kFast}) {
          const std::string name = Format("{}/rows:{}/threads:{}/{}", matrix.name, rows, threads, NameOfKernels(kernels));
          Register(name, [=](benchmark::State& state) { Multiply(state, matrix, rows, kernels, threads); });
        }
      }
    }
  }
}

// As on a processor with AVX2 and nothing newer, for the two libraries that look: XNNPACK through cpuinfo, our loops through Highway.
void ForgetWhatIsNewerThanAvx2() {
  cpuinfo_initialize();
  for (bool* has : {&cpuinfo_isa.avxvnni, &cpuinfo_isa.avx512f, &cpuinfo_isa.avx512cd, &cpuinfo_isa.avx512dq, &cpuinfo_isa.avx512bw,
                    &cpuinfo_isa.avx512vl, &cpuinfo_isa.avx512vbmi, &cpuinfo_isa.avx512vnni, &cpuinfo_isa.avx512bf16,
                    &cpuinfo_isa.avx512fp16, &cpuinfo_isa.gfni}) {
    *has = false;
  }
  hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR);
}

}  // namespace
}  // namespace taskpress

int main(int count, char** arguments) {
  benchmark::Initialize(&count, arguments);
  if (count > 1 && std::string_view(arguments[1]) == "--avx2") taskpress::ForgetWhatIsNewerThanAvx2();
  taskpress::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
#endif  // HWY_ONCE
