// A conversion that is stopped, killed, starved or whose input is pulled away: a clear end, and nothing under the final name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/e2e/command_line.h"
#include "tests/e2e/wide_checkpoint.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CliInterruptionTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempFolder;
    MakeWideCheckpoint(*shared_);
  }
  static void TearDownTestSuite() { delete shared_; }
  static fs::path Wide() { return shared_->path() / "wide"; }

  [[nodiscard]] std::vector<std::string> ConvertWide(const fs::path& checkpoint = Wide()) const {
    return TaskpressCommand({"convert", checkpoint.string(), "-o", output_.string(), "--context", "64", "--prefill", "8"});
  }
  // Returns when the conversion has begun to write, and holds it there: what a test does next is not a race with its end. Continue lets it
  // go.
  void HoldAtPart(const Subprocess& process) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!fs::exists(part_) && process.Running() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    process.Signal(SIGSTOP);
    ASSERT_TRUE(fs::exists(part_));
  }
  static void Continue(const Subprocess& process) { process.Signal(SIGCONT); }

  static TempFolder* shared_;
  TempFolder folder_;
  fs::path output_ = folder_.path() / "wide.task";
  fs::path part_ = folder_.path() / "wide.task.part";
};
TempFolder* CliInterruptionTest::shared_ = nullptr;

TEST_F(CliInterruptionTest, ASignalEndsItWithStatus130AndLeavesNothing) {
  for (const int signal : {SIGINT, SIGTERM}) {
    Subprocess process(ConvertWide());
    HoldAtPart(process);
    process.Signal(signal);
    Continue(process);
    const Finished finished = process.Wait();
    EXPECT_EQ(finished.status, 130) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr("TP-1007"));
    EXPECT_TRUE(NamesIn(folder_.path()).empty());
  }
}

TEST_F(CliInterruptionTest, ASecondSignalEndsItAtOnceAndLeavesNothing) {
  Subprocess process(ConvertWide());
  HoldAtPart(process);
  process.Signal(SIGINT);
  process.Signal(SIGTERM);
  Continue(process);
  EXPECT_EQ(process.Wait().status, 130);
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

TEST_F(CliInterruptionTest, AKilledConversionLeavesNoBundleAndTheNextOneSucceeds) {
  Subprocess process(ConvertWide());
  HoldAtPart(process);
  process.Signal(SIGKILL);
  EXPECT_EQ(process.Wait().status, 1000 + SIGKILL);
  EXPECT_THAT(NamesIn(folder_.path()), Contains("wide.task.part"));
  EXPECT_FALSE(fs::exists(output_));
  const Finished next = Taskpress({"convert", Micro(), "-o", output_.string(), "--context", "64"});
  EXPECT_EQ(next.status, 0) << next.err;
  EXPECT_THAT(NamesIn(folder_.path()), ElementsAre("SHA256SUMS", "wide.task", "wide.task.lock.json"));
  EXPECT_EQ(Taskpress({"verify", output_.string()}).status, 0);
}

TEST_F(CliInterruptionTest, TwoConversionsToOneNameDoNotMix) {
  Subprocess first(ConvertWide());
  HoldAtPart(first);
  const Finished second = Taskpress({"convert", Micro(), "-o", output_.string(), "--context", "64"});
  EXPECT_EQ(second.status, 8) << second.err;
  EXPECT_THAT(second.err, HasSubstr("another process"));
  EXPECT_TRUE(fs::exists(part_));
  first.Signal(SIGINT);
  Continue(first);
  EXPECT_EQ(first.Wait().status, 130);
}

TEST_F(CliInterruptionTest, AFolderThatCannotBeWrittenIsStatus7) {
  const fs::path file = folder_.Write("file", "");
  for (const fs::path& output : {file / "a.task", folder_.path() / "none/a.task", fs::path("/proc/a.task")}) {
    const Finished finished = Taskpress({"convert", Micro(), "-o", output.string(), "--context", "64"});
    EXPECT_EQ(finished.status, 7) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(output.string()));
  }
  EXPECT_EQ(Taskpress({"convert", Micro(), "-o", (file / "sub").string() + "/", "--context", "64"}).status, 7);
  EXPECT_THAT(NamesIn(folder_.path()), ElementsAre("file"));
}

// A limit on the size of files stands for a full disk: the same calls fail, and it works on every machine.
TEST_F(CliInterruptionTest, ADiskThatIsFullIsStatus7AndLeavesNothing) {
  const Finished finished = Taskpress({"convert", Micro(), "-o", output_.string(), "--context", "64"}, {.file_size_limit = 1 << 20});
  EXPECT_EQ(finished.status, 7) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("TP-1004"));
  EXPECT_TRUE(NamesIn(folder_.path()).empty());

  const Finished logits = Taskpress({"score", Micro(), "--tokens", "2,5,9,7,3,8,10,11,12,13,14,15,16,17,18,19,20,21", "--context", "64",
                                     "--logits", (folder_.path() / "logits.safetensors").string()},
                                    {.file_size_limit = 100'000});
  EXPECT_EQ(logits.status, 7) << logits.err;
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

TEST_F(CliInterruptionTest, ACheckpointThatIsCutWhileItIsReadIsNoCrash) {
  const fs::path copy = folder_.path() / "copy";
  fs::copy(Wide(), copy);
  Subprocess process(ConvertWide(copy));
  HoldAtPart(process);
  fs::resize_file(copy / "model.safetensors", 4096);
  Continue(process);
  const Finished finished = process.Wait();
  EXPECT_EQ(finished.status, 4) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("TP-1006"));
  EXPECT_THAT(NamesIn(folder_.path()), ElementsAre("copy"));
}

TEST_F(CliInterruptionTest, ABundleThatIsCutWhileItRunsIsNoCrash) {
  ASSERT_EQ(Taskpress({"convert", Micro(), "-o", output_.string(), "--context", "512", "--quant", "f32"}).status, 0);
  const fs::path said = folder_.path() / "said";
  Subprocess process(TaskpressCommand({"run", output_.string(), "--tokens", "2,1657,282", "-n", "500", "--kernels", "reference"}),
                     {.output = said});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (process.Running() && std::chrono::steady_clock::now() < deadline && (!fs::exists(said) || fs::file_size(said) == 0)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(process.Running());
  fs::resize_file(output_, 4096);
  const Finished finished = process.Wait();
  EXPECT_EQ(finished.status, 4) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("TP-1006"));
}

#if !TASKPRESS_SANITIZED  // which keep memory of their own
TEST_F(CliInterruptionTest, AConversionNeedsLittleMemoryOfItsOwn) {
  const nlohmann::json report =
      TaskpressJson({"convert", Wide().string(), "-o", output_.string(), "-o", (folder_.path() / "wide.litertlm").string(), "--context",
                     "64", "--prefill", "8", "--threads", "2"});
  // Graphs, a few row blocks per thread, the smoke run's caches and buffers: not the 100 MB of the checkpoint nor the 27 MB of the bundle.
  // 11 MB were measured.
  EXPECT_LT(report["peak_anonymous_bytes"].get<uint64_t>(), 20'000'000U);
}
#endif

}  // namespace
}  // namespace taskpress::testing
