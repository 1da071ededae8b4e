#include "quantizer/output_error.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "quantizer/quantize.h"

namespace taskpress {
namespace {

constexpr int64_t kRowsPerBlock = 16;

struct Buffers {
  std::vector<float> original;
  std::vector<float> error;
  std::vector<std::byte> packed;
  std::vector<float> scales;
};

// Eight partial sums, so that the additions do not wait for each other; their order is part of the definition.
double Dot(std::span<const float> a, const float* b) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
  }
  for (size_t lane = 0; i + lane < a.size(); ++lane) sums[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// v^T H v, times the number of tokens.
double Power(std::span<const float> v, const SecondMoments* moments) {
  if (moments == nullptr) return Dot(v, v.data());
  double sum = 0;
  const bool full = moments->kind() == MomentKind::kFull;
  for (size_t j = 0; j < v.size(); ++j) {
    const auto value = static_cast<double>(v[j]);
    if (value == 0) continue;
    double inner = value * moments->squares[j];
    if (full) inner += 2 * Dot(v.first(j), moments->products.data() + j * v.size());
    sum += value * inner;
  }
  return std::max(sum, 0.0);  // products are rounded to float32
}

class Measurement {
 public:
  Measurement(const QuantizedRows& rows, const SecondMoments* moments) : rows_(rows), moments_(moments) {}

  Result<OutputError> Block(int64_t first_row, int64_t count, Buffers& buffers) const {
    const auto width = static_cast<size_t>(rows_.columns());
    const auto values = static_cast<size_t>(count) * width;
    buffers.original.resize(values);
    buffers.error.resize(values);
    buffers.packed.resize(static_cast<size_t>(count) * rows_.row_bytes());
    buffers.scales.resize(static_cast<size_t>(count * rows_.scales_per_row()));
    TRY(rows_.ReadFloats(first_row, count, buffers.original));
    TRY(rows_.ReadRows(first_row, count, buffers.packed, buffers.scales));
    DequantizeRows(rows_.spec(), buffers.packed, buffers.scales, count, rows_.columns(), buffers.error);
    for (size_t i = 0; i < values; ++i) buffers.error[i] = buffers.original[i] - buffers.error[i];
    OutputError sum{.signal = 0, .noise = 0, .rows = count};
    for (size_t at = 0; at < values; at += width) {
      sum.signal += Power(std::span(buffers.original).subspan(at, width), moments_);
      sum.noise += Power(std::span(buffers.error).subspan(at, width), moments_);
    }
    return sum;
  }

  // Of all blocks of rows, how many are looked at.
  [[nodiscard]] int64_t Blocks(double work_limit) const {
    const auto columns = static_cast<double>(rows_.columns());
    const bool full = moments_ != nullptr && moments_->kind() == MomentKind::kFull;
    const double per_block = static_cast<double>(kRowsPerBlock) * columns * (full ? columns : 8);  // rounding a value takes about as much
    const int64_t all = (rows_.num_rows() + kRowsPerBlock - 1) / kRowsPerBlock;
    return std::clamp<int64_t>(static_cast<int64_t>(work_limit / per_block), std::min<int64_t>(all, 1), all);
  }

 private:
  const QuantizedRows& rows_;
  const SecondMoments* moments_;
};

}  // namespace

Result<OutputError> MeasureOutputError(const QuantizedRows& rows, const SecondMoments* moments, const OutputErrorOptions& options) {
  if (moments != nullptr && moments->columns != rows.columns()) {
    return Fail(ErrorCode::kCalibrationMismatch, "{}: {} columns, moments of {}", rows.name(), rows.columns(), moments->columns);
  }
  const Measurement measurement(rows, moments);
  const int64_t all = (rows.num_rows() + kRowsPerBlock - 1) / kRowsPerBlock;
  const int64_t blocks = measurement.Blocks(options.work_limit);
  std::vector<OutputError> sums(static_cast<size_t>(blocks));
  std::vector<Buffers> buffers(static_cast<size_t>(RowWorkers(blocks, 1, options.work)));
  TRY(ForEachRowBlock(blocks, 1, options.work, [&](const RowRange& range) -> Status {
    const int64_t first_row = range.first_row * all / blocks * kRowsPerBlock;
    const int64_t count = std::min(kRowsPerBlock, rows.num_rows() - first_row);
    sums[static_cast<size_t>(range.first_row)] = TRY(measurement.Block(first_row, count, buffers[static_cast<size_t>(range.worker)]));
    return {};
  }));
  OutputError total;
  for (const OutputError& sum : sums) total += sum;
  return total;
}

}  // namespace taskpress
