#include "converter/conversion_plan.h"

#include <algorithm>
#include <set>

#include "schema/base/hash.h"
#include "schema/base/version.h"

namespace taskpress {
namespace {

constexpr uint64_t kUnitBytes = 1 << 20;

// Small sections first, the model last, as published bundles have them.
std::vector<std::pair<SectionKind, const Graph*>> MembersOf(const PreparedModel& model) {
  std::vector<std::pair<SectionKind, const Graph*>> members{{SectionKind::kEmbedder, &model.graphs.embedder}};
  if (model.graphs.per_layer_embedder) members.emplace_back(SectionKind::kPerLayerEmbedder, &*model.graphs.per_layer_embedder);
  members.emplace_back(SectionKind::kPrefillDecode, &model.graphs.prefill_decode);
  return members;
}

// Two spellings of one file are one output.
std::filesystem::path FinalPath(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path final_path = std::filesystem::weakly_canonical(path, error);
  return error ? path : final_path;
}

struct MemberImages {
  std::vector<SectionKind> kinds;
  std::vector<MemberRoot> roots;
};

Result<MemberImages> BuildImages(const PreparedModel& model) {
  MemberImages images;
  for (const auto& [kind, graph] : MembersOf(model)) {
    images.kinds.push_back(kind);
    TfliteImage image = TRY(BuildTfliteImage(*graph));
    images.roots.push_back({.graph = graph, .image = std::move(image)});
  }
  return images;
}

Result<PlannedOutput> PlanOutput(const PreparedModel& model, const std::filesystem::path& path, size_t job, const MemberImages& images) {
  const std::optional<Container> container = ContainerFromPath(path);
  if (!container) return Fail(ErrorCode::kUsage, "{}: an output ends in .task or .litertlm, or is a folder", path.string());
  PlannedOutput output{.path = path, .container = *container, .job = job, .sections = {}, .layout = {}, .small_sections = {}};
  const SharedBytes metadata = MakeMemorySource(AsBytes(EncodeMetadata(*container, model.metadata)));
  output.sections.push_back(SectionFromSource(SectionKind::kMetadata, metadata));
  output.sections.push_back(SectionFromSource(SectionKind::kTokenizer, model.tokenizer));
  std::vector<std::byte> scratch;
  output.small_sections = Sha256Hex(TRY(ViewOrRead(*metadata, scratch))) + Sha256Hex(TRY(ViewOrRead(*model.tokenizer, scratch)));
  for (size_t i = 0; i < images.kinds.size(); ++i) {
    output.sections.push_back({.kind = images.kinds[i], .size = images.roots[i].image.size, .write = {}});
  }
  output.layout = TRY(PlanBundle(*container, output.sections));
  return output;
}

constexpr size_t kSmallSections = 2;  // in front of the models: metadata and tokenizer

}  // namespace

Result<ConversionPlan> PlanConversion(std::span<const BundleJob> jobs) {
  ConversionPlan plan;
  std::set<std::filesystem::path> seen;
  for (size_t job = 0; job < jobs.size(); ++job) {
    MemberImages images = TRY(BuildImages(*jobs[job].model));
    const size_t first_output = plan.outputs.size();
    for (const std::filesystem::path& path : jobs[job].outputs) {
      if (!seen.insert(FinalPath(path)).second) return Fail(ErrorCode::kUsage, "{}: named twice as output", path.string());
      plan.outputs.push_back(TRY(PlanOutput(*jobs[job].model, path, job, images)));
    }
    for (size_t i = 0; i < images.kinds.size(); ++i) {
      std::vector<Place> places;
      for (size_t output = first_output; output < plan.outputs.size(); ++output) {
        places.push_back({.file = output, .offset = plan.outputs[output].layout.offsets[kSmallSections + i]});
      }
      std::vector<MemberRoot> roots;
      roots.push_back(std::move(images.roots[i]));
      plan.members.push_back({.job = job, .kind = images.kinds[i], .stream = plan.stream.AddMember(std::move(roots), places)});
    }
  }
  plan.stream.Cut(kUnitBytes);
  return plan;
}

Result<std::string> FingerprintOf(const ConversionPlan& plan) {
  std::string text = Format("taskpress {}\n", Version());
  for (const PlannedOutput& output : plan.outputs) {
    text += Format("output {} {} {}\n{}\n", output.path.filename().string(), NameOf(output.container), output.layout.file_size,
                   output.small_sections);
    for (size_t i = 0; i < output.sections.size(); ++i) {
      text += Format("section {} {} {}\n", InfoOf(output.sections[i].kind).name, output.layout.offsets[i], output.sections[i].size);
    }
  }
  for (const StreamRoot& root : plan.stream.roots()) text += Format("root {}\n", Sha256Hex(root.bytes));
  for (const StreamConstant& constant : plan.stream.constants()) {
    text += Format("constant {} {}\n", constant.name, constant.bytes->size());
    if (constant.bytes->rows() != nullptr) continue;
    std::vector<std::byte> scratch;
    text += Format("{:08x}\n", Crc32(0, TRY(ViewOrRead(*constant.bytes, scratch))));
  }
  text += Format("units {} of {}\n", plan.stream.units(), plan.stream.unit_bytes());
  return Sha256Hex(AsBytes(text));
}

std::vector<uint32_t> MemberCrcs(const ConversionPlan& plan, std::span<const uint32_t> crcs) {
  std::vector<uint32_t> all;
  for (const PlannedMember& member : plan.members) all.push_back(MemberCrc(plan.stream, member.stream, crcs));
  return all;
}

void SetMemberCrcs(ConversionPlan& plan, std::span<const uint32_t> member_crcs) {
  for (PlannedOutput& output : plan.outputs) {
    for (SectionToWrite& section : output.sections) {
      for (size_t i = 0; i < plan.members.size(); ++i) {
        const PlannedMember& member = plan.members[i];
        if (member.job != output.job || member.kind != section.kind) continue;
        section.write = [crc = member_crcs[i]](OutputFile&, uint64_t) -> Result<uint32_t> { return crc; };
      }
    }
  }
}

}  // namespace taskpress
