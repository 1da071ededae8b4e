#include "tools/model_source.h"

#include <algorithm>
#include <chrono>

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
  if (flags.kernels != "xnnpack" && flags.kernels != "reference") {
    return Fail(ErrorCode::kUsage, "--kernels {}: reference or xnnpack", flags.kernels);
  }
  return SessionOptions{.kernels = flags.kernels == "reference" ? Kernels::kReference : Kernels::kXnnpack, .threads = flags.threads};
}

struct Parts {
  TextModel graphs;
  BundleMetadata metadata;
  Tokenizer tokenizer;
  uint64_t model_bytes;
};

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

Result<Parts> FromBundle(const std::filesystem::path& path, const std::string& size) {
  const Bundle bundle = TRY(ReadBundle(path));
  BundleModel model = TRY(LoadBundleModel(bundle, size));
  return Parts{.graphs = std::move(model.graphs),
               .metadata = std::move(model.metadata),
               .tokenizer = std::move(model.tokenizer),
               .model_bytes = bundle.file_size};
}

}  // namespace

void AddRunFlags(CLI::App& app, RunFlags& flags) {
  app.add_option("-t,--threads", flags.threads, "threads; 0: all cores")->capture_default_str();
  app.add_option("--size", flags.size, "one of an elastic bundle's sizes; default: the active one. Of a checkpoint: a slice");
  app.add_option("--kernels", flags.kernels, "reference: plain loops; xnnpack: fast")->capture_default_str();
}

Result<OpenedModel> OpenModel(const std::filesystem::path& path, const RunFlags& flags, int64_t checkpoint_context,
                              std::span<const Fold> folds) {
  const auto start = std::chrono::steady_clock::now();
  const SessionOptions options = TRY(OptionsFrom(flags));
  Parts parts =
      IsCheckpointPath(path) ? TRY(FromCheckpoint(path, flags.size, checkpoint_context, folds)) : TRY(FromBundle(path, flags.size));
  Session session = TRY(Session::Create(std::move(parts.graphs), options));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return OpenedModel{.session = std::move(session),
                     .metadata = std::move(parts.metadata),
                     .tokenizer = std::move(parts.tokenizer),
                     .model_bytes = parts.model_bytes,
                     .load_seconds = seconds.count()};
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
