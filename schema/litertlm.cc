#include "schema/litertlm.h"

#include <algorithm>
#include <array>
#include <set>

#include "schema/base/checked_math.h"
#include "schema/base/hash.h"
#include "schema/base/text.h"
#include "schema/bundle_sizes.h"
#include "schema/litertlm_generated.h"
#include "schema/litertlm_sections.h"

namespace taskpress {
namespace {

using litertlm::AnySectionDataType;

constexpr uint64_t kVersionOffset = 8;
constexpr uint64_t kHeaderEndOffset = 24;
constexpr uint64_t kHeaderBegin = 32;
constexpr uint64_t kBlock = 16 * 1024;            // L4
constexpr uint64_t kClientHeader = kBlock;        // L3: what clients read
constexpr uint64_t kLargestHeader = 1024 * 1024;  // L3: what we read
constexpr uint32_t kMajorVersion = 1;             // L2
constexpr std::array<uint32_t, 3> kWrittenVersion = {kMajorVersion, 5, 0};
constexpr size_t kMaxSections = 64;    // L5
constexpr uint32_t kMaxDepth = 16;     // L5: the real depth is 5
constexpr uint32_t kMaxTables = 4096;  // L5
constexpr uint64_t kLargestFile = uint64_t{1} << 62;

// --- reading ----------------------------------------------------------------------------------------------------------------------------

struct Header {
  std::string version;
  uint64_t end = 0;
  std::vector<uint8_t> flatbuffer;  // a copy: aligned, and it cannot change under the verifier's feet
};

Result<Header> ReadHeader(ByteView file) {
  if (!AsText(file).starts_with(kLitertlmMagic)) {
    return Fail(ErrorCode::kLitertlmHeader, "magic is \"{}\", expected \"{}\"",
                Printable(AsText(file.first(std::min<size_t>(file.size(), 8)))), kLitertlmMagic);
  }
  if (file.size() < kHeaderBegin) {
    return Fail(ErrorCode::kLitertlmHeader, "truncated: the header begins at byte {}, the file ends at {}", kHeaderBegin, file.size());
  }
  const auto version = LoadLittle<std::array<uint32_t, 3>>(file.data() + kVersionOffset);
  Header header{.version = Format("{}.{}.{}", version[0], version[1], version[2]), .end = 0, .flatbuffer = {}};
  if (version[0] != kMajorVersion) return Fail(ErrorCode::kLitertlmVersion, "version {}, expected {}.x", header.version, kMajorVersion);
  header.end = LoadLittle<uint64_t>(file.data() + kHeaderEndOffset);
  if (header.end < kHeaderBegin || header.end > kLargestHeader) {
    return Fail(ErrorCode::kLitertlmHeader, "header [{}, {}): expected at most {} bytes", kHeaderBegin, header.end, kLargestHeader);
  }
  if (header.end > file.size()) {
    return Fail(ErrorCode::kLitertlmHeader, "truncated: the header ends at byte {}, the file at {}", header.end, file.size());
  }
  const ByteView bytes = file.subspan(kHeaderBegin, header.end - kHeaderBegin);
  header.flatbuffer.resize(bytes.size());
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(header.flatbuffer)).begin());
  return header;
}

Result<const litertlm::LiteRTLMMetaData*> VerifyRoot(const std::vector<uint8_t>& flatbuffer) {
  flatbuffers::Verifier verifier(flatbuffer.data(), flatbuffer.size(), kMaxDepth, kMaxTables);
  if (!litertlm::VerifyLiteRTLMMetaDataBuffer(verifier)) {
    return Fail(ErrorCode::kLitertlmHeader, "the header's FlatBuffer of {} bytes does not verify", flatbuffer.size());
  }
  const litertlm::LiteRTLMMetaData* root = litertlm::GetLiteRTLMMetaData(flatbuffer.data());
  if (root->section_metadata() == nullptr || root->section_metadata()->objects()->size() == 0) {
    return Fail(ErrorCode::kLitertlmHeader, "the header lists no sections");
  }
  if (root->section_metadata()->objects()->size() > kMaxSections) {
    return Fail(ErrorCode::kLitertlmHeader, "{} sections, at most {} are read", root->section_metadata()->objects()->size(), kMaxSections);
  }
  return root;
}

