#include "quantizer/error_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "quantizer/quantize.h"
#include "schema/int_packing.h"

namespace taskpress {
namespace {

constexpr int64_t kBlockFloats = 1 << 18;  // 1 MiB each of original and dequantized values per worker

// One row. Eight partial sums, so that the additions do not wait for each other; their order is part of the definition.
void AddRow(std::span<const float> original, std::span<const float> dequantized, int64_t row, TensorError& total) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> signal{};
  std::array<double, kLanes> noise{};
  std::array<double, kLanes> worst{};
  const auto add = [&](size_t lane, size_t i) {
    const auto value = static_cast<double>(original[i]);
    const double error = value - static_cast<double>(dequantized[i]);
    signal[lane] += value * value;
    noise[lane] += error * error;
    worst[lane] = std::max(worst[lane], std::abs(error));
  };
  size_t i = 0;
  for (; i + kLanes <= original.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (size_t lane = 0; i + lane < original.size(); ++lane) add(lane, i + lane);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    total.signal += signal[lane];
    total.noise += noise[lane];
  }
  if (const double row_worst = std::ranges::max(worst); row_worst > total.max_abs_error) {
    total.max_abs_error = row_worst;
    total.worst_row = row;
  }
}

constexpr int kInt4End = 7;
constexpr int kInt8End = 127;

void CountCode(int code, int end, TensorError& total) {
  if (code >= end || code <= -end) ++total.codes_at_ends;
  if (code == 0) ++total.zero_codes;
}

// Rows of integer types have no padding: int4 rows have an even number of columns.
void CountCodes(const QuantSpec& spec, ByteView packed, TensorError& total) {
  if (spec.type == DType::kI8) {
    for (const std::byte code : packed) CountCode(static_cast<int8_t>(code), kInt8End, total);
  } else if (spec.type == DType::kI4) {
    for (const std::byte pair : packed) {
      CountCode(EvenInt4(pair), kInt4End, total);
      CountCode(OddInt4(pair), kInt4End, total);
    }
  }
}

struct Buffers {
  std::vector<float> original;
  std::vector<float> dequantized;
  std::vector<std::byte> packed;
  std::vector<float> scales;
};

struct Measurement {
  const QuantSpec& spec;
  int64_t columns;
  const RowSource& quantized;
  const FloatRowReader& original;

  [[nodiscard]] Result<TensorError> MeasureBlock(const RowRange& range, Buffers& buffers) const {
    const auto rows = static_cast<size_t>(range.count);
    const auto width = static_cast<size_t>(columns);
    buffers.original.resize(rows * width);
    buffers.dequantized.resize(rows * width);
    buffers.packed.resize(rows * quantized.row_bytes());
    buffers.scales.resize(rows * static_cast<size_t>(quantized.scales_per_row()));
    TRY(original(range.first_row, range.count, buffers.original));
    TRY(quantized.ReadRows(range.first_row, range.count, buffers.packed, buffers.scales));
    DequantizeRows(spec, buffers.packed, buffers.scales, range.count, columns, buffers.dequantized);
    TensorError block;
    CountCodes(spec, buffers.packed, block);
    for (size_t row = 0; row < rows; ++row) {
      AddRow(std::span(buffers.original).subspan(row * width, width), std::span(buffers.dequantized).subspan(row * width, width),
             range.first_row + static_cast<int64_t>(row), block);
    }
    return block;
  }
};

std::vector<const TensorError*> WorstFirst(std::span<const TensorError> errors) {
  std::vector<const TensorError*> sorted;
  for (const TensorError& error : errors) sorted.push_back(&error);
  std::ranges::stable_sort(sorted, [](const TensorError* a, const TensorError* b) {
    return std::pair(a->snr_db(), std::string_view(a->name)) < std::pair(b->snr_db(), std::string_view(b->name));
  });
  return sorted;
}

}  // namespace

double TensorError::snr_db() const { return noise == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(signal / noise); }

double TensorError::mean_squared_error() const {
  const double count = static_cast<double>(num_rows) * static_cast<double>(columns);
  return count == 0 ? 0 : noise / count;
}

double TensorError::ShareOf(int64_t codes) const {
  const double count = static_cast<double>(num_rows) * static_cast<double>(columns);
  return count == 0 ? 0 : static_cast<double>(codes) / count;
}

