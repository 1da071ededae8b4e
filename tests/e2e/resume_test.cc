// A conversion that is killed goes on where it stopped, and what comes out is the same to the byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "schema/base/hash.h"
#include "tests/e2e/command_line.h"
#include "tests/e2e/wide_checkpoint.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using std::chrono::steady_clock;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class ResumeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempFolder;
    MakeWideCheckpoint(*shared_);
    const fs::path folder = shared_->path() / "whole";
    fs::create_directory(folder);
    const auto start = steady_clock::now();
    ASSERT_EQ(Taskpress(Convert(folder)).status, 0);
    whole_seconds_ = duration<double>(steady_clock::now() - start).count();
    for (const char* name : {"wide.task", "wide.litertlm", "wide.task.lock.json", "SHA256SUMS"}) whole_[name] = Digest(folder / name);
  }
  static void TearDownTestSuite() { delete shared_; }

  static std::vector<std::string> Convert(const fs::path& folder, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"convert",   (shared_->path() / "wide").string(),
                                          "-o",        (folder / "wide.task").string(),
                                          "-o",        (folder / "wide.litertlm").string(),
                                          "--context", "64",
                                          "--prefill", "8"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  static std::string Digest(const fs::path& file) { return Sha256Hex(AsBytes(ReadFileBytes(file))); }

  static void ExpectWhole(const fs::path& folder) {
    for (const auto& [name, digest] : whole_) EXPECT_EQ(Digest(folder / name), digest) << name;
    EXPECT_EQ(NamesIn(folder).size(), 5U) << "something is left over";  // and the second lock file
  }

  static TempFolder* shared_;
  static double whole_seconds_;
  static std::map<std::string, std::string> whole_;
  TempFolder folder_;
};
TempFolder* ResumeTest::shared_ = nullptr;
double ResumeTest::whole_seconds_ = 0;
std::map<std::string, std::string> ResumeTest::whole_;

// The sanitizers make each round ten times as long; chance finds the same moments in fewer.
constexpr int kKills = TASKPRESS_SANITIZED ? 5 : 20;

TEST_F(ResumeTest, KillsAtRandomMomentsAllEndInIdenticalResults) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> moment(0.0, whole_seconds_ * 1.1);
  std::uniform_real_distribution<double> in_its_middle(0.0, whole_seconds_ * 0.1);
  int taken_up = 0;
  for (int round = 0; round < kKills; ++round) {
    const TempFolder folder;
    Subprocess process(TaskpressCommand(Convert(folder.path())));
    // How long a conversion takes changes with what else the machine does; every other kill therefore waits for the first entry of the
    // journal, so that there is something to take up whatever the clock says.
    const bool waits = round % 2 == 1;
    while (waits && process.Running() && !fs::exists(folder.path() / "wide.task.part.journal"))
      std::this_thread::sleep_for(duration<double>(0.001));
    std::this_thread::sleep_for(duration<double>(waits ? in_its_middle(random) : moment(random)));
    process.Signal(SIGKILL);
    static_cast<void>(process.Wait());
    const bool ended = !fs::exists(folder.path() / "wide.litertlm.part") && fs::exists(folder.path() / "wide.litertlm") &&
                       !fs::exists(folder.path() / "wide.task.part.journal");
    if (ended) {  // it was faster than the signal; nothing is left to take up, and that is said
      EXPECT_EQ(Taskpress(Convert(folder.path(), {"--resume"})).status, 8);
      continue;
    }
    const nlohmann::json report = TaskpressJson(Convert(folder.path(), {"--resume"}));
    if (report["bytes_resumed"].get<uint64_t>() > 0) ++taken_up;
    ExpectWhole(folder.path());
  }
  EXPECT_GT(taken_up, kKills / 6) << "hardly a round met the conversion in its middle";
}

// One that is told to leave its work behind when it is stopped, and is stopped again and again.
TEST_F(ResumeTest, ManyStopsInARowRepeatNearlyNothing) {
  uint64_t resumed_before = 0;
  for (int stops = 0; stops < 60; ++stops) {
    Subprocess process(TaskpressCommand(Convert(folder_.path(), {"--resume", "--progress", "none", "--json"})));
    std::this_thread::sleep_for(duration<double>(whole_seconds_ * (0.1 + 0.05 * stops)));
    process.Signal(SIGTERM);
    const Finished finished = process.Wait();
    if (finished.status == 0) {
      const auto report = nlohmann::json::parse(finished.out);
      EXPECT_GT(report["bytes_resumed"].get<uint64_t>(), 0U);
      EXPECT_GE(report["bytes_resumed"].get<uint64_t>(), resumed_before);
      ExpectWhole(folder_.path());
      return;
    }
    ASSERT_EQ(finished.status, 130) << finished.err;
    const fs::path journal = folder_.path() / "wide.task.part.journal";
    if (!fs::exists(journal)) continue;
    const uint64_t resumed = nlohmann::json::parse(ReadFileBytes(journal))["bytes"];
    EXPECT_GE(resumed, resumed_before);
    resumed_before = resumed;
  }
  FAIL() << "never got to its end";
}

