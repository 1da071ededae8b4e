#include "tools/sweep.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <iostream>
#include <optional>

#include "converter/calibrate.h"
#include "schema/base/output_file.h"
#include "tools/bench_measure.h"
#include "tools/divergence_run.h"
#include "tools/sweep_report.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

constexpr auto kRecipes =
    std::to_array<std::string_view>({"dynamic_int8", "dynamic_int8:clip", "dynamic_int4_block32", "dynamic_int4_block32:clip",
                                     "dynamic_int4_block128:clip", "dynamic_int4", "dynamic_int4:clip"});
constexpr auto kCalibratedRecipes =
    std::to_array<std::string_view>({"dynamic_int8", "dynamic_int8:best", "dynamic_int4_block32:best", "dynamic_int4_block128:best",
                                     "dynamic_int4", "dynamic_int4:gptq", "dynamic_int4:best"});
constexpr std::string_view kBitsPerWeight = "bpw";

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// A file for the bundle of a recipe: its words, without the folders of a recipe file.
std::string FileName(const std::string& recipe) {
  std::string name = fs::path(recipe).filename().string();
  std::ranges::replace_if(name, [](char c) { return c == ':' || c == ' '; }, '-');
  return name + ".litertlm";
}

// What all recipes are measured with: read and calibrated once.
class Sweeper {
 public:
  Sweeper(const ConvertArguments& arguments, const WriteArguments& how, const SweepArguments& sweep)
      : arguments_(arguments), how_(how), sweep_(sweep), folder_(arguments.outputs.front()) {}
  ~Sweeper() {
    std::error_code ignored;
    if (!own_calibration_.empty()) fs::remove(own_calibration_, ignored);
  }
  Sweeper(const Sweeper&) = delete;
  Sweeper& operator=(const Sweeper&) = delete;

  Result<ExitStatus> Run() {
    report_.checkpoint = fs::path(arguments_.checkpoint).filename().string();
    if (report_.checkpoint.empty()) report_.checkpoint = fs::path(arguments_.checkpoint).parent_path().filename().string();
    report_.text = fs::path(sweep_.text).filename().string();
    report_.calibration = fs::path(arguments_.calibrate).filename().string();
    TRY(MakeFolder());
    TRY(CalibrateOnce());
    const RunFlags flags{.threads = arguments_.threads, .size = arguments_.slices.empty() ? "" : arguments_.slices.front()};
    reference_.emplace(TRY(OpenModel(arguments_.checkpoint, flags, sweep_.window)));
    const int64_t length = std::min<int64_t>({sweep_.window, reference_->session.context_length(), arguments_.context});
    windows_ = TRY(TextWindows(*reference_, TRY(ReadTextFile(sweep_.text)), length));
    std::optional<Error> failed;
    for (const std::string& recipe : Recipes()) {
      std::cerr << recipe << "\n";
      Result<SweepRow> row = Measure(recipe);
      if (!row) {
        if (row.error().code == ErrorCode::kInterrupted) return std::unexpected(std::move(row).error());
        std::cerr << Format("{}: {}\n", recipe, row.error().message);
        report_.rows.push_back({.recipe = recipe, .error = row.error().message});
        if (!failed) failed = WithContext(std::move(row).error(), recipe);
        continue;
      }
      report_.rows.push_back(*std::move(row));
    }
    TRY(WriteReports());
    if (failed) return std::unexpected(*std::move(failed));
    arguments_.json ? PrintJson("quantize", SweepJson(report_)) : static_cast<void>(std::cout << SweepMarkdown(report_));
    return ExitStatus::kOk;
  }

 private:
  [[nodiscard]] std::vector<std::string> Recipes() const {
    if (!sweep_.recipes.empty()) return sweep_.recipes;
    if (arguments_.calibrate.empty()) return {kRecipes.begin(), kRecipes.end()};
    return {kCalibratedRecipes.begin(), kCalibratedRecipes.end()};
  }

  Status MakeFolder() const {
    std::error_code error;
    fs::create_directory(folder_, error);
    if (error || !fs::is_directory(folder_)) return Fail(ErrorCode::kWriteFailed, "{}: cannot create the folder", folder_.string());
    for (const std::string_view name : {"sweep.md", "sweep.json", "sweep.html"}) {
      if (!how_.force && fs::exists(folder_ / name, error))
        return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", (folder_ / name).string());
    }
    return {};
  }

  // A text would be run again for every recipe.
  Status CalibrateOnce() {
    if (arguments_.calibrate.empty() || CalibrationFile::Open(arguments_.calibrate)) return {};
    const std::unique_ptr<const ModelFiles> files = TRY(OpenModelFiles(arguments_.checkpoint));
    CalibrateOptions options{.text = arguments_.calibrate, .tokens = arguments_.calibration_tokens};
    if (!arguments_.slices.empty()) options.slice = arguments_.slices.front();
    options.work = {.threads = arguments_.threads, .stop = &StopRequested()};
    options.writer.replace = true;
    const fs::path file = folder_ / Format(".taskpress-{}{}", getpid(), kCalibrationExtension);
    own_calibration_ = file;
    const CalibrateReport report = TRY(Calibrate(*files, arguments_.checkpoint, options, file));
    std::cerr << Format("calibrated with {} tokens in windows of {}\n", report.tokens, report.window);
    arguments_.calibrate = file.string();
    return {};
  }

