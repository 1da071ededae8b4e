#include "converter/repack.h"

#include <algorithm>

#include "converter/lock_file.h"
#include "converter/prove_part.h"
#include "converter/repack_plan.h"
#include "schema/activate.h"
#include "schema/base/output_file.h"
#include "schema/bundle_sizes.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

Status Begin(const WriteOptions& options, std::string_view stage) {
  TRY(CheckNotStopped(options.work.stop));
  if (options.on_event) options.on_event({.stage = stage});
  return {};
}

// --- names ------------------------------------------------------------------------------------------------------------------------------

bool IsSameFile(const fs::path& a, const fs::path& b) {
  std::error_code ignored;  // a file that is not there is no other's
  return fs::equivalent(a, b, ignored);
}

// The part is written over before the output has its name, so it is as precious as the output itself.
Status CheckNotRead(const fs::path& read, const fs::path& output) {
  for (const fs::path& written : {output, PartPath(output)}) {
    if (!IsSameFile(read, written)) continue;
    return Fail(ErrorCode::kUsage, "{}: would be written over {}, which is read; choose another output", written.string(), read.string());
  }
  return {};
}

Status CheckPaths(const fs::path& file, const fs::path& output, const SectionChanges& changes, bool replace) {
  TRY(CheckNotRead(file, output));
  for (const SectionChanges::Replacement& replacement : changes.replace) TRY(CheckNotRead(replacement.file, output));
  std::error_code ignored;  // what cannot be looked at cannot be created either, and that says why
  if (!replace && fs::exists(output, ignored)) {
    return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", output.string());
  }
  return {};
}

// --- bytes ------------------------------------------------------------------------------------------------------------------------------

// Bytes of a section that tell how far the copy has come, and end it when a signal asks.
class WatchedBytes final : public ByteSource {
 public:
  WatchedBytes(const Section& section, const WriteOptions& options, std::shared_ptr<ConvertEvent> event)
      : bytes_(section.bytes), name_(section.name), options_(options), event_(std::move(event)) {}
  [[nodiscard]] uint64_t size() const override { return bytes_->size(); }
  Status Read(uint64_t offset, ByteSpan out) const override {
    TRY(CheckNotStopped(options_.work.stop));
    TRY(bytes_->Read(offset, out));
    event_->tensor = name_;
    event_->bytes_done += out.size();
    if (options_.on_event) options_.on_event(*event_);
    return {};
  }

 private:
  SharedBytes bytes_;
  std::string name_;
  WriteOptions options_;
  std::shared_ptr<ConvertEvent> event_;  // of all sections; they are written one after the other
};

std::vector<SectionToWrite> SectionsToWrite(const Bundle& from, std::span<const Section> sections, const WriteOptions& options) {
  const auto event = std::make_shared<ConvertEvent>(ConvertEvent{.stage = "write"});
  std::vector<SectionToWrite> out;
  for (const Section& section : sections) {
    if (section.kind == SectionKind::kPrefillDecode && !from.sizes.empty()) {
      out.push_back(SectionFromSizes(from));  // all sizes, not the active one alone
      continue;
    }
    event->bytes_total += section.bytes->size();
    SectionToWrite copy = SectionFromSource(section.kind, std::make_shared<WatchedBytes>(section, options, event));
    copy.name = section.name;
    copy.items = section.items;
    out.push_back(std::move(copy));
  }
  return out;
}

Result<OutputFile> WritePart(const fs::path& output, Container container, const Bundle& from, const RepackPlan& plan,
                             const WriteOptions& options) {
  const std::vector<SectionToWrite> sections = SectionsToWrite(from, plan.sections, options);
  Result<BundleLayout> layout = PlanBundle(container, sections);
  if (!layout) return std::unexpected(WithContext(std::move(layout).error(), output.string()));
  OutputFile file = TRY(OutputFile::Create(output, layout->file_size, {.replace = options.replace}));
  TRY(WriteBundle(container, sections, file));
  TRY(file.Flush());
  return file;
}

// --- proof ------------------------------------------------------------------------------------------------------------------------------

// Every section, those that nobody knows too, in order.
Status CheckSameSections(const Bundle& written, const RepackPlan& plan, const WriteOptions& options) {
  bool same = written.sections.size() == plan.sections.size();
  for (size_t i = 0; same && i < plan.sections.size(); ++i) {
    TRY(CheckNotStopped(options.work.stop));
    const Section& planned = plan.sections[i];
    const Section& read = written.sections[i];
    same = read.kind == planned.kind && std::ranges::equal(read.bytes->view(), planned.bytes->view());
    if (!same) {
      return Fail(ErrorCode::kWriteFailed, "{}: section \"{}\" does not read back as it was written; is the disk sound?", written.path,
                  planned.name);
    }
  }
  if (same) return {};
  return Fail(ErrorCode::kWriteFailed, "{}: {} sections were written, {} read back", written.path, plan.sections.size(),
              written.sections.size());
}

Status ProvePart(const OutputFile& file, const RepackPlan& plan, const WriteOptions& options) {
  TRY(Begin(options, "verify"));
  const Bundle written = TRY(ReadBundle(file.part_path()));
  TRY(VerifyChecksums(written));
  TRY(CheckSameSections(written, plan, options));
  TRY(Begin(options, "smoke"));
  return LetSpeak(file.part_path(), options.work.threads, options.work.stop);
}

}  // namespace

Result<RepackedBundle> RepackBundle(const fs::path& file, const fs::path& output, const SectionChanges& changes,
                                    const WriteOptions& options) {
  const std::optional<Container> container = ContainerFromPath(output);
  if (!container) return Fail(ErrorCode::kUsage, "{}: an output ends in .task or .litertlm", output.string());
  TRY(Begin(options, "check"));
  const Bundle from = TRY(ReadBundle(file));
  TRY(CheckPaths(file, output, changes, options.replace));
  TRY(VerifyChecksums(from));  // else a damaged byte would get a checksum of its own
  RepackPlan plan = TRY(PlanRepack(from, *container, changes));
  OutputFile part = TRY(WritePart(output, *container, from, plan, options));
  TRY(ProvePart(part, plan, options));
  FileDigest digest = TRY(DigestFile(part.part_path()));
  TRY(part.Commit());
  WrittenBundle bundle{.path = output, .bytes = part.size(), .sha256 = std::move(digest.sha256)};
  return RepackedBundle{.bundle = std::move(bundle), .notes = std::move(plan.notes)};
}

Result<WrittenBundle> ActivateBundle(const fs::path& file, const fs::path& output, std::string_view size, const WriteOptions& options) {
  TRY(CheckPaths(file, output, {}, options.replace));
  if (ContainerFromPath(output) != TRY(ReadBundle(file)).container) {
    return Fail(ErrorCode::kUsage, "{}: --activate rewrites headers only, so the container stays; repack into the other one first",
                output.string());
  }
  TRY(Begin(options, "write"));
  TRY(ActivateSize(file, output, size, {.replace = options.replace}));
  TRY(Begin(options, "verify"));
  FileDigest digest = TRY(DigestFile(output));
  return WrittenBundle{.path = output, .bytes = digest.bytes, .sha256 = std::move(digest.sha256)};
}

}  // namespace taskpress
