// Weights in blocks of 4 or 8 bits, as the operator com.microsoft.MatMulNBits reads them.
#ifndef TASKPRESS_CONVERTER_ONNX_BLOCKS_H_
#define TASKPRESS_CONVERTER_ONNX_BLOCKS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "converter/checkpoint.h"
#include "converter/onnx_model.h"
#include "schema/base/error.h"

namespace taskpress {

// The weight [rows, columns] of a linear layer. value = (code - zero point) * scale, with one of each per block of a row.
struct OnnxBlocks {
  int64_t rows = 0;                         // N
  int64_t columns = 0;                      // K
  int64_t bits = 4;                         // 4 or 8; two 4-bit codes per byte, the one of even index in the low nibble
  int64_t block_size = 0;                   // columns; the last block of a row may be cut, but is stored whole
  const OnnxTensor* codes = nullptr;        // u8 [rows, blocks, block_size * bits / 8]
  const OnnxTensor* scales = nullptr;       // f32, f16 or bf16 [rows * blocks]
  const OnnxTensor* zero_points = nullptr;  // u8, packed like codes, each row from a byte on; or floats like scales; null: 2^(bits - 1)

  friend bool operator==(const OnnxBlocks&, const OnnxBlocks&) = default;
  [[nodiscard]] int64_t blocks() const { return (columns + block_size - 1) / block_size; }
};

// The tensor behind an input of the node; null for an absent one or for a value that is computed.
using FindOnnxTensor = std::function<const OnnxTensor*(const std::string& name)>;

// N17: kOnnxModel when attributes and tensors contradict each other, kOnnxUnsupported for what is not read (other bits, g_idx).
Result<OnnxBlocks> ReadOnnxBlocks(const OnnxNode& node, const FindOnnxTensor& find);

// A block of rows and columns, which was checked, as float32.
void ReadOnnxBlocksRows(const OnnxBlocks& blocks, const RowBlock& block, std::span<float> out);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ONNX_BLOCKS_H_