  Result<SweepRow> Measure(const std::string& recipe) {
    ConvertArguments asked = TRY(ArgumentsOfRecipe(arguments_, recipe));
    const fs::path file = folder_ / FileName(recipe);
    asked.outputs = {file.string()};
    asked.score_signature = true;
    WriteArguments how = how_;
    how.no_lock = how_.no_lock || !sweep_.keep;
    const auto start = std::chrono::steady_clock::now();
    SweepRow row{.recipe = recipe};
    {
      const PreparedJobs prepared = TRY(PrepareJobs(asked));
      Progress progress(TRY(ProgressStyleFromName(how.progress)));
      const WriteReport written = TRY(Write(asked, how, prepared, progress));
      row.bytes = written.bundles.front().bytes;
      row.bits_per_weight = static_cast<double>(row.bytes) * 8 / static_cast<double>(prepared.models.front().parameters.text);
    }
    row.seconds = Seconds(start);
    const Status measured = MeasureBundle(file, row);
    std::error_code ignored;
    if (!sweep_.keep) fs::remove(file, ignored);
    TRY(measured);
    return row;
  }

  Status MeasureBundle(const fs::path& file, SweepRow& row) {
    OpenedModel model = TRY(OpenModel(file, {.threads = arguments_.threads, .weight_cache = "none"}, sweep_.window));
    const DivergenceSummary summary = TRY(MeasureDivergence({file.string(), model}, {arguments_.checkpoint, *reference_}, windows_));
    report_.positions = summary.positions;
    row.kl_mean = summary.kl_mean;
    row.kl_p99 = summary.kl_p99;
    row.top1_agreement = summary.top1_agreement;
    row.perplexity_ratio = summary.perplexity_a / summary.perplexity_b;
    if (!sweep_.speed) return {};
    const int context = model.session.context_length();
    const BenchResult speed = TRY(MeasureSpeed({.prefill = std::min(512, context / 2), .decode = std::min(64, context / 4)}, model));
    row.prefill_tokens_per_s = speed.prefill.mean();
    row.decode_tokens_per_s = speed.decode.mean();
    return {};
  }

  Status WriteReports() const {
    OrderedJson json{{"schema", "taskpress/quantize/1"}};
    json.update(SweepJson(report_));
    TRY(WriteText("sweep.md", SweepMarkdown(report_)));
    TRY(WriteText("sweep.json", json.dump(2) + "\n"));
    return WriteText("sweep.html", SweepHtml(report_));
  }

  Status WriteText(std::string_view name, const std::string& text) const {
    OutputFile file = TRY(OutputFile::Create(folder_ / name, text.size(), {.replace = how_.force}));
    TRY(file.WriteAt(0, AsBytes(text)));
    return file.Commit();
  }

  ConvertArguments arguments_;
  const WriteArguments& how_;
  const SweepArguments& sweep_;
  fs::path folder_;
  fs::path own_calibration_;
  std::optional<OpenedModel> reference_;
  std::vector<std::vector<int32_t>> windows_;
  Sweep report_;
};

}  // namespace

Result<ConvertArguments> ArgumentsOfRecipe(const ConvertArguments& arguments, const std::string& recipe) {
  ConvertArguments asked = arguments;
  const size_t colon = recipe.rfind(':');
  const std::string what = recipe.substr(0, colon);
  if (colon != std::string::npos) asked.method = recipe.substr(colon + 1);
  if (what.empty() || (colon != std::string::npos && asked.method.empty()))
    return Fail(ErrorCode::kUsage, "--recipes {}: NAME, FILE.toml, 2.2G or 4.6bpw, with :METHOD behind it or without", recipe);
  if (what.front() < '0' || what.front() > '9') {
    asked.quant = what;
    return asked;
  }
  if (!what.ends_with(kBitsPerWeight)) {
    asked.target_size = what;
    return asked;
  }
  const char* const last = what.data() + what.size() - kBitsPerWeight.size();
  const auto [end, error] = std::from_chars(what.data(), last, asked.target_bpw);
  if (error != std::errc() || end != last) return Fail(ErrorCode::kUsage, "--recipes {}: 4.6bpw is bits for each parameter", recipe);
  return asked;
}

Result<ExitStatus> RunSweep(const ConvertArguments& arguments, const WriteArguments& how, const SweepArguments& sweep) {
  if (sweep.text.empty()) return Fail(ErrorCode::kUsage, "--sweep: give a text to measure with, --text");
  if (sweep.window < 2) return Fail(ErrorCode::kUsage, "--eval-window {}: at least 2", sweep.window);
  if (arguments.outputs.size() != 1) return Fail(ErrorCode::kUsage, "--sweep: one -o, the folder for the reports");
  if (arguments.slices.size() > 1) return Fail(ErrorCode::kUsage, "--sweep: one --slice");
  if (!arguments.lora.empty()) return Fail(ErrorCode::kUsage, "--sweep: the reference is the checkpoint without --lora");
  if (arguments.quant_given || !arguments.target_size.empty() || arguments.target_bpw != 0)
    return Fail(ErrorCode::kUsage, "--sweep: what to try is listed with --recipes");
  for (const std::string& recipe : sweep.recipes) TRY(ArgumentsOfRecipe(arguments, recipe));
  return Sweeper(arguments, how, sweep).Run();
}

}  // namespace taskpress
