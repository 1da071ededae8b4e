// From a Gemma 3 checkpoint to a bundle and back to numbers: what comes out is what transformers computes from the same weights
// (tests/data/micro-gemma3, made by tests/testing/make_gemma3_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/divergence.h"
#include "runtime/log_probability.h"
#include "schema/base/error.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using oracle::Tokens;

// Both sides compute in float32, in different orders. The largest difference measured is 1.22e-5 on the reference kernels and 1.24e-5 on
// XNNPACK, of logits up to 14; 5e-5 is also what the other micro checkpoint is held to. Mistakes make 0.9 and more, see below.
constexpr double kLogitTolerance = 5e-5;

constexpr int64_t kContext = 256;  // one of the windows

fs::path Checkpoint() { return fs::path(TASKPRESS_TEST_DATA) / "micro-gemma3"; }

const nlohmann::json& Goldens() {
  static const nlohmann::json goldens = nlohmann::json::parse(std::ifstream(Checkpoint() / "goldens.json"));
  return goldens;
}
std::vector<Tokens> Prompts() { return Goldens().at("prompts"); }
std::vector<Tokens> Windows() { return Goldens().at("windows"); }

struct Options {
  std::string recipe = "f32";
  std::vector<int64_t> prefill = {8, 32};
  WindowForm window = WindowForm::kGather;
  bool score = false;
};

PreparedModel Prepare(const fs::path& checkpoint, const Options& options) {
  PrepareOptions prepare;
  prepare.recipe = Must(RecipeFromName(options.recipe));
  prepare.score_signature = options.score;
  prepare.model.context = kContext;
  prepare.model.window = options.window;
  prepare.model.prefill_lengths = Must(PrefillLengths(options.prefill, kContext));
  return Must(PrepareModel(checkpoint, prepare));
}

double Distance(float a, float b) {
  const double distance = std::abs(static_cast<double>(a) - static_cast<double>(b));
  return std::isnan(distance) ? HUGE_VAL : distance;
}

double MaxDifference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) worst = std::max(worst, Distance(a[i], b[i]));
  return worst;
}

std::vector<float> Copy(std::span<const float> row) { return {row.begin(), row.end()}; }

// Of prompts up to 8 ids every logit; of longer ones the last row and the 48 best of each row.
double WorstAgainstGolden(Session& session, size_t prompt) {
  static const oracle::TrustingSafetensors goldens = oracle::TrustingSafetensors::Open(Checkpoint() / "goldens.safetensors");
  const std::vector<float> rows = ScoreAll(session, Prompts()[prompt]);
  const auto vocab = static_cast<size_t>(session.vocab_size());
  const std::vector<float> whole = goldens.Get(Format("p{}.logits", prompt)).Floats();
  double worst = MaxDifference(std::span(rows).last(whole.size()), whole);
  if (whole.size() == rows.size()) return worst;
  const oracle::StoredTensor& best = goldens.Get(Format("p{}.top_values", prompt));
  const std::vector<float> values = best.Floats();  // [ids, 48]
  const std::vector<int32_t> ids = goldens.Get(Format("p{}.top_ids", prompt)).Integers();
  const auto kept = static_cast<size_t>(best.columns());
  EXPECT_EQ(ids.size(), Prompts()[prompt].size() * kept);
  for (size_t i = 0; i < ids.size(); ++i) {
    worst = std::max(worst, Distance(rows[i / kept * vocab + static_cast<size_t>(ids[i])], values[i]));
  }
  return worst;
}

// One f32 bundle for all tests of this program; conversions with other options are made where they are needed.
class Gemma3BundleTest : public ::testing::TestWithParam<Kernels> {
 protected:
  static void SetUpTestSuite() {
    if (folder_ != nullptr) return;
    static TempFolder folder;
    folder_ = &folder;
    Must(WriteBundles(Prepare(Checkpoint(), {}), std::vector{F32Task(), F32Litertlm()}, {.work = {.threads = 2}}));
  }
  static fs::path F32Task() { return folder_->path() / "f32.task"; }
  static fs::path F32Litertlm() { return folder_->path() / "f32.litertlm"; }
  static fs::path Make(const std::string& name, const Options& options) {
    const fs::path path = folder_->path() / (name + ".litertlm");
    if (!fs::exists(path)) Must(WriteBundles(Prepare(Checkpoint(), options), std::vector{path}, {.work = {.threads = 2}}));
    return path;
  }
  static const TempFolder* folder_;
};
const TempFolder* Gemma3BundleTest::folder_ = nullptr;