double TensorError::relative_error() const { return noise == 0 ? 0 : std::sqrt(noise / signal); }

Result<TensorError> MeasureTensorError(const std::string& name, const QuantSpec& spec, int64_t columns, const RowSource& quantized,
                                       const FloatRowReader& original, const RowWork& work) {
  const uint64_t row_bytes = TRY(PackedRowBytes(spec, columns));
  const int64_t scales_wanted = spec.ScalesPerRow(columns);
  if (quantized.row_bytes() != row_bytes || quantized.scales_per_row() < scales_wanted) {
    return Fail(ErrorCode::kQuantShape,
                "{}: rows of {} bytes and {} scales are not {} rows of {} columns, which have {} bytes and {} scales", name,
                quantized.row_bytes(), quantized.scales_per_row(), NameOf(spec), columns, row_bytes, scales_wanted);
  }
  const int64_t rows_per_block = std::max<int64_t>(1, kBlockFloats / columns);
  const int64_t num_rows = quantized.num_rows();
  std::vector<TensorError> blocks(static_cast<size_t>((num_rows + rows_per_block - 1) / rows_per_block));
  std::vector<Buffers> buffers(static_cast<size_t>(RowWorkers(num_rows, rows_per_block, work)));
  const Measurement measurement{spec, columns, quantized, original};
  const RowRangeBody measure_block = [&](const RowRange& range) -> Status {
    const auto index = static_cast<size_t>(range.first_row / rows_per_block);
    blocks[index] = TRY(measurement.MeasureBlock(range, buffers[static_cast<size_t>(range.worker)]));
    return {};
  };
  TRY(ForEachRowBlock(num_rows, rows_per_block, work, measure_block));
  TensorError total{.name = name, .spec = spec, .num_rows = num_rows, .columns = columns};
  for (const TensorError& block : blocks) {
    total.signal += block.signal;
    total.noise += block.noise;
    total.codes_at_ends += block.codes_at_ends;
    total.zero_codes += block.zero_codes;
    if (block.max_abs_error > total.max_abs_error) {
      total.max_abs_error = block.max_abs_error;
      total.worst_row = block.worst_row;
    }
  }
  return total;
}

Result<TensorError> MeasureTensorError(const QuantizedRows& rows, const RowWork& work) {
  const FloatRowReader original = [&](int64_t first_row, int64_t count, std::span<float> values) {
    return rows.ReadFloats(first_row, count, values);
  };
  return MeasureTensorError(rows.name(), rows.spec(), rows.columns(), rows, original, work);
}

std::string FormatErrorReport(std::span<const TensorError> errors) {
  std::string text = Format("{:>8}  {:>10}  {:>10}  {:>10}  {:>7}  {:<13}  {:<15}  {}\n", "SNR dB", "relative", "max error", "MSE",
                            "at ends", "type", "shape", "tensor");
  for (const TensorError* error : WorstFirst(errors)) {
    const std::string snr = error->noise == 0 ? "exact" : Format("{:.2f}", error->snr_db());
    const std::string ends = error->spec.is_quantized() ? Format("{:.2f} %", 100 * error->share_at_ends()) : "-";
    text +=
        Format("{:>8}  {:>10.3e}  {:>10.3e}  {:>10.3e}  {:>7}  {:<13}  {:<15}  {}\n", snr, error->relative_error(), error->max_abs_error,
               error->mean_squared_error(), ends, NameOf(error->spec), Format("[{},{}]", error->num_rows, error->columns), error->name);
  }
  return text;
}

OrderedJson ErrorReportJson(std::span<const TensorError> errors) {
  OrderedJson rows = OrderedJson::array();
  for (const TensorError* error : WorstFirst(errors)) {
    rows.push_back({{"name", error->name},
                    {"type", NameOf(error->spec)},
                    {"rows", error->num_rows},
                    {"columns", error->columns},
                    {"snr_db", error->noise == 0 ? OrderedJson() : OrderedJson(error->snr_db())},
                    {"relative_error", error->relative_error()},
                    {"mean_squared_error", error->mean_squared_error()},
                    {"max_abs_error", error->max_abs_error},
                    {"worst_row", error->worst_row},
                    {"share_at_ends", error->share_at_ends()},
                    {"share_of_zeros", error->share_of_zeros()}});
  }
  return rows;
}

}  // namespace taskpress
