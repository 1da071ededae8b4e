#include "schema/int_packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace taskpress {
namespace {

using testing::ElementsAre;

TEST(IntPackingTest, TheSixteenValuesMakeTheBytesTfliteStores) {
  const std::vector<int8_t> values = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<std::byte> packed(8);
  PackInt4(values, packed);
  EXPECT_THAT(packed, ElementsAre(std::byte{0x98}, std::byte{0xBA}, std::byte{0xDC}, std::byte{0xFE}, std::byte{0x10}, std::byte{0x32},
                                  std::byte{0x54}, std::byte{0x76}));
}

TEST(IntPackingTest, EveryByteUnpacksToTwoValuesAndPacksBack) {
  for (int bits = 0; bits < 256; ++bits) {
    const auto pair = static_cast<std::byte>(bits);
    const int low = bits % 16;
    const int high = bits / 16;
    EXPECT_EQ(EvenInt4(pair), low < 8 ? low : low - 16) << bits;
    EXPECT_EQ(OddInt4(pair), high < 8 ? high : high - 16) << bits;
    EXPECT_EQ(PackInt4Pair(EvenInt4(pair), OddInt4(pair)), pair) << bits;
  }
}

TEST(IntPackingTest, EveryPairOfValuesRoundTrips) {
  for (int even = -8; even <= 7; ++even) {
    for (int odd = -8; odd <= 7; ++odd) {
      const std::byte pair = PackInt4Pair(static_cast<int8_t>(even), static_cast<int8_t>(odd));
      EXPECT_EQ(EvenInt4(pair), even);
      EXPECT_EQ(OddInt4(pair), odd);
    }
  }
}

TEST(IntPackingTest, EveryLengthRoundTripsAndAnOddTailLeavesTheHighNibbleZero) {
  for (size_t count = 0; count <= 33; ++count) {
    std::vector<int8_t> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<int8_t>(static_cast<int>(i * 5 % 16) - 8);
    std::vector<std::byte> packed(PackedInt4Bytes(count), std::byte{0xFF});
    PackInt4(values, packed);
    if (count % 2 != 0) {
      EXPECT_EQ(packed.back() >> 4, std::byte{0}) << count;
    }
    std::vector<int8_t> back(count, 99);
    UnpackInt4(packed, back);
    EXPECT_EQ(back, values) << count;
  }
}

TEST(IntPackingTest, ByteCountsDoNotOverflow) {
  EXPECT_EQ(PackedInt4Bytes(0), 0U);
  EXPECT_EQ(PackedInt4Bytes(1), 1U);
  EXPECT_EQ(PackedInt4Bytes(2), 1U);
  EXPECT_EQ(PackedInt4Bytes(~uint64_t{0}), uint64_t{1} << 63);
}

}  // namespace
}  // namespace taskpress
