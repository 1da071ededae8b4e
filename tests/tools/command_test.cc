#include "tools/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ParseTokensTest, ReadsIdsSeparatedByCommas) {
  EXPECT_THAT(ParseTokens("2").value(), ElementsAre(2));
  EXPECT_THAT(ParseTokens("2,818,5279").value(), ElementsAre(2, 818, 5279));
  EXPECT_THAT(ParseTokens("0,2147483647").value(), ElementsAre(0, INT32_MAX));
  EXPECT_THAT(ParseTokens("").value(), IsEmpty());
}

TEST(ParseTokensTest, RefusesAnythingElse) {
  for (const char* text :
       {",", "2,", ",2", "2,,3", "2, 3", " 2", "2 ", "a", "2;3", "-1", "+1", "1.5", "2147483648", "99999999999999999999", "0x10"}) {
    const Result<std::vector<int32_t>> tokens = ParseTokens(text);
    ASSERT_FALSE(tokens.has_value()) << text;
    EXPECT_EQ(tokens.error().code, ErrorCode::kUsage);
    EXPECT_THAT(tokens.error().message, HasSubstr(std::string("--tokens ") + text));
  }
}

TEST(ParseTokensTest, ReadsIdsFromAJsonFile) {
  const TempFolder folder;
  const auto parse = [&](const char* json) { return ParseTokens("@" + folder.Write("ids.json", json).string()); };
  EXPECT_THAT(parse("[2, 818]").value(), ElementsAre(2, 818));
  EXPECT_THAT(parse("{\"ids\": [2, 818]}").value(), ElementsAre(2, 818));
  EXPECT_THAT(parse("[]").value(), IsEmpty());
  for (const char* lie :
       {"{}", "2", "\"2\"", "[2.0]", "[\"2\"]", "[-1]", "[2147483648]", "[18446744073709551615]", "[[2]]", "[null]", "{\"ids\": 2}"}) {
    ASSERT_FALSE(parse(lie).has_value()) << lie;
    EXPECT_EQ(parse(lie).error().code, ErrorCode::kUsage) << lie;
    EXPECT_THAT(parse(lie).error().message, HasSubstr("ids.json")) << lie;
  }
  EXPECT_EQ(parse("[2").error().code, ErrorCode::kBadJson);
  EXPECT_EQ(ParseTokens("@" + (folder.path() / "none").string()).error().code, ErrorCode::kFileNotFound);
}

TEST(ParseLengthsTest, NamesItsOption) {
  EXPECT_THAT(ParseLengths("--prefill", "8,128").value(), ElementsAre(8, 128));
  EXPECT_THAT(ParseLengths("--prefill", "8;128").error().message, HasSubstr("--prefill 8;128"));
  EXPECT_FALSE(ParseLengths("--prefill", "@file").has_value());
}

TEST(CheckThreadsTest, AllowsWhatAMachineMayHave) {
  for (const int threads : {0, 1, 2, 1024}) EXPECT_TRUE(CheckThreads(threads).has_value()) << threads;
  for (const int threads : {-1, 1025, INT32_MAX}) EXPECT_EQ(CheckThreads(threads).error().code, ErrorCode::kUsage) << threads;
}

}  // namespace
}  // namespace taskpress
