#include "quantizer/quantize.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "quantizer/block_scale.h"
#include "quantizer/clip.h"
#include "quantizer/grid.h"
#include "quantizer/row_kernels.h"
#include "schema/base/checked_math.h"
#include "schema/base/half.h"
#include "schema/int_packing.h"

namespace taskpress {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;
constexpr uint32_t kBlockOverflowBits = std::bit_cast<uint32_t>(7 * kMaxBlockScale) + 1;
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
                          std::span<float> scales, int64_t first_row, std::span<const float> importance) {
  const uint64_t row_bytes = TRY(PackedRowBytes(spec, columns));
  const std::optional<int64_t> count = CheckedMul(num_rows, columns);
  if (num_rows < 0 || !count || values.size() != static_cast<uint64_t>(*count)) {
    return Fail(ErrorCode::kQuantShape, "{} values do not make [{}, {}]", values.size(), num_rows, columns);
  }
  if (packed.size() != static_cast<uint64_t>(num_rows) * row_bytes) {
    return Fail(ErrorCode::kQuantShape, "{} rows of {} {} values need {} bytes, {} given", num_rows, columns, NameOf(spec),
                static_cast<uint64_t>(num_rows) * row_bytes, packed.size());
  }
  const int64_t per_row = spec.ScalesPerRow(columns);
  if (spec.is_quantized() && scales.size() != static_cast<uint64_t>(num_rows * per_row)) {
    return Fail(ErrorCode::kQuantShape, "{} rows need {} scales each, {} given", num_rows, per_row, scales.size());
  }
  if (!importance.empty() && importance.size() != static_cast<uint64_t>(columns)) {
    return Fail(ErrorCode::kQuantShape, "importance of {} columns, the rows have {}", importance.size(), columns);
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
  if (limit_bits == kBlockOverflowBits) {
    return Fail(ErrorCode::kQuantValue, "row {}, column {}: the scale of a block with {} does not fit f16; store this tensor as int4",
                matrix.first_row + row, column, *bad);
  }
  return Fail(ErrorCode::kQuantValue, "row {}, column {}: {} does not fit f16, whose largest value is 65504; store this tensor as f32",
              matrix.first_row + row, column, *bad);
}

void CastToF16(std::span<const float> values, ByteSpan packed) {
  for (size_t i = 0; i < values.size(); ++i) StoreLittle(packed.data() + 2 * i, FloatToF16(values[i]));
}

// The two ways to do the same.
struct Twin {
  const RowKernels& kernels;
  ScaleErrorKernel measure_scales;
};

class RowQuantizer {
 public:
  RowQuantizer(const Twin& twin, const QuantSpec& spec, std::span<const float> importance)
      : kernels_(twin.kernels), spec_(spec), importance_(importance), search_(twin.measure_scales) {}

  // One row; absmax: its largest magnitude.
  void Quantize(std::span<const float> values, float absmax, ByteSpan packed, std::span<float> scales) {
    if (spec_.block_size == 0) {
      scales[0] = ScaleOf(values, absmax, importance_);
      (spec_.type == DType::kI4 ? kernels_.encode_int4 : kernels_.encode_int8)(values, scales[0], packed);
      return;
    }
    const auto size = static_cast<size_t>(spec_.block_size);
    for (size_t block = 0; block < scales.size(); ++block) {
      const std::span<const float> part = values.subspan(block * size, size);
      const std::span<const float> importance = importance_.empty() ? importance_ : importance_.subspan(block * size, size);
      scales[block] = BlockScaleOf(part, std::bit_cast<float>(kernels_.max_magnitude_bits(part)), importance);
      kernels_.encode_int4(part, scales[block], packed.subspan(block * size / 2, size / 2));
    }
  }

 private:
  float ScaleOf(std::span<const float> values, float absmax, std::span<const float> importance) {
    float scale = FindGridScale(values).value_or(0);
    if (scale == 0 && spec_.method != QuantMethod::kAbsmax) {
      scale = spec_.type == DType::kI4 ? search_.Find(values, importance) : search_.FindForInt8(values, importance);
    }
    if (scale == 0) scale = absmax / static_cast<float>(spec_.type == DType::kI4 ? kInt4Limit : kInt8Limit);
    return std::max(scale, kMinQuantScale);
  }

  float BlockScaleOf(std::span<const float> values, float absmax, std::span<const float> importance) {
    // A grid whose scale is no block's scale keeps its codes at the nearest one, unless that is far away.
    const float grid = FindGridScale(values).value_or(0);
    if (grid >= kMinBlockScale && grid <= kMaxBlockScale) return NearestBlockScale(grid);
    if (spec_.method != QuantMethod::kAbsmax) {
      if (const float scale = search_.FindForBlock(values, importance); scale > 0) return scale;
    }
    return NearestBlockScale(absmax / static_cast<float>(kInt4Limit));
  }

  const RowKernels& kernels_;
  const QuantSpec& spec_;
  std::span<const float> importance_;
  ClipSearch search_;
};

uint32_t LimitBits(const QuantSpec& spec) {
  if (spec.type == DType::kF16) return kF16OverflowBits;
  return spec.block_size > 0 ? kBlockOverflowBits : kInfinityBits;
}

Status QuantizeWith(const Twin& twin, const QuantSpec& spec, const Matrix& matrix, ByteSpan packed, std::span<float> scales,
                    std::span<const float> importance) {
  const uint32_t limit_bits = LimitBits(spec);
  const auto per_row = static_cast<size_t>(spec.ScalesPerRow(matrix.columns));
  RowQuantizer quantizer(twin, spec, importance);
  for (int64_t row = 0; row < matrix.num_rows; ++row) {
    const std::span<const float> values = matrix.Row(row);
    const ByteSpan out = matrix.RowOf(packed, row);
    const uint32_t max_bits = twin.kernels.max_magnitude_bits(values);
    if (max_bits >= limit_bits) return BadValue(matrix, row, limit_bits);
    if (spec.type == DType::kF32) {
      std::ranges::copy(std::as_bytes(values), out.begin());
    } else if (spec.type == DType::kF16) {
      CastToF16(values, out);
    } else {
      quantizer.Quantize(values, std::bit_cast<float>(max_bits), out, scales.subspan(static_cast<size_t>(row) * per_row, per_row));
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
  if (spec.block_size != 0 && (spec.type != DType::kI4 || !std::ranges::contains(kBlockSizes, spec.block_size))) {
    return Fail(ErrorCode::kQuantShape, "{} is no known way to store weights", NameOf(spec));
  }
  if (spec.block_size != 0 && columns % spec.block_size != 0) {
    return Fail(ErrorCode::kQuantShape, "rows of {} columns cannot be {}: the number of columns must be a multiple of {}; use int4",
                columns, NameOf(spec), spec.block_size);
  }
  return *row_bits / 8;
}

Status QuantizeRows(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                    std::span<float> scales, int64_t first_row, std::span<const float> column_importance) {
  const Matrix matrix = TRY(MakeMatrix(spec, values, num_rows, columns, packed, scales, first_row, column_importance));
  return QuantizeWith({VectorRowKernels(), &MeasureScales}, spec, matrix, packed, scales, column_importance);
}

Status QuantizeRowsPlain(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                         std::span<float> scales, int64_t first_row, std::span<const float> column_importance) {
  const Matrix matrix = TRY(MakeMatrix(spec, values, num_rows, columns, packed, scales, first_row, column_importance));
  return QuantizeWith({PlainRowKernels(), &MeasureScalesPlainly}, spec, matrix, packed, scales, column_importance);
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
  const auto per_row = static_cast<size_t>(spec.ScalesPerRow(columns));
  const size_t each = width / per_row;  // values of a scale
  for (size_t group = 0; group < static_cast<size_t>(num_rows) * per_row; ++group) {
    const float scale = scales[group];
    float* out = values.data() + group * each;
    if (spec.type == DType::kI8) {
      const std::byte* codes = packed.data() + group * each;
      for (size_t i = 0; i < each; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(codes[i]));
    } else {
      const std::byte* pairs = packed.data() + group * each / 2;
      for (size_t i = 0; i < each / 2; ++i) {
        out[2 * i] = scale * static_cast<float>(EvenInt4(pairs[i]));
        out[2 * i + 1] = scale * static_cast<float>(OddInt4(pairs[i]));
      }
    }
  }
}

}  // namespace taskpress
