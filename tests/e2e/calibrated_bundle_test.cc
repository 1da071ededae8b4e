// From a text to the moments of a model's inputs, and from these to a bundle that loses less.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "converter/calibrate.h"
#include "converter/calibration.h"
#include "runtime/divergence.h"
#include "schema/tokenizer.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/reference/golden_windows.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// Moments are summed alike of few tokens and many; how well they serve is measured without the sanitizers.
constexpr int64_t kTokens = TASKPRESS_SANITIZED ? 512 : 8192;

class CalibrationTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (folder_ != nullptr) return;
    static TempFolder folder;
    folder_ = &folder;
    Must(Make("text.calib", 2));
  }
  static Result<CalibrateReport> Make(const std::string& name, int threads, const std::string& text = "", int64_t tokens = kTokens,
                                      bool resume = false) {
    CalibrateOptions options{.text = text.empty() ? fs::path(TASKPRESS_TEST_DATA) / "calibration.jsonl" : folder_->path() / text,
                             .tokens = tokens,
                             .window = 64};
    options.work.threads = threads;
    options.writer = {.replace = true, .resume = resume};
    const std::unique_ptr<const ModelFiles> files = Must(OpenModelFiles(oracle::MicroCheckpoint()));
    return Calibrate(*files, oracle::MicroCheckpoint(), options, folder_->path() / name);
  }
  static std::shared_ptr<const Calibration> Open() {
    return std::make_shared<const Calibration>(Must(CalibrationFile::Open(folder_->path() / "text.calib")));
  }
  static const TempFolder* folder_;
};
const TempFolder* CalibrationTest::folder_ = nullptr;

// The projection's input is the embedding itself, each token brought to its own size.
TEST_F(CalibrationTest, MomentsOfTheFirstMatrixAreThoseOfTheEmbeddings) {
  const CalibrationFile file = Must(CalibrationFile::Open(folder_->path() / "text.calib"));
  const PreparedModel model = PrepareMicro({});
  std::vector<std::byte> scratch;
  const Tokenizer tokenizer = Must(Tokenizer::FromModel(Must(ViewOrRead(*model.tokenizer, scratch))));
  std::vector<int32_t> text;
  for (const CalibrationText& part : Must(ReadCalibrationTexts(TASKPRESS_TEST_DATA "/calibration.jsonl"))) {
    const std::vector<int32_t> encoded = Must(tokenizer.Encode(part.parts.front()));
    text.insert(text.end(), encoded.begin(), encoded.end());
  }
  const auto table = std::ranges::find(model.weights, "embed_tokens.weight", &BundleWeight::name);
  std::vector<double> expected(static_cast<size_t>(table->columns));
  std::vector<float> row(expected.size());
  int64_t tokens = 0;
  for (size_t at = 0; at + 63 <= text.size() && tokens < kTokens; at += 63) {
    std::vector<int32_t> window{model.metadata.start_token->id};
    window.insert(window.end(), text.begin() + static_cast<ptrdiff_t>(at), text.begin() + static_cast<ptrdiff_t>(at) + 63);
    for (const int32_t token : window) {
      Must(table->rows->ReadFloats(token, 1, row));
      double sum = 0;
      for (const float value : row) sum += static_cast<double>(value) * static_cast<double>(value);
      for (size_t j = 0; j < row.size(); ++j)
        expected[j] += static_cast<double>(row[j]) * static_cast<double>(row[j]) / (sum / static_cast<double>(row.size()));
      ++tokens;
    }
  }
  ASSERT_EQ(file.info().tokens, tokens);
  const auto site =
      std::ranges::find_if(file.sites(), [](const CalibrationSite& s) { return s.name.contains("per_layer_model_projection.weight"); });
  ASSERT_NE(site, file.sites().end());
  const SecondMoments moments = Must(file.Read(*site));
  EXPECT_EQ(moments.tokens, tokens);
  for (size_t j = 0; j < expected.size(); ++j) EXPECT_NEAR(moments.squares[j], expected[j], 1e-4 * expected[j]) << j;
}

