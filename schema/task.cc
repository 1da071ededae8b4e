#include "schema/task.h"

#include <algorithm>
#include <array>
#include <set>

#include "schema/base/checked_math.h"
#include "schema/base/text.h"
#include "schema/bundle_sizes.h"

namespace taskpress {
namespace {

constexpr uint64_t kPrefixBytes = 4;         // T2: "PK" at byte 4
constexpr uint64_t kDataAlignment = 64;      // T3
constexpr uint64_t kSafeAlignment = 4;       // T12: what MediaPipe's bundler keeps
constexpr uint64_t kMaxPrefix = 64;          // T6
constexpr uint64_t kMaxGap = 64 * 1024;      // T7
constexpr uint64_t kMaxEntries = 64;         // T8
constexpr uint16_t kStored = 0;              // T1
constexpr uint16_t kHarmlessFlags = 0x0806;  // T1: deflate hints and "names are UTF-8"; every other bit changes what the bytes mean
constexpr uint64_t kMaxNameBytes = 255;
constexpr uint64_t kLargestFile = uint64_t{1} << 62;

// T9: a name is a plain file name in printable ASCII.
bool IsSafeName(std::string_view name) {
  const bool printable = std::ranges::all_of(name, [](char c) { return c >= 0x20 && c < 0x7F && c != '/' && c != '\\'; });
  return !name.empty() && printable && name.find("..") == std::string_view::npos;
}

const SectionInfo* FindByEntryName(std::string_view name) {
  for (const SectionInfo& info : AllSections()) {
    if (!info.task_entry.empty() && info.task_entry == name) return &info;
  }
  return nullptr;
}

// --- reading ----------------------------------------------------------------------------------------------------------------------------

struct Member {
  ZipEntry entry;
  uint64_t data_offset = 0;
};

// T1. A client maps the data, so it cannot be packed, encrypted or of a size told only behind it.
Status CheckPlainlyStored(const ZipEntry& entry) {
  const std::string name = Printable(entry.name);
  if ((entry.flags & 0x0001) != 0) return Fail(ErrorCode::kZipUnsupported, "entry \"{}\" is encrypted", name);
  if ((entry.flags & 0x0008) != 0) {
    return Fail(ErrorCode::kZipUnsupported,
                "entry \"{}\" has a data descriptor (it was zipped as a stream); readers need its size in front", name);
  }
  if ((entry.flags & ~kHarmlessFlags) != 0) return Fail(ErrorCode::kZipUnsupported, "entry \"{}\" has flags 0x{:04x}", name, entry.flags);
  if (entry.method != kStored) {
    return Fail(ErrorCode::kZipUnsupported,
                "entry \"{}\" is compressed (method {}), expected stored (method 0); pack it again, for example with zip -0", name,
                entry.method);
  }
  if (entry.stored_size != entry.size) {
    return Fail(ErrorCode::kZipEntry, "entry \"{}\" is stored, but has {} bytes in the archive and {} outside", name, entry.stored_size,
                entry.size);
  }
  return {};
}

// T10. Some readers believe the directory, some the local header; both must tell the same story.
Result<Member> ResolveMember(ByteView file, const ZipDirectory& directory, ZipEntry entry) {
  const std::string name = Printable(entry.name);
  const Result<DecodedZipEntry> local = DecodeLocalHeader(file, entry.header_offset);
  if (!local) return std::unexpected(WithContext(local.error(), Format("entry \"{}\"", name)));
  if (local->entry != entry) {
    return Fail(ErrorCode::kZipEntry, "entry \"{}\" of {} bytes: the local header at byte {} says otherwise (\"{}\", {} bytes)", name,
                entry.size, entry.header_offset, Printable(local->entry.name), local->entry.size);
  }
  const std::optional<uint64_t> end = CheckedAdd(local->end, entry.size);
  if (!end || *end > directory.offset) {
    return Fail(ErrorCode::kZipEntry, "entry \"{}\": {} bytes from byte {} reach into the directory at {}", name, entry.size, local->end,
                directory.offset);
  }
  return Member{std::move(entry), local->end};
}

Result<std::vector<Member>> ReadMembers(ByteView file, const ZipDirectory& directory) {
  if (directory.entries == 0) return Fail(ErrorCode::kZipStructure, "the archive is empty");
  if (directory.entries > kMaxEntries) return Fail(ErrorCode::kZipEntry, "{} entries, at most {} are read", directory.entries, kMaxEntries);
  const ByteView until_end = file.first(directory.end);
  std::vector<Member> members;
  std::set<std::string> names;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    DecodedZipEntry central = TRY(DecodeCentralEntry(until_end, at));
    at = central.end;
    const std::string& name = central.entry.name;
    if (!IsSafeName(name)) {
      return Fail(ErrorCode::kZipEntry, "entry name \"{}\": expected printable ASCII without / \\ and ..", Printable(name));
    }
    if (!names.insert(ToLowerAscii(name)).second) {
      return Fail(ErrorCode::kDuplicateSection, "two entries are called \"{}\" (upper and lower case count as equal)", Printable(name));
    }
    TRY(CheckPlainlyStored(central.entry));
    members.push_back(TRY(ResolveMember(file, directory, std::move(central.entry))));
  }
  if (at != directory.end) {
    return Fail(ErrorCode::kZipStructure, "the {} entries of the directory end at byte {}, the directory at {}", directory.entries, at,
                directory.end);
  }
  return members;
}

// T6, T7. Bytes that belong to no entry must be padding: something else there is either damage or hidden from us.
Status CheckGap(ByteView file, uint64_t begin, uint64_t end, uint64_t longest) {
  if (begin > end) return Fail(ErrorCode::kZipEntry, "two entries overlap: one ends at byte {}, the next begins at {}", begin, end);
  const ByteView gap = file.subspan(begin, end - begin);
  if (gap.size() > longest)
    return Fail(ErrorCode::kZipStructure, "{} bytes at {} belong to no entry, at most {} are padding", gap.size(), begin, longest);
  if (std::ranges::any_of(gap, [](std::byte b) { return b != std::byte{0}; })) {
    return Fail(ErrorCode::kZipStructure, "{} bytes at {} belong to no entry and are not zero", gap.size(), begin);
  }
  return {};
}

struct Range {
  uint64_t begin;
  uint64_t end;
};

Status CheckGaps(ByteView file, std::span<const Member> members, std::span<const BundleSize> sizes, uint64_t directory_offset) {
  std::vector<Range> taken;
  for (const Member& member : members) taken.push_back({member.entry.header_offset, member.data_offset + member.entry.size});
  for (const BundleSize& size : sizes) {  // E6: those behind the active one lie in its entry
    if (size.active) break;
    taken.push_back({size.offset, size.offset + size.root_bytes});
  }
  std::ranges::stable_sort(taken, {}, &Range::begin);
  uint64_t end = 0;
  for (const Range& range : taken) {
    TRY(CheckGap(file, end, range.begin, end == 0 ? kMaxPrefix : kMaxGap));
    end = range.end;
  }
  return CheckGap(file, end, directory_offset, kMaxGap);
}

// T5. An archive without end record is nearly always a broken-off download; the local headers still tell how far it should have gone.
Error DescribeCut(ByteView file) {
  uint64_t at = 0;
  std::string last = "the beginning";
  for (uint64_t i = 0; i < kMaxEntries; ++i) {
    const ByteView gap = file.subspan(at, std::min<uint64_t>(kMaxGap, file.size() - at));
    const auto header = static_cast<uint64_t>(std::ranges::find_if(gap, [](std::byte b) { return b != std::byte{0}; }) - gap.begin());
    const Result<DecodedZipEntry> local = DecodeLocalHeader(file, at + header);
    if (!local) break;
    const uint64_t left = file.size() - local->end;
    const std::string name = Printable(local->entry.name);
    if (local->entry.stored_size > left) {
      return {ErrorCode::kZipStructure, Format("truncated: entry \"{}\" needs {} bytes from byte {}, the file of {} bytes has {} there",
                                               name, local->entry.stored_size, local->end, file.size(), left)};
    }
    at = local->end + local->entry.stored_size;
    last = Format("entry \"{}\"", name);
  }
  return {ErrorCode::kZipStructure,
          Format("truncated: after {} at byte {} a directory and an end record should follow, the file of {} bytes has no end record", last,
                 at, file.size())};
}

void AddSection(Bundle& bundle, const Member& member, SharedBytes bytes) {
  const SectionInfo* info = FindByEntryName(member.entry.name);
  if (info == nullptr) {
    bundle.warnings.push_back(Format("entry \"{}\" is not known; it is carried along unread", member.entry.name));
  }
  if (member.data_offset % kSafeAlignment != 0) {
    bundle.warnings.push_back(Format("entry \"{}\" starts at byte {}, not a multiple of {}; some clients copy it", member.entry.name,
                                     member.data_offset, kSafeAlignment));
  }
  bundle.sections.push_back({.kind = info != nullptr ? info->kind : SectionKind::kOther,
                             .name = info != nullptr ? std::string(info->name) : member.entry.name,
                             .offset = member.data_offset,
                             .bytes = std::move(bytes),
                             .items = {},
                             .crc32 = member.entry.crc32});
}

Result<Bundle> ReadArchive(const SharedBytes& file) {
  const ByteView view = file->view();
  const std::optional<uint64_t> end_record = FindEndRecord(view);
  if (!end_record) return std::unexpected(DescribeCut(view));
  const ZipDirectory directory = TRY(DecodeEndOfDirectory(view, *end_record));
  std::vector<Member> members = TRY(ReadMembers(view, directory));
  std::ranges::sort(members, {}, [](const Member& member) { return member.entry.header_offset; });
  Bundle bundle;
  bundle.container = Container::kTask;
  bundle.file_size = view.size();
  for (const Member& member : members) {
    AddSection(bundle, member, TRY(MakeSubSource(file, member.data_offset, member.entry.size)));
  }
  TRY(AttachSizes(bundle, file));
  TRY(CheckGaps(view, members, bundle.sizes, directory.offset));
  return bundle;
}

// --- writing ----------------------------------------------------------------------------------------------------------------------------

// Names that came from a .litertlm ("tf_lite_aux") are spelled the .task way.
std::string EntryNameOf(const SectionToWrite& section) {
  if (section.kind != SectionKind::kOther) return std::string(InfoOf(section.kind).task_entry);
  return section.name.starts_with("tf_lite_") ? ToUpperAscii(section.name) : section.name;
}

}  // namespace

