// Rows of ggml's types back to floats (ggml-quants.c, dequantize_row_*): once for the machine's vector unit, once plainly. Both give the
// same bits: a value is a product of its scale and its code, less a minimum where the type has one.
#ifndef TASKPRESS_QUANTIZER_GGML_BLOCKS_H_
#define TASKPRESS_QUANTIZER_GGML_BLOCKS_H_

#include <span>

#include "schema/base/bytes.h"
#include "schema/gguf.h"

namespace taskpress {

// blocks: whole blocks of `type`; out: [number of blocks * block_values]
void DequantizeGgml(GgmlType type, ByteView blocks, std::span<float> out);
void DequantizeGgmlPlainly(GgmlType type, ByteView blocks, std::span<float> out);

// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minimums into twelve bytes; group 0 to 7.
struct ScaleAndMinimum {
  uint8_t scale;
  uint8_t minimum;
};
[[nodiscard]] ScaleAndMinimum UnpackScaleAndMinimum(const std::byte* packed, size_t group);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_GGML_BLOCKS_H_
