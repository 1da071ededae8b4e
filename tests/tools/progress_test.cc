#include "tools/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>

#include "schema/json.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What a progress says on standard error.
template <typename Talk>
std::string Said(ProgressStyle style, Talk talk) {
  std::ostringstream heard;
  std::streambuf* const before = std::cerr.rdbuf(heard.rdbuf());
  {
    Progress progress(style);
    talk(progress);
  }
  std::cerr.rdbuf(before);
  return heard.str();
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

void TwoStages(Progress& progress) {
  for (uint64_t done = 0; done <= 1000; ++done) progress.Update("write", "tensor", done * 1000, 1'000'000);
  progress.Update("verify", "", 0, 0);
}

TEST(ProgressTest, StylesHaveNames) {
  EXPECT_EQ(ProgressStyleFromName("none").value(), ProgressStyle::kSilent);
  EXPECT_EQ(ProgressStyleFromName("bar").value(), ProgressStyle::kBar);
  EXPECT_EQ(ProgressStyleFromName("plain").value(), ProgressStyle::kPlain);
  EXPECT_EQ(ProgressStyleFromName("json").value(), ProgressStyle::kJson);
  EXPECT_TRUE(ProgressStyleFromName("auto").has_value());
  EXPECT_EQ(ProgressStyleFromName("Bar").error().code, ErrorCode::kUsage);
}

TEST(ProgressTest, SilenceIsSilent) { EXPECT_EQ(Said(ProgressStyle::kSilent, TwoStages), ""); }

// The first and the last update of a stage and few between, however often it is called.
TEST(ProgressTest, PlainLinesAreFew) {
  const std::vector<std::string> lines = Lines(Said(ProgressStyle::kPlain, TwoStages));
  ASSERT_GE(lines.size(), 3U);
  EXPECT_LE(lines.size(), 10U);
  EXPECT_EQ(lines.front(), "write: 0% of 1.0 MB tensor");
  EXPECT_EQ(lines[lines.size() - 2], "write: 100% of 1.0 MB tensor");
  EXPECT_EQ(lines.back(), "verify");
}

TEST(ProgressTest, JsonIsOneDocumentALine) {
  const std::vector<std::string> lines = Lines(Said(ProgressStyle::kJson, TwoStages));
  ASSERT_GE(lines.size(), 3U);
  for (const std::string& line : lines) EXPECT_EQ(Json::parse(line)["schema"], "taskpress/progress/1");
  const Json last = Json::parse(lines[lines.size() - 2]);
  EXPECT_EQ(last["stage"], "write");
  EXPECT_EQ(last["tensor"], "tensor");
  EXPECT_EQ(last["bytes_done"], 1'000'000);
  EXPECT_EQ(last["bytes_total"], 1'000'000);
}

TEST(ProgressTest, ABarIsDrawnInOneLineAndTakenAway) {
  const std::string said = Said(ProgressStyle::kBar, [](Progress& progress) {
    progress.Update("write", "tensor", 250, 1000);
    progress.Update("write", "tensor", 1000, 1000);
  });
  EXPECT_THAT(said, HasSubstr("[#######.......................]  25%"));
  EXPECT_THAT(said, HasSubstr("[##############################] 100%"));
  EXPECT_THAT(said, Not(HasSubstr("\n")));
  EXPECT_TRUE(said.ends_with("\r\x1b[K"));
}

// More than was announced is no reason to draw beyond the end.
TEST(ProgressTest, ABarHasAnEnd) {
  EXPECT_THAT(Said(ProgressStyle::kBar, [](Progress& progress) { progress.Update("write", "", 3000, 1000); }), HasSubstr("] 100%"));
}

}  // namespace
}  // namespace taskpress
