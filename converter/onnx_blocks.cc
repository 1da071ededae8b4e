#include "converter/onnx_blocks.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <optional>

#include "converter/tensor_rows.h"
#include "schema/base/checked_math.h"
#include "schema/base/text.h"

namespace taskpress {
namespace {

// Inputs of the operator.
constexpr size_t kCodes = 1;
constexpr size_t kScales = 2;
constexpr size_t kZeroPoints = 3;
constexpr size_t kGroupIndex = 4;
constexpr int64_t kSmallestBlock = 16;
// Keeps every product of two below from overflowing.
constexpr int64_t kLargestSide = std::numeric_limits<int32_t>::max();

bool IsFloat(const OnnxTensor& tensor) { return tensor.type == DType::kF32 || tensor.type == DType::kF16 || tensor.type == DType::kBF16; }

int64_t Elements(const OnnxTensor& tensor) { return NumElements(tensor.shape).value_or(-1); }

Result<int64_t> Attribute(const OnnxNode& node, const std::string& name, int64_t smallest) {
  const auto found = node.integers.find(name);
  if (found == node.integers.end()) return Fail(ErrorCode::kOnnxModel, "the attribute {} is missing", name);
  if (found->second >= smallest && found->second <= kLargestSide) return found->second;
  return Fail(ErrorCode::kOnnxModel, "the attribute {} is {}", name, found->second);
}

int64_t RowBytesOfZeroPoints(const OnnxBlocks& blocks) { return (blocks.blocks() * blocks.bits + 7) / 8; }

uint32_t Code(const std::byte* row, int64_t index, int64_t bits) {
  if (bits == 8) return std::to_integer<uint32_t>(row[index]);
  const auto pair = std::to_integer<uint32_t>(row[index / 2]);
  return index % 2 == 0 ? pair & 0xfU : pair >> 4;
}

float FloatAt(const OnnxTensor& tensor, int64_t index) {
  float value = 0;
  ToFloat(*tensor.type, tensor.bytes.data() + index * InfoOf(*tensor.type).bits / 8, std::span(&value, 1));
  return value;
}

float ZeroPoint(const OnnxBlocks& blocks, int64_t row, int64_t block) {
  if (blocks.zero_points == nullptr) return static_cast<float>(1U << (blocks.bits - 1));
  if (IsFloat(*blocks.zero_points)) return FloatAt(*blocks.zero_points, row * blocks.blocks() + block);
  const std::byte* packed = blocks.zero_points->bytes.data() + row * RowBytesOfZeroPoints(blocks);
  return static_cast<float>(Code(packed, block, blocks.bits));
}

Status CheckTensors(const OnnxBlocks& blocks) {
  const int64_t blob = blocks.block_size * blocks.bits / 8;
  const int64_t per_row = blocks.blocks();
  const std::optional<int64_t> scales = CheckedMul(blocks.rows, per_row);
  const std::optional<int64_t> codes = scales ? CheckedMul(*scales, blob) : std::nullopt;
  if (blocks.codes->type != DType::kU8 || codes != Elements(*blocks.codes)) {
    return Fail(ErrorCode::kOnnxModel, "codes {} {} do not fit u8 [{},{},{}]", blocks.codes->type_name, ToString(blocks.codes->shape),
                blocks.rows, per_row, blob);
  }
  if (!IsFloat(*blocks.scales) || scales != Elements(*blocks.scales)) {
    return Fail(ErrorCode::kOnnxModel, "scales {} {} are not {} floats", blocks.scales->type_name, ToString(blocks.scales->shape), *scales);
  }
  if (blocks.zero_points == nullptr) return {};
  const OnnxTensor& zero = *blocks.zero_points;
  const bool packed = zero.type == DType::kU8 && CheckedMul(blocks.rows, RowBytesOfZeroPoints(blocks)) == Elements(zero);
  if (packed || (zero.type == blocks.scales->type && scales == Elements(zero))) return {};
  return Fail(ErrorCode::kOnnxModel, "zero points {} {} are neither u8 [{},{}] nor of the scales' type and number", zero.type_name,
              ToString(zero.shape), blocks.rows, RowBytesOfZeroPoints(blocks));
}

Result<OnnxBlocks> ReadBlocks(const OnnxNode& node, const FindOnnxTensor& find) {
  const auto input = [&](size_t index) { return index < node.inputs.size() ? node.inputs[index] : std::string(); };
  OnnxBlocks blocks;
  blocks.rows = TRY(Attribute(node, "N", 1));
  blocks.columns = TRY(Attribute(node, "K", 1));
  blocks.bits = node.integers.contains("bits") ? TRY(Attribute(node, "bits", 1)) : 4;
  blocks.block_size = TRY(Attribute(node, "block_size", kSmallestBlock));
  if (blocks.bits != 4 && blocks.bits != 8) return Fail(ErrorCode::kOnnxUnsupported, "{} bits; 4 and 8 are read", blocks.bits);
  if (!std::has_single_bit(static_cast<uint64_t>(blocks.block_size))) {
    return Fail(ErrorCode::kOnnxModel, "block_size {} is no power of two", blocks.block_size);
  }
  if (!input(kGroupIndex).empty()) return Fail(ErrorCode::kOnnxUnsupported, "reordered columns (g_idx) are not read");
  blocks.codes = find(input(kCodes));
  blocks.scales = find(input(kScales));
  blocks.zero_points = find(input(kZeroPoints));
  const bool zero_points_computed = blocks.zero_points == nullptr && !input(kZeroPoints).empty();
  if (blocks.codes == nullptr || blocks.scales == nullptr || zero_points_computed) {
    return Fail(ErrorCode::kOnnxUnsupported, "its codes, scales or zero points are computed, not stored");
  }
  TRY(CheckTensors(blocks));
  return blocks;
}

}  // namespace

Result<OnnxBlocks> ReadOnnxBlocks(const OnnxNode& node, const FindOnnxTensor& find) {
  Result<OnnxBlocks> blocks = ReadBlocks(node, find);
  if (!blocks) return std::unexpected(WithContext(std::move(blocks).error(), Format("MatMulNBits {}", Printable(node.name))));
  return blocks;
}

void ReadOnnxBlocksRows(const OnnxBlocks& blocks, const RowBlock& block, std::span<float> out) {
  const int64_t row_bytes = blocks.blocks() * blocks.block_size * blocks.bits / 8;
  const int64_t end_column = block.first_column + block.num_columns;
  float* to = out.data();
  for (int64_t row = block.first_row; row < block.first_row + block.num_rows; ++row) {
    const std::byte* codes = blocks.codes->bytes.data() + row * row_bytes;
    for (int64_t column = block.first_column; column < end_column;) {
      const int64_t index = column / blocks.block_size;
      const int64_t end = std::min(end_column, (index + 1) * blocks.block_size);
      const float scale = FloatAt(*blocks.scales, row * blocks.blocks() + index);
      const float zero = ZeroPoint(blocks, row, index);
      for (; column < end; ++column) *to++ = (static_cast<float>(Code(codes, column, blocks.bits)) - zero) * scale;
    }
  }
}

}  // namespace taskpress