Result<Bundle> ReadTask(const SharedBytes& file, std::string_view name) {
  Result<Bundle> bundle = ReadArchive(file);
  if (!bundle) return std::unexpected(WithContext(std::move(bundle).error(), name));
  bundle->path = name;
  return bundle;
}

Result<TaskPlan> PlanTask(std::span<const SectionToWrite> sections, uint64_t zip64_from) {
  if (sections.empty() || sections.size() > kMaxEntries) {
    return Fail(ErrorCode::kZipEntry, "{} sections, a .task holds 1 to {}", sections.size(), kMaxEntries);
  }
  TaskPlan plan;
  plan.zip64_from = zip64_from;
  std::set<std::string> names;
  uint64_t at = kPrefixBytes;
  for (const SectionToWrite& section : sections) {
    const uint64_t entry_size = section.size - section.entry.value_or(0);
    ZipEntry entry{.name = EntryNameOf(section), .stored_size = entry_size, .size = entry_size, .header_offset = at};
    if (!IsSafeName(entry.name)) return Fail(ErrorCode::kZipEntry, "\"{}\" cannot be the name of an entry", Printable(entry.name));
    if (!names.insert(ToLowerAscii(entry.name)).second)
      return Fail(ErrorCode::kDuplicateSection, "two sections are called \"{}\"", entry.name);
    if (entry.size == 0) return Fail(ErrorCode::kZipEntry, "section \"{}\" is empty", entry.name);
    if (entry.name.size() > kMaxNameBytes || entry.size > kLargestFile - at) {
      return Fail(ErrorCode::kZipEntry, "section \"{}\" of {} bytes does not fit", Printable(entry.name), entry.size);
    }
    if (section.entry && plan.entries.empty()) {  // T6: an archive begins with a local header
      return Fail(ErrorCode::kZipEntry, "section \"{}\" has several sizes and cannot be the first of a .task", entry.name);
    }
    if (section.entry) {  // E10
      plan.data_offsets.push_back(AlignUp(at + kRootRoom, kDataAlignment));
      entry.header_offset = plan.data_offsets.back() + *section.entry - LocalHeaderBytes(entry, 1, zip64_from);
    } else {
      plan.data_offsets.push_back(at + LocalHeaderBytes(entry, kDataAlignment, zip64_from));
    }
    at = plan.data_offsets.back() + section.size;
    plan.entries.push_back(std::move(entry));
  }
  plan.directory_offset = at;
  plan.file_size = at + EncodeDirectory(plan).size();
  return plan;
}

