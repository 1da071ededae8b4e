#include "tools/model_source.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <string_view>
#include <utility>

#include "converter/calibration.h"
#include "converter/model_files.h"
#include "converter/prepare.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
#include "schema/bundle.h"
#include "tools/command.h"

namespace taskpress {
namespace {

Result<SessionOptions> OptionsFrom(const RunFlags& flags) {
  TRY(CheckThreads(flags.threads));
  constexpr std::array<std::pair<std::string_view, Kernels>, 3> kKernels{
      {{"fast", Kernels::kFast}, {"xnnpack", Kernels::kXnnpack}, {"reference", Kernels::kReference}}};
  const auto* const found = std::ranges::find(kKernels, flags.kernels, &std::pair<std::string_view, Kernels>::first);
  if (found == kKernels.end()) return Fail(ErrorCode::kUsage, "--kernels {}: reference, xnnpack or fast", flags.kernels);
  return SessionOptions{
      .kernels = found->second, .threads = flags.threads, .disabled_passes = {flags.disabled_passes.begin(), flags.disabled_passes.end()}};
}

struct Parts {
  TextModel graphs;
  BundleMetadata metadata;
  Tokenizer tokenizer;
  uint64_t model_bytes;
  std::optional<WeightSource> source = {};
  std::filesystem::path weight_cache = {};
};

// In a folder of the user's choice, bundles of one name from several folders get a file each.
Result<std::filesystem::path> WeightCachePath(const std::filesystem::path& bundle, const std::string& folder) {
  if (folder == "none") return std::filesystem::path();
  std::filesystem::path beside = bundle;
  beside += ".packed";
  if (folder.empty()) return beside;
  std::error_code error;
  std::filesystem::create_directories(folder, error);  // when it fails, so does writing into it, with a reason
  const std::filesystem::path whole = std::filesystem::canonical(bundle, error);
  const std::string digest = Sha256Hex(AsBytes(whole.native())).substr(0, 8);
  return std::filesystem::path(folder) / Format("{}-{}.packed", bundle.filename().string(), digest);
}

Result<Parts> FromCheckpoint(const std::filesystem::path& path, const std::string& slice, int64_t context, std::span<const Fold> folds) {
  PrepareOptions options;
  options.folds.assign(folds.begin(), folds.end());
  if (!slice.empty()) options.slice = slice;
  options.recipe = TRY(RecipeFromName("f32"));
  options.model.context = context;
  options.score_signature = true;
  options.model.prefill_lengths = TRY(PrefillLengths({std::min<int64_t>(128, context)}, context));
  PreparedModel model = TRY(PrepareModel(path, options));
  std::vector<std::byte> scratch;
  Tokenizer tokenizer = TRY(Tokenizer::FromModel(TRY(ViewOrRead(*model.tokenizer, scratch))));
  uint64_t bytes = 0;
  for (const BundleWeight& weight : model.weights) bytes += weight.rows->size();
  return Parts{
      .graphs = std::move(model.graphs), .metadata = std::move(model.metadata), .tokenizer = std::move(tokenizer), .model_bytes = bytes};
}

Result<Parts> FromBundle(const std::filesystem::path& path, const RunFlags& flags) {
  // Before the file is mapped, so that what is read later can be no older. Without an identity nothing is kept.
  const Result<FileIdentity> identity = SettledIdentityOf(path);
  const Bundle bundle = TRY(ReadBundle(path));
  BundleModel model = TRY(LoadBundleModel(bundle, flags.size));
  return Parts{.graphs = std::move(model.graphs),
               .metadata = std::move(model.metadata),
               .tokenizer = std::move(model.tokenizer),
               .model_bytes = bundle.file_size,
               .source = identity ? WeightSourceOf(bundle, *identity) : std::nullopt,
               .weight_cache = TRY(WeightCachePath(path, flags.weight_cache))};
}

}  // namespace

void AddRunFlags(CLI::App& app, RunFlags& flags, bool threads) {
  if (threads) app.add_option("-t,--threads", flags.threads, "threads; 0: all cores")->capture_default_str();
  app.add_option("--size", flags.size, "one of an elastic bundle's sizes; default: the active one. Of a checkpoint: a slice");
  app.add_option(
         "--kernels", flags.kernels,
         "reference: plain loops; xnnpack: its operators, one by one; fast: fused steps, and loops of our own where they are faster")
      ->capture_default_str();
  app.add_option("--disable-pass", flags.disabled_passes, "leave out a pass of the fast kernels; repeatable");
  app.add_option("--weight-cache", flags.weight_cache,
                 "folder for packed weights, which make later starts fast; default: BUNDLE.packed; none: pack in memory at each start");
}

Result<OpenedModel> OpenModel(const std::filesystem::path& path, const RunFlags& flags, int64_t checkpoint_context,
                              const OpenOptions& open) {
  const auto start = std::chrono::steady_clock::now();
  SessionOptions options = TRY(OptionsFrom(flags));
  const Kernels kernels = options.kernels;
  Parts parts =
      IsCheckpointPath(path) ? TRY(FromCheckpoint(path, flags.size, checkpoint_context, open.folds)) : TRY(FromBundle(path, flags));
  options.source = std::move(parts.source);
  options.weight_cache = std::move(parts.weight_cache);
  options.profile = open.profile;
  Session session = TRY(Session::Create(std::move(parts.graphs), std::move(options)));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const PackedWeightReport weights = session.packed_weights();
  if (weights.state == WeightCacheState::kUnavailable) {
    std::cerr << Format("taskpress: packed weights are not kept: {}\n", weights.note);
  }
  return OpenedModel{.session = std::move(session),
                     .metadata = std::move(parts.metadata),
                     .tokenizer = std::move(parts.tokenizer),
                     .model_bytes = parts.model_bytes,
                     .load_seconds = seconds.count(),
                     .kernels = kernels};
}

Result<std::vector<Fold>> FoldsOf(const TextModel& model) {
  for (const auto& [name, text] : model.prefill_decode.metadata) {
    if (name == kFoldsEntry) return DecodeFolds(text);
  }
  return std::vector<Fold>();
}

Result<std::string> ModelIdentity(const std::filesystem::path& path, const std::string& size) {
  std::string identity;
  if (IsCheckpointPath(path)) {
    const std::unique_ptr<const ModelFiles> files = TRY(OpenModelFiles(path));
    const std::shared_ptr<const Checkpoint> checkpoint = files->checkpoint();
    identity = TRY(ModelFingerprint(*checkpoint));
  } else {
    const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
    constexpr uint64_t kBlock = 16 << 20;
    Sha256 hash;
    for (uint64_t at = 0; at < file->size(); at += kBlock) {
      const uint64_t bytes = std::min(kBlock, file->size() - at);
      if (StopRequested()) return Fail(ErrorCode::kInterrupted, "while reading {}", path.string());
      hash.Update(file->bytes().subspan(at, bytes));
      file->Forget(at, bytes);
    }
    TRY(file->CheckUnchanged());
    identity = "sha256:" + hash.FinishHex();
  }
  return size.empty() ? identity : identity + " size " + size;
}

Result<std::string> ReadTextFile(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  return std::string(AsText(file->bytes()));
}

Result<std::vector<std::vector<int32_t>>> TextWindows(const OpenedModel& model, const std::string& text, int64_t length) {
  const std::vector<int32_t> ids = TRY(model.tokenizer.Encode(text));
  if (ids.empty()) return Fail(ErrorCode::kEmptyPrompt, "the text has no tokens");
  std::vector<int32_t> start;
  if (model.metadata.start_token) start.push_back(model.metadata.start_token->id);
  const auto step = static_cast<size_t>(std::max<int64_t>(length, 2)) - start.size();
  std::vector<std::vector<int32_t>> windows;
  for (size_t begin = 0; begin < ids.size(); begin += step) {
    std::vector<int32_t>& window = windows.emplace_back(start);
    window.insert(window.end(), ids.begin() + static_cast<ptrdiff_t>(begin),
                  ids.begin() + static_cast<ptrdiff_t>(std::min(begin + step, ids.size())));
  }
  if (windows.back().size() < 2 && windows.size() > 1) windows.pop_back();  // a lone token predicts nothing
  return windows;
}

}  // namespace taskpress