TEST_F(CalibrationTest, EveryMatrixThatIsRoundedHasItsInputs) {
  const std::shared_ptr<const Calibration> calibration = Open();
  for (const BundleWeight& weight : PrepareMicro({}).weights) {
    const bool table = weight.name.starts_with("embed_tokens");
    EXPECT_EQ(calibration->Has(weight.name), !table && weight.quant_class != QuantClass::kSmall) << weight.name;
    if (calibration->Has(weight.name)) {
      EXPECT_TRUE(calibration->Check({.weight = weight.name, .columns = weight.columns}).has_value()) << weight.name;
    }
  }
  EXPECT_FALSE(calibration->Check({.weight = "lm_head.weight", .columns = 129}).has_value());
}

TEST_F(CalibrationTest, ThreadsDoNotChangeAByte) {
  Must(Make("one.calib", 1));
  EXPECT_EQ(ReadFileBytes(folder_->path() / "one.calib"), ReadFileBytes(folder_->path() / "text.calib"));
}

#if !TASKPRESS_SANITIZED
// The figures of micro_perplexity_test and of the README are on whole texts; here a window says whether the methods are in force.
TEST_F(CalibrationTest, MethodsThatKnowTheInputsLoseLess) {
  constexpr size_t kWindows = 4;
  constexpr size_t kScored = 128;
  Session exact = Must(Session::Create(PrepareMicro({.score = true}).graphs));
  const auto windows = oracle::GoldenWindows();
  const auto window = [&](size_t w) { return std::vector<int32_t>(windows[w].begin(), windows[w].begin() + kScored); };
  std::vector<std::vector<float>> expected;
  for (size_t w = 0; w < kWindows; ++w) expected.push_back(ScoreAll(exact, window(w)));
  const auto divergence = [&](const char* recipe, QuantMethod method, bool folds, std::shared_ptr<const Calibration> calibration) {
    PrepareOptions options;
    options.recipe = Must(RecipeFromName(recipe));
    options.recipe.method = method;
    options.choose_folds = folds;
    options.calibration = std::move(calibration);
    options.score_signature = true;
    options.model.context = 320;
    options.model.prefill_lengths = {8};
    Session session = Must(Session::Create(Must(PrepareModel(oracle::MicroCheckpoint(), options)).graphs));
    Divergence between(session.vocab_size());
    for (size_t w = 0; w < kWindows; ++w) between.AddWindow(window(w), ScoreAll(session, window(w)), expected[w]);
    return between.Summarize().kl_mean;
  };
  const std::shared_ptr<const Calibration> known = Open();
  const double absmax = divergence("dynamic_int4", QuantMethod::kAbsmax, false, nullptr);
  const double clip = divergence("dynamic_int4", QuantMethod::kClip, false, known);
  const double folded = divergence("dynamic_int4", QuantMethod::kClip, true, known);
  const double best = divergence("dynamic_int4", QuantMethod::kGptq, true, known);
  EXPECT_LT(clip, 0.5 * absmax);
  EXPECT_LT(folded, 0.8 * clip);
  EXPECT_LT(best, 0.9 * folded);
  EXPECT_LT(best, 0.16 * absmax);
  EXPECT_LT(divergence("dynamic_int4_block32", QuantMethod::kGptq, true, known), best);
}

#endif

TEST_F(CalibrationTest, OfAnotherModelIsRefused) {
  PrepareOptions options;
  options.recipe = Must(RecipeFromName("dynamic_int4"));
  options.calibration = Open();
  options.slice = std::string(TASKPRESS_TEST_DATA) + "/no-such-slice.json";
  EXPECT_FALSE(PrepareModel(oracle::MicroCheckpoint(), options).has_value());
  options.slice = "e4b";
  EXPECT_TRUE(PrepareModel(oracle::MicroCheckpoint(), options).has_value());
  const Result<PreparedModel> other = PrepareModel(std::string(TASKPRESS_TEST_DATA) + "/micro-gemma3", options);
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code, ErrorCode::kCalibrationMismatch);
}

