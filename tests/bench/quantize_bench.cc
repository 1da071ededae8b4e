// Floats in per second, one core. Built when Google Benchmark is installed; not part of ctest.
#include <benchmark/benchmark.h>

#include <vector>

#include "quantizer/quantize.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

constexpr int64_t kRows = 4096;
constexpr int64_t kColumns = 2048;

// Within the range of f16. [kRows, kColumns]
std::vector<float> Weights() {
  std::vector<float> values = RandomMatrix(kRows, kColumns, 1);
  for (float& value : values) value *= 0x1p-12F;
  return values;
}

void RunQuantize(benchmark::State& state, DType type, decltype(&QuantizeRows) quantize) {
  const QuantSpec spec{.type = type};
  const std::vector<float> values = Weights();
  std::vector<std::byte> packed(static_cast<size_t>(kRows) * *PackedRowBytes(spec, kColumns));
  std::vector<float> scales(kRows);
  for (auto _ : state) {
    if (!quantize(spec, values, kRows, kColumns, packed, scales, 0)) state.SkipWithError("refused");
    benchmark::DoNotOptimize(packed.data());
  }
  state.SetBytesProcessed(state.iterations() * kRows * kColumns * static_cast<int64_t>(sizeof(float)));
}

BENCHMARK_CAPTURE(RunQuantize, int4, DType::kI4, &QuantizeRows);
BENCHMARK_CAPTURE(RunQuantize, int8, DType::kI8, &QuantizeRows);
BENCHMARK_CAPTURE(RunQuantize, f16, DType::kF16, &QuantizeRows);
BENCHMARK_CAPTURE(RunQuantize, f32, DType::kF32, &QuantizeRows);
BENCHMARK_CAPTURE(RunQuantize, int4_plain, DType::kI4, &QuantizeRowsPlain);

void RunDequantize(benchmark::State& state, DType type) {
  const QuantSpec spec{.type = type};
  std::vector<float> values = Weights();
  std::vector<std::byte> packed(static_cast<size_t>(kRows) * *PackedRowBytes(spec, kColumns));
  std::vector<float> scales(kRows);
  if (!QuantizeRows(spec, values, kRows, kColumns, packed, scales)) state.SkipWithError("refused");
  for (auto _ : state) {
    DequantizeRows(spec, packed, scales, kRows, kColumns, values);
    benchmark::DoNotOptimize(values.data());
  }
  state.SetBytesProcessed(state.iterations() * kRows * kColumns * static_cast<int64_t>(sizeof(float)));
}

BENCHMARK_CAPTURE(RunDequantize, int4, DType::kI4);
BENCHMARK_CAPTURE(RunDequantize, int8, DType::kI8);

}  // namespace
}  // namespace taskpress

BENCHMARK_MAIN();
