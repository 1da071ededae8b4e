#include "quantizer/quantized_source.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "quantizer/quantize.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

constexpr int64_t kBlockFloats = (1 << 20) / static_cast<int64_t>(sizeof(float));

}  // namespace

Result<std::shared_ptr<const QuantizedRows>> QuantizedRows::Make(QuantizedRowsInput input) {
  const Result<uint64_t> row_bytes = PackedRowBytes(input.spec, input.columns);
  if (!row_bytes) return std::unexpected(WithContext(row_bytes.error(), input.name));
  const std::optional<int64_t> count = CheckedMul(input.num_rows, input.columns);
  if (input.num_rows < 0 || !count || !CheckedMul(*count, static_cast<int64_t>(sizeof(float)))) {
    return Fail(ErrorCode::kQuantShape, "{}: a matrix of [{}, {}] cannot be stored", input.name, input.num_rows, input.columns);
  }
  if (!std::isnormal(input.scale_factor) || input.scale_factor < 0) {
    return Fail(ErrorCode::kQuantShape, "{}: scale factor {} is not a positive number", input.name, input.scale_factor);
  }
  if (input.spec.block_size != 0 && input.scale_factor != 1.0F) {
    return Fail(ErrorCode::kQuantShape, "{}: scales of blocks cannot carry the factor {}; use int4", input.name, input.scale_factor);
  }
  const std::vector<float>& importance = input.column_importance;
  if (!importance.empty() && (std::ssize(importance) != input.columns ||
                              !std::ranges::all_of(importance, [](float weight) { return std::isfinite(weight) && weight >= 0; }))) {
    return Fail(ErrorCode::kQuantShape, "{}: importance of {} columns, not of {} or not finite and positive", input.name, importance.size(),
                input.columns);
  }
  return std::shared_ptr<const QuantizedRows>(new QuantizedRows(std::move(input), *row_bytes));
}

Status QuantizedRows::CheckRows(int64_t first_row, int64_t count) const {
  if (first_row >= 0 && count >= 0 && first_row <= num_rows() && count <= num_rows() - first_row) return {};
  return Fail(ErrorCode::kReadFailed, "{}: rows [{}, +{}) lie outside a matrix of {} rows", name(), first_row, count, num_rows());
}

Status QuantizedRows::ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const {
  TRY(CheckRows(first_row, count));
  const auto rows = static_cast<uint64_t>(count);
  const auto per_row = static_cast<size_t>(scales_per_row());
  const size_t scales_wanted = static_cast<size_t>(count) * per_row;
  if (packed.size() != rows * row_bytes_ || scales.size() < scales_wanted) {
    return Fail(ErrorCode::kQuantShape, "{}: {} rows fill {} bytes and {} scales; room for {} and {} was given", name(), count,
                rows * row_bytes_, scales_wanted, packed.size(), scales.size());
  }
  const int64_t block = std::clamp<int64_t>(kBlockFloats / columns(), 1, std::max<int64_t>(count, 1));
  const auto block_floats = static_cast<size_t>(block * columns());
  const std::unique_ptr<float[]> floats(new (std::nothrow) float[block_floats]);
  if (!floats) return Fail(ErrorCode::kOutOfMemory, "{}: no memory for {} values", name(), block_floats);
  for (int64_t row = 0; row < count; row += block) {
    const int64_t now = std::min(block, count - row);
    const auto first = static_cast<size_t>(row);
    const auto size = static_cast<size_t>(now);
    TRY(ReadBlock(first_row + row, now, {floats.get(), size * static_cast<size_t>(columns())},
                  packed.subspan(first * row_bytes_, size * row_bytes_),
                  scales_wanted == 0 ? std::span<float>() : scales.subspan(first * per_row, size * per_row)));
  }
  return {};
}

Status QuantizedRows::ReadBlock(int64_t first_row, int64_t count, std::span<float> values, ByteSpan packed, std::span<float> scales) const {
  if (spec().is_quantized()) {
    TRY(input_.reader(first_row, count, values));
  } else {
    TRY(ReadFloats(first_row, count, values));
  }
  const bool own = input_.quantizer && spec().is_quantized();
  Status done = own ? input_.quantizer(values, count, packed, scales, first_row)
                    : QuantizeRows(spec(), values, count, columns(), packed, scales, first_row, input_.column_importance);
  if (!done) {
    return std::unexpected(WithContext(std::move(done).error(), name()));
  }
  if (input_.scale_factor == 1.0F) return {};
  for (float& scale : scales) {
    const float scaled = std::max(scale * input_.scale_factor, kMinQuantScale);
    if (!std::isfinite(scaled)) {
      return Fail(ErrorCode::kQuantValue, "{}: row {}: scale {} times {} overflows", name(), first_row + (&scale - scales.data()), scale,
                  input_.scale_factor);
    }
    scale = scaled;
  }
  return {};
}

Status QuantizedRows::ReadFloats(int64_t first_row, int64_t count, std::span<float> values) const {
  TRY(CheckRows(first_row, count));
  TRY(input_.reader(first_row, count, values));
  if (input_.scale_factor != 1.0F) {
    for (float& value : values) value *= input_.scale_factor;
  }
  return {};
}

Result<std::vector<float>> RoundingErrors(std::span<const std::shared_ptr<const QuantizedRows>> pieces, int64_t first_row, int64_t count) {
  size_t width = 0;
  for (const std::shared_ptr<const QuantizedRows>& piece : pieces) width += static_cast<size_t>(piece->columns());
  const auto rows = static_cast<size_t>(count);
  std::vector<float> errors(rows * width);
  size_t first = 0;
  for (const std::shared_ptr<const QuantizedRows>& piece : pieces) {
    const auto columns = static_cast<size_t>(piece->columns());
    std::vector<float> floats(rows * columns);
    std::vector<float> rounded(floats.size());
    std::vector<std::byte> packed(rows * piece->row_bytes());
    std::vector<float> scales(rows * static_cast<size_t>(piece->scales_per_row()));
    TRY(piece->ReadFloats(first_row, count, floats));
    TRY(piece->ReadRows(first_row, count, packed, scales));
    DequantizeRows(piece->spec(), packed, scales, count, piece->columns(), rounded);
    for (size_t row = 0; row < rows; ++row) {
      for (size_t c = 0; c < columns; ++c) errors[row * width + first + c] = floats[row * columns + c] - rounded[row * columns + c];
    }
    first += columns;
  }
  return errors;
}

Result<SharedBytes> MakeQuantizedSource(QuantizedRowsInput input) { return QuantizedRows::Make(std::move(input)); }

}  // namespace taskpress
