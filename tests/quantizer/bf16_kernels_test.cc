#include "quantizer/bf16_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <vector>

namespace taskpress {
namespace {

std::vector<uint32_t> BitsOf(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

// Every bfloat16 there is, behind `shift` other bytes.
std::vector<std::byte> AllValues(size_t shift) {
  std::vector<std::byte> bytes(shift);
  for (uint32_t value = 0; value <= 0xFFFF; ++value) {
    bytes.push_back(static_cast<std::byte>(value & 0xFFU));
    bytes.push_back(static_cast<std::byte>(value >> 8U));
  }
  return bytes;
}

TEST(Bf16KernelsTest, EveryValueIsTheUpperHalfOfItsFloatAtEveryAlignment) {
  for (const size_t shift : {0U, 1U, 2U, 3U, 7U}) {
    const std::vector<std::byte> bytes = AllValues(shift);
    std::vector<float> fast(0x10000);
    std::vector<float> plain(0x10000);
    Bf16RowToFloat(bytes.data() + shift, fast);
    Bf16RowToFloatPlain(bytes.data() + shift, plain);
    EXPECT_EQ(BitsOf(fast), BitsOf(plain));
    for (uint32_t value = 0; value <= 0xFFFF; ++value) ASSERT_EQ(std::bit_cast<uint32_t>(plain[value]), value << 16U);
  }
}

TEST(Bf16KernelsTest, EveryLengthIsConvertedToItsEndAndNotBeyond) {
  const std::vector<std::byte> bytes = AllValues(0);
  for (size_t length = 0; length < 150; ++length) {
    std::vector<float> fast(length + 1, 42.0F);
    std::vector<float> plain(length + 1, 42.0F);
    Bf16RowToFloat(bytes.data() + 2 * 16000, std::span(fast).first(length));
    Bf16RowToFloatPlain(bytes.data() + 2 * 16000, std::span(plain).first(length));
    EXPECT_EQ(BitsOf(fast), BitsOf(plain));
    EXPECT_EQ(fast.back(), 42.0F);
  }
}

TEST(Bf16KernelsTest, ColumnsAreGatheredFromEveryRow) {
  const std::vector<std::byte> bytes = AllValues(1);
  for (const size_t columns : {1U, 5U, 64U, 100U}) {
    for (const size_t rows : {0U, 1U, 3U, 17U}) {
      constexpr size_t kStride = 2 * 300;
      std::vector<float> fast(rows * columns);
      std::vector<float> plain(rows * columns);
      Bf16ColumnsToFloat(bytes.data() + 1 + 2 * 77, kStride, rows, fast);
      Bf16ColumnsToFloatPlain(bytes.data() + 1 + 2 * 77, kStride, rows, plain);
      EXPECT_EQ(BitsOf(fast), BitsOf(plain));
      for (size_t row = 0; row < rows; ++row) {
        ASSERT_EQ(std::bit_cast<uint32_t>(plain[row * columns + columns - 1]), (77 + row * 300 + columns - 1) << 16U);
      }
    }
  }
}

}  // namespace
}  // namespace taskpress