// Copies items out of the FlatBuffer. Its tables and strings may be shared, so a small header could name gigabytes of text: L5 bounds the
// sum.
class ItemReader {
 public:
  explicit ItemReader(uint64_t text_budget) : budget_(text_budget) {}

  Result<LitertlmItems> Read(const flatbuffers::Vector<flatbuffers::Offset<litertlm::KeyValuePair>>* pairs) {
    LitertlmItems items;
    if (pairs == nullptr) return items;
    for (const litertlm::KeyValuePair* pair : *pairs) {
      std::string key = TRY(Text(pair->key()));
      if (std::ranges::contains(items, key, &LitertlmItems::value_type::first))
        return Fail(ErrorCode::kLitertlmHeader, "two items \"{}\"", Printable(key));
      items.emplace_back(std::move(key), TRY(Value(*pair)));
    }
    return items;
  }

 private:
  Result<std::string> Value(const litertlm::KeyValuePair& pair) {
    // L6: every other tag says a number, whose wire form depends on the writer's age.
    if (pair.value_type() != litertlm::VData::StringValue) return "<number>";
    const litertlm::StringValue* text = pair.value_as_StringValue();
    return text == nullptr ? Result<std::string>() : Text(text->value());
  }

  Result<std::string> Text(const flatbuffers::String* text) {
    if (text == nullptr) return std::string();
    if (text->size() > budget_) return Fail(ErrorCode::kLitertlmHeader, "item texts are longer than the header that holds them");
    budget_ -= text->size();
    if (!IsUtf8(text->string_view()))
      return Fail(ErrorCode::kLitertlmHeader, "item text \"{}\" is not UTF-8", Printable(text->string_view()));
    return text->str();
  }

  uint64_t budget_;
};

Status CheckRange(std::string_view name, uint64_t begin, uint64_t end, uint64_t header_end, uint64_t file_size) {
  if (begin >= end) return Fail(ErrorCode::kLitertlmSection, "section \"{}\": [{}, {}) is empty", name, begin, end);
  if (begin < header_end)
    return Fail(ErrorCode::kLitertlmSection, "section \"{}\" begins at byte {}, inside the header [0, {})", name, begin, header_end);
  if (end > file_size) {
    return Fail(ErrorCode::kLitertlmSection, "truncated: section \"{}\" is [{}, {}), the file ends at {}", name, begin, end, file_size);
  }
  return {};
}

void AddWarnings(Bundle& bundle, const LitertlmKey& key, const Section& section) {
  const std::string name = Printable(section.name);
  if (section.offset % kBlock != 0) {
    bundle.warnings.push_back(Format("section \"{}\" begins at byte {}, not a multiple of {}; clients that map sections refuse it", name,
                                     section.offset, kBlock));
  }
  if (section.kind != SectionKind::kOther) return;
  if (key.type == AnySectionDataType::TFLiteModel && !IsModelTypeOfClients(key.model_type)) {
    bundle.warnings.push_back(Format("section \"{}\" has a model_type that LiteRT-LM does not know; it refuses the file", name));
  } else {
    bundle.warnings.push_back(Format("section \"{}\" is not known; it is carried along unread", name));
  }
}

Status CheckNoOverlap(std::span<const Section> in_file_order) {
  for (size_t i = 1; i < in_file_order.size(); ++i) {
    const Section& before = in_file_order[i - 1];
    const Section& section = in_file_order[i];
    if (section.offset >= before.offset + before.bytes->size()) continue;
    return Fail(ErrorCode::kLitertlmSection, "section \"{}\" begins at byte {}, before \"{}\" ends at {}", Printable(section.name),
                section.offset, Printable(before.name), before.offset + before.bytes->size());
  }
  return {};
}

