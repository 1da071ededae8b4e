// Blocks of stored matrices as floats; what every file-backed Checkpoint does with the bytes it found.
#ifndef TASKPRESS_CONVERTER_TENSOR_ROWS_H_
#define TASKPRESS_CONVERTER_TENSOR_ROWS_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "converter/checkpoint.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

// kReadFailed unless the block lies inside the tensor's matrix and fills exactly `room` floats.
Status CheckBlock(std::string_view name, const Shape& shape, RowBlock block, uint64_t room);

// Converts out.size() elements that lie back to back, at any address. Exact, or rounded to nearest from f64, i32 and i64. Not for kI4.
void ToFloat(DType type, const std::byte* from, std::span<float> out);

// The block of a row-major matrix whose rows have `columns` elements. `bytes` holds the whole matrix, the block was checked.
void ReadBlock(DType type, ByteView bytes, int64_t columns, const RowBlock& block, std::span<float> out);

// The same of the transposed matrix: element [r, c] of the block's matrix is element [c, r] of the stored one, whose rows have
// `stored_columns` elements.
void ReadTransposedBlock(DType type, ByteView bytes, int64_t stored_columns, const RowBlock& block, std::span<float> out);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TENSOR_ROWS_H_
