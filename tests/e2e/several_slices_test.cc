// Several slices of one checkpoint, converted together: each bundle is the one that is made alone, and the checkpoint is read once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/command_line.h"
#include "tests/e2e/micro_bundles.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class SeveralSlicesTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string Out(const std::string& name) const { return (folder_.path() / name).string(); }
  [[nodiscard]] std::string SmallSlice() const { return folder_.Write("small.json", R"({"ffn": 256, "skip": [10]})").string(); }
  TempFolder folder_;
};

TEST_F(SeveralSlicesTest, EveryBundleIsTheOneThatIsMadeAlone) {
  const std::string slice = SmallSlice();
  const std::vector<std::string> options = {"--context", "64", "--prefill", "8"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), options.begin(), options.end());
    return TaskpressJson(arguments);
  };
  const nlohmann::json together = with({"convert", Micro(), "--slice", slice, "-o", Out("small.task"), "-o", Out("small.litertlm"),
                                        "--slice", "e4b", "-o", Out("big.litertlm")});
  ASSERT_EQ(together["outputs"].size(), 3U);
  EXPECT_EQ(together["outputs"][0]["slice"], slice);
  EXPECT_EQ(together["outputs"][2]["slice"], "e4b");
  EXPECT_LT(together["outputs"][0]["parameters"], together["outputs"][2]["parameters"]);
  const nlohmann::json small = with({"convert", Micro(), "--slice", slice, "-o", Out("alone.task"), "-o", Out("alone.litertlm")});
  const nlohmann::json big = with({"convert", Micro(), "-o", Out("alone-big.litertlm")});
  EXPECT_EQ(together["outputs"][0]["sha256"], small["outputs"][0]["sha256"]);
  EXPECT_EQ(together["outputs"][1]["sha256"], small["outputs"][1]["sha256"]);
  EXPECT_EQ(together["outputs"][2]["sha256"], big["outputs"][0]["sha256"]);
}

TEST_F(SeveralSlicesTest, AFolderTakesBothContainersOfEach) {
  fs::create_directory(folder_.path() / "out");
  const std::string slice = SmallSlice();
  ASSERT_EQ(Taskpress({"convert", Micro(), "--slice", slice, "-o", Out("out"), "--slice", "e4b", "-o", Out("out"), "--context", "64",
                       "--prefill", "8", "--no-lock"})
                .status,
            0);
  EXPECT_THAT(NamesIn(folder_.path() / "out"),
              ::testing::ElementsAre("micro-e4b-e4b.litertlm", "micro-e4b-e4b.task", "micro-e4b-small.litertlm", "micro-e4b-small.task"));
}

TEST_F(SeveralSlicesTest, AnOutputWithoutSliceOrASliceWithoutOutputIsAUsageError) {
  const std::string slice = SmallSlice();
  const Finished first = Taskpress({"convert", Micro(), "-o", Out("a.task"), "--slice", slice, "--slice", "e4b", "-o", Out("b.task")});
  EXPECT_EQ(first.status, 2);
  EXPECT_THAT(first.err, HasSubstr("stands behind its --slice"));
  const Finished second = Taskpress({"convert", Micro(), "--slice", slice, "--slice", "e4b", "-o", Out("b.task")});
  EXPECT_EQ(second.status, 2);
  EXPECT_THAT(second.err, HasSubstr("no output follows it"));
  EXPECT_EQ(NamesIn(folder_.path()).size(), 1U);
}

// Rows of a stored matrix that several slices need are read beside each other.
TEST_F(SeveralSlicesTest, UnitsOfTheStreamHoldTheSameRowsOfAllSlices) {
  const std::unique_ptr<const ModelFiles> files = Must(OpenModelFiles(oracle::MicroCheckpoint()));
  PrepareOptions options;
  options.recipe = Must(RecipeFromName("dynamic_int4"));
  options.model.context = 64;
  options.model.prefill_lengths = {8};
  const PreparedModel big = Must(PrepareModel(*files, oracle::MicroCheckpoint(), options));
  options.slice = SmallSlice();
  const PreparedModel small = Must(PrepareModel(*files, oracle::MicroCheckpoint(), options));
  const std::vector<BundleJob> jobs = {{.model = &big, .outputs = {"big.task"}}, {.model = &small, .outputs = {"small.task"}}};
  const ConversionPlan plan = Must(PlanConversion(jobs));
  size_t shared = 0;
  for (const StreamGroup& group : plan.stream.groups()) {
    if (group.rows && group.constants.size() > 1) ++shared;
  }
  // Every matrix of every kept layer, the unembeddings, both embedders; only per_layer_model_projection has rows of other numbers.
  EXPECT_GT(shared, 14U * 9U);
  EXPECT_LT(plan.stream.groups().size(), plan.stream.constants().size() * 6 / 10);
}

}  // namespace
}  // namespace taskpress::testing
