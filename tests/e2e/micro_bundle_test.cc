// From the micro checkpoint to a bundle and back to numbers: what comes out is what transformers computes from the same weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/divergence.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/reference/golden_windows.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

using oracle::Tokens;

// Both sides compute in float32, in different orders; the one-page reference model is 1.2e-5 away from transformers as well. The largest
// difference measured is 1.0e-5 on the reference kernels and 1.4e-5 on XNNPACK (whose exp, tanh and rsqrt are polynomials); 5e-5 leaves
// room for another CPU's order of sums and is far below what a wrong weight makes (0.1 and more) or a wrong position (units).
constexpr double kLogitTolerance = 5e-5;

double MaxDifference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return HUGE_VAL;
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

int32_t Best(std::span<const float> logits) { return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin()); }

std::vector<float> Copy(std::span<const float> row) { return {row.begin(), row.end()}; }

// One f32 bundle for all tests of this program; conversions with other options are made where they are needed.
class MicroBundleTest : public ::testing::TestWithParam<Kernels> {
 protected:
  static void SetUpTestSuite() {
    if (folder_ != nullptr) return;
    static TempFolder folder;
    folder_ = &folder;
    WriteMicro({}, {F32Task(), F32Litertlm()});
  }
  static std::filesystem::path F32Task() { return folder_->path() / "f32.task"; }
  static std::filesystem::path F32Litertlm() { return folder_->path() / "f32.litertlm"; }
  static std::filesystem::path Make(const std::string& name, const MicroOptions& options) {
    const std::filesystem::path path = folder_->path() / (name + ".litertlm");
    if (!std::filesystem::exists(path)) WriteMicro(options, {path});
    return path;
  }
  static const TempFolder* folder_;
};
const TempFolder* MicroBundleTest::folder_ = nullptr;

class MicroBundleOnKernelsTest : public MicroBundleTest {};

// Rows of the goldens have 2304 columns, those of a bundle the 2048 of the text vocabulary.
double WorstAgainstGolden(size_t prompt, std::span<const float> rows, size_t tokens, size_t vocab) {
  static const oracle::TrustingSafetensors goldens = oracle::GoldenTensors("e4b");
  const std::string name = "p" + std::to_string(prompt);
  const oracle::StoredTensor& whole = goldens.Get(name + ".logits");  // every row, or the last
  double worst = 0;
  for (int64_t row = 0; row < whole.rows(); ++row) {
    std::vector<float> expected(vocab);
    whole.ReadRow(row, 0, expected);
    const size_t at = tokens - static_cast<size_t>(whole.rows() - row);
    worst = std::max(worst, MaxDifference(rows.subspan(at * vocab, vocab), expected));
  }
  const std::vector<float> values = goldens.Get(name + ".top64_values").Floats();  // [tokens, 64]
  const std::vector<int32_t> ids = goldens.Get(name + ".top64_ids").Integers();
  EXPECT_EQ(ids.size(), tokens * 64);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<int32_t>(vocab)) continue;
    const double actual = static_cast<double>(rows[i / 64 * vocab + static_cast<size_t>(ids[i])]);
    worst = std::max(worst, std::abs(actual - static_cast<double>(values[i])));
  }
  return worst;
}

TEST_P(MicroBundleOnKernelsTest, LogitsOfEveryPositionAreThoseOfTransformers) {
  Session session = OpenSession(F32Task(), GetParam());
  const std::vector<Tokens> prompts = oracle::GoldenPrompts();
  for (size_t p = 0; p < prompts.size(); ++p) {
    const std::vector<float> rows = ScoreAll(session, prompts[p]);
    const double worst = WorstAgainstGolden(p, rows, prompts[p].size(), static_cast<size_t>(session.vocab_size()));
    EXPECT_LE(worst, kLogitTolerance) << "prompt " << p;
  }
}

// The closest decision has a margin of 2.2e-3, far above the tolerance, so every id must be the same. Prompts of 33 ids and more, and the
// replies to shorter ones, are longer than the sliding window of 32.
TEST_P(MicroBundleOnKernelsTest, GreedyContinuationsAreThoseOfTransformers) {
  Session session = OpenSession(F32Litertlm(), GetParam());
  const std::vector<Tokens> prompts = oracle::GoldenPrompts();
  const std::vector<Tokens> expected = oracle::GoldenGreedy("e4b");
  for (size_t p = 0; p < prompts.size(); ++p) {
    session.Reset();
    Must(session.Prefill(std::span(prompts[p]).first(prompts[p].size() - 1)));
    Tokens reply;
    int32_t last = prompts[p].back();
    while (reply.size() < expected[p].size()) reply.push_back(last = Best(Must(session.Decode(last))));
    EXPECT_EQ(reply, expected[p]) << "prompt " << p;
  }
}