class StoppedResumeTest : public ResumeTest {
 protected:
  // Killed when the journal is there.
  void SetUp() override {
    Subprocess process(TaskpressCommand(Convert(folder_.path(), {"--threads", "1"})));
    const auto deadline = steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(journal_) && process.Running() && steady_clock::now() < deadline)
      std::this_thread::sleep_for(duration<double>(0.001));
    process.Signal(SIGKILL);
    static_cast<void>(process.Wait());
    ASSERT_TRUE(fs::exists(journal_));
  }
  void ExpectRefused(const std::vector<std::string>& command, const std::string& why) const {
    const std::string before = Digest(journal_);
    const Finished refused = Taskpress(command);
    EXPECT_EQ(refused.status, 2) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("TP-1012"));
    EXPECT_THAT(refused.err, HasSubstr(why));
    EXPECT_EQ(Digest(journal_), before) << "the unfinished work must survive a mistake";
    EXPECT_TRUE(fs::exists(folder_.path() / "wide.task.part"));
  }
  fs::path journal_ = folder_.path() / "wide.task.part.journal";
};

TEST_F(StoppedResumeTest, OtherOptionsAreRefusedAndTheSameOnesGoOn) {
  ExpectRefused(Convert(folder_.path(), {"--resume", "--quant", "dynamic_int8"}), "other options");
  ExpectRefused(Convert(folder_.path(), {"--resume", "--window", "mask"}), "other options");
  const nlohmann::json report = TaskpressJson(Convert(folder_.path(), {"--resume", "--threads", "2"}));
  EXPECT_GT(report["bytes_resumed"].get<uint64_t>(), 0U);
  ExpectWhole(folder_.path());
}

TEST_F(StoppedResumeTest, AChangedCheckpointIsRefused) {
  const fs::path weights = shared_->path() / "wide/model.safetensors";
  const auto time = fs::last_write_time(weights);
  fs::last_write_time(weights, time + std::chrono::seconds(5));
  ExpectRefused(Convert(folder_.path(), {"--resume"}), "model.safetensors is not what it was");
  fs::last_write_time(weights, time);
}

TEST_F(StoppedResumeTest, APartThatIsGoneOrShorterIsRefused) {
  const fs::path part = folder_.path() / "wide.litertlm.part";
  fs::resize_file(part, fs::file_size(part) - 1);
  ExpectRefused(Convert(folder_.path(), {"--resume"}), "wide.litertlm.part: has");
  fs::remove(part);
  ExpectRefused(Convert(folder_.path(), {"--resume"}), "wide.litertlm.part: is not there");
}

TEST_F(StoppedResumeTest, ADamagedPartIsNoticedBeforeItGetsItsName) {
  const fs::path part = folder_.path() / "wide.task.part";
  const auto journal = nlohmann::json::parse(ReadFileBytes(journal_));
  ASSERT_GT(journal["bytes"].get<uint64_t>(), 1000U);
  std::fstream file(part, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(400'000);  // in the first tables, which were written first
  file.write("\x7f\x01\x7f\x01", 4);
  file.close();
  const Finished finished = Taskpress(Convert(folder_.path(), {"--resume"}));
  EXPECT_EQ(finished.status, 7) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("does not read back"));
  EXPECT_FALSE(fs::exists(folder_.path() / "wide.task"));
}

TEST_F(StoppedResumeTest, WithoutResumeItBeginsAgain) {
  const nlohmann::json report = TaskpressJson(Convert(folder_.path()));
  EXPECT_EQ(report["bytes_resumed"], 0);
  ExpectWhole(folder_.path());
}

TEST_F(ResumeTest, WithNothingToTakeUpItIsAnOrdinaryConversion) {
  const nlohmann::json report = TaskpressJson(Convert(folder_.path(), {"--resume"}));
  EXPECT_EQ(report["bytes_resumed"], 0);
  ExpectWhole(folder_.path());
}

}  // namespace
}  // namespace taskpress::testing