class Gemma3BundleOnKernelsTest : public Gemma3BundleTest {};

TEST_P(Gemma3BundleOnKernelsTest, LogitsOfEveryPositionAreThoseOfTransformers) {
  Session session = OpenSession(F32Task(), GetParam());
  ASSERT_EQ(session.vocab_size(), 2048);
  ASSERT_EQ(Prompts().size(), 4U);
  ASSERT_EQ(Prompts().back().size(), 100U);  // the window is 8
  for (size_t p = 0; p < Prompts().size(); ++p) {
    const double worst = WorstAgainstGolden(session, p);
    EXPECT_LE(worst, kLogitTolerance) << "prompt " << p;
  }
}

TEST_P(Gemma3BundleOnKernelsTest, GreedyContinuationsAreThoseOfTransformers) {
  Session session = OpenSession(F32Litertlm(), GetParam());
  const std::vector<Tokens> expected = Goldens().at("greedy");
  for (size_t p = 0; p < expected.size(); ++p) {
    // The closest decision of all is 0.024 wide, so every id must be the same.
    ASSERT_GT(Goldens().at("greedy_min_margin")[p].get<double>(), 100 * kLogitTolerance);
    const Tokens prompt = Prompts()[p];
    session.Reset();
    Must(session.Prefill(std::span(prompt).first(prompt.size() - 1)));
    Tokens reply;
    int32_t last = prompt.back();
    while (reply.size() < expected[p].size()) {
      const std::span<const float> logits = Must(session.Decode(last));
      last = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      reply.push_back(last);
    }
    EXPECT_EQ(reply, expected[p]) << "prompt " << p;
  }
}

// Measured: 0 on both kernels.
TEST_P(Gemma3BundleOnKernelsTest, PrefillInOneChunkInManyAndTokenByTokenAgree) {
  const Tokens prompt = Prompts().back();
  const std::span<const int32_t> before = std::span(prompt).first(99);
  Session chunk = OpenSession(Make("prefill99", {.prefill = {99}}), GetParam());
  Must(chunk.Prefill(before));
  const std::vector<float> at_once = Copy(Must(chunk.Decode(prompt.back())));

  Session session = OpenSession(F32Task(), GetParam());
  Must(session.Prefill(before));  // 32, 32, 32, 3 of 8
  EXPECT_EQ(session.position(), 99);
  EXPECT_LE(MaxDifference(Must(session.Decode(prompt.back())), at_once), kLogitTolerance);

  session.Reset();
  for (size_t at = 0; at < 99; at += 5) Must(session.Prefill(before.subspan(at, std::min<size_t>(5, 99 - at))));
  EXPECT_LE(MaxDifference(Must(session.Decode(prompt.back())), at_once), kLogitTolerance);

  session.Reset();
  for (const int32_t token : before) Must(session.Decode(token));
  EXPECT_LE(MaxDifference(Must(session.Decode(prompt.back())), at_once), kLogitTolerance);
}

// The gather form reads the last 8 slots, the mask form all of them with weight 0 for the others: the same sums with zeros in between.
// Measured: 0 on both kernels.
TEST_P(Gemma3BundleOnKernelsTest, BothWaysToReadASlidingWindowGiveTheSameLogits) {
  Session gather = OpenSession(F32Task(), GetParam());
  Session mask = OpenSession(Make("mask", {.window = WindowForm::kMask}), GetParam());
  const double worst = MaxDifference(ScoreAll(gather, Windows()[0]), ScoreAll(mask, Windows()[0]));
  EXPECT_LE(worst, kLogitTolerance);
  EXPECT_LE(WorstAgainstGolden(mask, 3), kLogitTolerance);
}

