#include "tools/convert_arguments.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>

#include "converter/calibrate.h"
#include "converter/convert.h"
#include "converter/elastic.h"
#include "quantizer/recipe_file.h"
#include "schema/base/checked_math.h"
#include "schema/base/mapped_file.h"

namespace taskpress {
namespace {

constexpr std::string_view kWholeModel = "e4b";
constexpr std::string_view kRecipeExtension = ".toml";

Result<std::vector<int64_t>> AskedPrefillLengths(const ConvertArguments& arguments) {
  if (!arguments.prefill.empty()) return ParseLengths("--prefill", arguments.prefill);
  std::vector<int64_t> lengths = TextModelOptions{}.prefill_lengths;
  std::erase_if(lengths, [&](int64_t length) { return length > arguments.context; });
  return lengths;
}

bool HasTarget(const ConvertArguments& arguments) { return !arguments.target_size.empty() || arguments.target_bpw != 0; }

bool IsRecipeFile(const ConvertArguments& arguments) { return arguments.quant.ends_with(kRecipeExtension); }

// The named recipe or the file, then --tensor-type. --method takes the place of a file's method, not of its rules'.
// Where a size is asked for, the types are chosen later, and what --tensor-type says is pinned.
Result<Recipe> RecipeOf(const ConvertArguments& arguments) {
  Recipe recipe;
  if (HasTarget(arguments)) {
    recipe.name = "budget";
  } else if (IsRecipeFile(arguments)) {
    const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(arguments.quant));
    recipe = TRY(ParseRecipeFile(AsText(file->bytes()), arguments.quant));
  } else {
    recipe = TRY(RecipeFromName(arguments.quant));
  }
  if (!arguments.method.empty()) {
    const std::optional<QuantMethod> method = arguments.method == "best" ? QuantMethod::kGptq : QuantMethodFromName(arguments.method);
    if (!method) return Fail(ErrorCode::kRecipeSyntax, "--method {}: absmax, clip, gptq or best", arguments.method);
    recipe.method = *method;
  }
  const bool gptq = recipe.method == QuantMethod::kGptq || std::ranges::contains(recipe.rules, QuantMethod::kGptq, &RecipeRule::method);
  if (gptq && arguments.calibrate.empty()) {
    const std::string who = arguments.method.empty() ? arguments.quant : "--method " + arguments.method;
    return Fail(ErrorCode::kUsage, "{}: give a text that is like what the model will read, with --calibrate", who);
  }
  for (const std::string& rule : arguments.tensor_types) TRY(AddTensorTypeRule(recipe, rule));
  return recipe;
}

Result<PrepareOptions> OptionsFrom(const ConvertArguments& arguments) {
  if (arguments.modalities != "text") {
    return Fail(ErrorCode::kModalityNotAvailable, "--modalities {}: this version converts text only", arguments.modalities);
  }
  if (arguments.window != "gather" && arguments.window != "mask")
    return Fail(ErrorCode::kUsage, "--window {}: gather or mask", arguments.window);
  if (arguments.context < 16 || arguments.context > kMaxContext) {
    return Fail(ErrorCode::kUsage, "--context {}: from 16 to {} is possible", arguments.context, kMaxContext);
  }
  PrepareOptions options;
  const bool best = arguments.method == "best";
  options.recipe = TRY(RecipeOf(arguments));
  const std::vector<std::string>& folds = arguments.folds;
  const bool by_name = !folds.empty() && folds.front() != "auto" && folds.front() != "none";
  options.choose_folds = folds.empty() ? best : folds.front() != "none";
  if (by_name) options.fold_names = folds;
  options.work = {.threads = arguments.threads, .stop = &StopRequested()};
  options.elastic = arguments.elastic;
  options.lora = arguments.lora;
  options.model.context = arguments.context;
  options.model.window = arguments.window == "mask" ? WindowForm::kMask : WindowForm::kGather;
  options.model.prefill_lengths = TRY(PrefillLengths(TRY(AskedPrefillLengths(arguments)), arguments.context));
  options.score_signature = arguments.score_signature;
  return options;
}

constexpr auto kDefaultTypes = std::to_array<std::string_view>({"int4", "int4_block128", "int4_block64", "int4_block32", "int8"});

Result<SensitivityOptions> SensitivityFrom(const ConvertArguments& arguments) {
  SensitivityOptions options;
  std::vector<std::string> types = arguments.target_types;
  if (types.empty()) types.assign(kDefaultTypes.begin(), kDefaultTypes.end());
  for (const std::string& type : types) {
    const Result<QuantSpec> spec = RuleTypeFromName(type);
    if (!spec) return std::unexpected(WithContext(spec.error(), "--target-types"));
    options.candidates.push_back(*spec);
  }
  std::string kind = arguments.sensitivity;
  if (kind == "auto") kind = arguments.calibrate.empty() ? "weights" : "outputs";
  const std::optional<SensitivityKind> known = SensitivityKindFromName(kind);
  if (!known) return Fail(ErrorCode::kUsage, "--sensitivity {}: auto, weights, outputs or kl", kind);
  options.kind = *known;
  if (options.kind == SensitivityKind::kKl) {
    if (arguments.sensitivity_text.empty()) return Fail(ErrorCode::kUsage, "--sensitivity kl: give a text with --sensitivity-text");
    const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(arguments.sensitivity_text));
    options.text = std::string(AsText(file->bytes()));
  }
  return options;
}

