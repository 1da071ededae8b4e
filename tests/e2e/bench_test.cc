// bench and --profile: the figures that scripts read are there, make sense and say what was really done.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/command_line.h"

namespace taskpress::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class BenchTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempFolder;
    TaskpressJson({"convert", Micro(), "-o", Bundle(), "--context", "64", "--prefill", "8", "--no-lock"});
  }
  static void TearDownTestSuite() { delete shared_; }
  static std::string Bundle() { return (shared_->path() / "m.task").string(); }
  static std::vector<std::string> Command(std::vector<std::string> more) {
    std::vector<std::string> command = {"bench", Bundle(), "-p", "20", "-n", "5", "-r", "2", "--weight-cache", "none"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  static TempFolder* shared_;
};
TempFolder* BenchTest::shared_ = nullptr;

TEST_F(BenchTest, ReportsEveryFigureOfAModelCard) {
  const nlohmann::json report = TaskpressJson(Command({"-t", "1"}));
  EXPECT_EQ(report["schema"], "taskpress/bench/1");
  for (const std::string kind : {"prefill", "decode"}) {
    const nlohmann::json& speed = report[kind]["tokens_per_s"];
    EXPECT_EQ(speed["runs"].size(), 2U);
    EXPECT_GT(speed["mean"], 0.0);
    EXPECT_NEAR(speed["mean"].get<double>(), (speed["runs"][0].get<double>() + speed["runs"][1].get<double>()) / 2, 1e-6);
    EXPECT_GE(speed["sd"], 0.0);
  }
  EXPECT_EQ(report["prefill"]["tokens"], 20);
  EXPECT_EQ(report["decode"]["tokens"], 5);
  EXPECT_EQ(report["threads"], 1);
  EXPECT_EQ(report["model_bytes"], std::filesystem::file_size(Bundle()));
  EXPECT_GT(report["time_to_first_token_s"], 0.0);
  EXPECT_GT(report["load_s"], 0.0);
  EXPECT_GT(report["load_again_s"], 0.0);
  EXPECT_EQ(report["weight_cache"], "off");
  EXPECT_GT(report["packed_weights"]["anonymous_bytes"], 0);
  EXPECT_EQ(report["packed_weights"]["mapped_bytes"], 0);
  EXPECT_GT(report["peak_anonymous_bytes"], 0);
  EXPECT_GT(report["peak_file_bytes"], 0);
  EXPECT_GE(report["peak_rss_bytes"], report["peak_anonymous_bytes"]);
  EXPECT_GT(report["roofline"]["matrix_products_per_s"], 0.0);
  EXPECT_GT(report["roofline"]["prefill_share"], 0.0);
  EXPECT_GT(report["roofline"]["decode_share"], 0.0);
  EXPECT_FALSE(report["cpu"].get<std::string>().empty());
  EXPECT_FALSE(report.contains("scaling"));
}

TEST_F(BenchTest, SeveralNumbersOfThreadsAndDepthsAreOneTable) {
  const nlohmann::json report = TaskpressJson(Command({"-t", "1,2", "--depth", "0,40,60", "--no-roofline"}));
  ASSERT_EQ(report["scaling"].size(), 2U);
  EXPECT_EQ(report["scaling"][0]["threads"], 1);
  EXPECT_EQ(report["scaling"][1]["threads"], 2);
  EXPECT_EQ(report["scaling"][0]["prefill"], report["prefill"]);
  ASSERT_EQ(report["decode_at_depth"].size(), 3U);
  EXPECT_EQ(report["decode_at_depth"][1]["depth"], 40);
  EXPECT_EQ(report["decode_at_depth"][2]["tokens_per_s"]["runs"].size(), 2U);
  EXPECT_FALSE(report.contains("roofline"));
  EXPECT_EQ(Taskpress(Command({"--depth", "64"})).status, 2);
  EXPECT_EQ(Taskpress(Command({"-t", "1,x"})).status, 2);
  EXPECT_EQ(Taskpress(Command({"--format", "html"})).status, 2);
}

TEST_F(BenchTest, SaysWhereThePackedWeightsAre) {
  const std::string cache = (shared_->path() / "cache").string();
  std::vector<std::string> command = Command({"-t", "1", "--no-roofline"});
  command.insert(command.end(), {"--weight-cache", cache});
  command.erase(std::ranges::find(command, "none") - 1, std::ranges::find(command, "none") + 1);
  const nlohmann::json first = TaskpressJson(command);
  EXPECT_EQ(first["weight_cache"], "written");
  EXPECT_EQ(first["packed_weights"]["anonymous_bytes"], 0);
  EXPECT_GT(first["packed_weights"]["mapped_bytes"], 0);
  EXPECT_EQ(TaskpressJson(command)["weight_cache"], "used");
}

TEST_F(BenchTest, PrintsTextMarkdownAndCsv) {
  const Finished csv = Taskpress(Command({"-t", "1", "--no-roofline", "--no-second-start", "--format", "csv"}));
  EXPECT_EQ(csv.status, 0) << csv.err;
  EXPECT_THAT(csv.out, StartsWith("test,threads,mean,sd,unit\n\"prefill 20\",1,"));
  const Finished markdown = Taskpress(Command({"-t", "1", "--warm-up", "0", "--no-second-start", "--format", "md"}));
  EXPECT_EQ(markdown.status, 0) << markdown.err;
  EXPECT_THAT(markdown.out, HasSubstr("| test | threads | mean +- sd | unit |\n|---|---|---|---|\n| prefill 20 | 1 | "));
  EXPECT_THAT(markdown.out, HasSubstr("| decode's share of it | 1 | "));
  EXPECT_THAT(Taskpress(Command({"-t", "1", "--no-roofline"})).out, HasSubstr("time to first token"));
}

TEST_F(BenchTest, AProfileTellsOperatorsLayersAndEveryStep) {
  const std::string file = (shared_->path() / "trace.json").string();
  const Finished run = Taskpress(
      {"run", Bundle(), "--tokens", "2,5,9,7,8,10,11,12,13,14", "-n", "3", "-t", "1", "--profile", file, "--weight-cache", "none"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.err, HasSubstr("FULLY_CONNECTED ("));
  EXPECT_THAT(run.err, HasSubstr("layer 3"));
  const nlohmann::json events = nlohmann::json::parse(ReadFileBytes(file))["traceEvents"];
  std::set<std::string> signatures;
  std::set<int> layers;
  for (const nlohmann::json& event : events) {
    signatures.insert(event["cat"]);
    if (event["args"].contains("layer")) layers.insert(event["args"]["layer"].get<int>());
    ASSERT_GE(event["dur"].get<double>(), 0.0);
  }
  EXPECT_THAT(signatures, ::testing::IsSupersetOf({std::string("decode"), std::string("prefill_8")}));
  EXPECT_GE(layers.size(), 4U);
  EXPECT_EQ(Taskpress({"run", Bundle(), "--tokens", "2", "-n", "1", "--profile", "/proc/nowhere/x"}).status, 7);
}

}  // namespace
}  // namespace taskpress::testing