// Measured: 4.8e-5 for the 255 ids of a window together.
TEST_P(Gemma3BundleOnKernelsTest, LikelihoodsOfWholeWindowsAreThoseOfTransformers) {
  Session session = OpenSession(Make("score", {.score = true}), GetParam());
  const std::vector<double> expected = Goldens().at("windows_nll");
  for (size_t w = 0; w < expected.size(); ++w) {
    const Tokens window = Windows()[w];
    ASSERT_EQ(window.size(), static_cast<size_t>(kContext));
    const std::vector<float> rows = ScoreAll(session, window);
    const auto vocab = static_cast<size_t>(session.vocab_size());
    double nll = 0;
    for (size_t t = 0; t + 1 < window.size(); ++t) nll -= LogProbability(std::span(rows).subspan(t * vocab, vocab), window[t + 1]);
    EXPECT_NEAR(nll, expected[w], 5e-4) << "window " << w;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Gemma3BundleOnKernelsTest, ::testing::Values(Kernels::kReference, Kernels::kXnnpack, Kernels::kFast),
                         [](const auto& kernels) {
                           if (kernels.param == Kernels::kReference) return std::string("Reference");
                           return std::string(kernels.param == Kernels::kFast ? "Fast" : "Xnnpack");
                         });

TEST_F(Gemma3BundleTest, HasNoPerLayerEmbedderAndSaysWhatItIs) {
  for (const fs::path& path : {F32Task(), F32Litertlm()}) {
    const Bundle bundle = Must(ReadBundle(path));
    EXPECT_EQ(bundle.Find(SectionKind::kPerLayerEmbedder), nullptr) << path;
    EXPECT_EQ(bundle.sections.size(), 4U) << path;  // metadata, tokenizer, embedder, prefill_decode
    const BundleModel model = Must(LoadBundleModel(bundle));
    EXPECT_FALSE(model.graphs.per_layer_embedder.has_value()) << path;
    if (bundle.container == Container::kLitertlm) {  // the metadata of a .task has no field for either
      EXPECT_EQ(model.metadata.model_type, "gemma3");
      EXPECT_EQ(model.metadata.max_num_tokens, kContext);
    }
    ASSERT_TRUE(model.metadata.start_token.has_value()) << path;
    EXPECT_EQ(model.metadata.start_token->id, 2) << path;
    EXPECT_EQ(model.metadata.user.prefix, "<start_of_turn>user\n") << path;
    EXPECT_GE(model.tokenizer.vocab_size(), 2048) << path;
  }
}

constexpr double kBetweenKernels = 1e-4;  // nats, mean

struct Quantized {
  const char* recipe;
  double kl;     // nats, mean over the windows, of the quantized model from the float model
  double cost;   // by how much of itself the perplexity rises
  double fused;  // nats, mean, between fused steps and the reference kernels, at most
};

// Measured on the 512 positions: KL 3.47e-3 and 0.541, the perplexity of 50.396 rises by 0.25 % and 81 %, KL between the kernels 2.0e-6 and
// 2.3e-6. Bounds are the double of what was measured and, since a model that lost nothing was not quantized, half of it; between the
// kernels 1e-4, as for the other micro checkpoint: another CPU's fast kernels round in other places. The perplexity is that of text which
// the float model itself wrote. Fused attention adds up in another order still, so more roundings of int8 fall to the other side: 1.6e-4. A
// width of 32 and random weights leave 4 bits little to hold on to.
TEST_F(Gemma3BundleTest, QuantizedModelsStayNearTheFloatModel) {
  Session exact = OpenSession(Make("score", {.score = true}), Kernels::kXnnpack);
  for (const Quantized& measured :
       {Quantized{"dynamic_int8", 3.47e-3, 2.5e-3, 3.2e-4}, Quantized{"dynamic_int4", 0.541, 0.81, kBetweenKernels}}) {
    const fs::path path = Make(measured.recipe, {.recipe = measured.recipe, .score = true});
    Session operators = OpenSession(path, Kernels::kXnnpack);
    Session fused = OpenSession(path, Kernels::kFast);
    Session plain = OpenSession(path, Kernels::kReference);
    Divergence from_float(exact.vocab_size());
    Divergence between(exact.vocab_size());
    Divergence between_fused(exact.vocab_size());
    for (const Tokens& window : Windows()) {
      const std::vector<float> rows = ScoreAll(operators, window);
      const std::vector<float> plain_rows = ScoreAll(plain, window);
      from_float.AddWindow(window, rows, ScoreAll(exact, window));
      between.AddWindow(window, plain_rows, rows);
      between_fused.AddWindow(window, plain_rows, ScoreAll(fused, window));
    }
    const DivergenceSummary summary = from_float.Summarize();
    EXPECT_EQ(summary.positions, 512) << measured.recipe;
    EXPECT_LE(summary.kl_mean, 2 * measured.kl) << measured.recipe;
    EXPECT_GE(summary.kl_mean, measured.kl / 2) << measured.recipe;
    EXPECT_LE(summary.perplexity_a / summary.perplexity_b, 1 + 2 * measured.cost) << measured.recipe;
    EXPECT_LE(between.Summarize().kl_mean, kBetweenKernels) << measured.recipe;
    EXPECT_LE(between_fused.Summarize().kl_mean, measured.fused) << measured.recipe;
  }
}

// A copy of the checkpoint with another config or other weights.
class ChangedCheckpoint {
 public:
  ChangedCheckpoint() { fs::copy(Checkpoint(), folder_.path() / "model"); }

  void SetConfig(const std::string& field, const nlohmann::json& value) const {
    nlohmann::json config = nlohmann::json::parse(ReadFileBytes(path() / "config.json"));
    EXPECT_TRUE(config.contains(field)) << field;
    config[field] = value;
    static_cast<void>(folder_.Write("model/config.json", config.dump()));
  }

  // What a converter that forgets to add 1 to these norms makes of them: 1 + (w - 1) is w.
  void SubtractOneFrom(const std::string& norm) const {
    std::string bytes = ReadFileBytes(path() / "model.safetensors");
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), sizeof(header_size));
    const nlohmann::json header = nlohmann::json::parse(bytes.substr(8, header_size));
    size_t found = 0;
    for (const auto& [name, entry] : header.items()) {
      if (!name.ends_with(norm)) continue;
      ++found;
      const std::array<uint64_t, 2> range = entry.at("data_offsets");
      for (uint64_t at = 8 + header_size + range[0]; at < 8 + header_size + range[1]; at += sizeof(uint16_t)) {
        uint16_t bf16 = 0;
        std::memcpy(&bf16, &bytes[at], sizeof(bf16));
        const float less = std::bit_cast<float>(static_cast<uint32_t>(bf16) << 16) - 1;
        bf16 = static_cast<uint16_t>(std::bit_cast<uint32_t>(less) >> 16);
        std::memcpy(&bytes[at], &bf16, sizeof(bf16));
      }
    }
    EXPECT_GT(found, 0U) << norm;
    static_cast<void>(folder_.Write("model/model.safetensors", bytes));
  }

  // How far the longest prompt's logits are from the goldens of the unchanged checkpoint.
  [[nodiscard]] double DistanceFromGoldens() const {
    Session session = Must(Session::Create(Prepare(path(), {}).graphs, {.kernels = Kernels::kXnnpack, .threads = 2}));
    return WorstAgainstGolden(session, Prompts().size() - 1);
  }

 private:
  [[nodiscard]] fs::path path() const { return folder_.path() / "model"; }
  TempFolder folder_;
};