// The containers of one model's outputs; both where none is named.
Result<std::vector<Container>> ContainersOf(std::span<const std::filesystem::path> outputs) {
  if (outputs.empty()) return std::vector{Container::kTask, Container::kLitertlm};
  std::vector<Container> containers;
  for (const std::filesystem::path& path : outputs) {
    const std::optional<Container> container = ContainerFromPath(path);
    if (!container) return Fail(ErrorCode::kUsage, "{}: an output ends in .task or .litertlm, or is a folder", path.string());
    if (!std::ranges::contains(containers, *container)) containers.push_back(*container);
  }
  return containers;
}

Result<BudgetFit> FitTarget(const ConvertArguments& arguments, const ModelFiles& files, const PrepareOptions& options,
                            std::span<const std::filesystem::path> outputs) {
  BudgetRequest request;
  request.bits_per_weight = arguments.target_bpw;
  if (!arguments.target_size.empty()) request.bytes = TRY(ParseBytes("--target-size", arguments.target_size));
  request.containers = TRY(ContainersOf(outputs));
  request.sensitivity = TRY(SensitivityFrom(arguments));
  return FitBudget(files, arguments.checkpoint, options, request);
}

// Of a text, the moments are in a file without a name: what is mapped stays readable.
Result<std::shared_ptr<const Calibration>> CalibrationOf(const ConvertArguments& arguments, const ModelFiles& files,
                                                         const std::string& slice, const std::filesystem::path& given) {
  if (given.empty()) return nullptr;
  Result<CalibrationFile> made = CalibrationFile::Open(given);
  if (made || given.extension() == kCalibrationExtension) return std::make_shared<const Calibration>(TRY(std::move(made)));
  std::error_code ignored;
  std::filesystem::path folder = arguments.outputs.empty() ? "." : arguments.outputs.front();
  if (!std::filesystem::is_directory(folder, ignored)) folder = std::filesystem::absolute(folder, ignored).parent_path();
  const std::filesystem::path file = folder / Format(".taskpress-{}{}", getpid(), kCalibrationExtension);
  CalibrateOptions options{.text = given, .slice = slice, .lora = arguments.lora, .tokens = arguments.calibration_tokens};
  options.work = {.threads = arguments.threads, .stop = &StopRequested()};
  options.writer.replace = true;
  const CalibrateReport report = TRY(Calibrate(files, arguments.checkpoint, options, file));
  Result<CalibrationFile> opened = CalibrationFile::Open(file);
  std::filesystem::remove(file, ignored);
  std::cerr << Format("note: {} calibrated with {} tokens in windows of {}\n", slice, report.tokens, report.window);
  return std::make_shared<const Calibration>(TRY(std::move(opened)));
}

bool IsCalibrationFile(const std::filesystem::path& path) {
  return path.extension() == kCalibrationExtension || CalibrationFile::Open(path).has_value();
}

