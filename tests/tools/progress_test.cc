#include "tools/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "schema/json.h"

namespace taskpress {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr uint64_t kMega = 1'000'000;
constexpr std::string_view kCleared = "\r\x1b[K";

// A progress whose clock stands still until it is told, in front of a terminal of any width.
class Talk {
 public:
  explicit Talk(ProgressStyle style, int columns = 80)
      : progress_(std::make_unique<Progress>(
            style, ProgressWorld{.out = &heard_, .now = [this] { return now_; }, .columns = [columns] { return columns; }})) {}

  void Wait(int64_t ms) { now_ += milliseconds(ms); }
  Progress& operator*() { return *progress_; }
  Progress* operator->() { return progress_.get(); }
  // What was said since the last time, or to the end.
  std::string Said() { return std::exchange(heard_, std::ostringstream()).str(); }
  std::string LastWords() {
    progress_.reset();
    return Said();
  }
  // Bytes at an even speed, told every 10 ms.
  void Work(uint64_t bytes_per_s, int64_t ms, uint64_t total = 1000 * kMega) {
    for (int64_t at = 0; at < ms; at += 10) {
      Wait(10);
      done_ += bytes_per_s / 100;
      progress_->Update("write", "tensor", done_, total);
    }
  }

 private:
  std::ostringstream heard_;
  StageClock::Time now_;
  uint64_t done_ = 0;
  std::unique_ptr<Progress> progress_;
};

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// What a bar showed, one text per drawing.
std::vector<std::string> Drawings(const std::string& said) {
  std::vector<std::string> drawings;
  for (size_t at = said.find(kCleared); at != std::string::npos;) {
    const size_t from = at + kCleared.size();
    at = said.find(kCleared, from);
    drawings.push_back(said.substr(from, at == std::string::npos ? at : at - from));
  }
  return drawings;
}

void TwoStages(Talk& talk) {
  for (uint64_t done = 0; done <= 1000; ++done) talk->Update("write", "tensor", done * 1000, kMega);
  talk->Update("verify", "", 0, 0);
}

TEST(ProgressStyleTest, HasNames) {
  EXPECT_EQ(ProgressStyleFromName("none").value(), ProgressStyle::kSilent);
  EXPECT_EQ(ProgressStyleFromName("bar").value(), ProgressStyle::kBar);
  EXPECT_EQ(ProgressStyleFromName("plain").value(), ProgressStyle::kPlain);
  EXPECT_EQ(ProgressStyleFromName("json").value(), ProgressStyle::kJson);
  EXPECT_TRUE(ProgressStyleFromName("auto").has_value());
  EXPECT_EQ(ProgressStyleFromName("Bar").error().code, ErrorCode::kUsage);
}

TEST(HumanUnitsTest, HaveThreeDigitsOrFewer) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(1000), "1.0 kB");
  EXPECT_EQ(HumanBytes(20'599'443), "20.6 MB");
  EXPECT_EQ(HumanBytes(210e6), "210 MB");
  EXPECT_EQ(HumanBytes(999.7e6), "1.0 GB");
  EXPECT_EQ(HumanBytes(8.4e15), "8400 TB");
  EXPECT_EQ(HumanSeconds(0.04), "0.0 s");
  EXPECT_EQ(HumanSeconds(9.9), "9.9 s");
  EXPECT_EQ(HumanSeconds(9.96), "10 s");
  EXPECT_EQ(HumanSeconds(59.6), "1 min 00 s");
  EXPECT_EQ(HumanSeconds(3605), "1 h 00 min");
  EXPECT_EQ(HumanSeconds(7620), "2 h 07 min");
}

TEST(ProgressTest, SilenceIsSilentAndStillKeepsTime) {
  Talk talk(ProgressStyle::kSilent);
  TwoStages(talk);
  talk->ShowStages();
  EXPECT_EQ(talk->Stages().size(), 2U);
  EXPECT_EQ(talk.LastWords(), "");
}

