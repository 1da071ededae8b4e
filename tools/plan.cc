#include "tools/plan.h"

#include <iostream>

#include "converter/planner.h"
#include "quantizer/resolved_recipe.h"

namespace taskpress {
namespace {

std::string Bytes(uint64_t bytes) { return Format("{} bytes ({:.2f} GB)", bytes, static_cast<double>(bytes) * 1e-9); }

void PrintTensors(const PreparedModel& model) {
  std::cout << Format("{:52} {:>9} {:>9} {:>6} {:>13} {:>14}\n", "tensor", "rows", "columns", "source", "type", "bytes");
  uint64_t total = 0;
  for (const BundleWeight& weight : model.weights) {
    const uint64_t bytes = StoredBytes(weight);
    total += bytes;
    std::cout << Format("{:52} {:9} {:9} {:>6} {:>13} {:14}\n", weight.name, weight.num_rows, weight.columns, NameOf(weight.source_type),
                        NameOf(weight.spec), bytes);
  }
  std::cout << Format("{:52} {:>55}\n", "all matrices and tables", total);
}

Status Print(const PreparedJobs& prepared, const Forecast& forecast) {
  for (size_t i = 0; i < prepared.models.size(); ++i) {
    const PreparedModel& model = prepared.models[i];
    std::cout << Format("slice {}: {} parameters, {} effective\n", prepared.slices[i], model.parameters.text, model.parameters.effective);
    PrintTensors(model);
    std::cout << "recipe\n" << RecipeSummary(TRY(ParseResolvedRecipe(model.resolved_recipe)));
  }
  std::cout << BudgetText(prepared);
  for (const OutputForecast& output : forecast.outputs) {
    std::cout << Format("{}: {} bytes, not written\n", output.path.string(), output.bytes);
    for (const SectionForecast& section : output.sections) {
      std::cout << Format("  {:24} {:14}\n", InfoOf(section.kind).name, section.bytes);
    }
  }
  std::cout << Format("reads          {}\n", Bytes(forecast.source_bytes));
  std::cout << Format("free disk      {}\n", Bytes(forecast.disk_bytes));
  std::cout << Format("memory         {} at most\n", Bytes(forecast.peak_anonymous_bytes));
  if (forecast.time) {
    const TimeForecast& time = *forecast.time;
    std::cout << Format("time           {:.1f} s (writing {:.1f}, proof {:.1f})\n", time.total_s(), time.write_s, time.prove_s);
  }
  for (const LoaderLimit& limit : forecast.limits) {
    std::cout << Format("{:6} {}: {} of {}  ({})\n", limit.holds() ? "ok" : "BREAKS", limit.rule, limit.found, limit.limit,
                        forecast.outputs[limit.output].path.filename().string());
  }
  return {};
}

OrderedJson TensorsJson(const PreparedModel& model) {
  OrderedJson tensors = OrderedJson::array();
  for (const BundleWeight& weight : model.weights) {
    tensors.push_back({{"name", weight.name},
                       {"rows", weight.num_rows},
                       {"columns", weight.columns},
                       {"source_type", NameOf(weight.source_type)},
                       {"type", NameOf(weight.spec)},
                       {"bytes", StoredBytes(weight)}});
  }
  return tensors;
}

OrderedJson OutputsJson(const PreparedJobs& prepared, const Forecast& forecast) {
  OrderedJson outputs = OrderedJson::array();
  for (const OutputForecast& output : forecast.outputs) {
    OrderedJson sections = OrderedJson::array();
    for (const SectionForecast& section : output.sections)
      sections.push_back({{"kind", InfoOf(section.kind).name}, {"bytes", section.bytes}});
    outputs.push_back({{"path", output.path.string()},
                       {"bytes", output.bytes},
                       {"slice", prepared.slices[output.job]},
                       {"parameters", prepared.models[output.job].parameters.text},
                       {"sections", std::move(sections)}});
  }
  return outputs;
}

Status PrintAsJson(std::string_view verb, const ConvertArguments& arguments, const PreparedJobs& prepared, const Forecast& forecast) {
  OrderedJson limits = OrderedJson::array();
  for (const LoaderLimit& limit : forecast.limits) {
    limits.push_back({{"path", forecast.outputs[limit.output].path.string()},
                      {"rule", limit.rule},
                      {"limit", limit.limit},
                      {"found", limit.found},
                      {"holds", limit.holds()}});
  }
  OrderedJson notes = OrderedJson::array();
  for (const PreparedModel& model : prepared.models) {
    for (const std::string& note : model.notes) notes.push_back(note);
  }
  const std::vector<RecipeLine> recipe = TRY(ParseResolvedRecipe(prepared.models.front().resolved_recipe));
  OrderedJson document{{"dry_run", true},
                       {"outputs", OutputsJson(prepared, forecast)},
                       {"tensors", TensorsJson(prepared.models.front())},
                       {"parameters", prepared.models.front().parameters.text},
                       {"slice", prepared.slices.front()},
                       {"recipe", prepared.budgets.empty() ? arguments.quant : "budget"},
                       {"weights", RecipeJson(recipe)},
                       {"source_bytes", forecast.source_bytes},
                       {"disk_bytes", forecast.disk_bytes},
                       {"peak_anonymous_bytes", forecast.peak_anonymous_bytes},
                       {"root_bytes", forecast.root_bytes},
                       {"tokenizer_bytes", forecast.tokenizer_bytes},
                       {"limits", std::move(limits)},
                       {"notes", std::move(notes)}};
  if (!prepared.budgets.empty()) document["budget"] = BudgetJson(prepared.budgets.front());
  if (forecast.time) {
    document["seconds"] = forecast.time->total_s();
    document["stages"] = {{"write", forecast.time->write_s}, {"prove", forecast.time->prove_s}};
  }
  PrintJson(verb, std::move(document));
  return {};
}

struct PlanArguments {
  std::string device_ram;
};

// Without -o: both containers, as if written to the current folder.
void DefaultOutputs(PreparedJobs& prepared) {
  for (size_t i = 0; i < prepared.jobs.size(); ++i) {
    if (!prepared.jobs[i].outputs.empty()) continue;
    const std::string name = prepared.jobs.size() == 1 ? "model" : Format("model-{}", i + 1);
    prepared.jobs[i].outputs = {name + ".litertlm", name + ".task"};
  }
}

Result<ExitStatus> Plan(const ConvertArguments& arguments, const PlanArguments& more) {
  TRY(CheckThreads(arguments.threads));
  std::optional<uint64_t> device_ram;
  if (!more.device_ram.empty()) device_ram = TRY(ParseBytes("--device-ram", more.device_ram));
  PreparedJobs prepared = TRY(PrepareJobs(arguments));
  DefaultOutputs(prepared);
  return PrintPlan("plan", arguments, prepared, device_ram);
}

}  // namespace

Result<ExitStatus> PrintPlan(std::string_view verb, const ConvertArguments& arguments, const PreparedJobs& prepared,
                             std::optional<uint64_t> device_ram) {
  const ForecastOptions options{.memory_limit = TRY(ParseMemoryLimit(arguments.memory_limit)),
                                .device_ram = device_ram,
                                .measure_time = true,
                                .work = {.threads = arguments.threads, .stop = &StopRequested()}};
  const Forecast forecast = TRY(MakeForecast(prepared.jobs, options));
  TRY(arguments.json ? PrintAsJson(verb, arguments, prepared, forecast) : Print(prepared, forecast));
  return ExitStatus::kOk;
}

Verb AddPlan(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("plan", "Sizes, memory, time and clients' limits of a conversion, without doing it");
  const auto arguments = std::make_shared<ConvertArguments>();
  const auto more = std::make_shared<PlanArguments>();
  AddConvertOptions(*verb, arguments, false);
  verb->add_option("--device-ram", more->device_ram, "memory of the machine that will run the bundle, 4G");
  verb->footer("Example:\n  taskpress plan gemma-3n-E4B-it --slice e2b -o e2b.litertlm --device-ram 4G");
  return {verb, [arguments, more] { return Plan(*arguments, *more); }};
}

}  // namespace taskpress
