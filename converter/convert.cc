#include "converter/convert.h"

#include <algorithm>
#include <future>
#include <optional>
#include <set>

#include "converter/journal.h"
#include "converter/prove_part.h"
#include "schema/base/output_file.h"
#include "schema/base/version.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

// A snapshot repeats at most a fiftieth of the work.
constexpr uint64_t kSnapshots = 50;
constexpr uint64_t kLeastSnapshot = 1 << 20;  // bytes

bool Exists(const fs::path& path) {
  std::error_code ignored;  // what cannot be looked at cannot be created either, and that says why
  return fs::exists(path, ignored);
}

class Conversion {
 public:
  Conversion(std::span<const BundleJob> jobs, const WriteOptions& options) : jobs_(jobs), options_(options) {}

  Result<WriteReport> Run() {
    plan_ = TRY(PlanConversion(jobs_));
    inputs_ = TRY(LookAtInputs(InputsOf(jobs_)));
    fingerprint_ = TRY(FingerprintOf(plan_));
    TRY(FindJournal());
    TRY(CheckOutputs());
    TRY(OpenFiles());
    if (options_.lock) digests_ = std::async(std::launch::async, [this] { return DigestInputs(); });
    Status done = WriteAll();
    if (done) done = ProveAll();
    if (!done) {
      give_up_.store(true);  // the digests' thread looks at it
      return std::unexpected(std::move(done).error());
    }
    std::vector<FileDigest> digests;
    if (digests_.valid()) {
      Announce("digest");
      digests = TRY(digests_.get());
    }
    TRY(CheckInputsUnchanged());
    TRY(CommitAll(digests));
    return std::move(report_);
  }

 private:
  // --- before the first byte --------------------------------------------------------------------------------------------------------

  [[nodiscard]] fs::path journal_path() const { return JournalPath(plan_.outputs.front().path); }

  Status CheckOutputs() const {
    for (const PlannedOutput& output : plan_.outputs) {
      if (options_.replace || !Exists(output.path) || IsFinished(output)) continue;
      return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", output.path.string());
    }
    return {};
  }

  // An earlier call that was killed at its very end had given some outputs their names.
  [[nodiscard]] bool IsFinished(const PlannedOutput& output) const {
    return !member_crcs_.empty() && Exists(output.path) && !Exists(PartPath(output.path));
  }

  Status FindJournal() {
    if (!options_.resume) return {};
    std::optional<Journal> journal = TRY(ReadJournal(journal_path()));
    if (!journal) return {};
    TRY(CheckSameConversion(*journal, fingerprint_, inputs_));
    const bool fits = journal->state.units <= plan_.stream.units() && journal->state.crcs.size() == plan_.stream.constants().size() &&
                      (journal->member_crcs.empty() || journal->member_crcs.size() == plan_.num_crcs);
    if (!fits) return Fail(ErrorCode::kCannotResume, "{}: damaged; remove it to start again", journal_path().string());
    state_ = std::move(journal->state);
    member_crcs_ = std::move(journal->member_crcs);
    resumed_ = true;
    report_.bytes_resumed = state_.bytes;
    return {};
  }

  Status OpenFiles() {
    for (const PlannedOutput& output : plan_.outputs) {
      const OutputFileOptions options{.replace = options_.replace, .keep = options_.resume};
      finished_.push_back(IsFinished(output));
      if (finished_.back()) continue;
      if (resumed_) {
        files_.push_back(TRY(OutputFile::Reopen(output.path, output.layout.file_size, options)));
      } else {
        files_.push_back(TRY(OutputFile::Create(output.path, output.layout.file_size, options)));
      }
    }
    if (files_.empty()) return {};
    files_.front().SetCompanion(journal_path());
    std::error_code ignored;
    if (!resumed_) fs::remove(journal_path(), ignored);  // of a conversion that nobody took up again
    return {};
  }

  // --- writing ----------------------------------------------------------------------------------------------------------------------

