#include "tools/convert_arguments.h"

#include <gtest/gtest.h>

namespace taskpress {
namespace {

TEST(ParseBytesTest, ReadsNumbersUnitsAndFractions) {
  EXPECT_EQ(ParseBytes("--x", "0").value(), 0U);
  EXPECT_EQ(ParseBytes("--x", "300000000").value(), 300000000U);
  EXPECT_EQ(ParseBytes("--x", "1K").value(), 1024U);
  EXPECT_EQ(ParseBytes("--x", "256M").value(), 268435456U);
  EXPECT_EQ(ParseBytes("--x", "1g").value(), 1073741824U);
  EXPECT_EQ(ParseBytes("--x", "2.2G").value(), 2362232012U);  // 2.2 * 2^30 = 2362232012.8
  EXPECT_EQ(ParseBytes("--x", "0.5M").value(), 524288U);
  EXPECT_EQ(ParseBytes("--x", "1.000001K").value(), 1024U);
  EXPECT_EQ(ParseBytes("--x", "18446744073709551615").value(), UINT64_MAX);
}

TEST(ParseBytesTest, RefusesAnythingElse) {
  for (const char* text :
       {"", "G", ".5G", "1.G", "1.5", "-1G", "1 G", "1T", "1GB", "1.0000001G", "1.5.5G", "1e9", "18446744073709551616", "17179869184G"}) {
    const Result<uint64_t> bytes = ParseBytes("--x", text);
    ASSERT_FALSE(bytes.has_value()) << text;
    EXPECT_EQ(bytes.error().code, ErrorCode::kUsage);
    EXPECT_TRUE(bytes.error().message.starts_with(std::string("--x ") + text)) << bytes.error().message;
  }
}

}  // namespace
}  // namespace taskpress
