// One set of integers for several sizes, rounded with what is known of the inputs of each: no size loses more than if it were alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "converter/calibrate.h"
#include "converter/calibration.h"
#include "runtime/divergence.h"
#include "tests/e2e/command_line.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/reference/golden_windows.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// As in calibrated_bundle_test.cc: how well methods do is measured without the sanitizers.
constexpr int64_t kTokens = TASKPRESS_SANITIZED ? 256 : 4096;

using SharedCalibration = std::shared_ptr<const Calibration>;

class NestedSizesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (folder_ != nullptr) return;
    static TempFolder folder;
    folder_ = &folder;
    const nlohmann::json slices = oracle::ReadGoldenJson("inputs.json").at("slices");
    for (const auto& [name, slice] : slices.items()) {
      folder_->Write(name + ".json", nlohmann::json{{"ffn", slice.at("ffn")}, {"skip", slice.at("drop")}}.dump());
    }
    const std::unique_ptr<const ModelFiles> files = Must(OpenModelFiles(oracle::MicroCheckpoint()));
    for (const std::string size : {"e4b", "e2b", "mixed"}) {
      CalibrateOptions options{
          .text = fs::path(TASKPRESS_TEST_DATA) / "calibration.jsonl", .slice = Spec(size), .tokens = size == "mixed" ? 64 : kTokens};
      options.window = 64;
      options.work.threads = 1;
      Must(Calibrate(*files, oracle::MicroCheckpoint(), options, folder_->path() / (size + ".calib")));
    }
  }
  static std::string Spec(const std::string& size) { return size == "e4b" ? size : (folder_->path() / (size + ".json")).string(); }
  static std::string CalibrationPath(const std::string& size) { return (folder_->path() / (size + ".calib")).string(); }
  static SharedCalibration Known(const std::string& size) {
    return std::make_shared<const Calibration>(Must(CalibrationFile::Open(CalibrationPath(size))));
  }
  // `elastic` beside their own calibrations, if `known`.
  static Result<PreparedModel> Prepare(const std::string& slice, const std::vector<std::string>& elastic, const std::string& recipe,
                                       bool known = true, bool folds = false) {
    PrepareOptions options;
    options.recipe = Must(RecipeFromName(recipe));
    options.recipe.method = QuantMethod::kGptq;
    options.choose_folds = folds;
    options.slice = Spec(slice);
    options.calibration = Known(slice);
    for (const std::string& size : elastic) {
      options.elastic.push_back(Spec(size));
      options.elastic_calibrations.push_back(known ? Known(size) : nullptr);
    }
    options.score_signature = true;
    options.model.context = 320;
    options.model.prefill_lengths = {8};
    return PrepareModel(oracle::MicroCheckpoint(), options);
  }
  static BundleWeight Find(const PreparedModel& model, const std::string& name) {
    const auto found = std::ranges::find(model.weights, name, &BundleWeight::name);
    if (found == model.weights.end()) throw std::runtime_error("no weight " + name);
    return *found;
  }
  struct Rows {
    std::vector<std::byte> packed;
    std::vector<float> scales;
    bool operator==(const Rows&) const = default;
  };
  static Rows Read(const BundleWeight& weight, int64_t portion) {
    Rows all;
    for (int64_t row = 0; row < weight.num_rows; row += portion) {
      const int64_t count = std::min(portion, weight.num_rows - row);
      std::vector<std::byte> packed(static_cast<size_t>(count) * weight.rows->row_bytes());
      std::vector<float> scales(static_cast<size_t>(count * weight.rows->scales_per_row()));
      Must(weight.rows->ReadRows(row, count, packed, scales));
      all.packed.insert(all.packed.end(), packed.begin(), packed.end());
      all.scales.insert(all.scales.end(), scales.begin(), scales.end());
    }
    return all;
  }
  static const TempFolder* folder_;
};
const TempFolder* NestedSizesTest::folder_ = nullptr;

TEST_F(NestedSizesTest, TheSmallSizesColumnsAreThoseOfItsOwnBundleBitForBit) {
  for (const std::string recipe : {"dynamic_int4", "dynamic_int8", "dynamic_int4_block32"}) {
    const PreparedModel elastic = Must(Prepare("e4b", {"e2b"}, recipe));
    const PreparedModel alone = Must(Prepare("e2b", {}, recipe));
    // Layers 10 and 11 are not in the small one.
    EXPECT_EQ(Read(Find(elastic, "layers.3.mlp.down_proj.weight[:,0:256]"), 128), Read(Find(alone, "layers.3.mlp.down_proj.weight"), 128));
    EXPECT_EQ(Read(Find(elastic, "layers.12.mlp.down_proj.weight[:,0:256]"), 128),
              Read(Find(alone, "layers.10.mlp.down_proj.weight"), 128));
    // With the big one's inputs they would be others.
    const PreparedModel of_big = Must(Prepare("e4b", {"e2b"}, recipe, false));
    EXPECT_NE(Read(Find(of_big, "layers.3.mlp.down_proj.weight[:,0:256]"), 128), Read(Find(alone, "layers.3.mlp.down_proj.weight"), 128));
  }
}