std::vector<std::byte> EncodeLocalHeader(const TaskPlan& plan, size_t index) {
  std::vector<std::byte> out;
  AppendLocalHeader(out, plan.entries[index], kDataAlignment, plan.zip64_from);
  return out;
}

std::vector<std::byte> EncodeDirectory(const TaskPlan& plan) {
  std::vector<std::byte> out;
  for (const ZipEntry& entry : plan.entries) AppendCentralEntry(out, entry, plan.zip64_from);
  const ZipDirectory directory{.offset = plan.directory_offset, .end = plan.directory_offset + out.size(), .entries = plan.entries.size()};
  AppendEndOfDirectory(out, directory, plan.zip64_from);
  return out;
}

namespace {

// Between the end of the section before and the region; the room in it is for the header of the first root.
Status ClearRoom(const TaskPlan& plan, std::span<const SectionToWrite> sections, size_t index, OutputFile& file) {
  const uint64_t before = index == 0 ? kPrefixBytes : plan.data_offsets[index - 1] + sections[index - 1].size;
  return file.WriteAt(before, std::vector<std::byte>(plan.data_offsets[index] - before));
}

}  // namespace

Status WriteTask(TaskPlan plan, std::span<const SectionToWrite> sections, OutputFile& file) {
  TRY(file.WriteAt(0, std::array<std::byte, kPrefixBytes>{}));
  for (size_t i = 0; i < sections.size(); ++i) {
    if (sections[i].entry) TRY(ClearRoom(plan, sections, i, file));
    // T4: the CRC-32 stands in front of the data, so the data comes first.
    plan.entries[i].crc32 = TRY(sections[i].write(file, plan.data_offsets[i]));
    TRY(file.WriteAt(plan.entries[i].header_offset, EncodeLocalHeader(plan, i)));
  }
  return file.WriteAt(plan.directory_offset, EncodeDirectory(plan));
}

}  // namespace taskpress