// [elastic]: what --calibrate-size names, and where --calibrate is a text and gptq asks, that text.
Result<std::vector<std::string>> ElasticCalibrationInputs(const ConvertArguments& arguments, const Recipe& recipe) {
  const bool text = recipe.method == QuantMethod::kGptq && !arguments.calibrate.empty() && !IsCalibrationFile(arguments.calibrate);
  std::vector<std::string> inputs(arguments.elastic.size(), text ? arguments.calibrate : "");
  for (const std::string& size : arguments.calibrate_sizes) {
    const size_t equals = size.find('=');
    const std::string name = size.substr(0, equals);
    const auto found = std::ranges::find(arguments.elastic, name, SizeName);
    if (equals == std::string::npos || found == arguments.elastic.end()) {
      return Fail(ErrorCode::kUsage, "--calibrate-size {}: NAME=FILE, NAME one of the sizes of --elastic", size);
    }
    if (arguments.calibrate.empty()) return Fail(ErrorCode::kUsage, "--calibrate-size {}: the big size needs --calibrate", size);
    inputs[static_cast<size_t>(found - arguments.elastic.begin())] = size.substr(equals + 1);
  }
  return inputs;
}

// The folder's name, which may hold dots, or the file's without its extension.
std::string NameOfCheckpoint(const std::filesystem::path& checkpoint) {
  std::error_code ignored;
  const std::filesystem::path source = std::filesystem::absolute(checkpoint, ignored).lexically_normal();
  if (!source.has_filename()) return source.parent_path().filename().string();
  return (std::filesystem::is_directory(source, ignored) ? source.filename() : source.stem()).string();
}

// A folder takes both containers, named after the checkpoint, and after the slice where there are several.
void AddOutputPaths(const std::string& output, const std::string& name, std::vector<std::filesystem::path>& paths) {
  const std::filesystem::path path = output;
  std::error_code ignored;
  if (!output.ends_with('/') && !std::filesystem::is_directory(path, ignored)) {
    paths.push_back(path);
    return;
  }
  paths.push_back(path / (name + ".litertlm"));
  paths.push_back(path / (name + ".task"));
}

// Each -o belongs to the --slice before it. CLI11 keeps the order of options.
void PairSlicesWithOutputs(const CLI::App& verb, const CLI::Option* slice, const CLI::Option* output, ConvertArguments& arguments) {
  size_t slices = 0;
  arguments.slice_of_output.clear();
  for (const CLI::Option* option : verb.parse_order()) {
    if (option == slice) ++slices;
    if (option == output) arguments.slice_of_output.push_back(slices);
  }
}

Status CheckPairs(const ConvertArguments& arguments) {
  if (arguments.slices.size() < 2) return {};
  std::vector<bool> used(arguments.slices.size());
  for (size_t i = 0; i < arguments.outputs.size(); ++i) {
    const size_t before = arguments.slice_of_output[i];
    if (before == 0) {
      return Fail(ErrorCode::kUsage, "-o {}: with several slices every output stands behind its --slice", arguments.outputs[i]);
    }
    used[before - 1] = true;
  }
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) return Fail(ErrorCode::kUsage, "--slice {}: no output follows it", arguments.slices[i]);
  }
  return {};
}

}  // namespace

