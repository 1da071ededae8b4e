// bfloat16 rows as checkpoints store them -> float32: once for the machine's vector unit (Highway picks it when the program runs), once
// plainly. A bfloat16 is the upper half of a float32, so both give the same bits, NaN payloads included.
#ifndef TASKPRESS_QUANTIZER_BF16_KERNELS_H_
#define TASKPRESS_QUANTIZER_BF16_KERNELS_H_

#include <cstddef>
#include <span>

namespace taskpress {

// Converts out.size() little-endian values; `from` may begin at any byte.
void Bf16RowToFloat(const std::byte* from, std::span<float> out);
void Bf16RowToFloatPlain(const std::byte* from, std::span<float> out);

// A gather of columns: out[row] = the out.size() / rows values that begin at from + row * stride. One layer of the per-layer table.
void Bf16ColumnsToFloat(const std::byte* from, size_t stride_bytes, size_t rows, std::span<float> out);
void Bf16ColumnsToFloatPlain(const std::byte* from, size_t stride_bytes, size_t rows, std::span<float> out);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_BF16_KERNELS_H_
