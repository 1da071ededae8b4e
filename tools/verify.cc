#include <algorithm>
#include <iostream>
#include <limits>
#include <memory>

#include "converter/lock_file.h"
#include "converter/prepare.h"
#include "quantizer/error_report.h"
#include "runtime/bundle_model.h"
#include "runtime/divergence.h"
#include "runtime/smoke.h"
#include "tools/command.h"
#include "tools/model_source.h"
#include "tools/stored_weights.h"

namespace taskpress {
namespace {

struct VerifyArguments {
  std::string file;
  std::string against;
  std::string slice;  // empty: the first size of an elastic bundle, else e4b
  std::vector<std::string> elastic;
  std::string lora;
  std::string lock;
  bool json = false;
  RunFlags flags;
};

struct Check {
  std::string name;
  bool ok = true;
  std::string detail;
};

// The lowest signal-to-noise ratio a sound weight of the type has. A wrong, shifted or transposed matrix is near or below 0 dB; 4-bit
// absmax rounding of rows with heavy outliers stays above this.
double LowestSnr(const QuantSpec& spec) {
  if (spec.type == DType::kI4) return 3.0;
  if (spec.type == DType::kI8) return 25.0;
  return spec.type == DType::kF16 ? 55.0 : 140.0;
}

Check Failed(Check check, std::string detail) {
  check.ok = false;
  check.detail = std::move(detail);
  return check;
}

// A smaller size has its own scales in front of the shared bytes, some matrices only in part and others not at all.
enum class SizeKind : uint8_t { kWhole, kSmaller };

// Matrices and tables: how much of each is rounding, measured row by row.
Result<Check> CheckMatrices(const WeightsByName& stored, SizeKind kind, const PreparedModel& reference, const RowWork& work) {
  Check check{.name = "matrices and tables against the checkpoint"};
  double worst = std::numeric_limits<double>::infinity();
  int64_t measured = 0;
  std::string worst_name;
  for (const BundleWeight& weight : reference.weights) {
    const auto found = stored.find(weight.name);
    Shape shape{weight.num_rows, weight.columns};
    if (kind == SizeKind::kSmaller) {
      if (found == stored.end()) continue;
      shape[0] = std::min(weight.num_rows, found->second.tensor->shape[0]);
    }
    if (found == stored.end() || found->second.tensor->shape != shape) {
      return Failed(check, Format("\"{}\" {} is missing or has another shape", weight.name, ToString(shape)));
    }
    const QuantSpec spec = found->second.spec();
    std::vector<float> scratch;
    const std::span<const float> scales = TRY(found->second.Scales(scratch));
    const StoredRows rows(found->second.bytes(), scales, shape[0]);
    const auto original = [&weight](int64_t first, int64_t count, std::span<float> values) {
      return weight.rows->ReadFloats(first, count, values);
    };
    const TensorError error = TRY(MeasureTensorError(weight.name, spec, weight.columns, rows, original, work));
    if (error.snr_db() < LowestSnr(spec)) {
      return Failed(check, Format("\"{}\" {}: signal-to-noise ratio {:.1f} dB, at least {} expected", weight.name, NameOf(spec),
                                  error.snr_db(), LowestSnr(spec)));
    }
    ++measured;
    if (error.snr_db() < worst) {
      worst = error.snr_db();
      worst_name = weight.name;
    }
  }
  check.detail = worst_name.empty() ? Format("{}, all exact", measured)
                                    : Format("{}; lowest signal-to-noise ratio {:.1f} dB ({})", measured, worst, worst_name);
  return check;
}

// Norms, router, coefficients: float32 in every bundle, so the same bytes.
Result<Check> CheckSmallWeights(const WeightsByName& stored, const WeightsByName& reference) {
  Check check{.name = "small weights against the checkpoint"};
  int64_t count = 0;
  for (const auto& [name, original] : reference) {
    if (original.bytes()->rows() != nullptr || name.starts_with("const.")) continue;
    const auto found = stored.find(name);
    if (found == stored.end() || found->second.tensor->shape != original.tensor->shape || found->second.tensor->type != DType::kF32) {
      return Failed(check, Format("\"{}\" {} is missing or has another shape or type", name, ToString(original.tensor->shape)));
    }
    std::vector<std::byte> ours_scratch;
    std::vector<std::byte> theirs_scratch;
    const ByteView ours = TRY(ViewOrRead(*found->second.bytes(), ours_scratch));
    const ByteView theirs = TRY(ViewOrRead(*original.bytes(), theirs_scratch));
    if (!std::ranges::equal(ours, theirs)) return Failed(check, Format("\"{}\" {}: other values", name, ToString(original.tensor->shape)));
    ++count;
  }
  check.detail = Format("{}, all exact", count);
  return check;
}

// A short forward pass of both; ids spread over the vocabulary stand for a text.
Result<Check> CheckPredictions(const BundleModel& model, const TextModel& reference, const VerifyArguments& arguments) {
  constexpr int32_t kTokens = 24;
  const SessionOptions options{.kernels = Kernels::kFast, .threads = arguments.flags.threads};
  Session ours = TRY(Session::Create(model.graphs, options));
  Session theirs = TRY(Session::Create(reference, options));
  std::vector<int32_t> tokens;
  if (model.metadata.start_token) tokens.push_back(model.metadata.start_token->id);
  const int32_t length = std::min({kTokens, ours.context_length(), theirs.context_length()});
  while (static_cast<int32_t>(tokens.size()) < length) {
    tokens.push_back(static_cast<int32_t>(static_cast<int64_t>(tokens.size()) * 7919 % ours.vocab_size()));
  }
  Divergence divergence(ours.vocab_size());
  std::vector<float> a;
  std::vector<float> b;
  const auto collect = [](std::vector<float>& rows) {
    return [&rows](int32_t /*index*/, std::span<const float> logits) -> Status {
      rows.insert(rows.end(), logits.begin(), logits.end());
      return {};
    };
  };
  TRY(ours.Score(tokens, collect(a)));
  TRY(theirs.Score(tokens, collect(b)));
  divergence.AddWindow(tokens, a, b);
  const DivergenceSummary summary = divergence.Summarize();
  return Check{.name = "predictions against the float checkpoint",
               .detail = Format("KL mean {:.5f} nats, top-1 agreement {:.3f}, largest logit difference {:.4f}", summary.kl_mean,
                                summary.top1_agreement, summary.max_abs_difference.value_or(0))};
}

// Of the size called `name`, empty for the only one.
Status CheckSize(const Bundle& bundle, const std::string& name, const VerifyArguments& arguments, std::vector<Check>& checks) {
  const std::string prefix = name.empty() ? "" : Format("size {}: ", name);
  BundleModel model = TRY(LoadBundleModel(bundle, name));
  checks.push_back({.name = prefix + "members and metadata",
                    .detail = Format("context {}, vocabulary {}, {} caches, prefill lengths from {} to {}", model.contract.context,
                                     model.contract.vocab_size, model.contract.num_caches, model.contract.prefill_lengths.front(),
                                     model.contract.prefill_lengths.back())});
  TRY(SmokeRun(std::move(model.graphs), model.metadata, arguments.flags.threads));
  checks.push_back({.name = prefix + "smoke run", .detail = "finite logits, prefill and decode agree"});
  return {};
}

// The model of an elastic bundle's size, beside the embedders that all have.
Result<TextModel> GraphsOfSize(const PreparedModel& reference, std::string_view name) {
  TextModel graphs = reference.graphs;
  if (name.empty() || name == reference.size_name) return graphs;
  const auto found = std::ranges::find(reference.smaller, name, &PreparedSize::name);
  if (found == reference.smaller.end()) {
    return Fail(ErrorCode::kUsage, "the bundle's size \"{}\" is not among --slice and --elastic; give them as they were for convert", name);
  }
  graphs.prefill_decode = found->prefill_decode;
  return graphs;
}

Status CheckSizeAgainst(const Bundle& bundle, const std::string& name, const PreparedModel& reference, const VerifyArguments& arguments,
                        std::vector<Check>& checks) {
  const size_t first = checks.size();
  const BundleModel model = TRY(LoadBundleModel(bundle, name));
  const TextModel original = TRY(GraphsOfSize(reference, name));
  const SizeKind kind = name.empty() || name == reference.size_name ? SizeKind::kWhole : SizeKind::kSmaller;
  // The embedders of a smaller size are those of the whole one.
  const std::vector<const Graph*> stored = kind == SizeKind::kWhole ? GraphsOf(model.graphs) : std::vector{&model.graphs.prefill_decode};
  const std::vector<const Graph*> expected = kind == SizeKind::kWhole ? GraphsOf(original) : std::vector{&original.prefill_decode};
  const RowWork work{.threads = arguments.flags.threads, .stop = &StopRequested()};
  checks.push_back(TRY(CheckMatrices(WeightsOf(stored), kind, reference, work)));
  if (checks.back().ok) checks.push_back(TRY(CheckSmallWeights(WeightsOf(stored), WeightsOf(expected))));
  if (checks.back().ok) checks.push_back(TRY(CheckPredictions(model, original, arguments)));
  for (size_t i = first; i < checks.size() && !name.empty(); ++i) checks[i].name = Format("size {}: {}", name, checks[i].name);
  return {};
}

// The checkpoint as convert was told to see it; what is not given again is taken from the names of the sizes.
Result<PreparedModel> PrepareReference(const Bundle& bundle, const VerifyArguments& arguments) {
  PrepareOptions options;
  const BundleModel stored = TRY(LoadBundleModel(bundle, bundle.sizes.empty() ? "" : bundle.sizes.front().name));
  for (const auto& [name, text] : stored.graphs.prefill_decode.metadata) {
    if (name == kFoldsEntry) options.folds = TRY(DecodeFolds(text));
  }
  options.recipe = TRY(RecipeFromName("f32"));
  options.model.context = 256;
  options.slice = !arguments.slice.empty() ? arguments.slice : bundle.sizes.empty() ? "e4b" : bundle.sizes.front().name;
  options.elastic = arguments.elastic;
  if (options.elastic.empty() && !bundle.sizes.empty()) {
    for (const BundleSize& size : std::span(bundle.sizes).subspan(1)) options.elastic.push_back(size.name);
  }
  options.lora = arguments.lora;
  options.model.prefill_lengths = TRY(PrefillLengths({}, options.model.context));
  return PrepareModel(arguments.against, options);
}

Result<std::vector<Check>> RunChecks(const VerifyArguments& arguments) {
  std::vector<Check> checks;
  const Bundle bundle = TRY(ReadBundle(arguments.file));
  checks.push_back({.name = "container",
                    .detail = Format("{}, {} sections, {} bytes", NameOf(bundle.container), bundle.sections.size(), bundle.file_size)});
  for (const std::string& warning : bundle.warnings) std::cerr << "warning: " << warning << "\n";
  TRY(VerifyChecksums(bundle));
  const std::string_view of_container = bundle.container == Container::kTask ? "CRC-32 of every entry" : "the container has none";
  checks.push_back(
      {.name = "checksums", .detail = bundle.sizes.empty() ? std::string(of_container) : Format("{}; of every size", of_container)});
  std::vector<std::string> names = bundle.SizeNames();
  if (!arguments.flags.size.empty()) {
    const BundleSize* only = TRY(bundle.FindSize(arguments.flags.size));
    names.assign(1, only->name);
  }
  for (const std::string& name : names) TRY(CheckSize(bundle, name, arguments, checks));
  if (arguments.against.empty()) return checks;
  const PreparedModel reference = TRY(PrepareReference(bundle, arguments));
  for (const std::string& name : names) {
    TRY(CheckSizeAgainst(bundle, name, reference, arguments, checks));
    if (!checks.back().ok) break;
  }
  return checks;
}

// Where the lock's inputs are looked for.
std::vector<std::filesystem::path> InputFolders(const VerifyArguments& arguments) {
  std::vector<std::filesystem::path> folders;
  for (const std::string& path : {arguments.against, arguments.lora, arguments.slice}) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) folders.emplace_back(path);
    if (std::filesystem::is_regular_file(path, ignored)) folders.push_back(std::filesystem::path(path).parent_path());
  }
  return folders;
}

