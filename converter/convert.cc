#include "converter/convert.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "converter/elastic_sections.h"
#include "converter/member_writer.h"
#include "runtime/bundle_model.h"
#include "runtime/smoke.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
#include "schema/base/output_file.h"
#include "schema/bundle_sizes.h"

namespace taskpress {
namespace {

// Small sections first, the model last, as published bundles have them.
struct Member {
  SectionKind kind;
  const Graph* graph;
};

std::vector<Member> MembersOf(const PreparedModel& model) {
  std::vector<Member> members{{SectionKind::kEmbedder, &model.graphs.embedder}};
  if (model.graphs.per_layer_embedder) members.push_back({SectionKind::kPerLayerEmbedder, &*model.graphs.per_layer_embedder});
  if (model.smaller.empty()) members.push_back({SectionKind::kPrefillDecode, &model.graphs.prefill_decode});
  return members;
}

// Counts bytes over all model members of one output.
class Meter {
 public:
  Meter(std::function<void(const ConvertEvent&)> on_event, std::string_view stage)
      : on_event_(std::move(on_event)), event_{.stage = stage} {}
  // Before the first byte.
  void Expect(uint64_t bytes) { event_.bytes_total += bytes; }
  void operator()(std::string_view tensor, uint64_t bytes) {
    const std::scoped_lock lock(mutex_);
    event_.tensor = tensor;
    event_.bytes_done += bytes;
    if (on_event_) on_event_(event_);
  }

