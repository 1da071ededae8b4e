#include "converter/conversion_plan.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "converter/elastic_sections.h"
#include "schema/base/hash.h"
#include "schema/base/version.h"

namespace taskpress {
namespace {

constexpr uint64_t kUnitBytes = 1 << 20;

// Two spellings of one file are one output.
std::filesystem::path FinalPath(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path final_path = std::filesystem::weakly_canonical(path, error);
  return error ? path : final_path;
}

struct ModelMember {
  SectionKind kind = SectionKind::kOther;
  MemberImage image;
};

// Small sections first, the model last, as published bundles have them; behind it the list of its sizes, if it has several.
struct ModelMembers {
  std::vector<ModelMember> members;
  std::optional<SizeList> list;
  std::shared_ptr<std::vector<uint32_t>> size_crcs = std::make_shared<std::vector<uint32_t>>();
};

Result<ModelMembers> BuildMembers(const PreparedModel& model) {
  ModelMembers built;
  const auto add = [&](SectionKind kind, const Graph& graph) -> Status {
    MemberImage image = TRY(BuildMemberImage(graph));
    built.members.push_back({.kind = kind, .image = std::move(image)});
    return {};
  };
  TRY(add(SectionKind::kEmbedder, model.graphs.embedder));
  if (model.graphs.per_layer_embedder) TRY(add(SectionKind::kPerLayerEmbedder, *model.graphs.per_layer_embedder));
  if (model.smaller.empty()) {
    TRY(add(SectionKind::kPrefillDecode, model.graphs.prefill_decode));
    return built;
  }
  ElasticMember elastic = TRY(MakeElasticMember(model));
  built.list = std::move(elastic.list);
  built.members.push_back({.kind = SectionKind::kPrefillDecode, .image = std::move(elastic.image)});
  return built;
}

Result<PlannedOutput> PlanOutput(const PreparedModel& model, const std::filesystem::path& path, size_t job, const ModelMembers& built) {
  const std::optional<Container> container = ContainerFromPath(path);
  if (!container) return Fail(ErrorCode::kUsage, "{}: an output ends in .task or .litertlm, or is a folder", path.string());
  PlannedOutput output{.path = path, .container = *container, .job = job, .sections = {}, .layout = {}, .small_sections = {}};
  const SharedBytes metadata = MakeMemorySource(AsBytes(EncodeMetadata(*container, model.metadata)));
  output.sections.push_back(SectionFromSource(SectionKind::kMetadata, metadata));
  output.sections.push_back(SectionFromSource(SectionKind::kTokenizer, model.tokenizer));
  std::vector<std::byte> scratch;
  output.small_sections = Sha256Hex(TRY(ViewOrRead(*metadata, scratch))) + Sha256Hex(TRY(ViewOrRead(*model.tokenizer, scratch)));
  for (const ModelMember& member : built.members) {
    output.sections.push_back({.kind = member.kind, .size = member.image.size, .write = {}});
    if (member.image.roots.size() > 1) output.sections.back().entry = 0;  // the first root is the active one
  }
  if (built.list) {
    output.sections.push_back(SizesSection(*built.list, built.size_crcs));
    output.small_sections += Sha256Hex(AsBytes(EncodeSizes(*built.list)));
  }
  output.layout = TRY(PlanBundle(*container, output.sections));
  return output;
}

constexpr size_t kSmallSections = 2;  // in front of the models: metadata and tokenizer

}  // namespace

std::vector<std::filesystem::path> InputsOf(std::span<const BundleJob> jobs) {
  std::vector<std::filesystem::path> inputs;
  for (const BundleJob& job : jobs) {
    for (const std::filesystem::path& path : job.model->inputs) {
      if (std::ranges::find(inputs, path) == inputs.end()) inputs.push_back(path);
    }
  }
  return inputs;
}

Result<ConversionPlan> PlanConversion(std::span<const BundleJob> jobs) {
  ConversionPlan plan;
  std::set<std::filesystem::path> seen;
  for (size_t job = 0; job < jobs.size(); ++job) {
    ModelMembers built = TRY(BuildMembers(*jobs[job].model));
    const size_t first_output = plan.outputs.size();
    for (const std::filesystem::path& path : jobs[job].outputs) {
      if (!seen.insert(FinalPath(path)).second) return Fail(ErrorCode::kUsage, "{}: named twice as output", path.string());
      plan.outputs.push_back(TRY(PlanOutput(*jobs[job].model, path, job, built)));
    }
    for (size_t i = 0; i < built.members.size(); ++i) {
      std::vector<Place> places;
      for (size_t output = first_output; output < plan.outputs.size(); ++output) {
        places.push_back({.file = output, .offset = plan.outputs[output].layout.offsets[kSmallSections + i]});
      }
      const size_t roots = built.members[i].image.roots.size();
      PlannedMember member{.job = job, .kind = built.members[i].kind, .stream = {}, .first_crc = plan.num_crcs};
      member.stream = plan.stream.AddMember(std::move(built.members[i].image), places);
      if (roots > 1) member.size_crcs = built.size_crcs;
      plan.num_crcs += roots;
      plan.members.push_back(std::move(member));
    }
  }
  std::map<const void*, uint64_t> positions;
  for (const BundleJob& job : jobs) {
    for (const BundleWeight& weight : job.model->weights) positions[weight.rows->origin()] = weight.source_position;
  }
  plan.stream.Cut(kUnitBytes, positions);
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
  for (const StreamGroup& group : plan.stream.groups()) text += Format("unit {} {}\n", group.first_unit, group.constants.front());
  text += Format("units {} of {}\n", plan.stream.units(), plan.stream.unit_bytes());
  return Sha256Hex(AsBytes(text));
}

std::vector<uint32_t> MemberCrcs(const ConversionPlan& plan, std::span<const uint32_t> crcs) {
  std::vector<uint32_t> all;
  for (const PlannedMember& member : plan.members) {
    for (const StreamMember::Extent& extent : member.stream.extents) {
      if (extent.is_root) all.push_back(MemberCrc(plan.stream, member.stream, crcs, extent.offset));
    }
  }
  return all;
}

void SetMemberCrcs(ConversionPlan& plan, std::span<const uint32_t> member_crcs) {
  for (const PlannedMember& member : plan.members) {
    for (PlannedOutput& output : plan.outputs) {
      if (member.job != output.job) continue;
      const auto section = std::ranges::find(output.sections, member.kind, &SectionToWrite::kind);
      section->write = [crc = member_crcs[member.first_crc]](OutputFile&, uint64_t) -> Result<uint32_t> { return crc; };
    }
    if (!member.size_crcs) continue;
    const std::span<const uint32_t> sizes = member_crcs.subspan(member.first_crc);
    size_t roots = 0;
    for (const StreamMember::Extent& extent : member.stream.extents) roots += extent.is_root ? 1 : 0;
    member.size_crcs->assign(sizes.begin(), sizes.begin() + static_cast<ptrdiff_t>(roots));
  }
}

}  // namespace taskpress
