// Float rows -> packed integers and scales. Rows are independent of each other: any split over threads gives the same bytes.
#ifndef TASKPRESS_QUANTIZER_QUANTIZE_H_
#define TASKPRESS_QUANTIZER_QUANTIZE_H_

#include <cstdint>
#include <span>

#include "quantizer/quant_spec.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// Bytes of one row of `columns` values stored as spec.type. kQuantShape when int4 rows would not fill whole bytes.
Result<uint64_t> PackedRowBytes(const QuantSpec& spec, int64_t columns);

// Quantizes (or casts, for f32 and f16) `num_rows` rows of `columns` floats.
//   values: [num_rows, columns]; packed: [num_rows * PackedRowBytes]; scales: [num_rows], untouched for float types.
// Symmetric absmax: scale = absmax / 7 (int4) or / 127 (int8), code = round-half-even(value / scale), clamped to [-7, 7] or [-127, 127].
// An all-zero row gets a small normal scale: readers refuse zero and subnormal scales. kQuantValue on NaN or infinity, with the row.
Status QuantizeRows(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                    std::span<float> scales);
// The plain twin that tests hold QuantizeRows against: one value at a time, bit for bit the same result.
Status QuantizeRowsPlain(const QuantSpec& spec, std::span<const float> values, int64_t num_rows, int64_t columns, ByteSpan packed,
                         std::span<float> scales);

// The inverse. values: [num_rows, columns].
void DequantizeRows(const QuantSpec& spec, ByteView packed, std::span<const float> scales, int64_t num_rows, int64_t columns,
                    std::span<float> values);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_QUANTIZE_H_
