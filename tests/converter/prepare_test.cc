#include "converter/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PrefillLengthsTest, AreAscendingWithoutDuplicatesAndBeginWithAShortOne) {
  EXPECT_THAT(PrefillLengths({1024, 128, 32, 8}, 4096).value(), ElementsAre(8, 32, 128, 1024));
  EXPECT_THAT(PrefillLengths({}, 4096).value(), ElementsAre(8));
  EXPECT_THAT(PrefillLengths({128, 128}, 4096).value(), ElementsAre(8, 128));
  EXPECT_THAT(PrefillLengths({33}, 64).value(), ElementsAre(8, 33));
  EXPECT_THAT(PrefillLengths({32}, 64).value(), ElementsAre(32));  // short enough itself
  EXPECT_THAT(PrefillLengths({1}, 64).value(), ElementsAre(1));
  EXPECT_THAT(PrefillLengths({64}, 64).value(), ElementsAre(8, 64));
  EXPECT_THAT(PrefillLengths({}, 5).value(), ElementsAre(5));  // never longer than the context
}

TEST(PrefillLengthsTest, RefuseWhatDoesNotFit) {
  for (const int64_t length : {int64_t{0}, int64_t{-8}, int64_t{65}}) {
    const Result<std::vector<int64_t>> lengths = PrefillLengths({8, length}, 64);
    ASSERT_FALSE(lengths.has_value()) << length;
    EXPECT_EQ(lengths.error().code, ErrorCode::kUsage);
    EXPECT_THAT(lengths.error().message, HasSubstr(std::to_string(length)));
  }
}

TEST(ScoreLengthTest, KeepsTheLogitsOfACallWithin64MiB) {
  EXPECT_EQ(ScoreLength(2048, 4096), 128);
  EXPECT_EQ(ScoreLength(131072, 4096), 128);  // exactly 64 MiB
  EXPECT_EQ(ScoreLength(131073, 4096), 64);
  EXPECT_EQ(ScoreLength(262144, 4096), 64);  // Gemma's vocabulary
  EXPECT_EQ(ScoreLength(1 << 20, 4096), 16);
  EXPECT_EQ(ScoreLength(2048, 100), 100);  // never longer than the context
}

TEST(PrepareModelTest, NamesTheCheckpointThatIsNotThere) {
  const Result<PreparedModel> missing = PrepareModel("/none/gemma", {});
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kFileNotFound);
  EXPECT_THAT(missing.error().message, HasSubstr("/none/gemma:"));
}

TEST(PrepareModelTest, SaysOfAnotherKindOfFileWhatIsWrongWithIt) {
  const TempFolder folder;
  const Result<PreparedModel> bundle = PrepareModel(folder.Write("gemma.task", "PK\x03\x04 and so on"), {});
  ASSERT_FALSE(bundle.has_value());
  EXPECT_EQ(bundle.error().code, ErrorCode::kSafetensorsHeader) << bundle.error().message;
}

TEST(PrepareModelTest, RefusesAContextNoMachineHas) {
  for (const int64_t context : {int64_t{0}, int64_t{-1}, kMaxContext + 1, int64_t{1} << 40}) {
    PrepareOptions options;
    options.model.context = context;
    const Result<PreparedModel> model = PrepareModel(TASKPRESS_TEST_DATA "/micro-e4b", options);
    ASSERT_FALSE(model.has_value()) << context;
    EXPECT_EQ(model.error().code, ErrorCode::kUsage);
  }
}

TEST(PrepareModelTest, AddsAScoreSignatureWhenAsked) {
  for (const bool asked : {false, true}) {
    PrepareOptions options{.recipe = RecipeFromName("f32").value(), .score_signature = asked};
    options.model.context = 64;
    options.model.prefill_lengths = PrefillLengths({}, 64).value();
    const Result<PreparedModel> model = PrepareModel(TASKPRESS_TEST_DATA "/micro-e4b", options);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_EQ(model->contract.score_length, asked ? std::optional<int64_t>(64) : std::nullopt);
    EXPECT_EQ(model->metadata.max_num_tokens, 64);
    EXPECT_EQ(model->parameters.text, 4'750'080);
  }
}

}  // namespace
}  // namespace taskpress