Result<Check> CheckAgainstLock(const VerifyArguments& arguments) {
  const LockFile lock = TRY(ReadLockFile(arguments.lock));
  const std::vector<std::filesystem::path> folders = InputFolders(arguments);
  TRY(CheckLock(lock, arguments.file, folders, &StopRequested()));
  const std::string inputs = folders.empty() ? "inputs not looked at (--against)" : Format("and {} inputs", lock.inputs.size());
  return Check{.name = "lock file", .detail = Format("sha256 of the bundle {}", inputs)};
}

Result<ExitStatus> Verify(const VerifyArguments& arguments) {
  TRY(CheckThreads(arguments.flags.threads));
  std::vector<Check> checks;
  if (!arguments.lock.empty()) checks.push_back(TRY(CheckAgainstLock(arguments)));
  std::ranges::move(TRY(RunChecks(arguments)), std::back_inserter(checks));
  const bool ok = std::ranges::all_of(checks, &Check::ok);
  OrderedJson rows = OrderedJson::array();
  for (const Check& check : checks) {
    rows.push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
    if (!arguments.json) std::cout << Format("{:6} {}: {}\n", check.ok ? "ok" : "FAILED", check.name, check.detail);
  }
  if (arguments.json) PrintJson("verify", {{"ok", ok}, {"checks", rows}});
  if (ok) return ExitStatus::kOk;
  const Error error{ErrorCode::kVerifyFailed, Format("{}: {}", arguments.file, checks.back().detail)};
  return static_cast<ExitStatus>(ReportError(error, /*json=*/false));  // the document above says it already
}

}  // namespace

Verb AddVerify(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("verify", "Check a bundle: structure, metadata lint, a smoke run, and its numbers against the checkpoint");
  const auto arguments = std::make_shared<VerifyArguments>();
  verb->add_option("file", arguments->file, "a .task or .litertlm bundle")->required();
  verb->add_option("--against", arguments->against, "the checkpoint it was made from");
  verb->add_option("--slice", arguments->slice, "the slice of it that was converted; default: e4b, or as the first size is called")
      ->needs("--against");
  verb->add_option("--elastic", arguments->elastic, "the other sizes, as they were given to convert; default: as they are called")
      ->delimiter(',')
      ->needs("--against");
  verb->add_option("--size", arguments->flags.size, "check this size of an elastic bundle alone; default: every size");
  verb->add_option("--lora", arguments->lora, "the PEFT adapter that was merged into it")->needs("--against");
  verb->add_option("--lock", arguments->lock, "its lock file: digest of the bundle, and with --against of every input");
  verb->add_option("-t,--threads", arguments->flags.threads, "0: all cores")->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON document");
  verb->footer("Example:\n  taskpress verify gemma.task --against gemma-3n-E2B-it");
  return {verb, [arguments] { return Verify(*arguments); }};
}

}  // namespace taskpress