// Rows of a call do not see each other's arithmetic, only its order: measured differences are 0 on the reference kernels and below 1e-5 on
// XNNPACK, which picks other micro-kernels for other row counts.
TEST_P(MicroBundleOnKernelsTest, PrefillInOneChunkInManyAndTokenByTokenAgree) {
  const Tokens prompt = oracle::GoldenPrompts().back();  // 200 ids
  const std::filesystem::path one = Make("prefill199", {.prefill = {199}});
  Session chunk = OpenSession(one, GetParam());
  Must(chunk.Prefill(std::span(prompt).first(199)));
  const std::vector<float> at_once = Copy(Must(chunk.Decode(prompt.back())));

  Session session = OpenSession(F32Task(), GetParam());
  Must(session.Prefill(std::span(prompt).first(199)));  // 128, 32, 32, 7 of 8
  EXPECT_EQ(session.position(), 199);
  EXPECT_LE(MaxDifference(Must(session.Decode(prompt.back())), at_once), kLogitTolerance);

  session.Reset();
  for (size_t at = 0; at < 199; at += 5) Must(session.Prefill(std::span(prompt).subspan(at, std::min<size_t>(5, 199 - at))));
  EXPECT_LE(MaxDifference(Must(session.Decode(prompt.back())), at_once), kLogitTolerance);

  session.Reset();
  for (const int32_t token : std::span(prompt).first(199)) Must(session.Decode(token));
  EXPECT_LE(MaxDifference(Must(session.Decode(prompt.back())), at_once), kLogitTolerance);
}

// A call of many rows and calls of one row add up in another order, no more.
TEST_P(MicroBundleOnKernelsTest, TheScoreSignatureSaysWhatDecodeSays) {
  Session scoring = OpenSession(Make("score", {.score = true}), GetParam());
  Session decoding = OpenSession(F32Task(), GetParam());
  const Tokens window = oracle::GoldenWindows()[0];  // 256 ids: two calls of score_128
  const std::vector<float> scored = ScoreAll(scoring, std::span(window).first(200));
  const std::vector<float> decoded = ScoreAll(decoding, std::span(window).first(200));
  EXPECT_LE(MaxDifference(scored, decoded), kLogitTolerance);
}

INSTANTIATE_TEST_SUITE_P(Kernels, MicroBundleOnKernelsTest, ::testing::Values(Kernels::kReference, Kernels::kXnnpack, Kernels::kFast),
                         [](const auto& kernels) {
                           if (kernels.param == Kernels::kReference) return std::string("Reference");
                           return std::string(kernels.param == Kernels::kFast ? "Fast" : "Xnnpack");
                         });

// The gather form reads the last 32 slots, the mask form all of them with weight 0 for the others: the same sums with zeros in between.
TEST_F(MicroBundleTest, BothWaysToReadASlidingWindowGiveTheSameLogits) {
  Session gather = OpenSession(Make("score", {.score = true}), Kernels::kXnnpack);
  Session mask = OpenSession(Make("mask", {.window = WindowForm::kMask, .score = true}), Kernels::kXnnpack);
  const Tokens window = oracle::GoldenWindows()[1];
  EXPECT_LE(MaxDifference(ScoreAll(gather, window), ScoreAll(mask, window)), kLogitTolerance);
}

TEST_F(MicroBundleTest, BothContainersHoldTheSameModelBytes) {
  const Bundle task = Must(ReadBundle(F32Task()));
  const Bundle litertlm = Must(ReadBundle(F32Litertlm()));
  ASSERT_EQ(task.sections.size(), litertlm.sections.size());
  for (const Section& section : task.sections) {
    if (section.kind == SectionKind::kMetadata) continue;  // spelled differently
    const Section* other = litertlm.Find(section.kind);
    ASSERT_NE(other, nullptr) << section.name;
    EXPECT_TRUE(std::ranges::equal(section.bytes->view(), other->bytes->view())) << section.name;
  }
}

