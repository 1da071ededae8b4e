#include "tools/convert_arguments.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>

#include "converter/calibrate.h"
#include "converter/convert.h"
#include "converter/elastic.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

constexpr std::string_view kWholeModel = "e4b";

Result<std::vector<int64_t>> AskedPrefillLengths(const ConvertArguments& arguments) {
  if (!arguments.prefill.empty()) return ParseLengths("--prefill", arguments.prefill);
  std::vector<int64_t> lengths = TextModelOptions{}.prefill_lengths;
  std::erase_if(lengths, [&](int64_t length) { return length > arguments.context; });
  return lengths;
}

Result<PrepareOptions> OptionsFrom(const ConvertArguments& arguments) {
  if (arguments.modalities != "text") {
    return Fail(ErrorCode::kModalityNotAvailable, "--modalities {}: this version converts text only", arguments.modalities);
  }
  const bool best = arguments.method == "best";
  const std::optional<QuantMethod> method = best ? QuantMethod::kGptq : QuantMethodFromName(arguments.method);
  if (!method) return Fail(ErrorCode::kRecipeSyntax, "--method {}: absmax, clip, gptq or best", arguments.method);
  if (*method == QuantMethod::kGptq && arguments.calibrate.empty()) {
    return Fail(ErrorCode::kUsage, "--method {}: give a text that is like what the model will read, with --calibrate", arguments.method);
  }
  if (arguments.window != "gather" && arguments.window != "mask")
    return Fail(ErrorCode::kUsage, "--window {}: gather or mask", arguments.window);
  if (arguments.context < 16 || arguments.context > kMaxContext) {
    return Fail(ErrorCode::kUsage, "--context {}: from 16 to {} is possible", arguments.context, kMaxContext);
  }
  PrepareOptions options;
  options.recipe = TRY(RecipeFromName(arguments.quant));
  options.recipe.method = *method;
  const std::vector<std::string>& folds = arguments.folds;
  const bool by_name = !folds.empty() && folds.front() != "auto" && folds.front() != "none";
  options.choose_folds = folds.empty() ? best : folds.front() != "none";
  if (by_name) options.fold_names = folds;
  options.work = {.threads = arguments.threads, .stop = &StopRequested()};
  options.elastic = arguments.elastic;
  options.lora = arguments.lora;
  for (const std::string& rule : arguments.tensor_types) TRY(AddTensorTypeRule(options.recipe, rule));
  options.model.context = arguments.context;
  options.model.window = arguments.window == "mask" ? WindowForm::kMask : WindowForm::kGather;
  options.model.prefill_lengths = TRY(PrefillLengths(TRY(AskedPrefillLengths(arguments)), arguments.context));
  options.score_signature = arguments.score_signature;
  return options;
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
  verb.add_option("--quant", arguments->quant, "f32, f16, dynamic_int8, dynamic_int4 or dynamic_int4_block32, 64, 128")
      ->capture_default_str();
  verb.add_option("--tensor-type", arguments->tensor_types,
                  "REGEX=TYPE (f32, f16, int8, int4, int4_block32) for matching weights; repeatable, the last match wins");
  verb.add_option("--lora", arguments->lora, "folder of a PEFT adapter to merge into the weights");
  verb.add_option("--method", arguments->method,
                  "how weights are rounded: absmax, clip (least squared error), gptq (errors made up for; needs --calibrate), or best "
                  "(folds and gptq)")
      ->capture_default_str();
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

Result<PreparedJobs> PrepareJobs(const ConvertArguments& arguments) {
  TRY(CheckPairs(arguments));
  PrepareOptions options = TRY(OptionsFrom(arguments));
  PreparedJobs prepared;
  prepared.files = TRY(OpenModelFiles(arguments.checkpoint));
  prepared.slices = arguments.slices;
  if (prepared.slices.empty()) prepared.slices.emplace_back(kWholeModel);
  const std::vector<std::string> of_sizes = TRY(ElasticCalibrationInputs(arguments, options.recipe));
  for (size_t i = 0; i < of_sizes.size(); ++i) {
    options.elastic_calibrations.push_back(TRY(CalibrationOf(arguments, *prepared.files, arguments.elastic[i], of_sizes[i])));
  }
  for (const std::string& slice : prepared.slices) {
    options.slice = slice;
    options.calibration = TRY(CalibrationOf(arguments, *prepared.files, slice, arguments.calibrate));
    prepared.models.push_back(TRY(PrepareModel(*prepared.files, arguments.checkpoint, options)));
    std::vector<std::filesystem::path>& inputs = prepared.models.back().inputs;
    if (!arguments.calibrate.empty()) inputs.emplace_back(arguments.calibrate);
    for (const std::string& input : of_sizes) {
      if (!input.empty() && input != arguments.calibrate) inputs.emplace_back(input);
    }
  }
  for (const PreparedModel& model : prepared.models) prepared.jobs.push_back({.model = &model, .outputs = {}});
  const bool several = prepared.slices.size() > 1;
  for (size_t i = 0; i < arguments.outputs.size(); ++i) {
    const size_t job = several ? arguments.slice_of_output[i] - 1 : 0;
    std::string name = NameOfCheckpoint(arguments.checkpoint);
    if (several) name += "-" + std::filesystem::path(prepared.slices[job]).stem().string();
    AddOutputPaths(arguments.outputs[i], name, prepared.jobs[job].outputs);
  }
  return prepared;
}

Result<uint64_t> ParseBytes(std::string_view option, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, text.data() + text.size());
  int shift = -1;
  if (unit.empty()) shift = 0;
  if (unit == "K" || unit == "k") shift = 10;
  if (unit == "M" || unit == "m") shift = 20;
  if (unit == "G" || unit == "g") shift = 30;
  const std::optional<uint64_t> bytes = shift < 0 ? std::nullopt : CheckedMul(value, uint64_t{1} << shift);
  if (error != std::errc() || !bytes) return Fail(ErrorCode::kUsage, "{} {}: a number of bytes, or 256M, 1G", option, text);
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
  return {{"quant", arguments.quant},
          {"elastic", elastic},
          {"tensor-type", rules},
          {"method", arguments.method},
          {"folds", folds},
          {"calibration-tokens", arguments.calibrate.empty() ? "" : std::to_string(arguments.calibration_tokens)},
          {"window", arguments.window},
          {"context", std::to_string(arguments.context)},
          {"prefill", arguments.prefill},
          {"modalities", arguments.modalities},
          {"score-signature", arguments.score_signature ? "true" : "false"}};
}

}  // namespace taskpress
