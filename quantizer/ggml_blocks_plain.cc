#include <cstring>

#include "quantizer/ggml_blocks.h"
#include "schema/base/half.h"

// One value at a time, written as the formats are drawn in FORMATS.md, section GGUF.
namespace taskpress {
namespace {

uint32_t Byte(const std::byte* block, size_t index) { return std::to_integer<uint32_t>(block[index]); }
float Half(const std::byte* block, size_t index) { return F16ToFloat(LoadLittle<uint16_t>(block + index)); }

// value i of a block of the type
float Q8_0(const std::byte* block, size_t i) { return Half(block, 0) * static_cast<float>(static_cast<int8_t>(Byte(block, 2 + i))); }

// Byte j holds values j (low half) and j + 16.
uint32_t Nibble(const std::byte* codes, size_t i, size_t half) {
  return i % (2 * half) < half ? Byte(codes, i % half) & 0xFU : Byte(codes, i % half) >> 4;
}

float Q4_0(const std::byte* block, size_t i) { return Half(block, 0) * static_cast<float>(static_cast<int>(Nibble(block + 2, i, 16)) - 8); }

float Q5_0(const std::byte* block, size_t i) {
  const uint32_t fifth = (LoadLittle<uint32_t>(block + 2) >> i) & 1U;
  return Half(block, 0) * static_cast<float>(static_cast<int>(Nibble(block + 6, i, 16) | (fifth << 4)) - 16);
}

float WithMinimum(const std::byte* block, size_t i, uint32_t code) {
  const auto [scale, minimum] = UnpackScaleAndMinimum(block + 4, i / 32);
  const float product = Half(block, 0) * static_cast<float>(scale) * static_cast<float>(code);
  return product - Half(block, 2) * static_cast<float>(minimum);
}

// 64 values share 32 bytes.
float Q4_K(const std::byte* block, size_t i) { return WithMinimum(block, i, Nibble(block + 16 + 32 * (i / 64), i, 32)); }

float Q5_K(const std::byte* block, size_t i) {
  const uint32_t fifth = (Byte(block, 16 + i % 32) >> (i / 32)) & 1U;
  return WithMinimum(block, i, Nibble(block + 48 + 32 * (i / 64), i, 32) | (fifth << 4));
}

// Each half of 128 values: 64 bytes of low bits, 32 bytes of high bits; a byte serves the values l, l + 32, l + 64 and l + 96.
float Q6_K(const std::byte* block, size_t i) {
  const size_t half = i / 128;
  const size_t quarter = i % 128 / 32;
  const uint32_t low_byte = Byte(block, 64 * half + 32 * (quarter % 2) + i % 32);
  const uint32_t low = quarter < 2 ? low_byte & 0xFU : low_byte >> 4;
  const uint32_t high = (Byte(block, 128 + 32 * half + i % 32) >> (2 * quarter)) & 3U;
  const auto scale = static_cast<int8_t>(Byte(block, 192 + i / 16));
  return Half(block, 208) * static_cast<float>(scale) * static_cast<float>(static_cast<int>(low | (high << 4)) - 32);
}

float Value(GgmlType type, const std::byte* block, size_t i) {
  switch (type) {
    case GgmlType::kF32:
      return LoadLittle<float>(block);
    case GgmlType::kF16:
      return Half(block, 0);
    case GgmlType::kBF16:
      return Bf16ToFloat(LoadLittle<uint16_t>(block));
    case GgmlType::kQ8_0:
      return Q8_0(block, i);
    case GgmlType::kQ4_0:
      return Q4_0(block, i);
    case GgmlType::kQ5_0:
      return Q5_0(block, i);
    case GgmlType::kQ4_K:
      return Q4_K(block, i);
    case GgmlType::kQ5_K:
      return Q5_K(block, i);
    case GgmlType::kQ6_K:
      return Q6_K(block, i);
  }
  return 0;
}

}  // namespace

ScaleAndMinimum UnpackScaleAndMinimum(const std::byte* packed, size_t group) {
  if (group < 4) return {static_cast<uint8_t>(Byte(packed, group) & 63U), static_cast<uint8_t>(Byte(packed, group + 4) & 63U)};
  const uint32_t low = Byte(packed, group + 4);
  return {static_cast<uint8_t>((low & 0xFU) | (Byte(packed, group - 4) >> 6) << 4),
          static_cast<uint8_t>((low >> 4) | (Byte(packed, group) >> 6) << 4)};
}

void DequantizeGgmlPlainly(GgmlType type, ByteView blocks, std::span<float> out) {
  const GgmlTypeInfo& info = InfoOf(type);
  const auto values = static_cast<size_t>(info.block_values);
  const auto bytes = static_cast<size_t>(info.block_bytes);
  for (size_t i = 0; i < out.size(); ++i) out[i] = Value(type, blocks.data() + i / values * bytes, i % values);
}

}  // namespace taskpress