TEST_F(MicroBundleTest, TheForecastIsTheSizeToTheByte) {
  for (const std::string recipe : {"dynamic_int4", "dynamic_int4_block32"}) {
    const PreparedModel model = PrepareMicro({.recipe = recipe, .score = true});
    const std::filesystem::path task = folder_->path() / (recipe + "-forecast.task");
    const std::filesystem::path litertlm = folder_->path() / (recipe + "-forecast.litertlm");
    const std::vector<WrittenBundle> written = Must(WriteBundles(model, std::vector{task, litertlm}, {}));
    EXPECT_EQ(Must(ForecastBundleSize(model, Container::kTask)), std::filesystem::file_size(task));
    EXPECT_EQ(Must(ForecastBundleSize(model, Container::kLitertlm)), std::filesystem::file_size(litertlm));
    EXPECT_EQ(written[0].bytes, std::filesystem::file_size(task));
  }
}

// The order that the formats promise, in bits per weight and in what is paid for them.
TEST_F(MicroBundleTest, FinerScalesAndClippingBringTheModelNearerToItsFloats) {
  const Tokens window = oracle::GoldenWindows()[2];
  Session exact = OpenSession(Make("score", {.score = true}), Kernels::kXnnpack);
  const std::vector<float> truth = ScoreAll(exact, window);
  const auto divergence = [&](const std::string& name, const MicroOptions& options) {
    Session session = OpenSession(Make(name, options), Kernels::kXnnpack);
    Divergence from_float(session.vocab_size());
    from_float.AddWindow(window, ScoreAll(session, window), truth);
    return from_float.Summarize().kl_mean;
  };
  const double absmax = divergence("order-absmax", {.recipe = "dynamic_int4", .score = true});
  const double clip = divergence("order-clip", {.recipe = "dynamic_int4", .method = QuantMethod::kClip, .score = true});
  const double blocks = divergence("order-block32", {.recipe = "dynamic_int4_block32", .score = true});
  const double both = divergence("order-both", {.recipe = "dynamic_int4_block32", .method = QuantMethod::kClip, .score = true});
  EXPECT_LT(clip, 0.8 * absmax);
  EXPECT_LT(blocks, 0.6 * absmax);
  EXPECT_LT(both, blocks);
}

TEST_F(MicroBundleTest, ProgressOfAStageEndsAtItsTotal) {
  std::map<std::string, std::pair<uint64_t, uint64_t>> stages;
  WriteOptions options;
  options.on_event = [&](const ConvertEvent& event) { stages[std::string(event.stage)] = {event.bytes_done, event.bytes_total}; };
  Must(WriteBundles(PrepareMicro({.recipe = "dynamic_int4"}), std::vector<std::filesystem::path>{folder_->path() / "progress.task"},
                    options));
  EXPECT_GT(stages["write"].second, 0U);
  EXPECT_EQ(stages["write"].first, stages["write"].second);
  EXPECT_TRUE(stages.contains("verify"));
  EXPECT_TRUE(stages.contains("smoke"));
}

TEST_F(MicroBundleTest, TheSameOptionsGiveTheSameBytesWhateverThreadsFolderAndTime) {
  const auto digest = [](const MicroOptions& options, const std::filesystem::path& path) { return WriteMicro(options, {path})[0].sha256; };
  const MicroOptions options{.recipe = "dynamic_int4", .score = true, .threads = 1};
  MicroOptions blocks{.recipe = "dynamic_int4_block32", .method = QuantMethod::kClip, .threads = 1};
  const std::string of_blocks = digest(blocks, folder_->path() / "blocks-one-thread.task");
  blocks.threads = 3;
  EXPECT_EQ(digest(blocks, folder_->path() / "blocks-three-threads.task"), of_blocks);
  const std::string expected = digest(options, folder_->path() / "one-thread.task");
  MicroOptions two = options;
  two.threads = 2;
  EXPECT_EQ(digest(two, folder_->path() / "two-threads.task"), expected);
  TempFolder other;
  EXPECT_EQ(digest(two, other.path() / "again.task"), expected);

  // Each option leaves its mark.
  std::vector<std::string> digests{expected, digest(two, folder_->path() / "other.litertlm")};
  const auto with = [&](auto change) {
    MicroOptions changed = options;
    change(changed);
    digests.push_back(digest(changed, folder_->path() / ("other" + std::to_string(digests.size()) + ".task")));
  };
  with([](MicroOptions& changed) { changed.recipe = "dynamic_int8"; });
  with([](MicroOptions& changed) { changed.recipe = "dynamic_int4_block32"; });
  with([](MicroOptions& changed) { changed.method = QuantMethod::kClip; });
  with([](MicroOptions& changed) { changed.context = 256; });
  with([](MicroOptions& changed) { changed.prefill = {8}; });
  with([](MicroOptions& changed) { changed.window = WindowForm::kMask; });
  with([](MicroOptions& changed) { changed.score = false; });
  std::ranges::sort(digests);
  EXPECT_EQ(std::ranges::adjacent_find(digests), digests.end());
}

