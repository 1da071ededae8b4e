// Gemma 3 270M converted from its GGUF file, against what transformers computes from the same file (tests/data/gemma3-270m).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/bundle_model.h"
#include "runtime/log_probability.h"
#include "schema/base/error.h"
#include "schema/base/hash.h"
#include "schema/sentencepiece_model.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/reference/trusting_safetensors.h"

namespace taskpress::testing {
namespace {

using Tokens = std::vector<int32_t>;

std::filesystem::path Golden(std::string_view name) {
  return std::filesystem::path(TASKPRESS_TEST_DATA) / "gemma3-270m" / std::string(name);
}
std::filesystem::path BundlePath(const std::string& quant) { return std::filesystem::path(TASKPRESS_REAL_BUNDLES) / (quant + ".litertlm"); }

nlohmann::json ReadJson(std::string_view name) {
  std::ifstream file(Golden(name));
  return nlohmann::json::parse(file);
}

// Both sides compute in float32; transformers' own attention kernels and float64 are up to 9e-5 apart, measured here were 3.7e-4 (815
// tokens, logits of +-30).
constexpr double kLogitTolerance = 5e-3;

TEST(RealGoldens, LogitsAreThoseOfTransformers) {
  const nlohmann::json goldens = ReadJson("goldens.json");
  const oracle::TrustingSafetensors tensors = oracle::TrustingSafetensors::Open(Golden("goldens.safetensors"));
  Session session = OpenSession(BundlePath("f32"), Kernels::kXnnpack);
  ASSERT_EQ(session.vocab_size(), 262144);
  size_t longest = 0;
  double worst = 0;
  int64_t compared = 0;
  for (size_t p = 0; p < goldens.at("prompts").size(); ++p) {
    const nlohmann::json& prompt = goldens.at("prompts")[p];
    const Tokens ids = prompt.at("ids");
    longest = std::max(longest, ids.size());
    const std::vector<float> every64 = tensors.Get(Format("p{}.every64", p)).Floats();
    const std::vector<float> top_values = tensors.Get(Format("p{}.top64_values", p)).Floats();
    const std::vector<int32_t> top_ids = tensors.Get(Format("p{}.top64_ids", p)).Integers();
    std::vector<int32_t> rows = prompt.at("rows");
    session.Reset();
    Must(session.Score(ids, [&](int32_t index, std::span<const float> logits) -> Status {
      const auto kept = static_cast<size_t>(std::ranges::find(rows, index) - rows.begin());
      if (kept == rows.size()) return {};
      const size_t stride = every64.size() / rows.size();
      for (size_t i = 0; i < stride; ++i) worst = std::max(worst, std::abs(double{logits[64 * i]} - double{every64[kept * stride + i]}));
      for (size_t i = 0; i < 64; ++i) {
        const auto id = static_cast<size_t>(top_ids[kept * 64 + i]);
        worst = std::max(worst, std::abs(double{logits[id]} - double{top_values[kept * 64 + i]}));
      }
      compared += static_cast<int64_t>(stride) + 64;
      return {};
    }));
  }
  RecordProperty("max_error", Format("{:.2e}", worst));
  std::cout << Format("{} logits of {} prompts, the longest of {} tokens: max error {:.2e}\n", compared, goldens.at("prompts").size(),
                      longest, worst);
  EXPECT_GE(longest, 700U) << "past the sliding window of 512";
  EXPECT_GT(compared, 80'000);
  EXPECT_LE(worst, kLogitTolerance);
}

TEST(RealGoldens, GreedyContinuationsAreThoseOfTransformers) {
  const nlohmann::json goldens = ReadJson("goldens.json");
  Session session = OpenSession(BundlePath("f32"), Kernels::kXnnpack);
  ASSERT_EQ(goldens.at("prompts").size(), 8U);
  for (const nlohmann::json& prompt : goldens.at("prompts")) {
    const Tokens ids = prompt.at("ids");
    session.Reset();
    Must(session.Prefill(std::span(ids).first(ids.size() - 1)));
    Tokens ours;
    int32_t next = ids.back();
    while (ours.size() < 32) {
      const std::span<const float> logits = Must(session.Decode(next));
      next = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      ours.push_back(next);
    }
    EXPECT_EQ(ours, prompt.at("greedy").get<Tokens>()) << prompt.at("text");
  }
}

double Perplexity(const nlohmann::json& windows, const std::string& quant) {
  Session session = OpenSession(BundlePath(quant), Kernels::kXnnpack);
  double nll = 0;
  int64_t count = 0;
  for (const nlohmann::json& window : windows) {
    const Tokens ids = window.at("ids");
    session.Reset();
    Must(session.Score(ids, [&](int32_t index, std::span<const float> logits) -> Status {
      if (static_cast<size_t>(index) + 1 == ids.size()) return {};
      nll -= LogProbability(logits, ids[static_cast<size_t>(index) + 1]);
      ++count;
      return {};
    }));
  }
  return std::exp(nll / static_cast<double>(count));
}

TEST(RealPerplexity, OfTheSampleText) {
  const nlohmann::json goldens = ReadJson("goldens.json");
  const double transformers = goldens.at("perplexity");
  const double f32 = Perplexity(goldens.at("windows"), "f32");
  const double int8 = Perplexity(goldens.at("windows"), "int8");
  const double two_terms = Perplexity(goldens.at("windows"), "int8_two_terms");
  const double int4 = Perplexity(goldens.at("windows"), "int4");
  std::cout << Format(
      "perplexity: transformers {:.4f}, f32 {:.4f}, int8 {:.4f} ({:+.2f} %), gptq with two terms {:.4f} ({:+.2f} %), "
      "int4 absmax {:.4f} ({:+.2f} %)\n",
      transformers, f32, int8, 100 * (int8 / f32 - 1), two_terms, 100 * (two_terms / f32 - 1), int4, 100 * (int4 / f32 - 1));
  EXPECT_NEAR(f32, transformers, 1e-4 * transformers);
  // What 8-bit activations cost this model is far more than what they cost others: single channels stand out 20-fold. The order must hold.
  EXPECT_GT(int8, f32);
  // Inputs as two terms, gptq, the embedding in f16: 1.0028 measured.
  EXPECT_LE(two_terms, 1.01 * f32);
  EXPECT_GT(int4, int8);
}

// Ids as the goldens hash them: little-endian, a line ends with ff ff ff ff.
void Append(const Tokens& ids, std::string& bytes) {
  for (const int32_t id : ids) bytes.append(reinterpret_cast<const char*>(&id), sizeof(id));
  bytes += "\xff\xff\xff\xff";
}

TEST(RealTokenizer, GivesTheIdsOfTransformersOnMixedText) {
  const nlohmann::json goldens = ReadJson("mixed-text-ids.json");
  const BundleModel model = Must(LoadBundleModel(Must(ReadBundle(BundlePath("f32")))));
  std::ifstream text(std::filesystem::path(TASKPRESS_REAL_BUNDLES) / "mixed.txt");
  const auto lines_per_block = goldens.at("lines_per_block").get<int>();
  const std::optional<int32_t> unknown = model.tokenizer.FindPiece("<unk>");
  ASSERT_TRUE(unknown.has_value());
  int64_t lines = 0;
  int64_t round_trips = 0;
  Sha256 text_hash;
  for (const nlohmann::json& block : goldens.at("blocks")) {
    std::string bytes;
    std::string line;
    for (int i = 0; i < lines_per_block && std::getline(text, line); ++i, ++lines) {
      const Tokens ids = Must(model.tokenizer.Encode(line));
      Append(ids, bytes);
      text_hash.Update(AsBytes(line + "\n"));
      // Control pieces print nothing, and U+2581 is how a space is stored.
      if (std::ranges::any_of(ids, [&](int32_t id) { return model.tokenizer.IsControl(id) || id == *unknown; })) continue;
      ++round_trips;
      EXPECT_EQ(Must(model.tokenizer.Decode(ids)), UnescapeSpaces(line)) << "line " << lines;
    }
    EXPECT_EQ(Sha256Hex(AsBytes(bytes)), block.at("ids_sha256").get<std::string>()) << "lines up to " << lines;
  }
  EXPECT_GT(round_trips, 95'000);
  EXPECT_EQ(lines, goldens.at("lines").get<int64_t>());
  EXPECT_EQ(text_hash.FinishHex(), goldens.at("text_sha256").get<std::string>()) << "another text than the goldens were made from";
}

}  // namespace
}  // namespace taskpress::testing