void AddConvertOptions(CLI::App& verb, const std::shared_ptr<ConvertArguments>& arguments, bool output_required) {
  verb.add_option("checkpoint", arguments->checkpoint, "a Hugging Face folder, or a .safetensors, .gguf or .onnx file")->required();
  CLI::Option* output = verb.add_option("-o,--output", arguments->outputs, "FILE.task, FILE.litertlm, or a folder for both; repeatable")
                            ->required(output_required);
  CLI::Option* slice =
      verb.add_option("--slice", arguments->slices,
                      "e4b: as stored; e2b, a published name or size (\"E2.54B\"), or a JSON file {\"ffn\": .., \"skip\": [..]}; "
                      "repeatable, each followed by its outputs");
  for (CLI::Option* option : {output, slice}) option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb.parse_complete_callback([&verb, arguments, slice, output] { PairSlicesWithOutputs(verb, slice, output, *arguments); });
  verb.add_option("--elastic", arguments->elastic, "more sizes over the same weight bytes, each inside --slice: e2b,E2.98B,FILE.json")
      ->delimiter(',');
  CLI::Option* quant =
      verb.add_option("--quant", arguments->quant,
                      "f32, f16, dynamic_int8, dynamic_int8_two_terms, dynamic_int4, dynamic_int4_block32, 64, 128, or RECIPE.toml")
          ->capture_default_str();
  quant->each([arguments](const std::string&) { arguments->quant_given = true; });
  verb.add_option("--target-size", arguments->target_size,
                  "of the file at most, 2.2G: every weight gets the type that serves the model best; --tensor-type pins");
  verb.add_option("--target-bpw", arguments->target_bpw, "the same, as bits of the file for each parameter: 4.6");
  verb.add_option("--target-types", arguments->target_types, "to choose from; default: int4, int4_block128, 64, 32, int8")->delimiter(',');
  verb.add_option(
      "--sensitivity", arguments->sensitivity,
      "what the choice goes by: weights, outputs (needs --calibrate), kl (one weight after the other rounded and run), or auto");
  verb.add_option("--sensitivity-text", arguments->sensitivity_text, "for --sensitivity kl");
  verb.add_option("--tensor-type", arguments->tensor_types,
                  "REGEX=TYPE (f32, f16, int8, int4, int4_block32) for matching weights; repeatable, the last match wins");
  verb.add_option("--lora", arguments->lora, "folder of a PEFT adapter to merge into the weights");
  verb.add_option("--method", arguments->method,
                  "how weights are rounded: absmax, clip (least squared error), gptq (errors made up for; needs --calibrate), or best "
                  "(folds and gptq); default: what RECIPE.toml says, else absmax");
  verb.add_option("--calibrate", arguments->calibrate,
                  "a text or .jsonl to measure the inputs of all matrices with, or what `taskpress calibrate` made of one");
  verb.add_option("--calibrate-size", arguments->calibrate_sizes,
                  "NAME=FILE, the same of one of the --elastic sizes; repeatable. A text of --calibrate is measured with each size anyway");
  verb.add_option("--calibration-tokens", arguments->calibration_tokens, "of the text, at most")->capture_default_str();
  verb.add_option("--folds", arguments->folds,
                  "rescaling of channels that leaves the float model as it is: auto, none, or names of folds; default: auto for "
                  "--method best")
      ->delimiter(',');
  verb.add_option("--window", arguments->window, "how sliding layers read the cache: gather or mask")->capture_default_str();
  verb.add_option("--context", arguments->context, "KV cache length")->capture_default_str();
  verb.add_option("--prefill", arguments->prefill, "signature lengths, 8,32,128,1024; a short one is added when missing");
  verb.add_option("--modalities", arguments->modalities, "text")->capture_default_str();
  verb.add_flag("--score-signature", arguments->score_signature, "add a signature with the logits of every position, for evaluation");
  verb.add_option("--threads", arguments->threads, "0: all cores")->capture_default_str();
  verb.add_option("--memory-limit", arguments->memory_limit, "of anonymous memory; 256M or more")->capture_default_str();
  verb.add_flag("--json", arguments->json, "one JSON document");
}