Result<Bundle> ReadFile(const SharedBytes& file) {
  const ByteView view = file->view();
  const Header header = TRY(ReadHeader(view));
  const litertlm::LiteRTLMMetaData* root = TRY(VerifyRoot(header.flatbuffer));
  Bundle bundle;
  bundle.container = Container::kLitertlm;
  bundle.file_size = view.size();
  bundle.version = header.version;
  if (header.end > kClientHeader) {
    bundle.warnings.push_back(Format("the header ends at byte {}; clients read {} bytes and refuse the file", header.end, kClientHeader));
  }
  ItemReader items(header.flatbuffer.size());
  if (root->system_metadata() != nullptr) bundle.system_items = TRY(items.Read(root->system_metadata()->entries()));
  std::set<LitertlmKey> keys;
  for (const litertlm::SectionObject* object : *root->section_metadata()->objects()) {
    Section section;
    section.items = TRY(items.Read(object->items()));
    const LitertlmKey key = KeyOf(object->data_type(), section.items);
    section.kind = KindOf(key);
    section.name = NameOf(key, bundle.sections.size());
    section.offset = object->begin_offset();
    TRY(CheckRange(Printable(section.name), section.offset, object->end_offset(), header.end, view.size()));
    section.bytes = TRY(MakeSubSource(file, section.offset, object->end_offset() - section.offset));
    if (!key.IsNameless() && !keys.insert(key).second)
      return Fail(ErrorCode::kDuplicateSection, "two sections \"{}\"", Printable(section.name));
    AddWarnings(bundle, key, section);
    bundle.sections.push_back(std::move(section));
  }
  std::ranges::stable_sort(bundle.sections, {}, &Section::offset);
  TRY(CheckNoOverlap(bundle.sections));
  TRY(AttachSizes(bundle, file));
  return bundle;
}

// --- writing ----------------------------------------------------------------------------------------------------------------------------

// A UUID of version 8 (RFC 9562: made as the writer likes) from section names and sizes, so that equal input gives equal bytes.
std::string DeriveUuid(std::span<const SectionToWrite> sections) {
  std::string text = "taskpress\n";
  for (const SectionToWrite& section : sections) {
    text += Format("{}\n{}\n", section.kind == SectionKind::kOther ? section.name : InfoOf(section.kind).name, section.size);
  }
  std::string hex = Sha256Hex(AsBytes(text)).substr(0, 32);
  hex[12] = '8';
  hex[16] = "89ab"[static_cast<uint8_t>(hex[16]) & 3U];
  for (const size_t dash : {8U, 13U, 18U, 23U}) hex.insert(dash, 1, '-');
  return hex;
}

using PairOffset = flatbuffers::Offset<litertlm::KeyValuePair>;

std::vector<PairOffset> BuildItems(flatbuffers::FlatBufferBuilder& builder, const LitertlmItems& items) {
  std::vector<PairOffset> pairs;
  for (const auto& [key, value] : items) {
    const auto text = litertlm::CreateStringValue(builder, builder.CreateString(value));
    pairs.push_back(litertlm::CreateKeyValuePair(builder, builder.CreateString(key), litertlm::VData::StringValue, text.Union()));
  }
  return pairs;
}

std::vector<uint64_t> PlaceSections(std::span<const SectionToWrite> sections) {
  std::vector<uint64_t> offsets;
  uint64_t at = kBlock;
  for (const SectionToWrite& section : sections) {
    offsets.push_back(at);
    at = AlignUp(at + section.size, kBlock);
  }
  return offsets;
}

void BuildHeader(flatbuffers::FlatBufferBuilder& builder, std::span<const SectionToWrite> sections, std::span<const uint64_t> offsets) {
  const auto system = litertlm::CreateSystemMetadata(
      builder, builder.CreateVector(BuildItems(
                   builder, {{"Authors", "Taskpress"}, {"uuid", DeriveUuid(sections)}, {"creation_timestamp", "1980-01-01T00:00:00Z"}})));
  std::vector<flatbuffers::Offset<litertlm::SectionObject>> objects;
  for (size_t i = 0; i < sections.size(); ++i) {
    const LitertlmIdentity typed = IdentityOf(sections[i]);
    const auto items = builder.CreateVector(BuildItems(builder, typed.items));
    const uint64_t begin = offsets[i] + sections[i].entry.value_or(0);
    objects.push_back(litertlm::CreateSectionObject(builder, items, begin, offsets[i] + sections[i].size, typed.type));
  }
  const auto list = litertlm::CreateSectionMetadata(builder, builder.CreateVector(objects));
  builder.Finish(litertlm::CreateLiteRTLMMetaData(builder, system, list));
}

