// Slices of the micro checkpoint as bundles: what transformers computes from the same sub-models, straight from the checkpoint and by way
// of a sliced folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "converter/slice_folder.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

using oracle::Tokens;

// As for the whole checkpoint (micro_bundle_test.cc): orders of summation differ, nothing else.
constexpr double kLogitTolerance = 5e-5;

class SliceBundleTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path Spec() {
    const nlohmann::json slice = oracle::ReadGoldenJson("inputs.json").at("slices").at(GetParam());
    return folder_.Write("slice.json", nlohmann::json{{"ffn", slice.at("ffn")}, {"skip", slice.at("drop")}}.dump());
  }
  std::filesystem::path Convert(const std::filesystem::path& checkpoint, const std::string& slice, const char* name) {
    PrepareOptions options;
    options.recipe = Must(RecipeFromName("f32"));
    options.slice = slice;
    options.model.context = 320;
    options.model.prefill_lengths = {8, 32, 128};
    const std::filesystem::path out = folder_.path() / name;
    Must(WriteBundles(Must(PrepareModel(checkpoint, options)), std::vector{out}, {.work = {.threads = 2}}));
    return out;
  }
  TempFolder folder_;
};

TEST_P(SliceBundleTest, LogitsAndGreedyContinuationsAreThoseOfTransformers) {
  const std::filesystem::path bundle = Convert(oracle::MicroCheckpoint(), Spec().string(), "slice.litertlm");
  Session session = OpenSession(bundle, Kernels::kXnnpack);
  const auto vocab = static_cast<size_t>(session.vocab_size());
  const oracle::TrustingSafetensors goldens = oracle::GoldenTensors(GetParam());
  const std::vector<Tokens> prompts = oracle::GoldenPrompts();
  const std::vector<Tokens> greedy = oracle::GoldenGreedy(GetParam());
  double worst = 0;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const std::vector<float> rows = ScoreAll(session, prompts[p]);
    const oracle::StoredTensor& golden = goldens.Get("p" + std::to_string(p) + ".logits");  // every row, or the last
    for (int64_t row = 0; row < golden.rows(); ++row) {
      std::vector<float> expected(vocab);
      golden.ReadRow(row, 0, expected);
      const size_t at = prompts[p].size() - static_cast<size_t>(golden.rows() - row);
      for (size_t i = 0; i < vocab; ++i) worst = std::max(worst, std::abs(double{rows[at * vocab + i]} - double{expected[i]}));
    }
    session.Reset();
    Must(session.Prefill(std::span(prompts[p]).first(prompts[p].size() - 1)));
    Tokens reply;
    int32_t last = prompts[p].back();
    while (reply.size() < greedy[p].size()) {
      const std::span<const float> logits = Must(session.Decode(last));
      reply.push_back(last = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin()));
    }
    EXPECT_EQ(reply, greedy[p]) << "prompt " << p;
  }
  EXPECT_EQ(prompts.size(), 8U);
  EXPECT_LE(worst, kLogitTolerance);
}

TEST_P(SliceBundleTest, ASlicedFolderConvertsToTheSameModels) {
  const std::string spec = Spec().string();
  Must(WriteSliceFolder(oracle::MicroCheckpoint(), folder_.path() / "sliced", {.slice = spec}));
  const Bundle straight = Must(ReadBundle(Convert(oracle::MicroCheckpoint(), spec, "straight.litertlm")));
  const Bundle by_folder = Must(ReadBundle(Convert(folder_.path() / "sliced", "e4b", "folder.litertlm")));
  ASSERT_EQ(straight.sections.size(), by_folder.sections.size());
  for (const Section& section : straight.sections) {
    const Section* other = by_folder.Find(section.kind);
    ASSERT_NE(other, nullptr) << section.name;
    EXPECT_TRUE(std::ranges::equal(section.bytes->view(), other->bytes->view())) << section.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Slices, SliceBundleTest, ::testing::Values("e2b", "mixed"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace taskpress::testing
