#include "tools/convert.h"

#include <chrono>
#include <iostream>
#include <memory>

#include "quantizer/error_report.h"
#include "quantizer/resolved_recipe.h"
#include "tools/memory_watch.h"
#include "tools/plan.h"

namespace taskpress {
namespace {

// "-o out/" makes the folder; the folders above it are the caller's.
Status CreateOutputFolders(const ConvertArguments& arguments) {
  for (const std::string& output : arguments.outputs) {
    std::error_code error;
    if (output.ends_with('/')) std::filesystem::create_directory(std::filesystem::path(output).parent_path(), error);
    if (error) return Fail(ErrorCode::kWriteFailed, "{}: cannot create the folder: {}", output, error.message());
  }
  return {};
}

Status MeasureErrors(const PreparedModel& model, const RowWork& work, std::vector<TensorError>& errors) {
  for (const BundleWeight& weight : model.weights) errors.push_back(TRY(MeasureTensorError(*weight.rows, work)));
  return {};
}

}  // namespace

Result<WriteReport> Write(const ConvertArguments& arguments, const WriteArguments& how, const PreparedJobs& prepared, Progress& progress) {
  TRY(CreateOutputFolders(arguments));
  WriteOptions options{.work = {.threads = arguments.threads, .stop = &StopRequested()},
                       .memory_limit = TRY(ParseMemoryLimit(arguments.memory_limit)),
                       .replace = how.force,
                       .resume = how.resume,
                       .lock = !how.no_lock,
                       .recorded = RecordedOptions(arguments)};
  options.on_event = [&progress](const ConvertEvent& event) {
    progress.Update(event.stage, event.tensor, event.bytes_done, event.bytes_total);
  };
  return WriteBundles(prepared.jobs, options);
}

namespace {

struct Outcome {
  WriteReport report;
  std::vector<TensorError> errors;
  double seconds = 0;
  uint64_t peak_anonymous_bytes = 0;
};

std::string_view RecipeName(const ConvertArguments& arguments, const PreparedJobs& prepared) {
  return prepared.budgets.empty() ? std::string_view(arguments.quant) : "budget";
}

// What became of the recipe, for each model.
Status PrintRecipes(const ConvertArguments& arguments, const PreparedJobs& prepared) {
  for (size_t i = 0; i < prepared.models.size(); ++i) {
    const std::vector<RecipeLine> lines = TRY(ParseResolvedRecipe(prepared.models[i].resolved_recipe));
    std::cerr << Format("{} by {}:\n{}", prepared.slices[i], RecipeName(arguments, prepared), RecipeSummary(lines));
  }
  std::cerr << BudgetText(prepared);
  return {};
}

void Print(const ConvertArguments& arguments, const PreparedJobs& prepared, const Outcome& outcome) {
  for (const WrittenBundle& bundle : outcome.report.bundles)
    std::cout << Format("{}  {}  {} bytes\n", bundle.sha256, bundle.path.string(), bundle.bytes);
  if (!outcome.errors.empty()) std::cout << FormatErrorReport(outcome.errors);
  for (size_t i = 0; i < prepared.models.size(); ++i) {
    const ParameterCount& count = prepared.models[i].parameters;
    std::cerr << Format("{}: {} parameters, {} effective\n", prepared.slices[i], count.text, count.effective);
  }
  std::cerr << Format("{}, {:.1f} s, {:.0f} MB of memory at most\n", RecipeName(arguments, prepared), outcome.seconds,
                      static_cast<double>(outcome.peak_anonymous_bytes) / 1e6);
}

// Of an elastic bundle, the active one first; empty for a plain one.
OrderedJson SizesJson(const PreparedModel& model) {
  OrderedJson sizes = OrderedJson::array();
  if (model.smaller.empty()) return sizes;
  sizes.push_back({{"name", model.size_name}, {"parameters", model.parameters.text}, {"effective_parameters", model.parameters.effective}});
  for (const PreparedSize& size : model.smaller) {
    sizes.push_back({{"name", size.name}, {"parameters", size.parameters.text}, {"effective_parameters", size.parameters.effective}});
  }
  return sizes;
}

Status PrintAsJson(std::string_view verb, const ConvertArguments& arguments, const PreparedJobs& prepared, const Outcome& outcome) {
  OrderedJson rows = OrderedJson::array();
  OrderedJson notes = OrderedJson::array();
  for (const WrittenBundle& bundle : outcome.report.bundles) {
    rows.push_back({{"path", bundle.path.string()},
                    {"bytes", bundle.bytes},
                    {"sha256", bundle.sha256},
                    {"slice", prepared.slices[bundle.job]},
                    {"parameters", prepared.models[bundle.job].parameters.text}});
  }
  for (const PreparedModel& model : prepared.models) {
    for (const std::string& note : model.notes) notes.push_back(note);
  }
  const WriteReport& report = outcome.report;
  const std::vector<RecipeLine> recipe = TRY(ParseResolvedRecipe(prepared.models.front().resolved_recipe));
  OrderedJson document{{"outputs", rows},
                       {"seconds", outcome.seconds},
                       {"peak_anonymous_bytes", outcome.peak_anonymous_bytes},
                       {"parameters", prepared.models.front().parameters.text},
                       {"slice", prepared.slices.front()},
                       {"sizes", SizesJson(prepared.models.front())},
                       {"recipe", RecipeName(arguments, prepared)},
                       {"weights", RecipeJson(recipe)},
                       {"bytes_made", report.bytes_made},
                       {"bytes_resumed", report.bytes_resumed},
                       {"make_core_seconds", report.times.make_s},
                       {"write_core_seconds", report.times.write_s},
                       {"notes", notes}};
  if (!outcome.errors.empty()) document["errors"] = ErrorReportJson(outcome.errors);
  if (!prepared.budgets.empty()) document["budget"] = BudgetJson(prepared.budgets.front());
  PrintJson(verb, document);
  return {};
}

}  // namespace

void AddWriteOptions(CLI::App& verb, const std::shared_ptr<WriteArguments>& how) {
  verb.add_flag("--dry-run", how->dry_run, "what `plan` prints; write nothing");
  verb.add_flag("--force", how->force, "replace existing outputs");
  verb.add_flag("--resume", how->resume, "go on with an unfinished conversion, and leave one behind when stopped");
  verb.add_flag("--errors", how->errors, "report every tensor's quantization error");
  verb.add_flag("--no-lock", how->no_lock, "write no lock file and no line of SHA256SUMS, and do not read the inputs for their digests");
  verb.add_option("--progress", how->progress, "auto, bar, plain, json or none")->capture_default_str();
}

Result<ExitStatus> Convert(std::string_view verb, const ConvertArguments& arguments, const WriteArguments& how) {
  const auto start = std::chrono::steady_clock::now();
  MemoryWatch memory;
  TRY(CheckThreads(arguments.threads));
  const ProgressStyle style = TRY(ProgressStyleFromName(how.progress));
  const PreparedJobs prepared = TRY(PrepareJobs(arguments));
  for (const PreparedModel& model : prepared.models) {
    for (const std::string& note : model.notes) std::cerr << "note: " << note << "\n";
  }
  if (how.dry_run) return PrintPlan(verb, arguments, prepared);
  if (!arguments.json && style != ProgressStyle::kJson) TRY(PrintRecipes(arguments, prepared));
  Outcome outcome;
  {
    Progress progress(style);
    outcome.report = TRY(Write(arguments, how, prepared, progress));
    progress.ShowStages();
    if (how.errors) {
      for (const PreparedModel& model : prepared.models)
        TRY(MeasureErrors(model, {.threads = arguments.threads, .stop = &StopRequested()}, outcome.errors));
    }
  }
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  outcome.peak_anonymous_bytes = memory.peak_anonymous_bytes();
  if (arguments.json) {
    TRY(PrintAsJson(verb, arguments, prepared, outcome));
  } else {
    Print(arguments, prepared, outcome);
  }
  return ExitStatus::kOk;
}

Verb AddConvert(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("convert", "Turn a Gemma 3n or Gemma 3 checkpoint into .task and .litertlm bundles, and prove that they run");
  const auto arguments = std::make_shared<ConvertArguments>();
  const auto how = std::make_shared<WriteArguments>();
  AddConvertOptions(*verb, arguments, true);
  AddWriteOptions(*verb, how);
  verb->footer(
      "Examples:\n  taskpress convert gemma-3n-E4B-it -o gemma.task -o gemma.litertlm\n"
      "  taskpress convert gemma-3n-E4B-it --slice e2b -o e2b.task --slice E2.98B -o middle.task\n"
      "  taskpress convert gemma-3n-E4B-it -o gemma.litertlm --quant mixed.toml --calibrate chats.jsonl\n"
      "  taskpress convert gemma-3n-E4B-it -o gemma.litertlm --target-size 3.2G --calibrate chats.jsonl --method gptq\n"
      "  taskpress convert gemma-3n-E4B-it -o out/ --quant dynamic_int8 --context 8192 --tensor-type 'self_attn=int4'");
  return {verb, [arguments, how] { return Convert("convert", *arguments, *how); }};
}

}  // namespace taskpress