 private:
  std::function<void(const ConvertEvent&)> on_event_;
  ConvertEvent event_;
  std::mutex mutex_;
};

void Announce(const WriteOptions& options, std::string_view stage) {
  if (options.on_event) options.on_event({.stage = stage});
}

SharedBytes MetadataSection(const PreparedModel& model, Container container) {
  return MakeMemorySource(AsBytes(EncodeMetadata(container, model.metadata)));
}

// Every section of the first output; the models are produced while they are written.
Result<std::vector<SectionToWrite>> StreamedSections(const PreparedModel& model, Container container, const WriteOptions& options,
                                                     const std::shared_ptr<Meter>& meter) {
  std::vector<SectionToWrite> sections;
  sections.push_back(SectionFromSource(SectionKind::kMetadata, MetadataSection(model, container)));
  sections.push_back(SectionFromSource(SectionKind::kTokenizer, model.tokenizer));
  for (const Member& member : MembersOf(model)) {
    const auto image = std::make_shared<TfliteImage>(TRY(BuildTfliteImage(*member.graph)));
    const auto write = [graph = member.graph, image, work = options.work, meter](OutputFile& file, uint64_t offset) {
      return WriteMember(*graph, std::move(*image), file, offset, work,
                         [meter](std::string_view tensor, uint64_t bytes) { (*meter)(tensor, bytes); });
    };
    meter->Expect(image->size);
    sections.push_back({.kind = member.kind, .size = image->size, .write = write});
  }
  if (model.smaller.empty()) return sections;
  const auto on_bytes = [meter](std::string_view tensor, uint64_t bytes) { (*meter)(tensor, bytes); };
  std::vector<SectionToWrite> elastic = TRY(ElasticSections(model, options.work, on_bytes));
  for (SectionToWrite& section : elastic) {
    if (section.entry) meter->Expect(section.size);
    sections.push_back(std::move(section));
  }
  return sections;
}

// The sections of a bundle that exists already, with the metadata respelled for another container.
Result<std::vector<SectionToWrite>> CopiedSections(const PreparedModel& model, Container container, const Bundle& from) {
  std::vector<SectionToWrite> sections;
  for (const Section& section : from.sections) {
    if (section.kind == SectionKind::kPrefillDecode && !from.sizes.empty()) {
      sections.push_back(SectionFromSizes(from));
      continue;
    }
    const bool metadata = section.kind == SectionKind::kMetadata;
    sections.push_back(SectionFromSource(section.kind, metadata ? MetadataSection(model, container) : section.bytes));
  }
  return sections;
}

Result<std::string> HashFile(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  Sha256 hash;
  constexpr uint64_t kBlock = 8 << 20;
  for (uint64_t offset = 0; offset < file->size(); offset += kBlock) {
    const uint64_t length = std::min(kBlock, file->size() - offset);
    hash.Update(file->bytes().subspan(offset, length));
    file->Forget(offset, length);
  }
  return hash.FinishHex();
}

Result<Container> ContainerOf(const std::filesystem::path& path) {
  const std::optional<Container> container = ContainerFromPath(path);
  if (!container) return Fail(ErrorCode::kUsage, "{}: an output ends in .task or .litertlm, or is a folder", path.string());
  return *container;
}

// Two spellings of one file are one output.
std::filesystem::path FinalPath(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path final_path = std::filesystem::weakly_canonical(path, error);
  return error ? path : final_path;
}

Status CheckOutputs(std::span<const std::filesystem::path> outputs, bool replace) {
  std::set<std::filesystem::path> seen;
  for (const std::filesystem::path& path : outputs) {
    TRY(ContainerOf(path));
    if (!seen.insert(FinalPath(path)).second) return Fail(ErrorCode::kUsage, "{}: named twice as output", path.string());
    std::error_code ignored;  // what cannot be looked at cannot be created either, and that says why
    if (!replace && std::filesystem::exists(path, ignored)) {
      return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", path.string());
    }
  }
  return {};
}

Status CheckNotStopped(const WriteOptions& options) {
  if (options.work.stop != nullptr && options.work.stop->load()) return Fail(ErrorCode::kInterrupted, "stopped by a signal");
  return {};
}

// The models of a copy are the bytes of the bundle that spoke.
Status CheckSameModels(const Bundle& copy, const Bundle& original) {
  for (const Section& section : original.sections) {
    if (!InfoOf(section.kind).is_model) continue;
    const Section* copied = copy.Find(section.kind);
    if (copied == nullptr || !std::ranges::equal(copied->bytes->view(), section.bytes->view())) {
      return Fail(ErrorCode::kWriteFailed, "{}: section \"{}\" does not read back as it was written; is the disk sound?", copy.path,
                  section.name);
    }
  }
  return {};
}

// Reopens what was written, checks all of it, and lets it speak. The part file has no final name yet.
Status ProvePart(const OutputFile& file, std::span<const WrittenBundle> written, const WriteOptions& options) {
  Announce(options, "verify");
  const Bundle bundle = TRY(ReadBundle(file.part_path()));
  TRY(VerifyChecksums(bundle));
  for (const std::string& size : bundle.SizeNames()) {
    const BundleModel model = TRY(LoadBundleModel(bundle, size));
    TRY(CheckNotStopped(options));
    if (!written.empty()) continue;
    Announce(options, "smoke");
    TRY(SmokeRun(model.graphs, model.metadata, options.work.threads));
    TRY(CheckNotStopped(options));
  }
  if (!written.empty()) return CheckSameModels(bundle, TRY(ReadBundle(written.front().path)));
  return {};
}

Result<OutputFile> WritePart(const std::filesystem::path& path, Container container, std::span<const SectionToWrite> sections,
                             const WriteOptions& options) {
  const BundleLayout layout = TRY(PlanBundle(container, sections));
  OutputFile file = TRY(OutputFile::Create(path, layout.file_size, {.replace = options.replace}));
  TRY(WriteBundle(container, sections, file));
  TRY(file.Flush());
  return file;
}

Result<WrittenBundle> Finish(OutputFile& file) {
  TRY(file.Commit());
  return WrittenBundle{.path = file.path(), .bytes = file.size(), .sha256 = TRY(HashFile(file.path()))};
}

}  // namespace

Result<uint64_t> ForecastBundleSize(const PreparedModel& model, Container container) {
  const auto meter = std::make_shared<Meter>(nullptr, "write");
  return TRY(PlanBundle(container, TRY(StreamedSections(model, container, {}, meter)))).file_size;
}

Result<std::vector<WrittenBundle>> WriteBundles(const PreparedModel& model, std::span<const std::filesystem::path> outputs,
                                                const WriteOptions& options) {
  TRY(CheckOutputs(outputs, options.replace));
  std::vector<WrittenBundle> written;
  for (const std::filesystem::path& path : outputs) {
    const Container container = TRY(ContainerOf(path));
    std::vector<SectionToWrite> sections;
    if (written.empty()) {
      const auto meter = std::make_shared<Meter>(options.on_event, "write");
      sections = TRY(StreamedSections(model, container, options, meter));
    } else {
      Announce(options, "copy");
      sections = TRY(CopiedSections(model, container, TRY(ReadBundle(written.front().path))));
    }
    OutputFile file = TRY(WritePart(path, container, sections, options));
    TRY(ProvePart(file, written, options));
    written.push_back(TRY(Finish(file)));
  }
  return written;
}

}  // namespace taskpress
