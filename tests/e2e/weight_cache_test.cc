// Packed weights beside a bundle, as users meet them: a second start uses the file, nothing that is wrong with it shows in what a model
// says.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/e2e/command_line.h"

namespace taskpress::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class WeightCacheTest : public ::testing::Test {
 protected:
  WeightCacheTest() { TaskpressJson({"convert", Micro(), "-o", Bundle(), "--context", "64", "--prefill", "8", "--no-lock"}); }

  [[nodiscard]] std::string In(const std::string& name) const { return (folder_.path() / name).string(); }
  [[nodiscard]] std::string Bundle() const { return In("m.task"); }
  [[nodiscard]] std::string Cache() const { return In("m.task.packed"); }

  static std::vector<std::string> RunCommand(const std::string& bundle, std::vector<std::string> more = {}) {
    std::vector<std::string> command = {"run", bundle, "--tokens", "2,818,5,9,100,7,12,13,14,15", "-n", "12", "-t", "1"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  [[nodiscard]] nlohmann::json Run(std::vector<std::string> more = {}) const {
    return TaskpressJson(RunCommand(Bundle(), std::move(more)));
  }
  // What the bundle says when nothing is kept.
  [[nodiscard]] nlohmann::json Tokens() const { return Run({"--weight-cache", "none"})["tokens"]; }

  TempFolder folder_;
};

TEST_F(WeightCacheTest, TheFirstStartWritesItAndTheSecondUsesIt) {
  const nlohmann::json tokens = Tokens();
  EXPECT_FALSE(std::filesystem::exists(Cache()));
  const nlohmann::json first = Run();
  EXPECT_EQ(first["weight_cache"], "written");
  EXPECT_EQ(first["tokens"], tokens);
  EXPECT_THAT(NamesIn(folder_.path()), ::testing::UnorderedElementsAre("m.task", "m.task.packed"));
  const nlohmann::json second = Run();
  EXPECT_EQ(second["weight_cache"], "used");
  EXPECT_EQ(second["tokens"], tokens);
  EXPECT_EQ(Run({"--weight-cache", "none"})["weight_cache"], "off");
  EXPECT_EQ(Run({"--kernels", "reference"})["weight_cache"], "off");
}

TEST_F(WeightCacheTest, GoesToTheFolderThatIsNamed) {
  const std::string cache = In("kept/here");
  EXPECT_EQ(Run({"--weight-cache", cache})["weight_cache"], "written");
  EXPECT_FALSE(std::filesystem::exists(Cache()));
  EXPECT_EQ(NamesIn(cache).size(), 1U);
  EXPECT_EQ(Run({"--weight-cache", cache})["weight_cache"], "used");
  // A bundle of the same name from elsewhere has a file of its own there.
  std::filesystem::create_directory(In("other"));
  std::filesystem::copy(Bundle(), In("other/m.task"));
  EXPECT_EQ(TaskpressJson(RunCommand(In("other/m.task"), {"--weight-cache", cache}))["weight_cache"], "written");
  EXPECT_EQ(NamesIn(cache).size(), 2U);
  EXPECT_EQ(Run({"--weight-cache", cache})["weight_cache"], "used");
}

TEST_F(WeightCacheTest, AFolderThatCannotBeWrittenIsANoteAndNoError) {
  const nlohmann::json tokens = Tokens();
  for (const std::string& folder : {std::string("/proc/nowhere"), Bundle()}) {
    std::vector<std::string> command = RunCommand(Bundle(), {"--weight-cache", folder});
    command.emplace_back("--json");
    const Finished finished = Taskpress(command);
    EXPECT_EQ(finished.status, 0) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr("packed weights are not kept: "));
    EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1) << finished.err;
    const nlohmann::json report = nlohmann::json::parse(finished.out);
    EXPECT_EQ(report["weight_cache"], "unavailable");
    EXPECT_EQ(report["tokens"], tokens);
  }
}

TEST_F(WeightCacheTest, AFullDiskLeavesNothingBehind) {
  const nlohmann::json tokens = Tokens();
  const auto limit = static_cast<rlim_t>(100'000);  // less than the weights
  std::vector<std::string> command = RunCommand(Bundle());
  command.emplace_back("--json");
  const Finished finished = Taskpress(command, {.output = {}, .file_size_limit = limit});
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("no room"));
  EXPECT_EQ(nlohmann::json::parse(finished.out)["tokens"], tokens);
  EXPECT_THAT(NamesIn(folder_.path()), ::testing::ElementsAre("m.task"));
}

