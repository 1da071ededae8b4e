// Float rows -> packed integers and scales. Rows are independent of each other: any split over threads gives the same bytes.
#ifndef TASKPRESS_QUANTIZER_QUANTIZE_H_
#define TASKPRESS_QUANTIZER_QUANTIZE_H_

#include <cstdint>
#include <span>

#include "quantizer/quant_spec.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// Scales of integer types are never smaller, however small the row: readers refuse zero and subnormal scales, and 26 binary orders above
// the smallest normal float leave them room to multiply scales. A row of zeros gets exactly this scale; of rows whose largest value lies
// below 7 * 2^-100 at most half of that, 4e-31, is lost per value.
inline constexpr float kMinQuantScale = 0x1p-100F;

// Bytes of one row of `columns` values stored as spec says. kQuantShape when int4 rows would not fill whole bytes or whole blocks.
Result<uint64_t> PackedRowBytes(const QuantSpec& spec, int64_t columns);

// Quantizes (or casts, for f32 and f16) `num_rows` rows of `columns` floats.
//   values: [num_rows, columns]; packed: [num_rows * PackedRowBytes]; scales: [num_rows, spec.ScalesPerRow(columns)], untouched for float
//   types; column_importance: [columns] weights of squared errors for kClip, finite and not negative, or empty: 1 each.
// In float32: code = round-half-even(value / scale), clamped to [-8, 7] or [-127, 127]; divided, not multiplied by a reciprocal. The scale
// of a row, or of a block, comes from
//   - its grid, when its values lie on one (quantizer/grid.h), whatever the method: the codes are those of the grid;
//   - kAbsmax: max(absmax / 7, kMinQuantScale) (int4) or absmax / 127 (int8), so that |value - code * scale| <= scale / 2 but for the
//   rounding
//     of the quotient itself; of a block the nearest number that a block's scale can be;
//   - kClip: the least squared error (quantizer/clip.h).
// Scales of blocks are numbers of quantizer/block_scale.h. kQuantValue on NaN or infinity, where an f16 would become infinity (|value| >=
// 65520), and where the scale of a block would not fit float16 (|value| > 456960): lowest row first, then lowest column. `first_row` is the
// number of the first row in the whole matrix; messages count from it. kQuantShape when sizes disagree.
Status QuantizeRows(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                    std::span<float> scales, int64_t first_row = 0, std::span<const float> column_importance = {});
// The plain twin that tests hold QuantizeRows against: one value at a time, bit for bit the same result.
Status QuantizeRowsPlain(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                         std::span<float> scales, int64_t first_row = 0, std::span<const float> column_importance = {});

// The inverse. values: [num_rows, columns].
void DequantizeRows(const QuantSpec& spec, ByteView packed, std::span<const float> scales, int64_t num_rows, int64_t columns,
                    std::span<float> values);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_QUANTIZE_H_
