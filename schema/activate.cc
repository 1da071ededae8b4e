#include "schema/activate.h"

#include <algorithm>

#include "schema/base/checked_math.h"
#include "schema/base/hash.h"
#include "schema/bundle_sizes.h"
#include "schema/litertlm_generated.h"
#include "schema/litertlm_sections.h"
#include "schema/zip_records.h"

namespace taskpress {
namespace {

constexpr uint64_t kLitertlmHeaderEnd = 24;
constexpr uint64_t kLitertlmHeader = 32;
constexpr uint64_t kCopyBlock = 8 << 20;

std::vector<std::byte> Bytes(ByteView view) { return {view.begin(), view.end()}; }

// --- .litertlm: one number
// ----------------------------------------------------------------------------------------------------------------

// The header with prefill_decode beginning at another byte; the file was read, so it is sound.
FilePatch MoveLitertlmSection(ByteView file, const Section& section, uint64_t begin) {
  const auto end = LoadLittle<uint64_t>(file.data() + kLitertlmHeaderEnd);
  FilePatch patch{.offset = kLitertlmHeader, .bytes = Bytes(file.subspan(kLitertlmHeader, end - kLitertlmHeader))};
  auto* root = flatbuffers::GetMutableRoot<litertlm::LiteRTLMMetaData>(patch.bytes.data());
  auto* objects = root->mutable_section_metadata()->mutable_objects();
  for (uint32_t i = 0; i < objects->size(); ++i) {
    litertlm::SectionObject* object = objects->GetMutableObject(i);
    if (object->begin_offset() == section.offset) object->mutate_begin_offset(begin);  // no two sections begin at one byte
  }
  return patch;
}

// --- .task: a local header and the directory
// ----------------------------------------------------------------------------------------------

struct Archive {
  std::vector<ZipEntry> entries;  // in the order of the directory
  ZipDirectory directory;
};

Result<Archive> ReadArchive(ByteView file) {
  Archive archive;
  const std::optional<uint64_t> end = FindEndRecord(file);
  if (!end) return Fail(ErrorCode::kZipStructure, "no end record");
  archive.directory = TRY(DecodeEndOfDirectory(file, *end));
  uint64_t at = archive.directory.offset;
  for (uint64_t i = 0; i < archive.directory.entries; ++i) {
    DecodedZipEntry entry = TRY(DecodeCentralEntry(file, at));
    at = entry.end;
    archive.entries.push_back(std::move(entry.entry));
  }
  return archive;
}

ZipEntry& EntryOf(Archive& archive, SectionKind kind) {
  return *std::ranges::find(archive.entries, InfoOf(kind).task_entry, &ZipEntry::name);  // the bundle has the section
}

// Local headers are written without padding: they end where the data begin.
FilePatch LocalHeader(ZipEntry& entry, uint64_t data_offset) {
  entry.header_offset = data_offset - LocalHeaderBytes(entry, 1, kZip64From);
  FilePatch patch{.offset = entry.header_offset, .bytes = {}};
  AppendLocalHeader(patch.bytes, entry, 1, kZip64From);
  return patch;
}

Status PatchTask(const Bundle& bundle, ByteView file, const BundleSize& size, ByteView list, FilePatches& out) {
  Archive archive = TRY(ReadArchive(file));
  ZipEntry& listed = EntryOf(archive, SectionKind::kSizes);
  listed.crc32 = Crc32(0, list);
  constexpr uint64_t kCrcOfLocalHeader = 14;
  FilePatch list_crc{.offset = listed.header_offset + kCrcOfLocalHeader, .bytes = std::vector<std::byte>(sizeof(uint32_t))};
  StoreLittle(list_crc.bytes.data(), listed.crc32);

  ZipEntry& model = EntryOf(archive, SectionKind::kPrefillDecode);
  const uint64_t old_data = bundle.Find(SectionKind::kPrefillDecode)->offset;
  const FilePatch cleared{.offset = model.header_offset, .bytes = std::vector<std::byte>(old_data - model.header_offset)};
  model.crc32 = size.crc32;
  model.size = model.stored_size = size.bytes->size();
  FilePatch header = LocalHeader(model, size.offset);

  FilePatch directory{.offset = archive.directory.offset, .bytes = {}};
  for (const ZipEntry& entry : archive.entries) AppendCentralEntry(directory.bytes, entry, kZip64From);
  archive.directory.end = archive.directory.offset + directory.bytes.size();
  AppendEndOfDirectory(directory.bytes, archive.directory, kZip64From);
  out.file_size = directory.offset + directory.bytes.size();
  for (FilePatch& patch : std::vector<FilePatch>{std::move(list_crc), cleared, std::move(header), std::move(directory)}) {
    out.patches.push_back(std::move(patch));
  }
  return {};
}

// --- the file
// -----------------------------------------------------------------------------------------------------------------------------

Status CopyFile(const ByteSource& source, uint64_t size, OutputFile& file) {
  std::vector<std::byte> block;
  for (uint64_t at = 0; at < size; at += block.size()) {
    block.resize(std::min(kCopyBlock, size - at));
    TRY(source.Read(at, block));
    TRY(file.WriteAt(at, block));
  }
  return {};
}

}  // namespace

Result<FilePatches> PlanActivation(const Bundle& bundle, const SharedBytes& file, std::string_view name) {
  const BundleSize& size = *TRY(bundle.FindSize(name));
  FilePatches out{.patches = {}, .file_size = bundle.file_size};
  if (size.active) return out;
  SizeList list = ListOf(bundle);
  for (ListedSize& listed : list.sizes) listed.active = listed.name == size.name;
  const std::string text = EncodeSizes(list);
  out.patches.push_back({.offset = bundle.Find(SectionKind::kSizes)->offset, .bytes = Bytes(AsBytes(text))});
  if (bundle.container == Container::kLitertlm) {
    out.patches.push_back(MoveLitertlmSection(file->view(), *bundle.Find(SectionKind::kPrefillDecode), size.offset));
  } else {
    TRY(PatchTask(bundle, file->view(), size, AsBytes(text), out));
  }
  return out;
}

Status ActivateSize(const std::filesystem::path& from, const std::filesystem::path& to, std::string_view name, OutputFileOptions options) {
  const std::shared_ptr<const MappedFile> mapped = TRY(MappedFile::Open(from));
  const SharedBytes source = TRY(MakeMappedSource(mapped, 0, mapped->size()));
  const Bundle bundle = TRY(ReadBundle(source, from.string()));
  const FilePatches plan = TRY(PlanActivation(bundle, source, name));
  OutputFile file = TRY(OutputFile::Create(to, plan.file_size, options));
  TRY(CopyFile(*source, std::min(source->size(), plan.file_size), file));
  for (const FilePatch& patch : plan.patches) TRY(file.WriteAt(patch.offset, patch.bytes));
  TRY(file.Flush());
  const Bundle written = TRY(ReadBundle(file.part_path()));
  if (!TRY(written.FindSize(name))->active) {
    return Fail(ErrorCode::kWriteFailed, "{}: does not read back as it was written; is the disk sound?", to.string());
  }
  return file.Commit();
}

}  // namespace taskpress
