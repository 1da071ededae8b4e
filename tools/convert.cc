#include "converter/convert.h"

#include <chrono>
#include <iostream>
#include <memory>

#include "quantizer/error_report.h"
#include "tools/command.h"
#include "tools/memory_watch.h"
#include "tools/progress.h"

namespace taskpress {
namespace {

struct ConvertArguments {
  std::string checkpoint;
  std::vector<std::string> outputs;
  std::string slice = "e4b";
  std::vector<std::string> elastic;
  std::string quant = "dynamic_int4";
  std::vector<std::string> tensor_types;
  std::string method = "absmax";
  std::string window = "gather";
  std::string lora;
  int64_t context = 4096;
  std::string prefill;
  std::string modalities = "text";
  bool score_signature = false;
  int threads = 0;
  bool dry_run = false;
  bool force = false;
  bool errors = false;
  std::string progress = "auto";
  bool json = false;
};

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
  if (arguments.method != "absmax") return Fail(ErrorCode::kRecipeSyntax, "--method {}: this version knows absmax", arguments.method);
  if (arguments.window != "gather" && arguments.window != "mask")
    return Fail(ErrorCode::kUsage, "--window {}: gather or mask", arguments.window);
  if (arguments.context < 16 || arguments.context > kMaxContext) {
    return Fail(ErrorCode::kUsage, "--context {}: from 16 to {} is possible", arguments.context, kMaxContext);
  }
  PrepareOptions options;
  options.recipe = TRY(RecipeFromName(arguments.quant));
  options.slice = arguments.slice;
  options.elastic = arguments.elastic;
  options.lora = arguments.lora;
  for (const std::string& rule : arguments.tensor_types) TRY(AddTensorTypeRule(options.recipe, rule));
  options.model.context = arguments.context;
  options.model.window = arguments.window == "mask" ? WindowForm::kMask : WindowForm::kGather;
  options.model.prefill_lengths = TRY(PrefillLengths(TRY(AskedPrefillLengths(arguments)), arguments.context));
  options.score_signature = arguments.score_signature;
  return options;
}

// The folder's name, which may hold dots, or the file's without its extension.
std::string NameOfCheckpoint(const std::filesystem::path& checkpoint) {
  std::error_code ignored;
  const std::filesystem::path source = std::filesystem::absolute(checkpoint, ignored).lexically_normal();
  if (!source.has_filename()) return source.parent_path().filename().string();
  return (std::filesystem::is_directory(source, ignored) ? source.filename() : source.stem()).string();
}

// A folder takes both containers, named after the checkpoint.
std::vector<std::filesystem::path> OutputPaths(const ConvertArguments& arguments) {
  std::vector<std::filesystem::path> paths;
  for (const std::string& output : arguments.outputs) {
    const std::filesystem::path path = output;
    std::error_code ignored;
    if (!output.ends_with('/') && !std::filesystem::is_directory(path, ignored)) {
      paths.push_back(path);
      continue;
    }
    const std::string name = NameOfCheckpoint(arguments.checkpoint);
    paths.push_back(path / (name + ".litertlm"));
    paths.push_back(path / (name + ".task"));
  }
  return paths;
}

// "-o out/" makes the folder; the folders above it are the caller's.
Status CreateOutputFolders(const ConvertArguments& arguments) {
  for (const std::string& output : arguments.outputs) {
    std::error_code error;
    if (output.ends_with('/')) std::filesystem::create_directory(std::filesystem::path(output).parent_path(), error);
    if (error) return Fail(ErrorCode::kWriteFailed, "{}: cannot create the folder: {}", output, error.message());
  }
  return {};
}

// In the bundle: values, and a float32 scale per row where they are quantized.
uint64_t StoredBytes(const BundleWeight& weight) {
  return weight.rows->size() + (weight.spec.is_quantized() ? static_cast<uint64_t>(weight.num_rows) * sizeof(float) : 0);
}

void PrintPlan(const PreparedModel& model) {
  std::cout << Format("{:52} {:>9} {:>9} {:>6} {:>14}\n", "tensor", "rows", "columns", "type", "bytes");
  uint64_t total = 0;
  for (const BundleWeight& weight : model.weights) {
    const uint64_t bytes = StoredBytes(weight);
    total += bytes;
    std::cout << Format("{:52} {:9} {:9} {:>6} {:14}\n", weight.name, weight.num_rows, weight.columns, NameOf(weight.spec), bytes);
  }
  std::cout << Format("{:52} {:>41}\n", "all matrices and tables", total);
}

Result<ExitStatus> DryRun(const ConvertArguments& arguments, const PreparedModel& model, std::span<const std::filesystem::path> outputs) {
  OrderedJson rows = OrderedJson::array();
  std::string sizes;
  for (const std::filesystem::path& path : outputs) {
    const std::optional<Container> container = ContainerFromPath(path);
    if (!container) return Fail(ErrorCode::kUsage, "{}: an output ends in .task or .litertlm, or is a folder", path.string());
    const uint64_t bytes = TRY(ForecastBundleSize(model, *container));
    rows.push_back({{"path", path.string()}, {"bytes", bytes}});
    sizes += Format("{}: {} bytes, not written (--dry-run)\n", path.string(), bytes);
  }
  if (!arguments.json) {
    PrintPlan(model);
    std::cout << sizes;
  }
  if (arguments.json) {
    OrderedJson tensors = OrderedJson::array();
    for (const BundleWeight& weight : model.weights) {
      tensors.push_back({{"name", weight.name},
                         {"rows", weight.num_rows},
                         {"columns", weight.columns},
                         {"type", NameOf(weight.spec)},
                         {"bytes", StoredBytes(weight)}});
    }
    PrintJson("convert", {{"dry_run", true},
                          {"outputs", rows},
                          {"tensors", tensors},
                          {"parameters", model.parameters.text},
                          {"slice", arguments.slice},
                          {"recipe", arguments.quant},
                          {"notes", model.notes}});
  }
  return ExitStatus::kOk;
}

Result<std::vector<TensorError>> MeasureErrors(const PreparedModel& model, const RowWork& work) {
  std::vector<TensorError> errors;
  for (const BundleWeight& weight : model.weights) errors.push_back(TRY(MeasureTensorError(*weight.rows, work)));
  return errors;
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

Result<ExitStatus> Convert(const ConvertArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  MemoryWatch memory;
  TRY(CheckThreads(arguments.threads));
  const ProgressStyle style = TRY(ProgressStyleFromName(arguments.progress));
  const PreparedModel model = TRY(PrepareModel(arguments.checkpoint, TRY(OptionsFrom(arguments))));
  for (const std::string& note : model.notes) std::cerr << "note: " << note << "\n";
  const std::vector<std::filesystem::path> outputs = OutputPaths(arguments);
  if (arguments.dry_run) return DryRun(arguments, model, outputs);

  TRY(CreateOutputFolders(arguments));
  const RowWork work{.threads = arguments.threads, .stop = &StopRequested()};
  std::vector<WrittenBundle> written;
  std::vector<TensorError> errors;
  {
    Progress progress(style);
    WriteOptions options{.work = work, .replace = arguments.force};
    options.on_event = [&progress](const ConvertEvent& event) {
      progress.Update(event.stage, event.tensor, event.bytes_done, event.bytes_total);
    };
    written = TRY(WriteBundles(model, outputs, options));
    if (arguments.errors) errors = TRY(MeasureErrors(model, work));
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (!arguments.json) {
    for (const WrittenBundle& bundle : written)
      std::cout << Format("{}  {}  {} bytes\n", bundle.sha256, bundle.path.string(), bundle.bytes);
    if (arguments.errors) std::cout << FormatErrorReport(errors);
    std::cerr << Format("{} parameters, {}, {:.1f} s, {:.0f} MB of memory at most\n", model.parameters.text, arguments.quant,
                        seconds.count(), static_cast<double>(memory.peak_anonymous_bytes()) / 1e6);
    return ExitStatus::kOk;
  }
  OrderedJson rows = OrderedJson::array();
  const OrderedJson sizes = SizesJson(model);
  for (const WrittenBundle& bundle : written)
    rows.push_back({{"path", bundle.path.string()}, {"bytes", bundle.bytes}, {"sha256", bundle.sha256}});
  OrderedJson document{{"outputs", rows},
                       {"seconds", seconds.count()},
                       {"peak_anonymous_bytes", memory.peak_anonymous_bytes()},
                       {"parameters", model.parameters.text},
                       {"slice", arguments.slice},
                       {"sizes", sizes},
                       {"recipe", arguments.quant},
                       {"notes", model.notes}};
  if (arguments.errors) document["errors"] = ErrorReportJson(errors);
  PrintJson("convert", document);
  return ExitStatus::kOk;
}

}  // namespace

Verb AddConvert(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("convert", "Turn a Gemma 3n or Gemma 3 checkpoint into .task and .litertlm bundles, and prove that they run");
  const auto arguments = std::make_shared<ConvertArguments>();
  verb->add_option("checkpoint", arguments->checkpoint, "a Hugging Face folder, or a .safetensors, .gguf or .onnx file")->required();
  verb->add_option("-o,--output", arguments->outputs, "FILE.task, FILE.litertlm, or a folder for both; repeatable")->required();
  verb->add_option("--slice", arguments->slice,
                   "e4b: as stored; e2b, a published name or size (\"E2.54B\"), or a JSON file {\"ffn\": .., \"skip\": [..]}")
      ->capture_default_str();
  verb->add_option("--elastic", arguments->elastic, "more sizes over the same weight bytes, each inside --slice: e2b,E2.98B,FILE.json")
      ->delimiter(',');
  verb->add_option("--quant", arguments->quant, "f32, f16, dynamic_int8 or dynamic_int4")->capture_default_str();
  verb->add_option("--tensor-type", arguments->tensor_types,
                   "REGEX=TYPE (f32, f16, int8, int4) for matching weights; repeatable, the last match wins");
  verb->add_option("--lora", arguments->lora, "folder of a PEFT adapter to merge into the weights");
  verb->add_option("--method", arguments->method, "how scales are chosen")->capture_default_str();
  verb->add_option("--window", arguments->window, "how sliding layers read the cache: gather or mask")->capture_default_str();
  verb->add_option("--context", arguments->context, "KV cache length")->capture_default_str();
  verb->add_option("--prefill", arguments->prefill, "signature lengths, 8,32,128,1024; a short one is added when missing");
  verb->add_option("--modalities", arguments->modalities, "text")->capture_default_str();
  verb->add_flag("--score-signature", arguments->score_signature, "add a signature with the logits of every position, for evaluation");
  verb->add_option("--threads", arguments->threads, "0: all cores")->capture_default_str();
  verb->add_flag("--dry-run", arguments->dry_run, "list every tensor and the exact output sizes; write nothing");
  verb->add_flag("--force", arguments->force, "replace existing outputs");
  verb->add_flag("--errors", arguments->errors, "report every tensor's quantization error");
  verb->add_option("--progress", arguments->progress, "auto, bar, plain, json or none")->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON document");
  verb->footer(
      "Examples:\n  taskpress convert gemma-3n-E2B-it -o gemma.task -o gemma.litertlm\n"
      "  taskpress convert gemma-3n-E2B-it -o out/ --quant dynamic_int8 --context 8192 --tensor-type 'self_attn=int4'");
  return {verb, [arguments] { return Convert(*arguments); }};
}

}  // namespace taskpress
