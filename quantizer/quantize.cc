#include "quantizer/quantize.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "quantizer/row_kernels.h"
#include "schema/base/checked_math.h"
#include "schema/base/half.h"
#include "schema/int_packing.h"

namespace taskpress {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;
constexpr uint32_t kF16OverflowBits = std::bit_cast<uint32_t>(65520.0F);  // and above rounds to infinity

struct Matrix {
  std::span<const float> values;  // [num_rows, columns]
  int64_t num_rows;
  int64_t columns;
  uint64_t row_bytes;
  int64_t first_row;

  [[nodiscard]] std::span<const float> Row(int64_t row) const {
    return values.subspan(static_cast<size_t>(row * columns), static_cast<size_t>(columns));
  }
  [[nodiscard]] ByteSpan RowOf(ByteSpan packed, int64_t row) const {
    return packed.subspan(static_cast<size_t>(row) * row_bytes, row_bytes);
  }
};

Result<Matrix> MakeMatrix(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                          std::span<float> scales, int64_t first_row) {
  const uint64_t row_bytes = TRY(PackedRowBytes(spec, columns));
  const std::optional<int64_t> count = CheckedMul(num_rows, columns);
  if (num_rows < 0 || !count || values.size() != static_cast<uint64_t>(*count)) {
    return Fail(ErrorCode::kQuantShape, "{} values do not make [{}, {}]", values.size(), num_rows, columns);
  }
  if (packed.size() != static_cast<uint64_t>(num_rows) * row_bytes) {
    return Fail(ErrorCode::kQuantShape, "{} rows of {} {} values need {} bytes, {} given", num_rows, columns, NameOf(spec),
                static_cast<uint64_t>(num_rows) * row_bytes, packed.size());
  }
  if (spec.is_quantized() && scales.size() != static_cast<uint64_t>(num_rows)) {
    return Fail(ErrorCode::kQuantShape, "{} rows need as many scales, {} given", num_rows, scales.size());
  }
  return Matrix{values, num_rows, columns, row_bytes, first_row};
}

// The first value of a row whose magnitude reaches `limit_bits`: there is one.
std::unexpected<Error> BadValue(const Matrix& matrix, int64_t row, uint32_t limit_bits) {
  const std::span<const float> values = matrix.Row(row);
  const auto bad = std::ranges::find_if(values, [&](float v) { return (std::bit_cast<uint32_t>(v) & 0x7fffffffU) >= limit_bits; });
  const auto column = bad - values.begin();
  if ((std::bit_cast<uint32_t>(*bad) & 0x7fffffffU) >= kInfinityBits) {
    return Fail(ErrorCode::kQuantValue, "row {}, column {}: the value is {}, every weight must be finite; the checkpoint is damaged",
                matrix.first_row + row, column, *bad);
  }
  return Fail(ErrorCode::kQuantValue, "row {}, column {}: {} does not fit f16, whose largest value is 65504; store this tensor as f32",
              matrix.first_row + row, column, *bad);
}

void CastToF16(std::span<const float> values, ByteSpan packed) {
  for (size_t i = 0; i < values.size(); ++i) StoreLittle(packed.data() + 2 * i, FloatToF16(values[i]));
}

Status QuantizeWith(const RowKernels& kernels, const QuantSpec& spec, const Matrix& matrix, ByteSpan packed, std::span<float> scales) {
  const uint32_t limit_bits = spec.type == DType::kF16 ? kF16OverflowBits : kInfinityBits;
  for (int64_t row = 0; row < matrix.num_rows; ++row) {
    const std::span<const float> values = matrix.Row(row);
    const ByteSpan out = matrix.RowOf(packed, row);
    const uint32_t max_bits = kernels.max_magnitude_bits(values);
    if (max_bits >= limit_bits) return BadValue(matrix, row, limit_bits);
    if (spec.type == DType::kF32) {
      std::ranges::copy(std::as_bytes(values), out.begin());
    } else if (spec.type == DType::kF16) {
      CastToF16(values, out);
    } else {
      const int limit = spec.type == DType::kI4 ? kInt4Limit : kInt8Limit;
      const float scale = std::max(std::bit_cast<float>(max_bits) / static_cast<float>(limit), kMinQuantScale);
      scales[static_cast<size_t>(row)] = scale;
      (spec.type == DType::kI4 ? kernels.encode_int4 : kernels.encode_int8)(values, scale, out);
    }
  }
  return {};
}

}  // namespace

Result<uint64_t> PackedRowBytes(const QuantSpec& spec, int64_t columns) {
  if (!spec.is_quantized() && spec.type != DType::kF32 && spec.type != DType::kF16) {
    return Fail(ErrorCode::kQuantShape, "weights are stored as f32, f16, int8 or int4, not {}", NameOf(spec));
  }
  const auto bits = static_cast<uint64_t>(InfoOf(spec.type).bits);
  const std::optional<uint64_t> row_bits = CheckedMul(static_cast<uint64_t>(columns), bits);
  if (columns <= 0 || !row_bits) return Fail(ErrorCode::kQuantShape, "rows of {} columns cannot be stored", columns);
  if (*row_bits % 8 != 0) {
    return Fail(ErrorCode::kQuantShape, "rows of {} columns cannot be {}: the number of columns must be even; use int8", columns,
                NameOf(spec));
  }
  return *row_bits / 8;
}

Status QuantizeRows(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                    std::span<float> scales, int64_t first_row) {
  const Matrix matrix = TRY(MakeMatrix(spec, values, num_rows, columns, packed, scales, first_row));
  return QuantizeWith(VectorRowKernels(), spec, matrix, packed, scales);
}

Status QuantizeRowsPlain(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                         std::span<float> scales, int64_t first_row) {
  const Matrix matrix = TRY(MakeMatrix(spec, values, num_rows, columns, packed, scales, first_row));
  return QuantizeWith(PlainRowKernels(), spec, matrix, packed, scales);
}

void DequantizeRows(const QuantSpec& spec, ByteView packed, std::span<const float> scales, int64_t num_rows, int64_t columns,
                    std::span<float> values) {
  if (spec.type == DType::kF32) {
    std::ranges::copy(packed, std::as_writable_bytes(values).begin());
    return;
  }
  if (spec.type == DType::kF16) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = F16ToFloat(LoadLittle<uint16_t>(packed.data() + 2 * i));
    return;
  }
  const auto width = static_cast<size_t>(columns);
  for (size_t row = 0; row < static_cast<size_t>(num_rows); ++row) {
    const float scale = scales[row];
    float* out = values.data() + row * width;
    if (spec.type == DType::kI8) {
      const std::byte* codes = packed.data() + row * width;
      for (size_t i = 0; i < width; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(codes[i]));
    } else {
      const std::byte* pairs = packed.data() + row * width / 2;
      for (size_t i = 0; i < width / 2; ++i) {
        out[2 * i] = scale * static_cast<float>(EvenInt4(pairs[i]));
        out[2 * i + 1] = scale * static_cast<float>(OddInt4(pairs[i]));
      }
    }
  }
}

}  // namespace taskpress