// A tolerance proves nothing unless mistakes are larger. Each of these is one that a converter of this family can make. Measured: from 0.94
// (rope_theta, which no prompt of 100 ids shows well) and 3.0 (the last norm) to 20.
constexpr double kNoticed = 1000 * kLogitTolerance;

TEST(Gemma3GoldensTest, AreNotMissedByTheUnchangedCheckpoint) { EXPECT_LE(ChangedCheckpoint().DistanceFromGoldens(), kLogitTolerance); }

TEST(Gemma3GoldensTest, NoticeANormWithoutItsOne) {
  for (const char* norm : {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
                           "q_norm", "k_norm", "model.norm"}) {
    const ChangedCheckpoint changed;
    changed.SubtractOneFrom(std::string(norm) + ".weight");
    EXPECT_GT(changed.DistanceFromGoldens(), kNoticed) << norm;
  }
}

TEST(Gemma3GoldensTest, NoticeTheNumbersOfAttentionAndPositions) {
  const std::vector<std::pair<std::string, nlohmann::json>> changes{
      {"query_pre_attn_scalar", 16},  // head_dim
      {"query_pre_attn_scalar", 8},   // hidden_size / num_attention_heads
      {"sliding_window", 7},          // one key too few
      {"sliding_window", 9},          // one too many: the query itself not counted
      {"sliding_window_pattern", 7},  // full attention in the last layer
      {"sliding_window_pattern", 8},  // in none
      {"rope_theta", 1e4},            // that of the other layers
      {"rope_local_base_freq", 1e6},  // and the other way round
      {"rope_scaling", nullptr},      // not scaled
  };
  for (const auto& [field, value] : changes) {
    const ChangedCheckpoint changed;
    changed.SetConfig(field, value);
    EXPECT_GT(changed.DistanceFromGoldens(), kNoticed) << field << " " << value;
  }
}

}  // namespace
}  // namespace taskpress::testing