  Status WriteAll() {
    report_.bytes_made = plan_.stream.bytes();
    if (!member_crcs_.empty()) return {};  // every part file was complete already
    if (resumed_) TRY(RestoreScales(plan_.stream, files_, state_.units));
    keeper_.emplace(journal_path(), Journal{.fingerprint = fingerprint_, .inputs = inputs_, .state = state_, .member_crcs = {}}, files_,
                    std::max(plan_.stream.bytes() / kSnapshots, kLeastSnapshot));
    const Status streamed = Stream();
    if (!streamed) {
      // What is done is worth keeping, but the first error is the one to tell.
      if (options_.resume) static_cast<void>(keeper_->Finish(state_));
      return streamed;
    }
    TRY(WriteRoots(plan_.stream, files_));
    member_crcs_ = MemberCrcs(plan_, state_.crcs);
    SetMemberCrcs(plan_, member_crcs_);
    for (size_t i = 0; i < plan_.outputs.size(); ++i) {
      TRY(WriteBundle(plan_.outputs[i].container, plan_.outputs[i].sections, files_[i]));
    }
    plan_.stream = {};  // its roots are written; the smoke run needs the memory
    flush_ = std::async(std::launch::async, [this] { return keeper_->Finish(state_, member_crcs_); });
    return {};
  }

  Status Stream() {
    ConvertEvent event{.stage = "write", .bytes_done = state_.bytes, .bytes_total = plan_.stream.bytes()};
    StreamOptions stream{.work = options_.work,
                         .buffer_bytes = BufferBytes(options_.memory_limit),
                         .scales_in_files = true,
                         .on_bytes = {},
                         .on_unit = [&](const StreamState& state) { return keeper_->Advance(state); }};
    stream.on_bytes = [&](std::string_view name, uint64_t bytes) {
      event.tensor = name;
      event.bytes_done += bytes;
      Tell(event);
    };
    Announce("write");
    return WriteStream(plan_.stream, files_, stream, state_, report_.times);
  }

  // --- proof ------------------------------------------------------------------------------------------------------------------------

  [[nodiscard]] SectionCrcs CrcsOf(size_t job) const {
    SectionCrcs crcs;
    for (const PlannedMember& member : plan_.members) {
      if (member.job == job) crcs.emplace_back(member.kind, member_crcs_[member.first_crc]);  // of the active size
    }
    return crcs;
  }

  // Reads what is still on its way to the disk, and listens meanwhile: one is bound by hashing, the other by the weights' way to the cores.
  Status ProveAll() {
    std::vector<fs::path> paths;
    for (size_t i = 0, file = 0; i < plan_.outputs.size(); ++i) {
      paths.push_back(finished_[i] ? plan_.outputs[i].path : files_[file++].part_path());
    }
    std::future<Result<std::vector<std::string>>> digests = std::async(std::launch::async, [&] { return ReadAllBack(paths); });
    Announce("smoke");
    std::set<size_t> heard;
    Status spoken;
    for (size_t i = 0; spoken && i < paths.size(); ++i) {
      // Outputs of one job hold the same model bytes.
      if (heard.insert(plan_.outputs[i].job).second) spoken = LetSpeak(paths[i], options_.work.threads, options_.work.stop);
    }
    Announce("verify");
    const std::vector<std::string> sha256 = TRY(digests.get());  // what cannot be read back need not speak
    TRY(spoken);
    for (size_t i = 0; i < paths.size(); ++i) {
      const PlannedOutput& output = plan_.outputs[i];
      report_.bundles.push_back({.path = output.path, .bytes = output.layout.file_size, .sha256 = sha256[i], .job = output.job});
    }
    if (!flush_.valid()) return {};
    Announce("flush");
    return flush_.get();
  }

  Result<std::vector<std::string>> ReadAllBack(const std::vector<fs::path>& paths) const {
    std::vector<std::string> digests;
    for (size_t i = 0; i < paths.size(); ++i) {
      std::string sha256 = TRY(ReadBack(paths[i], CrcsOf(plan_.outputs[i].job), options_.work.stop));
      digests.push_back(std::move(sha256));
    }
    return digests;
  }