namespace {

// A size says how the weights are stored, so nothing else may.
Status CheckTarget(const ConvertArguments& arguments) {
  if (!HasTarget(arguments)) {
    if (!arguments.target_types.empty() || arguments.sensitivity != "auto" || !arguments.sensitivity_text.empty())
      return Fail(ErrorCode::kUsage, "--target-types, --sensitivity and --sensitivity-text go with --target-size or --target-bpw");
    return {};
  }
  if (!arguments.target_size.empty() && arguments.target_bpw != 0)
    return Fail(ErrorCode::kUsage, "--target-size and --target-bpw: one of them");
  if (!arguments.target_size.empty() && TRY(ParseBytes("--target-size", arguments.target_size)) == 0)
    return Fail(ErrorCode::kUsage, "--target-size {}: nothing fits", arguments.target_size);
  if (!std::isfinite(arguments.target_bpw) || arguments.target_bpw < 0 || arguments.target_bpw > 64)
    return Fail(ErrorCode::kUsage, "--target-bpw {}: bits for each parameter, such as 4.6", arguments.target_bpw);
  if (arguments.quant_given)
    return Fail(ErrorCode::kUsage, "--quant {}: a size chooses the types itself; pin those of some weights with --tensor-type",
                arguments.quant);
  return {};
}

// [slices][outputs]
std::vector<std::vector<std::filesystem::path>> OutputPaths(const ConvertArguments& arguments, const std::vector<std::string>& slices) {
  std::vector<std::vector<std::filesystem::path>> paths(slices.size());
  const bool several = slices.size() > 1;
  for (size_t i = 0; i < arguments.outputs.size(); ++i) {
    const size_t job = several ? arguments.slice_of_output[i] - 1 : 0;
    std::string name = NameOfCheckpoint(arguments.checkpoint);
    if (several) name += "-" + std::filesystem::path(slices[job]).stem().string();
    AddOutputPaths(arguments.outputs[i], name, paths[job]);
  }
  return paths;
}

}  // namespace

Result<PreparedJobs> PrepareJobs(const ConvertArguments& arguments) {
  TRY(CheckPairs(arguments));
  TRY(CheckTarget(arguments));
  PrepareOptions options = TRY(OptionsFrom(arguments));
  PreparedJobs prepared;
  prepared.files = TRY(OpenModelFiles(arguments.checkpoint));
  prepared.slices = arguments.slices;
  if (prepared.slices.empty()) prepared.slices.emplace_back(kWholeModel);
  const std::vector<std::string> of_sizes = TRY(ElasticCalibrationInputs(arguments, options.recipe));
  for (size_t i = 0; i < of_sizes.size(); ++i) {
    options.elastic_calibrations.push_back(TRY(CalibrationOf(arguments, *prepared.files, arguments.elastic[i], of_sizes[i])));
  }
  std::vector<std::vector<std::filesystem::path>> outputs = OutputPaths(arguments, prepared.slices);
  for (size_t i = 0; i < prepared.slices.size(); ++i) {
    PrepareOptions own = options;
    own.slice = prepared.slices[i];
    own.calibration = TRY(CalibrationOf(arguments, *prepared.files, own.slice, arguments.calibrate));
    if (HasTarget(arguments)) {
      prepared.budgets.push_back(TRY(FitTarget(arguments, *prepared.files, own, outputs[i])));
      own.recipe = prepared.budgets.back().recipe;
    }
    prepared.models.push_back(TRY(PrepareModel(*prepared.files, arguments.checkpoint, own)));
    std::vector<std::filesystem::path>& inputs = prepared.models.back().inputs;
    if (!arguments.calibrate.empty()) inputs.emplace_back(arguments.calibrate);
    for (const std::string& input : of_sizes) {
      if (!input.empty() && input != arguments.calibrate) inputs.emplace_back(input);
    }
    if (IsRecipeFile(arguments)) inputs.emplace_back(arguments.quant);
    if (!arguments.sensitivity_text.empty()) inputs.emplace_back(arguments.sensitivity_text);
  }
  for (size_t i = 0; i < prepared.models.size(); ++i)
    prepared.jobs.push_back({.model = &prepared.models[i], .outputs = std::move(outputs[i])});
  return prepared;
}

std::string BudgetText(const PreparedJobs& prepared) {
  std::string text;
  for (size_t i = 0; i < prepared.budgets.size(); ++i) {
    const BudgetFit& budget = prepared.budgets[i];
    text += Format("{}: {} of {} bytes; estimated harm {:.4g}, of any mix at least {:.4g}; {} plans\n", prepared.slices[i], budget.bytes,
                   budget.target, budget.cost, budget.bound, budget.plans);
  }
  return text;
}