// Only what ItemReader reads back.
Status CheckItems(std::string_view section, const LitertlmItems& items) {
  std::set<std::string_view> keys;
  for (const auto& [key, value] : items) {
    if (!keys.insert(key).second) return Fail(ErrorCode::kLitertlmSection, "section \"{}\": two items \"{}\"", section, Printable(key));
    if (!IsUtf8(key) || !IsUtf8(value)) return Fail(ErrorCode::kLitertlmSection, "section \"{}\": an item is not UTF-8", section);
  }
  return {};
}

Status CheckWritable(std::span<const SectionToWrite> sections) {
  if (sections.empty() || sections.size() > kMaxSections) {
    return Fail(ErrorCode::kLitertlmSection, "{} sections, a .litertlm holds 1 to {}", sections.size(), kMaxSections);
  }
  std::set<LitertlmKey> keys;
  uint64_t total = 0;
  for (const SectionToWrite& section : sections) {
    const std::string name = Printable(section.kind == SectionKind::kOther ? section.name : InfoOf(section.kind).name);
    if (name.empty()) return Fail(ErrorCode::kLitertlmSection, "a section of unknown kind has no name");
    if (section.size == 0) return Fail(ErrorCode::kLitertlmSection, "section \"{}\" is empty", name);
    if (section.size > kLargestFile - total)
      return Fail(ErrorCode::kLitertlmSection, "section \"{}\" of {} bytes does not fit", name, section.size);
    total += section.size;
    const LitertlmIdentity typed = IdentityOf(section);
    TRY(CheckItems(name, typed.items));
    if (!keys.insert(KeyOf(typed.type, typed.items)).second)
      return Fail(ErrorCode::kDuplicateSection, "two sections are called \"{}\"", name);
  }
  return {};
}

}  // namespace

Result<Bundle> ReadLitertlm(const SharedBytes& file, std::string_view name) {
  Result<Bundle> bundle = ReadFile(file);
  if (!bundle) return std::unexpected(WithContext(std::move(bundle).error(), name));
  bundle->path = name;
  return bundle;
}

Result<LitertlmPlan> PlanLitertlm(std::span<const SectionToWrite> sections) {
  TRY(CheckWritable(sections));
  LitertlmPlan plan;
  plan.offsets = PlaceSections(sections);
  plan.file_size = plan.offsets.back() + sections.back().size;
  flatbuffers::FlatBufferBuilder builder;
  BuildHeader(builder, sections, plan.offsets);
  const uint64_t end = kHeaderBegin + builder.GetSize();
  if (end > kClientHeader) {
    return Fail(ErrorCode::kLitertlmHeaderTooLarge, "the header needs {} bytes, clients read {}; shorten the section items", end,
                kClientHeader);
  }
  plan.header.resize(kBlock);
  std::ranges::copy(AsBytes(kLitertlmMagic), plan.header.begin());
  StoreLittle(plan.header.data() + kVersionOffset, kWrittenVersion);
  StoreLittle(plan.header.data() + kHeaderEndOffset, end);
  std::ranges::copy(std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize())), plan.header.begin() + kHeaderBegin);
  return plan;
}

Status WriteLitertlm(const LitertlmPlan& plan, std::span<const SectionToWrite> sections, OutputFile& file) {
  static constexpr std::array<std::byte, kBlock> kZeros{};
  TRY(file.WriteAt(0, plan.header));
  for (size_t i = 0; i < sections.size(); ++i) {
    static_cast<void>(TRY(sections[i].write(file, plan.offsets[i])));  // no checksum in this container
    const uint64_t end = plan.offsets[i] + sections[i].size;
    const uint64_t next = i + 1 < sections.size() ? plan.offsets[i + 1] : end;
    TRY(file.WriteAt(end, ByteView(kZeros).first(next - end)));
  }
  return {};
}

}  // namespace taskpress