// Two held-out windows, token by token, against transformers; all of them, and quantized, in micro_perplexity_test.cc.
TEST_F(MicroBundleTest, LikelihoodsOfHeldOutTextAreThoseOfTransformers) {
  Session session = OpenSession(Make("score", {.score = true}), Kernels::kXnnpack);
  const oracle::TrustingSafetensors tensors = oracle::GoldenTensors("e4b");
  const oracle::StoredTensor& golden = tensors.Get("windows.nll");  // [48, 255]
  const auto vocab = static_cast<size_t>(session.vocab_size());
  for (const size_t w : {size_t{0}, size_t{47}}) {
    const Tokens window = oracle::GoldenWindows()[w];
    const std::vector<float> rows = ScoreAll(session, window);
    std::vector<float> expected(window.size() - 1);
    golden.ReadRow(static_cast<int64_t>(w), 0, expected);
    for (size_t t = 0; t < expected.size(); ++t) {
      const std::span<const float> row = std::span(rows).subspan(t * vocab, vocab);
      // The golden sums over 2304 rows of the head: 256 of them are copies of row 0 (<pad>), whose probability counts 257 times.
      const double pads = std::log1p(256 * std::exp(-oracle::NegativeLogLikelihood(row, 0)));
      EXPECT_NEAR(oracle::NegativeLogLikelihood(row, window[t + 1]) + pads, static_cast<double>(expected[t]), 1e-4)
          << "window " << w << ", token " << t + 1;
    }
  }
}

// Activations are rounded to 8 bits at run time. Both kernels round the same float to the same code, but floats that differ in their last
// bits (the fast kernels use the CPU clients' approximations of GELU, SIN and roots, the reference kernels float64) may fall on either side
// of a rounding boundary. A flip is as large as a quantization step and reaches every later token through the cache; where it comes depends
// on the CPU. So beginnings of many windows are compared: until the first flip the kernels are as close as float kernels are, and no error
// of a kernel would leave that many tokens alone.
TEST_F(MicroBundleTest, QuantizedKernelsDifferOnlyWhereARoundingFlips) {
  constexpr size_t kWindows = 16;
  constexpr size_t kTokens = 6;
  Session exact = OpenSession(F32Task(), Kernels::kXnnpack);
  for (const char* recipe : {"dynamic_int8", "dynamic_int4", "dynamic_int4_block32"}) {
    const std::filesystem::path path = Make(recipe, {.recipe = recipe});
    Session fast = OpenSession(path, Kernels::kFast);
    Session plain = OpenSession(path, Kernels::kReference);
    const auto vocab = static_cast<size_t>(fast.vocab_size());
    Divergence between(fast.vocab_size());
    Divergence from_float(fast.vocab_size());
    size_t equal = 0;
    for (size_t w = 0; w < kWindows; ++w) {
      const Tokens window = oracle::GoldenWindows()[w];
      const std::span<const int32_t> tokens = std::span(window).first(kTokens);
      const std::vector<float> fast_rows = ScoreAll(fast, tokens);
      const std::vector<float> plain_rows = ScoreAll(plain, tokens);
      for (size_t t = 0; t < kTokens; ++t) {
        const double apart = MaxDifference(std::span(fast_rows).subspan(t * vocab, vocab), std::span(plain_rows).subspan(t * vocab, vocab));
        if (apart <= kLogitTolerance) ++equal;
      }
      between.AddWindow(tokens, fast_rows, plain_rows);
      from_float.AddWindow(tokens, fast_rows, ScoreAll(exact, tokens));
    }
    EXPECT_GE(equal, kWindows * kTokens / 2) << recipe;
    EXPECT_LE(between.Summarize().kl_mean, 0.1 * from_float.Summarize().kl_mean) << recipe << ", " << equal;
  }
}

}  // namespace
}  // namespace taskpress::testing
