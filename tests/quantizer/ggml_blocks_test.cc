#include "quantizer/ggml_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "schema/base/half.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;

std::vector<std::byte> Zeros(GgmlType type) { return std::vector<std::byte>(static_cast<size_t>(InfoOf(type).block_bytes)); }

void SetHalf(std::vector<std::byte>& block, size_t at, float value) { StoreLittle(block.data() + at, FloatToF16(value)); }

std::vector<float> Plain(GgmlType type, ByteView blocks) {
  std::vector<float> out(blocks.size() / static_cast<size_t>(InfoOf(type).block_bytes) * static_cast<size_t>(InfoOf(type).block_values));
  DequantizeGgmlPlainly(type, blocks, out);
  return out;
}

// By hand, from the drawings of the formats.
TEST(GgmlBlocksTest, Q4_0HoldsTwoHalvesOfSixteen) {
  std::vector<std::byte> block = Zeros(GgmlType::kQ4_0);
  SetHalf(block, 0, 0.5F);
  block[2] = std::byte{0xF1};  // values 0 and 16
  const std::vector<float> values = Plain(GgmlType::kQ4_0, block);
  EXPECT_EQ(values[0], 0.5F * (1 - 8));
  EXPECT_EQ(values[16], 0.5F * (15 - 8));
  EXPECT_EQ(values[1], 0.5F * -8);
}

TEST(GgmlBlocksTest, Q5_0HasItsFifthBitsInFront) {
  std::vector<std::byte> block = Zeros(GgmlType::kQ5_0);
  SetHalf(block, 0, 2.0F);
  block[2] = std::byte{0x02};  // value 1
  block[5] = std::byte{0x80};  // value 31
  block[7] = std::byte{0x03};  // values 1 and 17
  const std::vector<float> values = Plain(GgmlType::kQ5_0, block);
  EXPECT_EQ(values[1], 2.0F * (16 + 3 - 16));
  EXPECT_EQ(values[31], 2.0F * (16 - 16));
  EXPECT_EQ(values[0], 2.0F * -16);
}

TEST(GgmlBlocksTest, Q8_0IsAScaleAndCodes) {
  std::vector<std::byte> block = Zeros(GgmlType::kQ8_0);
  SetHalf(block, 0, 0.25F);
  block[2 + 31] = std::byte{0x80};
  EXPECT_EQ(Plain(GgmlType::kQ8_0, block)[31], 0.25F * -128);
}

TEST(GgmlBlocksTest, Q4_KHasSixBitScalesAndMinimums) {
  std::vector<std::byte> block = Zeros(GgmlType::kQ4_K);
  SetHalf(block, 0, 1.0F);             // of the scales
  SetHalf(block, 2, 0.25F);            // of the minimums
  block[4 + 1] = std::byte{0xC0 | 5};  // group 1: scale 5; high bits of group 5's scale: 3
  block[4 + 5] = std::byte{0x40 | 9};  // group 1: minimum 9; high bits of group 5's minimum: 1
  block[4 + 9] = std::byte{0x27};      // group 5: scale 7 below, minimum 2 below
  block[16] = std::byte{0xA0};         // value 32, of group 1: code 10
  block[16 + 64] = std::byte{0x30};    // value 160, of group 5: code 3
  const std::vector<float> values = Plain(GgmlType::kQ4_K, block);
  EXPECT_EQ(values[32], 5.0F * 10 - 0.25F * 9);
  EXPECT_EQ(values[33], -0.25F * 9);
  EXPECT_EQ(values[160], static_cast<float>((3 << 4) + 7) * 3 - 0.25F * static_cast<float>((1 << 4) + 2));
  EXPECT_EQ(values[0], 0.0F);
}

TEST(GgmlBlocksTest, Q5_KKeepsAFifthBitPerGroup) {
  std::vector<std::byte> block = Zeros(GgmlType::kQ5_K);
  SetHalf(block, 0, 1.0F);
  block[4] = std::byte{1};          // scale of group 0
  block[4 + 3] = std::byte{2};      // scale of group 3
  block[16 + 6] = std::byte{0x09};  // fifth bits of value 6 of groups 0 and 3
  block[48 + 6] = std::byte{0x04};  // value 6: code 4
  const std::vector<float> values = Plain(GgmlType::kQ5_K, block);
  EXPECT_EQ(values[6], 16.0F + 4.0F);
  EXPECT_EQ(values[3 * 32 + 6], 2.0F * 16);
  EXPECT_EQ(values[7], 0.0F);
}

TEST(GgmlBlocksTest, Q6_KSpreadsAByteOverFourQuarters) {
  std::vector<std::byte> block = Zeros(GgmlType::kQ6_K);
  SetHalf(block, 208, 0.5F);
  for (size_t i = 0; i < 16; ++i) block[192 + i] = static_cast<std::byte>(static_cast<int8_t>(-1 - static_cast<int>(i)));
  block[64 + 32 + 5] = std::byte{0x7B};   // second half, quarters 1 (low) and 3 (high), position 5
  block[128 + 32 + 5] = std::byte{0xC4};  // quarter 1: 1, quarter 3: 3
  const std::vector<float> values = Plain(GgmlType::kQ6_K, block);
  EXPECT_EQ(values[128 + 32 + 5], 0.5F * -11 * (0x1B - 32));
  EXPECT_EQ(values[128 + 96 + 5], 0.5F * -15 * (0x37 - 32));
  EXPECT_EQ(values[0], 0.5F * -1 * -32);
}

TEST(GgmlBlocksTest, FloatsOfThreeWidths) {
  const std::vector<float> given{1.5F, -2.0F};
  EXPECT_THAT(Plain(GgmlType::kF32, std::as_bytes(std::span(given))), ElementsAre(1.5F, -2.0F));
  const std::vector<uint16_t> halves{FloatToF16(1.5F), FloatToF16(-2.0F)};
  EXPECT_THAT(Plain(GgmlType::kF16, std::as_bytes(std::span(halves))), ElementsAre(1.5F, -2.0F));
  const std::vector<uint16_t> brains{FloatToBf16(1.5F), FloatToBf16(-2.0F)};
  EXPECT_THAT(Plain(GgmlType::kBF16, std::as_bytes(std::span(brains))), ElementsAre(1.5F, -2.0F));
}

class GgmlTwins : public ::testing::TestWithParam<GgmlTypeInfo> {};

// Random blocks, every bit pattern of codes and scales.
TEST_P(GgmlTwins, GiveTheSameBits) {
  const GgmlTypeInfo& info = GetParam();
  std::mt19937 generator(20261124);
  constexpr size_t kBlocks = 500;
  std::vector<std::byte> blocks(kBlocks * static_cast<size_t>(info.block_bytes));
  for (std::byte& byte : blocks) byte = static_cast<std::byte>(generator());
  const std::vector<float> plain = Plain(info.type, blocks);
  std::vector<float> fast(plain.size());
  DequantizeGgml(info.type, blocks, fast);
  for (size_t i = 0; i < plain.size(); ++i) {
    if (std::isnan(plain[i]) && std::isnan(fast[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(plain[i]), std::bit_cast<uint32_t>(fast[i])) << i << ": " << plain[i] << " " << fast[i];
  }
  EXPECT_GT(std::ranges::count_if(plain, [](float value) { return std::isfinite(value) && value != 0; }), 100);
}

INSTANTIATE_TEST_SUITE_P(AllTypes, GgmlTwins, ::testing::ValuesIn(AllGgmlTypes().begin(), AllGgmlTypes().end()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace taskpress
