// taskpress repack as a person and a script meet it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/command_line.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CliRepackTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempFolder;
    TaskpressJson({"convert", Micro(), "-o", Task(), "-o", Litertlm(), "--context", "64", "--prefill", "8"});
  }
  static void TearDownTestSuite() { delete shared_; }
  static std::string Task() { return (shared_->path() / "micro.task").string(); }
  static std::string Litertlm() { return (shared_->path() / "micro.litertlm").string(); }
  [[nodiscard]] std::string Mine(const std::string& name) const { return (folder_.path() / name).string(); }

  static TempFolder* shared_;
  TempFolder folder_;
};
TempFolder* CliRepackTest::shared_ = nullptr;

TEST_F(CliRepackTest, ARoundTripGivesTheSameFileAndReportsIt) {
  const nlohmann::json there = TaskpressJson({"repack", Task(), "-o", Mine("a.litertlm")});
  EXPECT_EQ(there["schema"], "taskpress/repack/1");
  EXPECT_EQ(there["outputs"][0]["path"], Mine("a.litertlm"));
  EXPECT_EQ(there["notes"].size(), 1U);
  const nlohmann::json back = TaskpressJson({"repack", Mine("a.litertlm"), "-o", Mine("a.task")});
  ASSERT_EQ(back["outputs"].size(), 1U);
  EXPECT_EQ(back["outputs"][0]["bytes"], fs::file_size(Task()));
  EXPECT_EQ(back["outputs"][0]["sha256"].get<std::string>().size(), 64U);
  EXPECT_EQ(ReadFileBytes(Mine("a.task")), ReadFileBytes(Task()));
  EXPECT_EQ(Taskpress({"verify", Mine("a.litertlm"), "--against", Micro()}).status, 0);
}

TEST_F(CliRepackTest, ForAPersonItIsALineAndNotes) {
  const Finished finished = Taskpress({"repack", Litertlm(), "-o", Mine("a.task")});
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr(Mine("a.task") + "  "));
  EXPECT_THAT(finished.err, HasSubstr("note: metadata"));
  EXPECT_THAT(finished.err, HasSubstr(" | verify "));
}

