#include "converter/repack_plan.h"

#include <algorithm>
#include <set>

#include "converter/model_family.h"
#include "runtime/bundle_model.h"
#include "schema/base/mapped_file.h"
#include "schema/metadata_lint.h"
#include "schema/tflite.h"

namespace taskpress {
namespace {

// --- what was asked for -----------------------------------------------------------------------------------------------------------------

std::string Listed(std::span<const std::string> names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

std::string SectionNames(const Bundle& bundle) {
  std::vector<std::string> names;
  for (const Section& section : bundle.sections) names.push_back(section.name);
  return Listed(names);
}

std::string RequiredNames() {
  std::vector<std::string> names;
  for (const SectionInfo& info : AllSections()) {
    if (info.required) names.emplace_back(info.name);
  }
  return Listed(names);
}

Result<const Section*> FindNamed(const Bundle& bundle, std::string_view name) {
  const auto count = std::ranges::count(bundle.sections, name, &Section::name);
  if (count == 0) {
    return Fail(ErrorCode::kUsage, "{}: there is no section \"{}\"; it has {}", bundle.path, name, SectionNames(bundle));
  }
  // An archive may have an entry "embedder" beside TF_LITE_EMBEDDER, which is called so here.
  if (count > 1) return Fail(ErrorCode::kUsage, "{}: {} sections are called \"{}\"; which one is meant?", bundle.path, count, name);
  return &*std::ranges::find(bundle.sections, name, &Section::name);
}

Status CheckChanges(const Bundle& from, const SectionChanges& changes) {
  std::set<std::string_view> named;
  for (const std::string& name : changes.drop) {
    const Section* section = TRY(FindNamed(from, name));
    if (!named.insert(name).second) return Fail(ErrorCode::kUsage, "section \"{}\" is to be dropped twice", name);
    if (InfoOf(section->kind).required) {
      return Fail(ErrorCode::kUsage, "section \"{}\" cannot be dropped: clients need {}; put another in its place with --replace {}=FILE",
                  name, RequiredNames(), name);
    }
  }
  for (const SectionChanges::Replacement& replacement : changes.replace) {
    TRY(FindNamed(from, replacement.section));
    if (!named.insert(replacement.section).second) {
      return Fail(ErrorCode::kUsage, "section \"{}\" is named twice; drop it or replace it, once", replacement.section);
    }
  }
  if (from.sizes.empty()) return {};
  for (const SectionKind kind : {SectionKind::kPrefillDecode, SectionKind::kSizes}) {
    if (!named.contains(from.Find(kind)->name)) continue;
    return Fail(ErrorCode::kUsage,
                "section \"{}\" of an elastic bundle cannot be changed: its sizes share weights; convert again without --elastic",
                from.Find(kind)->name);
  }
  return {};
}

const SectionChanges::Replacement* ReplacementOf(const SectionChanges& changes, std::string_view section) {
  const auto found = std::ranges::find(changes.replace, section, &SectionChanges::Replacement::section);
  return found == changes.replace.end() ? nullptr : &*found;
}

// --- replacements -----------------------------------------------------------------------------------------------------------------------

Status CheckContents(SectionKind kind, const SharedBytes& bytes) {
  if (InfoOf(kind).is_model) {
    TRY(ReadTflite(bytes));
  } else if (kind == SectionKind::kTokenizer) {
    TRY(Tokenizer::FromModel(bytes->view()));
  } else if (kind == SectionKind::kMetadata) {
    TRY(DecodeMetadata(Container::kTask, bytes->view()));  // which takes either message (M1)
  }
  return {};
}

Result<SharedBytes> OpenReplacement(const SectionChanges::Replacement& replacement, SectionKind kind) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(replacement.file));
  if (file->size() == 0) {
    return Fail(ErrorCode::kUsage, "{}: is empty; drop section \"{}\" if it is to go", replacement.file.string(), replacement.section);
  }
  SharedBytes bytes = TRY(MakeMappedSource(file, 0, file->size()));
  Status checked = CheckContents(kind, bytes);
  if (checked) return bytes;
  const std::string where = Format("{}: cannot be section \"{}\"", replacement.file.string(), replacement.section);
  return std::unexpected(WithContext(std::move(checked).error(), where));
}

Result<std::vector<Section>> ChangedSections(const Bundle& from, const SectionChanges& changes) {
  std::vector<Section> sections;
  for (const Section& section : from.sections) {
    if (std::ranges::contains(changes.drop, section.name)) continue;
    sections.push_back(section);
    if (const SectionChanges::Replacement* replacement = ReplacementOf(changes, section.name)) {
      sections.back().bytes = TRY(OpenReplacement(*replacement, section.kind));
    }
  }
  return sections;
}

// --- metadata ---------------------------------------------------------------------------------------------------------------------------

// Metadata on its way from one spelling to the other.
struct Respelling {
  BundleMetadata metadata;  // ids and texts of all tokens
  bool keep = false;        // the bytes are right as they are
};

// M1: a message with a start token that parses as LlmMetadata is one, wherever it lies.
Container SpellingOf(ByteView message) {
  const Result<BundleMetadata> read = DecodeMetadata(Container::kLitertlm, message);
  return read && read->start_token ? Container::kLitertlm : Container::kTask;
}

Result<const Section*> Require(const Bundle& bundle, SectionKind kind) {
  const Section* section = bundle.Find(kind);
  if (section == nullptr) return Fail(ErrorCode::kBundleSectionMissing, "{}: section \"{}\" is missing", bundle.path, InfoOf(kind).name);
  return section;
}

Result<Respelling> ReadMetadata(const Bundle& from, const Bundle& planned, const SectionChanges& changes) {
  const Section* section = TRY(Require(planned, SectionKind::kMetadata));
  const bool replaced = ReplacementOf(changes, section->name) != nullptr;
  const ByteView message = section->bytes->view();
  const Container spelling = !replaced && from.container == Container::kLitertlm ? Container::kLitertlm : SpellingOf(message);
  Respelling out;
  out.keep = spelling == planned.container || (!replaced && from.container == planned.container);
  out.metadata = TRY(DecodeMetadata(spelling, message));

  const Tokenizer tokenizer = TRY(Tokenizer::FromModel(TRY(Require(planned, SectionKind::kTokenizer))->bytes->view()));
  if (ReplacementOf(changes, InfoOf(SectionKind::kTokenizer).name) != nullptr && !replaced) {
    // Ids mean what the tokenizer says they mean; the old one knows what they meant when they were written down. One that cannot be read
    // is perhaps why there is a new one.
    const Result<Tokenizer> old = Tokenizer::FromModel(TRY(Require(from, SectionKind::kTokenizer))->bytes->view());
    if (old) TRY(ResolveTokens(out.metadata, *old));
  }
  TRY(ResolveTokens(out.metadata, tokenizer));
  TRY(LintMetadata(out.metadata, tokenizer));
  return out;
}

// M9: what the message of a .task does not hold, from the models themselves.
void Complete(BundleMetadata& metadata, const BundleModel& model, std::vector<std::string>& notes) {
  if (!metadata.model_type.empty()) return;  // it was LlmMetadata, which says it all
  metadata.max_num_tokens = static_cast<int32_t>(model.contract.context);
  const bool per_layer = model.graphs.per_layer_embedder.has_value();
  for (const ModelFamily& family : ModelFamilies()) {
    if (family.has_per_layer_embedder == per_layer) metadata.model_type = family.name;
  }
  notes.push_back(
      Format("metadata: the context of {} tokens and the model type {} are read off the models, the sampler is the clients' "
             "default (greedy): the metadata of a .task does not hold them",
             metadata.max_num_tokens, metadata.model_type));
}

void NoteLosses(const BundleMetadata& metadata, std::vector<std::string>& notes) {
  notes.push_back(
      Format("metadata: left out are sampler (k {}, p {}, temperature {}), context, model type and what else a .task has no "
             "place for",
             metadata.sampler.k, metadata.sampler.p, metadata.sampler.temperature));
}

// --- the whole --------------------------------------------------------------------------------------------------------------------------

// Replacements must not leave the model with tokens that nobody can print. A bundle that came so stays so.
Status CheckVocabulary(const Bundle& planned, const BundleModel& model, const SectionChanges& changes) {
  if (changes.replace.empty() || model.tokenizer.vocab_size() >= model.contract.vocab_size) return {};
  return Fail(ErrorCode::kTokenizerModel,
              "{}: the tokenizer would have {} pieces, the model {} tokens; clients stop at an id without a piece", planned.path,
              model.tokenizer.vocab_size(), model.contract.vocab_size);
}

bool HasItems(const Section& section) {
  return std::ranges::any_of(section.items, [](const auto& item) { return item.first != "model_type" && item.first != "name"; });
}

void SetMetadata(std::vector<Section>& sections, Container to, const BundleMetadata& metadata) {
  std::ranges::find(sections, SectionKind::kMetadata, &Section::kind)->bytes = MakeMemorySource(AsBytes(EncodeMetadata(to, metadata)));
}

}  // namespace

Result<RepackPlan> PlanRepack(const Bundle& from, Container to, const SectionChanges& changes) {
  TRY(CheckChanges(from, changes));
  // Messages about what is missing or does not fit name the input.
  Bundle planned{.container = to, .path = from.path, .version = {}, .system_items = {}, .sections = {}, .warnings = {}};
  planned.sections = TRY(ChangedSections(from, changes));
  Respelling respelling = TRY(ReadMetadata(from, planned, changes));
  if (!respelling.keep) SetMetadata(planned.sections, to, respelling.metadata);
  const BundleModel model = TRY(LoadBundleModel(planned));
  TRY(CheckVocabulary(planned, model, changes));

  RepackPlan plan;
  if (!respelling.keep && to == Container::kLitertlm) {
    Complete(respelling.metadata, model, plan.notes);
    SetMetadata(planned.sections, to, respelling.metadata);
  } else if (!respelling.keep) {
    NoteLosses(respelling.metadata, plan.notes);
  }
  if (to == Container::kTask && std::ranges::any_of(planned.sections, HasItems)) {
    plan.notes.emplace_back("key/value items of sections are left out: a .task has no place for them");
  }
  plan.sections = std::move(planned.sections);
  return plan;
}

}  // namespace taskpress