TEST_F(CalibrationTest, LinesThatSayNothingAreNamed) {
  const auto read = [&](const std::string& text) {
    folder_->Write("lines.jsonl", text);
    const Result<std::vector<CalibrationText>> texts = ReadCalibrationTexts(folder_->path() / "lines.jsonl");
    return texts ? std::to_string(texts->size()) : texts.error().message;
  };
  EXPECT_EQ(read("{\"text\": \"a\"}\n\n\"b\"\n{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"model\", \"content\": "
                 "\"a\"}]}"),
            "3");
  EXPECT_THAT(read("{\"text\": \"a\"}\n{\"text\": 3}"), HasSubstr("line 2"));
  EXPECT_THAT(read("{\"text\": "), HasSubstr("line 1"));
  EXPECT_THAT(read("[]"), HasSubstr("neither an object nor a string"));
  EXPECT_THAT(read("{\"prompt\": \"a\"}"), HasSubstr("neither \"text\" nor \"messages\""));
  EXPECT_THAT(read("{\"messages\": {}}"), HasSubstr("no list"));
  EXPECT_THAT(read("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}"), HasSubstr("turn of \"user\""));
  EXPECT_THAT(read("{\"messages\": [{\"role\": \"user\"}]}"), HasSubstr("a message is"));
  EXPECT_EQ(Make("x.calib", 1, "lines.jsonl").has_value(), false);
  folder_->Write("empty.txt", "");
  const Result<CalibrateReport> empty = Make("x.calib", 1, "empty.txt");
  ASSERT_FALSE(empty.has_value());
  EXPECT_EQ(empty.error().code, ErrorCode::kEmptyPrompt);
  EXPECT_FALSE(fs::exists(folder_->path() / "x.calib"));
}

TEST_F(CalibrationTest, AShortTextGetsAShortWindow) {
  folder_->Write("short.txt", "In the beginning");
  const CalibrateReport report = Must(Make("short.calib", 1, "short.txt"));
  EXPECT_EQ(report.windows, 1);
  EXPECT_LT(report.window, 64);
  EXPECT_EQ(report.tokens, report.window);
  EXPECT_EQ(report.dropped_tokens, 0);
}

// Calibration runs on matrices that are read when a step needs them; both multiply by the same operators.
TEST(StreamedWeightsTest, GiveTheLogitsOfPackedOnes) {
  const PreparedModel model = PrepareMicro({.score = true});
  const oracle::Tokens tokens = oracle::GoldenPrompts()[5];
  Session packed = Must(Session::Create(model.graphs, {.kernels = Kernels::kXnnpack, .threads = 2}));
  Session streamed = Must(Session::Create(model.graphs, {.kernels = Kernels::kStreamed, .threads = 2}));
  const std::vector<float> expected = ScoreAll(packed, tokens);
  const std::vector<float> logits = ScoreAll(streamed, tokens);
  ASSERT_EQ(logits.size(), expected.size());
  for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 5e-5) << i;
  EXPECT_LT(streamed.packed_weight_bytes(), packed.packed_weight_bytes() / 10);
}

TEST(SelectMomentsTest, ColumnsAndFactorsAreThoseOfTheScaledInputs) {
  constexpr int64_t kColumns = 7;
  constexpr int64_t kCount = 40;
  std::vector<float> values;
  for (int64_t i = 0; i < kCount * kColumns; ++i)
    values.push_back(std::sin(static_cast<float>(i) * 0.7F) * static_cast<float>(i % kColumns + 1));
  const std::vector<float> factors{0.5F, 2.0F, 4.0F};
  std::vector<float> chosen;  // columns 2 to 4, divided
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t column = i % kColumns;
    if (column >= 2 && column < 5) chosen.push_back(values[i] / factors[column - 2]);
  }
  const SecondMoments expected = Must(ComputeMomentsPlain(chosen, kCount, 3, MomentKind::kFull));
  const SecondMoments selected = Must(SelectMoments(Must(ComputeMomentsPlain(values, kCount, kColumns, MomentKind::kFull)), 2, 3, factors));
  ASSERT_EQ(selected.columns, 3);
  for (size_t j = 0; j < 3; ++j) {
    EXPECT_NEAR(selected.squares[j], expected.squares[j], 1e-5 * expected.squares[j]);
    EXPECT_NEAR(selected.sums[j], expected.sums[j], 1e-4);
    EXPECT_FLOAT_EQ(selected.max_magnitudes[j], expected.max_magnitudes[j]);
    for (size_t k = 0; k <= j; ++k) EXPECT_NEAR(selected.products[j * 3 + k], expected.products[j * 3 + k], 1e-3) << j << k;
  }
  EXPECT_FALSE(SelectMoments(Must(ComputeMomentsPlain(values, kCount, kColumns, MomentKind::kFull)), 5, 3, {}).has_value());
}

}  // namespace
}  // namespace taskpress::testing