// The first and the last update of a stage and few between, however often it is called.
TEST(ProgressTest, PlainLinesAreFew) {
  Talk talk(ProgressStyle::kPlain);
  TwoStages(talk);
  EXPECT_THAT(Lines(talk.Said()), ElementsAre("write: 0% of 1.0 MB tensor", "write: 100% of 1.0 MB tensor", "verify"));
  talk.Work(10 * kMega, 20'000);
  EXPECT_THAT(Lines(talk.Said()), ElementsAre(StartsWith("write: 0% of 1.0 GB"), "write: 5% of 1.0 GB, 10.0 MB/s, ETA 1 min 35 s tensor",
                                              "write: 10% of 1.0 GB, 10.0 MB/s, ETA 1 min 30 s tensor",
                                              "write: 15% of 1.0 GB, 10.0 MB/s, ETA 1 min 25 s tensor"));
}

// A tenth of the job at 100 MB/s, then 10 MB/s: the estimate forgets the fast beginning within seconds.
TEST(ProgressTest, TheEstimateFollowsTheLastSeconds) {
  Talk talk(ProgressStyle::kPlain);
  talk.Work(100 * kMega, 1000);
  talk.Work(10 * kMega, 10'000);
  talk.Said();
  talk.Work(10 * kMega, 5000);
  EXPECT_THAT(talk.Said(), HasSubstr("24% of 1.0 GB, 10.0 MB/s, ETA 1 min 16 s"));  // the mean speed is 16 MB/s
}

TEST(ProgressTest, NothingIsEstimatedFromNothing) {
  Talk talk(ProgressStyle::kPlain);
  talk->Update("write", "", 0, kMega);
  talk.Wait(60'000);
  talk->Update("write", "", 0, kMega);
  EXPECT_THAT(Lines(talk.Said()), ElementsAre("write: 0% of 1.0 MB", "write: 0% of 1.0 MB"));
}

TEST(ProgressTest, JsonIsOneDocumentALine) {
  Talk talk(ProgressStyle::kJson);
  TwoStages(talk);
  talk.Work(10 * kMega, 10'000);
  const std::vector<std::string> lines = Lines(talk.LastWords());
  ASSERT_GE(lines.size(), 4U);
  for (const std::string& line : lines) EXPECT_EQ(Json::parse(line)["schema"], "taskpress/progress/1");
  const Json whole = Json::parse(lines[1]);
  EXPECT_EQ(whole["stage"], "write");
  EXPECT_EQ(whole["tensor"], "tensor");
  EXPECT_EQ(whole["bytes_done"], kMega);
  EXPECT_EQ(whole["bytes_total"], kMega);
  const Json last = Json::parse(lines.back());
  EXPECT_NEAR(last["bytes_per_s"].get<double>(), 10e6, 1);
  EXPECT_NEAR(last["eta_s"].get<double>(), 95, 0.1);
}

// Names come from files of strangers.
TEST(ProgressTest, ANameCannotSteerTheTerminalOrBreakTheJson) {
  for (const ProgressStyle style : {ProgressStyle::kPlain, ProgressStyle::kBar}) {
    Talk talk(style);
    talk->Update("write", "a\x1b[2Jb\xff\n", 0, 1000);
    EXPECT_THAT(talk.Said(), HasSubstr("a\\x1b[2Jb\\xff\\x0a"));
  }
  Talk talk(ProgressStyle::kJson);
  talk->Update("write", "a\xff", 0, 1000);
  EXPECT_EQ(Json::parse(talk.Said())["tensor"], "a\uFFFD");
}

TEST(ProgressTest, ABarIsDrawnInOneLineAndTakenAway) {
  Talk talk(ProgressStyle::kBar);
  talk->Update("write", "tensor", 250, 1000);
  talk->Update("write", "tensor", 1000, 1000);
  const std::string said = talk.LastWords();
  EXPECT_THAT(said, HasSubstr("[#######.......................]  25% tensor"));
  EXPECT_THAT(said, HasSubstr("[##############################] 100% tensor"));
  EXPECT_THAT(said, Not(HasSubstr("\n")));
  EXPECT_THAT(said, EndsWith(kCleared));
}

// More than was announced is no reason to draw beyond the end.
TEST(ProgressTest, ABarHasAnEnd) {
  Talk talk(ProgressStyle::kBar);
  talk->Update("write", "", 3000, 1000);
  EXPECT_THAT(talk.Said(), HasSubstr("] 100%"));
}

TEST(ProgressTest, ABarFitsAnyTerminal) {
  for (int columns = 1; columns < 200; ++columns) {
    Talk talk(ProgressStyle::kBar, columns);
    talk->Update("write", "", 0, 1000 * kMega);
    talk.Wait(1000);
    talk->Update("write", "model.language_model.layers.12.mlp.up_proj.weight", 100 * kMega, 1000 * kMega);
    const std::vector<std::string> drawings = Drawings(talk.Said());
    ASSERT_EQ(drawings.size(), 2U);
    EXPECT_LT(drawings[1].size(), static_cast<size_t>(std::max(columns, 2))) << columns;
    if (columns >= 60) {
      EXPECT_THAT(drawings[1], HasSubstr(" 10% 100 MB/s, ETA 9.0 s")) << columns;
    }
    if (columns >= 100) {
      EXPECT_THAT(drawings[1], EndsWith("up_proj.weight")) << columns;
    }
  }
}

TEST(ProgressTest, ABarIsRedrawnTenTimesASecondAtMost) {
  Talk talk(ProgressStyle::kBar);
  talk.Work(10 * kMega, 1000);
  EXPECT_THAT(Drawings(talk.Said()).size(), ::testing::AllOf(::testing::Ge(9U), ::testing::Le(11U)));
}

// An error or a signal destroys the progress in the middle of a stage.
TEST(ProgressTest, AStageThatIsLeftInItsMiddleSaysWhere) {
  for (const ProgressStyle style : {ProgressStyle::kPlain, ProgressStyle::kBar}) {
    Talk talk(style);
    talk.Work(10 * kMega, 12'990);
    talk.Said();
    EXPECT_THAT(talk.LastWords(), EndsWith("write: stopped at 12% of 1.0 GB after 13 s\n"));
  }
  Talk bar(ProgressStyle::kBar);
  bar.Work(10 * kMega, 500);
  EXPECT_THAT(bar.LastWords(), HasSubstr(std::string(kCleared) + "write: stopped"));
  Talk done(ProgressStyle::kPlain);
  TwoStages(done);
  done.Said();
  EXPECT_EQ(done.LastWords(), "");
}

// write 2 s, verify 1 s, write 1 s again, smoke 0.5 s so far.
void FourStages(Talk& talk) {
  talk->Update("write", "a", 0, 100 * kMega);
  talk.Wait(2000);
  talk->Update("write", "a", 100 * kMega, 100 * kMega);
  talk->Update("verify", "", 0, 0);
  talk.Wait(1000);
  talk->Update("write", "a", 0, 50 * kMega);
  talk.Wait(1000);
  talk->Update("write", "a", 50 * kMega, 50 * kMega);
  talk->Update("smoke", "", 0, 0);
  talk.Wait(500);
  talk.Said();
}

TEST(StagesTest, AreTimedInOrderAndAddedUpByName) {
  Talk talk(ProgressStyle::kPlain);
  FourStages(talk);
  const std::vector<StageTime> stages = talk->Stages();
  ASSERT_EQ(stages.size(), 3U);
  EXPECT_EQ(stages[0].name, "write");
  EXPECT_DOUBLE_EQ(stages[0].seconds, 3.0);
  EXPECT_EQ(stages[0].bytes, 150 * kMega);
  EXPECT_EQ(stages[1].name, "verify");
  EXPECT_DOUBLE_EQ(stages[1].seconds, 1.0);
  EXPECT_EQ(stages[1].bytes, 0U);
  EXPECT_EQ(stages[2].name, "smoke");
  EXPECT_DOUBLE_EQ(stages[2].seconds, 0.5);
}

TEST(StagesTest, ThatBeginAgainUnderOneNameCountTwice) {
  Talk talk(ProgressStyle::kSilent);
  talk->Update("write", "a", 70, 100);
  talk->Update("write", "a", 100, 100);
  talk->Update("write", "a", 30, 100);
  ASSERT_EQ(talk->Stages().size(), 1U);
  EXPECT_EQ(talk->Stages()[0].bytes, 130U);
}

TEST(StagesTest, AreShownInOneLine) {
  for (const ProgressStyle style : {ProgressStyle::kPlain, ProgressStyle::kBar}) {
    Talk talk(style);
    FourStages(talk);
    talk->ShowStages();
    EXPECT_THAT(talk.Said(), EndsWith("write 3.0 s 50.0 MB/s | verify 1.0 s | smoke 0.5 s\n"));
  }
  Talk nothing(ProgressStyle::kPlain);
  nothing->ShowStages();
  EXPECT_EQ(nothing.LastWords(), "");
}

TEST(StagesTest, AreOneEventOfJson) {
  Talk talk(ProgressStyle::kJson);
  FourStages(talk);
  talk->ShowStages();
  const Json event = Json::parse(talk.LastWords());
  EXPECT_EQ(event["schema"], "taskpress/progress/1");
  ASSERT_EQ(event["stages"].size(), 3U);
  EXPECT_EQ(event["stages"][0]["name"], "write");
  EXPECT_DOUBLE_EQ(event["stages"][0]["seconds"].get<double>(), 3.0);
  EXPECT_EQ(event["stages"][0]["bytes"], 150 * kMega);
}

}  // namespace
}  // namespace taskpress