TEST_F(WeightCacheTest, ADamagedFileIsReplaced) {
  const nlohmann::json tokens = Run()["tokens"];
  const std::string sound = ReadFileBytes(Cache());
  std::vector<std::string> damaged = {
      "", "x", sound.substr(0, 4096), sound.substr(0, sound.size() - 1), sound + "x", std::string(sound.size(), '\0')};
  for (const size_t at : {size_t{3}, size_t{70}, size_t{4200}, sound.size() / 2, sound.size() - 30}) {
    damaged.push_back(sound);
    damaged.back()[at] = static_cast<char>(damaged.back()[at] ^ 0x40);
  }
  for (size_t i = 0; i < damaged.size(); ++i) {
    folder_.Write("m.task.packed", damaged[i]);
    const nlohmann::json report = Run();
    EXPECT_EQ(report["tokens"], tokens) << i;
    EXPECT_EQ(report["weight_cache"], "written") << i;
  }
  EXPECT_EQ(Run()["weight_cache"], "used");
}

// Written over in place, with the old time of modification: only the time of change tells.
TEST_F(WeightCacheTest, ARewrittenBundleIsNotTakenForTheOldOne) {
  const nlohmann::json old_tokens = Run()["tokens"];
  TaskpressJson({"convert", Micro(), "-o", In("other.task"), "--context", "64", "--prefill", "8", "--no-lock", "--method", "clip"});
  const std::string other = ReadFileBytes(In("other.task"));
  ASSERT_EQ(other.size(), std::filesystem::file_size(Bundle()));
  struct stat before{};
  ASSERT_EQ(stat(Bundle().c_str(), &before), 0);
  folder_.Write("m.task", other);
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, Bundle().c_str(), times, 0), 0);
  const nlohmann::json expected = TaskpressJson(RunCommand(In("other.task"), {"--weight-cache", "none"}))["tokens"];
  ASSERT_NE(expected, old_tokens) << "the two must differ, or this tests nothing";
  const nlohmann::json report = Run();
  EXPECT_EQ(report["tokens"], expected);
  EXPECT_EQ(report["weight_cache"], "written");
}

TEST_F(WeightCacheTest, StartsAtTheSameTimeAgreeOnOneFile) {
  const nlohmann::json tokens = Tokens();
  for (int round = 0; round < 3; ++round) {
    std::filesystem::remove(Cache());
    std::vector<std::string> command = RunCommand(Bundle());
    command.emplace_back("--json");
    Subprocess a(TaskpressCommand(command));
    Subprocess b(TaskpressCommand(command));
    Subprocess c(TaskpressCommand(command));
    for (Subprocess* one : {&a, &b, &c}) {
      const Finished finished = one->Wait();
      EXPECT_EQ(finished.status, 0) << finished.err;
      EXPECT_EQ(nlohmann::json::parse(finished.out)["tokens"], tokens);
    }
    EXPECT_THAT(NamesIn(folder_.path()), ::testing::UnorderedElementsAre("m.task", "m.task.packed"));
    EXPECT_EQ(Run()["weight_cache"], "used");
  }
}

TEST_F(WeightCacheTest, ServesAllSizesOfAnElasticBundle) {
  const std::string bundle = In("e.task");
  const nlohmann::json slice = oracle::ReadGoldenJson("inputs.json").at("slices").at("e2b");
  folder_.Write("small.json", nlohmann::json{{"ffn", slice.at("ffn")}, {"skip", slice.at("drop")}}.dump());
  TaskpressJson({"convert", Micro(), "-o", bundle, "--context", "64", "--prefill", "8", "--no-lock", "--elastic", In("small.json")});
  const auto run = [&](const std::string& size, const std::string& cache) {
    std::vector<std::string> more = {"--size", size};
    if (!cache.empty()) more.insert(more.end(), {"--weight-cache", cache});
    return TaskpressJson(RunCommand(bundle, more));
  };
  std::map<std::string, nlohmann::json> tokens;
  for (const std::string size : {"e4b", "small"}) tokens[size] = run(size, "none")["tokens"];
  for (const std::string size : {"e4b", "small"}) EXPECT_EQ(run(size, "")["weight_cache"], "written") << size;
  for (const std::string size : {"e4b", "small"}) {
    const nlohmann::json report = run(size, "");
    EXPECT_EQ(report["weight_cache"], "used") << size;
    EXPECT_EQ(report["tokens"], tokens[size]) << size;
  }
}

}  // namespace
}  // namespace taskpress::testing