  // --- the end ----------------------------------------------------------------------------------------------------------------------

  Result<std::vector<FileDigest>> DigestInputs() const {
    std::vector<FileDigest> digests;
    for (const InputState& input : inputs_) digests.push_back(TRY(DigestFile(input.path, &give_up_)));
    return digests;
  }

  Status CheckInputsUnchanged() const {
    const std::vector<InputState> now = TRY(LookAtInputs(InputsOf(jobs_)));
    for (size_t i = 0; i < now.size(); ++i) {
      if (now[i] == inputs_[i]) continue;
      return Fail(ErrorCode::kFileChanged, "{}: was changed while it was converted ({} bytes then, {} now)", now[i].path, inputs_[i].bytes,
                  now[i].bytes);
    }
    return {};
  }

  Status CommitAll(const std::vector<FileDigest>& inputs) {
    for (OutputFile& file : files_) TRY(file.Commit());
    if (options_.lock) {
      for (const WrittenBundle& bundle : report_.bundles) TRY(WriteLock(bundle, inputs));
    }
    std::error_code ignored;
    fs::remove(journal_path(), ignored);
    return {};
  }

  Status WriteLock(const WrittenBundle& bundle, const std::vector<FileDigest>& inputs) const {
    const PreparedModel& model = *jobs_[bundle.job].model;
    LockFile lock{.version = std::string(Version()),
                  .output = {.name = bundle.path.filename().string(), .bytes = bundle.bytes, .sha256 = bundle.sha256},
                  .options = {{"slice", fs::path(model.size_name).filename().string()}},
                  .recipe = model.resolved_recipe,
                  .inputs = {}};
    lock.options.insert(lock.options.end(), options_.recorded.begin(), options_.recorded.end());
    for (const fs::path& path : model.inputs) {
      const auto input = std::ranges::find(inputs_, path.string(), &InputState::path);
      lock.inputs.push_back(inputs[static_cast<size_t>(input - inputs_.begin())]);
    }
    TRY(WriteLockFile(bundle.path, lock));
    return UpdateSums(bundle.path, lock.output);
  }

  // --- talk -------------------------------------------------------------------------------------------------------------------------

  void Tell(const ConvertEvent& event) const {
    if (options_.on_event) options_.on_event(event);
  }
  void Announce(std::string_view stage) const { Tell({.stage = stage}); }

  std::span<const BundleJob> jobs_;
  const WriteOptions& options_;
  ConversionPlan plan_;
  std::vector<InputState> inputs_;
  std::string fingerprint_;
  std::vector<bool> finished_;     // [outputs] has its name from an earlier call
  std::vector<OutputFile> files_;  // of the others, in their order
  StreamState state_;
  std::vector<uint32_t> member_crcs_;
  bool resumed_ = false;
  WriteReport report_;
  std::atomic<bool> give_up_ = false;
  std::optional<JournalKeeper> keeper_;
  // Last: they are waited for before anything they use is gone.
  std::future<Status> flush_;
  std::future<Result<std::vector<FileDigest>>> digests_;
};

}  // namespace

Result<WriteReport> WriteBundles(std::span<const BundleJob> jobs, const WriteOptions& options) { return Conversion(jobs, options).Run(); }

Result<std::vector<WrittenBundle>> WriteBundles(const PreparedModel& model, std::span<const fs::path> outputs,
                                                const WriteOptions& options) {
  const BundleJob job{.model = &model, .outputs = {outputs.begin(), outputs.end()}};
  return TRY(WriteBundles(std::span(&job, 1), options)).bundles;
}

Result<uint64_t> ForecastBundleSize(const PreparedModel& model, Container container) {
  const BundleJob job{.model = &model, .outputs = {container == Container::kTask ? "a.task" : "a.litertlm"}};
  return TRY(PlanConversion(std::span(&job, 1))).outputs.front().layout.file_size;
}

}  // namespace taskpress
