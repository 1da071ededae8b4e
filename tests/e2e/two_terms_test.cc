// Int8 with inputs as two terms, beside plain int8: the same bytes, less divergence from the floats.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/divergence.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/reference/golden_windows.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

constexpr size_t kScored = TASKPRESS_SANITIZED ? 32 : 128;

std::vector<int32_t> Window(size_t index) {
  const auto windows = oracle::GoldenWindows();
  return {windows[index].begin(), windows[index].begin() + kScored};
}

Session Open(const std::string& recipe, Kernels kernels) {
  return Must(Session::Create(PrepareMicro({.recipe = recipe, .score = true}).graphs, {.kernels = kernels, .threads = 2}));
}

TEST(TwoTermsTest, WeightsHaveTheBytesOfPlainInt8) {
  const PreparedModel one = PrepareMicro({.recipe = "dynamic_int8"});
  const PreparedModel two = PrepareMicro({.recipe = "dynamic_int8_two_terms"});
  ASSERT_EQ(one.weights.size(), two.weights.size());
  for (size_t i = 0; i < one.weights.size(); ++i) {
    const BundleWeight& a = one.weights[i];
    const BundleWeight& b = two.weights[i];
    ASSERT_EQ(a.name, b.name);
    std::vector<std::byte> bytes(static_cast<size_t>(a.rows->size()));
    std::vector<std::byte> others(static_cast<size_t>(b.rows->size()));
    Must(a.rows->Read(0, bytes));
    Must(b.rows->Read(0, others));
    EXPECT_EQ(bytes, others) << a.name;
  }
  EXPECT_THAT(two.resolved_recipe, ::testing::HasSubstr("int8_two_terms absmax feed_forward        layers.0.mlp.down_proj.weight"));
}

#if !TASKPRESS_SANITIZED
TEST(TwoTermsTest, LoseLessThanOne) {
  const auto divergence = [](const std::string& recipe) {
    Session exact = Open("f32", Kernels::kXnnpack);
    Session session = Open(recipe, Kernels::kXnnpack);
    Divergence between(session.vocab_size());
    for (size_t w = 0; w < 4; ++w) between.AddWindow(Window(w), ScoreAll(session, Window(w)), ScoreAll(exact, Window(w)));
    return between.Summarize().kl_mean;
  };
  const double one = divergence("dynamic_int8");
  const double two = divergence("dynamic_int8_two_terms");
  std::cout << Format("KL: one term {:.6f}, two terms {:.6f}\n", one, two);
  EXPECT_GT(two, 0);
  EXPECT_LT(two, 0.7 * one);
}
#endif

TEST(TwoTermsTest, FusedStepsAndPlainLoopsAgree) {
  Session reference = Open("dynamic_int8_two_terms", Kernels::kReference);
  Session exact = Open("f32", Kernels::kXnnpack);
  std::vector<int32_t> window = Window(0);
  window.resize(32);
  const std::vector<float> expected = ScoreAll(reference, window);
  const std::vector<float> floats = ScoreAll(exact, window);
  const auto kl = [&](std::span<const float> logits, std::span<const float> others) {
    Divergence between(reference.vocab_size());
    between.AddWindow(window, logits, others);
    return between.Summarize().kl_mean;
  };
  for (const Kernels kernels : {Kernels::kXnnpack, Kernels::kFast}) {
    Session session = Open("dynamic_int8_two_terms", kernels);
    EXPECT_LT(kl(ScoreAll(session, window), expected), 0.2 * kl(expected, floats)) << "roundings that fall to the other side, no more";
  }
}

}  // namespace
}  // namespace taskpress::testing