TEST_F(CliRepackTest, ProgressAsJsonEndsWithTheStages) {
  const Finished finished = Taskpress({"repack", Litertlm(), "-o", Mine("a.litertlm"), "--progress", "json"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  std::istringstream lines(finished.err);
  nlohmann::json event;
  for (std::string line; std::getline(lines, line);) event = nlohmann::json::parse(line);
  EXPECT_EQ(event["schema"], "taskpress/progress/1");
  std::vector<std::string> names;
  for (const nlohmann::json& stage : event["stages"]) names.push_back(stage["name"]);
  EXPECT_THAT(names, ElementsAre("check", "write", "verify", "smoke"));
  EXPECT_GT(event["stages"][1]["bytes"], 1'000'000U);
}

TEST_F(CliRepackTest, SectionsAreReplacedByTheNamesThatInspectShows) {
  const std::string tokenizer = (oracle::MicroCheckpoint() / "tokenizer.model").string();
  EXPECT_EQ(Taskpress({"repack", Task(), "-o", Mine("a.task"), "--replace", "tokenizer=" + tokenizer}).status, 0);
  EXPECT_EQ(ReadFileBytes(Mine("a.task")), ReadFileBytes(Task()));
  // An option takes one value and leaves the rest alone.
  const Finished refused = Taskpress({"repack", "--drop", "tokenizer", Task(), "-o", Mine("b.task")});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("--replace tokenizer=FILE"));
}

struct Refusal {
  std::vector<std::string> arguments;
  int status;
  std::string code;
  std::string word;
};

TEST_F(CliRepackTest, WhatCannotBeDoneHasItsCodeAndLeavesNothing) {
  const std::string junk = (shared_->path() / "junk").string();
  shared_->Write("junk", "no bundle, no model");
  const std::string taken = (shared_->path() / "taken.task").string();
  shared_->Write("taken.task", "old");
  const std::string out = Mine("a.task");
  const std::vector<Refusal> refusals = {
      {{junk, "-o", out}, 5, "TP-1010", "junk"},
      {{Micro(), "-o", out}, 2, "TP-1002", "micro-e4b"},
      {{Mine("none.task"), "-o", out}, 2, "TP-1001", "none.task"},
      {{Task(), "-o", Task()}, 2, "TP-2101", "which is read"},
      {{Task(), "-o", Task(), "--force"}, 2, "TP-2101", "which is read"},
      {{Task(), "-o", taken}, 8, "TP-1005", "--force"},
      {{Task(), "-o", Mine("a.zip")}, 2, "TP-2101", ".litertlm"},
      {{Task(), "-o", folder_.path().string()}, 2, "TP-2101", ".litertlm"},
      {{Task(), "-o", Mine("none/a.task")}, 7, "TP-1004", "none/a.task"},
      {{Task(), "-o", "/proc/a.task"}, 7, "TP-1004", "/proc/a.task"},
      {{Task(), "-o", out, "--drop", "nonsense"}, 2, "TP-2101", "it has metadata, tokenizer"},
      {{Task(), "-o", out, "--drop", "embedder"}, 2, "TP-2101", "cannot be dropped"},
      {{Task(), "-o", out, "--replace", "embedder"}, 2, "TP-2101", "SECTION=FILE"},
      {{Task(), "-o", out, "--replace", "=" + junk}, 2, "TP-2101", "SECTION=FILE"},
      {{Task(), "-o", out, "--replace", "embedder="}, 2, "TP-2101", "SECTION=FILE"},
      {{Task(), "-o", out, "--replace", "embedder=" + junk}, 5, "TP-1301", "embedder"},
      {{Task(), "-o", out, "--replace", "embedder=" + Mine("none")}, 2, "TP-1001", "none"},
      {{Task(), "-o", out, "--replace", "tokenizer=" + junk}, 5, "TP-1701", "tokenizer"},
      {{Task(), "-o", out, "--replace", "metadata=" + junk}, 5, "TP-1602", "metadata"},
      {{Task(), "-o", out, "--progress", "loud"}, 2, "TP-2101", "loud"},
      {{Task(), "-o", out, "--threads", "-1"}, 2, "TP-2101", "--threads"},
  };
  for (const Refusal& refusal : refusals) {
    std::vector<std::string> arguments = refusal.arguments;
    arguments.insert(arguments.begin(), "repack");
    arguments.emplace_back("--json");
    const Finished finished = Taskpress(arguments);
    EXPECT_EQ(finished.status, refusal.status) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(refusal.code));
    EXPECT_THAT(finished.err, HasSubstr(refusal.word));
    EXPECT_EQ(nlohmann::json::parse(finished.out)["code"], refusal.code);
  }
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
  EXPECT_EQ(ReadFileBytes(taken), "old");
  EXPECT_EQ(Taskpress({"repack", Task()}).status, 2);
  EXPECT_EQ(Taskpress({"repack", Task(), "-o", out, "-o", Mine("b.task")}).status, 2);
}

// A limit on the size of files stands for a full disk.
TEST_F(CliRepackTest, ADiskThatIsFullIsStatus7AndLeavesNothing) {
  const Finished finished = Taskpress({"repack", Task(), "-o", Mine("a.litertlm")}, {.file_size_limit = 1 << 20});
  EXPECT_EQ(finished.status, 7) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("TP-1004"));
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

TEST_F(CliRepackTest, ABundleCutAnywhereIsRefused) {
  const std::string whole = ReadFileBytes(Litertlm());
  for (const double share : {0.0001, 0.01, 0.3, 0.7, 0.999}) {
    const fs::path cut = shared_->Write("cut.litertlm", whole.substr(0, static_cast<size_t>(share * static_cast<double>(whole.size()))));
    const Finished finished = Taskpress({"repack", cut.string(), "-o", Mine("a.task")});
    EXPECT_EQ(finished.status, 5) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr("cut.litertlm"));
  }
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

}  // namespace
}  // namespace taskpress::testing
