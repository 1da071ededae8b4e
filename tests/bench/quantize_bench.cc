// The kernels of a conversion beside memcpy: bytes of the source per second, one core. Built when Google Benchmark is installed; not part
// of ctest.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "quantizer/bf16_kernels.h"
#include "quantizer/quantize.h"
#include "schema/base/half.h"
#include "schema/base/hash.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

// A block as the pipeline has it: its floats fill 1 MiB, half of a second cache.
constexpr int64_t kRows = 128;
constexpr int64_t kColumns = 2048;
constexpr int64_t kValues = kRows * kColumns;

// Within the range of f16. [kRows, kColumns]
std::vector<float> Weights() {
  std::vector<float> values = RandomMatrix(kRows, kColumns, 1);
  for (float& value : values) value *= 0x1p-12F;
  return values;
}

std::vector<std::byte> StoredWeights() {
  std::vector<std::byte> bytes(static_cast<size_t>(kValues) * 2);
  const std::vector<float> values = Weights();
  for (size_t i = 0; i < values.size(); ++i) StoreLittle(bytes.data() + 2 * i, FloatToBf16(values[i]));
  return bytes;
}

void Memcpy(benchmark::State& state) {
  const std::vector<float> from = Weights();
  std::vector<float> to(from.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size() * sizeof(float));
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kValues * static_cast<int64_t>(sizeof(float)));
}
BENCHMARK(Memcpy);

void Bf16ToFloats(benchmark::State& state, decltype(&Bf16RowToFloat) convert) {
  const std::vector<std::byte> from = StoredWeights();
  std::vector<float> to(static_cast<size_t>(kValues));
  for (auto _ : state) {
    convert(from.data(), to);
    benchmark::DoNotOptimize(to.data());
  }
  state.SetBytesProcessed(state.iterations() * kValues * 2);
}
BENCHMARK_CAPTURE(Bf16ToFloats, vector, &Bf16RowToFloat);
BENCHMARK_CAPTURE(Bf16ToFloats, plain, &Bf16RowToFloatPlain);

// One layer's 256 columns out of rows of eight layers.
void GatherPerLayerColumns(benchmark::State& state, decltype(&Bf16ColumnsToFloat) gather) {
  constexpr size_t kLayer = 256;
  constexpr size_t kStride = static_cast<size_t>(kColumns) * 2;
  const std::vector<std::byte> from = StoredWeights();
  std::vector<float> to(static_cast<size_t>(kRows) * kLayer);
  for (auto _ : state) {
    gather(from.data(), kStride, static_cast<size_t>(kRows), to);
    benchmark::DoNotOptimize(to.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(to.size()) * 2);
}
BENCHMARK_CAPTURE(GatherPerLayerColumns, vector, &Bf16ColumnsToFloat);
BENCHMARK_CAPTURE(GatherPerLayerColumns, plain, &Bf16ColumnsToFloatPlain);

// Floats in: scale, codes, packing.
void Quantize(benchmark::State& state, const QuantSpec& spec, decltype(&QuantizeRows) quantize) {
  const std::vector<float> values = Weights();
  std::vector<std::byte> packed(static_cast<size_t>(kRows) * *PackedRowBytes(spec, kColumns));
  std::vector<float> scales(static_cast<size_t>(kRows * spec.ScalesPerRow(kColumns)));
  for (auto _ : state) {
    if (!quantize(spec, values, kRows, kColumns, packed, scales, 0, {})) state.SkipWithError("refused");
    benchmark::DoNotOptimize(packed.data());
  }
  state.SetBytesProcessed(state.iterations() * kValues * static_cast<int64_t>(sizeof(float)));
}
constexpr QuantSpec kClip{.type = DType::kI4, .method = QuantMethod::kClip};
constexpr QuantSpec kBlock32{.type = DType::kI4, .block_size = 32};
constexpr QuantSpec kBlock32Clip{.type = DType::kI4, .method = QuantMethod::kClip, .block_size = 32};
BENCHMARK_CAPTURE(Quantize, int4, (QuantSpec{.type = DType::kI4}), &QuantizeRows);
BENCHMARK_CAPTURE(Quantize, int4_plain, (QuantSpec{.type = DType::kI4}), &QuantizeRowsPlain);
BENCHMARK_CAPTURE(Quantize, int4_clip, kClip, &QuantizeRows);
BENCHMARK_CAPTURE(Quantize, int4_clip_plain, kClip, &QuantizeRowsPlain);
BENCHMARK_CAPTURE(Quantize, int4_block32, kBlock32, &QuantizeRows);
BENCHMARK_CAPTURE(Quantize, int4_block32_clip, kBlock32Clip, &QuantizeRows);
BENCHMARK_CAPTURE(Quantize, int8, (QuantSpec{.type = DType::kI8}), &QuantizeRows);
BENCHMARK_CAPTURE(Quantize, int8_plain, (QuantSpec{.type = DType::kI8}), &QuantizeRowsPlain);
BENCHMARK_CAPTURE(Quantize, f16, (QuantSpec{.type = DType::kF16}), &QuantizeRows);
BENCHMARK_CAPTURE(Quantize, f32, (QuantSpec{.type = DType::kF32}), &QuantizeRows);

// The whole way of a block: stored bfloat16 to packed int4 and its checksum.
void Bf16ToInt4(benchmark::State& state) {
  const QuantSpec spec{.type = DType::kI4};
  const std::vector<std::byte> from = StoredWeights();
  std::vector<float> values(static_cast<size_t>(kValues));
  std::vector<std::byte> packed(static_cast<size_t>(kRows) * *PackedRowBytes(spec, kColumns));
  std::vector<float> scales(kRows);
  for (auto _ : state) {
    Bf16RowToFloat(from.data(), values);
    if (!QuantizeRows(spec, values, kRows, kColumns, packed, scales)) state.SkipWithError("refused");
    benchmark::DoNotOptimize(Crc32(0, packed));
  }
  state.SetBytesProcessed(state.iterations() * kValues * 2);
}
BENCHMARK(Bf16ToInt4);

void Dequantize(benchmark::State& state, DType type) {
  const QuantSpec spec{.type = type};
  std::vector<float> values = Weights();
  std::vector<std::byte> packed(static_cast<size_t>(kRows) * *PackedRowBytes(spec, kColumns));
  std::vector<float> scales(kRows);
  if (!QuantizeRows(spec, values, kRows, kColumns, packed, scales)) state.SkipWithError("refused");
  for (auto _ : state) {
    DequantizeRows(spec, packed, scales, kRows, kColumns, values);
    benchmark::DoNotOptimize(values.data());
  }
  state.SetBytesProcessed(state.iterations() * kValues * static_cast<int64_t>(sizeof(float)));
}
BENCHMARK_CAPTURE(Dequantize, int4, DType::kI4);
BENCHMARK_CAPTURE(Dequantize, int8, DType::kI8);

// What a .task needs of every byte, and every lock file.
void Checksums(benchmark::State& state, bool sha256) {
  const std::vector<std::byte> bytes = StoredWeights();
  for (auto _ : state) {
    if (sha256) {
      benchmark::DoNotOptimize(Sha256Hex(bytes));
    } else {
      benchmark::DoNotOptimize(Crc32(0, bytes));
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}
BENCHMARK_CAPTURE(Checksums, crc32, false);
BENCHMARK_CAPTURE(Checksums, sha256, true);

}  // namespace
}  // namespace taskpress

BENCHMARK_MAIN();