OrderedJson BudgetJson(const BudgetFit& budget) {
  OrderedJson weights = OrderedJson::array();
  for (size_t i = 0; i < budget.weights.size(); ++i) {
    const WeightCosts& weight = budget.weights[i];
    OrderedJson candidates = OrderedJson::array();
    for (const CandidateCost& candidate : weight.candidates) {
      candidates.push_back(
          {{"type", NameOf(candidate.spec)}, {"bytes", candidate.bytes}, {"error", candidate.error}, {"cost", candidate.cost}});
    }
    weights.push_back({{"name", weight.name},
                       {"class", NameOf(weight.quant_class)},
                       {"type", NameOf(weight.candidates[budget.chosen[i]].spec)},
                       {"candidates", std::move(candidates)}});
  }
  return {{"target_bytes", budget.target}, {"bytes", budget.bytes}, {"cost", budget.cost},
          {"bound", budget.bound},         {"plans", budget.plans}, {"weights", std::move(weights)}};
}

Result<uint64_t> ParseBytes(std::string_view option, const std::string& text) {
  const auto refused = Fail(ErrorCode::kUsage, "{} {}: a number of bytes, or 256M, 1G, 2.2G", option, text);
  uint64_t value = 0;
  const char* const last = text.data() + text.size();
  auto [end, error] = std::from_chars(text.data(), last, value);
  if (error != std::errc()) return refused;
  uint64_t fraction = 0;
  uint64_t scale = 1;
  if (end != last && *end == '.') {
    const char* digits = end + 1;
    const std::from_chars_result read = std::from_chars(digits, last, fraction);
    end = read.ptr;
    if (read.ec != std::errc() || end - digits > 6) return refused;  // a millionth of 1G is below a block on a disk
    for (; digits != end; ++digits) scale *= 10;
  }
  const std::string_view unit(end, last);
  int shift = -1;
  if (unit.empty() && scale == 1) shift = 0;
  if (unit == "K" || unit == "k") shift = 10;
  if (unit == "M" || unit == "m") shift = 20;
  if (unit == "G" || unit == "g") shift = 30;
  if (shift < 0) return refused;
  const std::optional<uint64_t> whole = CheckedMul(value, uint64_t{1} << shift);
  const std::optional<uint64_t> bytes = whole ? CheckedAdd(*whole, (fraction << shift) / scale) : std::nullopt;
  if (!bytes) return refused;
  return *bytes;
}

Result<uint64_t> ParseMemoryLimit(const std::string& text) {
  const uint64_t bytes = TRY(ParseBytes("--memory-limit", text));
  if (bytes < kLeastMemoryLimit) {
    return Fail(ErrorCode::kUsage, "--memory-limit {}: a conversion needs {} bytes (256M) or more", text, kLeastMemoryLimit);
  }
  return bytes;
}

std::vector<std::pair<std::string, std::string>> RecordedOptions(const ConvertArguments& arguments) {
  std::string rules;
  for (const std::string& rule : arguments.tensor_types) rules += (rules.empty() ? "" : " ") + rule;
  std::string elastic;
  for (const std::string& size : arguments.elastic)
    elastic += (elastic.empty() ? "" : ",") + std::filesystem::path(size).filename().string();
  std::string folds;
  for (const std::string& name : arguments.folds) folds += (folds.empty() ? "" : ",") + name;
  const std::string quant = IsRecipeFile(arguments) ? std::filesystem::path(arguments.quant).filename().string() : arguments.quant;
  const std::string method = arguments.method.empty() && !IsRecipeFile(arguments) ? "absmax" : arguments.method;
  std::vector<std::pair<std::string, std::string>> recorded = {
      {"quant", HasTarget(arguments) ? "" : quant},
      {"elastic", elastic},
      {"tensor-type", rules},
      {"method", method},
      {"folds", folds},
      {"calibration-tokens", arguments.calibrate.empty() ? "" : std::to_string(arguments.calibration_tokens)},
      {"window", arguments.window},
      {"context", std::to_string(arguments.context)},
      {"prefill", arguments.prefill},
      {"modalities", arguments.modalities},
      {"score-signature", arguments.score_signature ? "true" : "false"}};
  if (!arguments.target_size.empty()) recorded.emplace_back("target-size", arguments.target_size);
  if (arguments.target_bpw != 0) recorded.emplace_back("target-bpw", Format("{}", arguments.target_bpw));
  if (HasTarget(arguments)) recorded.emplace_back("sensitivity", arguments.sensitivity);
  return recorded;
}

}  // namespace taskpress
