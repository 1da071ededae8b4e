// Calibrated quantization: sums of products, factor, rounding with feedback. Built when Google Benchmark is installed; not part of ctest.
// The last argument is the number of threads. flops: multiply-adds count twice; of symmetric products only the half that is computed.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "quantizer/dense_kernels.h"
#include "quantizer/gptq.h"
#include "quantizer/second_moments.h"

namespace taskpress {
namespace {

// [rows, columns], a share of zeros.
std::vector<float> Normal(int64_t rows, int64_t columns, double zeros = 0) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& value : values) value = static_cast<double>(random()) < zeros * 0x1p32 ? 0.0F : normal(random);
  return values;
}

SecondMoments Moments(int64_t columns) {
  constexpr int64_t kTokens = 512;
  MomentAccumulator accumulator = *MomentAccumulator::Make(columns, MomentKind::kFull);
  if (!accumulator.Add(Normal(kTokens, columns), kTokens)) std::abort();
  return *accumulator.Finish();
}

void SetFlops(benchmark::State& state, double per_iteration) {
  state.counters["flops"] = benchmark::Counter(per_iteration, benchmark::Counter::kIsIterationInvariantRate);
}

// One core, operands in the second cache: what the rest can hope for.
void Multiply(benchmark::State& state, const DenseKernels& kernels) {
  constexpr int64_t kPanels = 8;
  const std::vector<float> a = Normal(kPanels * kMaxDepth, kPanelWidth);
  std::vector<float> c(static_cast<size_t>(kPanels * kPanelWidth * kPanels * kPanelWidth));
  for (auto _ : state) {
    for (int64_t p = 0; p < kPanels; ++p) {
      for (int64_t q = 0; q < kPanels; ++q) {
        kernels.multiply(a.data() + p * kMaxDepth * kPanelWidth, a.data() + q * kMaxDepth * kPanelWidth, kMaxDepth,
                         c.data() + (p * kPanelWidth * kPanels + q) * kPanelWidth, kPanels * kPanelWidth, Accumulate::kAdd);
      }
    }
    benchmark::DoNotOptimize(c.data());
  }
  SetFlops(state, 2.0 * kPanels * kPanels * kPanelWidth * kPanelWidth * kMaxDepth);
}
BENCHMARK_CAPTURE(Multiply, vector, VectorDenseKernels());
BENCHMARK_CAPTURE(Multiply, plain, PlainDenseKernels());

// 512 tokens; flops as if no value were zero.
void AccumulateMoments(benchmark::State& state, MomentKind kind, double zeros) {
  constexpr int64_t kTokens = 512;
  const int64_t columns = state.range(0);
  const RowWork work{.threads = static_cast<int>(state.range(1))};
  const std::vector<float> inputs = Normal(kTokens, columns, zeros);
  MomentAccumulator accumulator = *MomentAccumulator::Make(columns, kind);
  for (auto _ : state) {
    if (!accumulator.Add(inputs, kTokens, work)) state.SkipWithError("refused");
  }
  if (kind == MomentKind::kFull) SetFlops(state, static_cast<double>(kTokens) * static_cast<double>(columns * columns));
  state.SetItemsProcessed(state.iterations() * kTokens);
}
void Sizes(benchmark::internal::Benchmark* b) {
  for (const int64_t columns : {2048, 4096, 8192}) {
    for (const int64_t threads : {1, 2}) b->Args({columns, threads});
  }
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(AccumulateMoments, dense, MomentKind::kFull, 0.0)->Apply(Sizes)->Args({16384, 2});
BENCHMARK_CAPTURE(AccumulateMoments, zeros_95_percent, MomentKind::kFull, 0.95)->Apply(Sizes)->Args({16384, 2});
BENCHMARK_CAPTURE(AccumulateMoments, diagonal, MomentKind::kDiagonal, 0.0)->Apply(Sizes);

void Factor(benchmark::State& state) {
  const int64_t columns = state.range(0);
  const SecondMoments moments = Moments(columns);
  for (auto _ : state) {
    state.PauseTiming();
    SecondMoments own = moments;
    state.ResumeTiming();
    benchmark::DoNotOptimize(GptqFactor::Make(std::move(own), {}, {.threads = static_cast<int>(state.range(1))}));
  }
  const auto d = static_cast<double>(columns);
  SetFlops(state, d * d * d / 3);
}
BENCHMARK(Factor)->Apply(Sizes);

// 512 rows. refit: least-squares scales at the end.
void Quantize(benchmark::State& state, int64_t block_size, bool refit) {
  constexpr int64_t kRows = 512;
  const int64_t columns = state.range(0);
  const GptqFactor factor = *GptqFactor::Make(Moments(columns), {.act_order = block_size == 0});
  const std::vector<float> values = Normal(kRows, columns);
  const std::vector<float> given(static_cast<size_t>(kRows * (block_size == 0 ? 1 : columns / block_size)), 0.5F);
  std::vector<int8_t> codes(values.size());
  for (auto _ : state) {
    std::vector<float> scales = given;
    if (!GptqQuantize(factor, {.block_size = block_size, .refit_scales = refit}, values, kRows, scales, codes,
                      {.threads = static_cast<int>(state.range(1))})) {
      state.SkipWithError("refused");
    }
  }
  const auto d = static_cast<double>(columns);
  SetFlops(state, static_cast<double>(kRows) * d * d);
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK_CAPTURE(Quantize, row_scales, 0, false)->Apply(Sizes);
BENCHMARK_CAPTURE(Quantize, row_scales_refitted, 0, true)->Apply(Sizes);
BENCHMARK_CAPTURE(Quantize, blocks_of_32, 32, false)->Apply(Sizes);

}  // namespace
}  // namespace taskpress

BENCHMARK_MAIN();