TEST_F(NestedSizesTest, APieceDoesNotDependOnHowItsRowsAreAskedFor) {
  const PreparedModel model = Must(Prepare("e4b", {"e2b"}, "dynamic_int4", true, true));
  const BundleWeight piece = Find(model, "layers.4.mlp.down_proj.weight[:,256:512]");
  const Rows whole = Read(piece, 128);
  EXPECT_EQ(Read(piece, 1), whole);
  EXPECT_EQ(Read(piece, 37), whole);
}

#if !TASKPRESS_SANITIZED
class NestedLossTest : public NestedSizesTest {
 protected:
  static constexpr size_t kWindows = 12;
  static constexpr size_t kScored = 128;
  static std::vector<int32_t> Window(size_t w) {
    static const std::vector<oracle::Tokens> windows = oracle::GoldenWindows();
    return {windows[w].begin(), windows[w].begin() + kScored};
  }
  static Session Open(PreparedModel model, const std::string& size) {
    for (PreparedSize& smaller : model.smaller) {
      if (smaller.name == size) model.graphs.prefill_decode = std::move(smaller.prefill_decode);
    }
    return Must(Session::Create(std::move(model.graphs), {.threads = 1}));
  }
  static const std::vector<std::vector<float>>& Exact(const std::string& size) {
    static std::map<std::string, std::vector<std::vector<float>>> known;
    std::vector<std::vector<float>>& logits = known[size];
    if (!logits.empty()) return logits;
    PrepareOptions options;
    options.recipe = Must(RecipeFromName("f32"));
    options.slice = Spec(size);
    options.score_signature = true;
    options.model.context = 320;
    options.model.prefill_lengths = {8};
    Session session = Open(Must(PrepareModel(oracle::MicroCheckpoint(), options)), size);
    for (size_t w = 0; w < kWindows; ++w) logits.push_back(ScoreAll(session, Window(w)));
    return logits;
  }
  // KL divergence of a size of the model from that size's floats.
  static double Loss(PreparedModel model, const std::string& size) {
    Session session = Open(std::move(model), size);
    Divergence divergence(session.vocab_size());
    for (size_t w = 0; w < kWindows; ++w) divergence.AddWindow(Window(w), ScoreAll(session, Window(w)), Exact(size)[w]);
    return divergence.Summarize().kl_mean;
  }
};

TEST_F(NestedLossTest, NoSizeLosesMoreThanAlone) {
  constexpr double kNoise = 1.05;  // 1,536 tokens: two roundings that are equally good differ by so much
  for (const bool folds : {false, true}) {
    for (const std::string size : {"e4b", "e2b"}) {
      const double alone = Loss(Must(Prepare(size, {}, "dynamic_int4", true, folds)), size);
      const double nested = Loss(Must(Prepare("e4b", {"e2b"}, "dynamic_int4", true, folds)), size);
      RecordProperty("kl_" + size + (folds ? "_folds" : "") + "_alone", std::to_string(alone));
      RecordProperty("kl_" + size + (folds ? "_folds" : "") + "_nested", std::to_string(nested));
      EXPECT_LE(nested, kNoise * alone) << size;
      EXPECT_LT(nested, 0.08) << size << ": absmax has 0.19";
    }
  }
}
#endif

TEST_F(NestedSizesTest, ACalibrationOfAnotherSizeIsRefused) {
  PrepareOptions options;
  options.recipe = Must(RecipeFromName("dynamic_int4"));
  options.recipe.method = QuantMethod::kGptq;
  options.calibration = Known("e4b");
  options.elastic = {Spec("e2b")};
  options.elastic_calibrations = {Known("mixed")};
  const Result<PreparedModel> refused = PrepareModel(oracle::MicroCheckpoint(), options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kCalibrationMismatch);
  EXPECT_THAT(refused.error().message, HasSubstr("e2b"));
}

TEST_F(NestedSizesTest, TheCommandLineTakesACalibrationOfEachSize) {
  const std::string out = (folder_->path() / "nested.litertlm").string();
  std::vector<std::string> command{"convert",     oracle::MicroCheckpoint().string(),
                                   "-o",          out,
                                   "--elastic",   Spec("e2b"),
                                   "--context",   "96",
                                   "--prefill",   "8",
                                   "--progress",  "none",
                                   "--method",    "best",
                                   "--calibrate", CalibrationPath("e4b"),
                                   "--force"};
  const auto with = [&](const std::string& size) {
    std::vector<std::string> longer = command;
    longer.insert(longer.end(), {"--calibrate-size", size});
    return Taskpress(longer);
  };
  const Finished done = with("e2b=" + CalibrationPath("e2b"));
  EXPECT_EQ(done.status, 0) << done.err;
  const std::string bytes = ReadFileBytes(out);
  EXPECT_THAT(bytes, HasSubstr("; e2b: "));  // which text the rounding knew
  EXPECT_EQ(Taskpress(command).status, 0);
  EXPECT_NE(ReadFileBytes(out), bytes);
  for (const std::string& wrong : {"e3b=" + CalibrationPath("e2b"), std::string("e2b"), "=" + CalibrationPath("e2b")}) {
    const Finished refused = with(wrong);
    EXPECT_EQ(refused.status, 2) << wrong;
    EXPECT_THAT(refused.err, HasSubstr("NAME=FILE"));
  }
}

}  // namespace
}  // namespace taskpress::testing
