#include "schema/bundle.h"

#include <algorithm>
#include <array>

#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
#include "schema/base/text.h"
#include "schema/bundle_sizes.h"
#include "schema/litertlm.h"
#include "schema/litertlm_generated.h"
#include "schema/task.h"

namespace taskpress {
namespace {

constexpr int kGeneric = std::to_underlying(litertlm::AnySectionDataType::GenericBinaryData);
constexpr int kModel = std::to_underlying(litertlm::AnySectionDataType::TFLiteModel);
constexpr int kSentencePiece = std::to_underlying(litertlm::AnySectionDataType::SP_Tokenizer);
constexpr int kLlmMetadata = std::to_underlying(litertlm::AnySectionDataType::LlmMetadataProto);

// kind, name, .task entry, .litertlm data type, .litertlm model_type, is_model, required
constexpr auto kSections = std::to_array<SectionInfo>({
    {SectionKind::kMetadata, "metadata", "METADATA", kLlmMetadata, "", false, true},
    {SectionKind::kTokenizer, "tokenizer", "TOKENIZER_MODEL", kSentencePiece, "", false, true},
    {SectionKind::kEmbedder, "embedder", "TF_LITE_EMBEDDER", kModel, "tf_lite_embedder", true, true},
    {SectionKind::kPerLayerEmbedder, "per_layer_embedder", "TF_LITE_PER_LAYER_EMBEDDER", kModel, "tf_lite_per_layer_embedder", true, true},
    {SectionKind::kPrefillDecode, "prefill_decode", "TF_LITE_PREFILL_DECODE", kModel, "tf_lite_prefill_decode", true, true},
    {SectionKind::kVisionEncoder, "vision_encoder", "TF_LITE_VISION_ENCODER", kModel, "tf_lite_vision_encoder", true, false},
    {SectionKind::kVisionAdapter, "vision_adapter", "TF_LITE_VISION_ADAPTER", kModel, "tf_lite_vision_adapter", true, false},
    {SectionKind::kAudioEncoder, "audio_encoder", "TF_LITE_AUDIO_ENCODER_HW", kModel, "tf_lite_audio_encoder_hw", true, false},
    {SectionKind::kAudioAdapter, "audio_adapter", "TF_LITE_AUDIO_ADAPTER", kModel, "tf_lite_audio_adapter", true, false},
    {SectionKind::kEndOfAudio, "end_of_audio", "TF_LITE_END_OF_AUDIO", kModel, "tf_lite_end_of_audio", true, false},
    {SectionKind::kEndOfVision, "end_of_vision", "TF_LITE_END_OF_VISION", kModel, "tf_lite_end_of_vision", true, false},
    {SectionKind::kSizes, "taskpress_sizes", "TASKPRESS_SIZES", kGeneric, "", false, false},
    {SectionKind::kOther, "other", "", kGeneric, "", false, false},
});

// --- what is this file? -----------------------------------------------------------------------------------------------------------------

constexpr size_t kSniffedBytes = 512;

// A .task begins with a local header, behind at most 64 zero bytes (T6). "PK\5\6" is an archive without entries.
bool LooksLikeTask(std::string_view head) {
  const size_t first = head.find_first_not_of('\0');
  if (first > 64) return false;  // npos too
  return head.substr(first).starts_with("PK\x03\x04") || head.substr(first).starts_with("PK\x05\x06");
}

bool LooksLikeSafetensors(std::string_view head) {
  // A header length whose upper half is zero, then JSON.
  return head.size() > 8 && head[8] == '{' && head.substr(4, 4) == std::string_view("\0\0\0\0", 4);
}

bool LooksLikeHtml(std::string_view head) {
  const std::string text = ToLowerAscii(head.substr(std::min(head.find_first_not_of(" \t\r\n"), head.size())));
  return text.starts_with("<!doctype html") || text.starts_with("<html") || text.starts_with("<?xml");
}

// Why a file is not a bundle, in words that help: people mix these up with one another and with failed downloads.
Error DescribeForeignFile(std::string_view head, uint64_t size) {
  constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";
  const auto unknown = [](std::string text) { return Error{ErrorCode::kUnknownContainer, std::move(text)}; };
  const auto placeholder = [](std::string text) { return Error{ErrorCode::kNotATensorFile, std::move(text)}; };
  if (size == 0) return unknown("the file is empty; expected a .task or .litertlm bundle");
  if (head.starts_with(kLfsPointer)) return placeholder("a Git LFS pointer, not the bundle itself; fetch it with git lfs pull");
  if (LooksLikeHtml(head))
    return placeholder("a web page, not a bundle; the download was answered with HTML (signed in? licence accepted?)");
  if (head.starts_with("GGUF")) return unknown("a GGUF model (llama.cpp), expected a .task or .litertlm bundle");
  if (head.size() >= 8 && head.substr(4, 4) == "TFL3") {
    return unknown("a bare TFLite model (.tflite), expected a .task or .litertlm bundle, which holds several of them");
  }
  if (LooksLikeSafetensors(head)) return unknown("a safetensors checkpoint; convert its folder to a bundle first");
  if (kLitertlmMagic.starts_with(head)) return unknown(Format("truncated: the {} bytes of this file begin a .litertlm", size));
  if (head.find_first_not_of('\0') == std::string_view::npos) {
    return unknown(Format("the first {} bytes are zero; expected a .task or .litertlm bundle (an unfinished download?)", head.size()));
  }
  return unknown(Format("not a bundle: it begins with \"{}\", expected \"PK\\x03\\x04\" (.task) or \"{}\" (.litertlm)",
                        Printable(head.substr(0, 8)), kLitertlmMagic));
}

// --- reading and writing bytes ----------------------------------------------------------------------------------------------------------

constexpr uint64_t kCopyBlock = 1 << 20;

// Calls use(offset, block) for all bytes of a source, in bounded memory. Read() notices a file that shrank, which a view would not.
template <typename Use>
Status ForEachBlock(const ByteSource& source, Use use) {
  std::vector<std::byte> buffer(std::min(source.size(), kCopyBlock));
  for (uint64_t at = 0; at < source.size(); at += buffer.size()) {
    const ByteSpan block = ByteSpan(buffer).first(std::min<uint64_t>(buffer.size(), source.size() - at));
    TRY(source.Read(at, block));
    TRY(use(at, ByteView(block)));
  }
  return {};
}

}  // namespace

std::string_view NameOf(Container container) { return container == Container::kTask ? "task" : "litertlm"; }

std::optional<Container> ContainerFromPath(const std::filesystem::path& path) {
  const std::string extension = ToLowerAscii(path.extension().string());
  if (extension == ".task") return Container::kTask;
  if (extension == ".litertlm") return Container::kLitertlm;
  return std::nullopt;
}

std::span<const SectionInfo> AllSections() { return kSections; }

const SectionInfo& InfoOf(SectionKind kind) {
  return *std::ranges::find(kSections, kind, &SectionInfo::kind);  // every kind has its row
}

const Section* Bundle::Find(SectionKind kind) const {
  const auto found = std::ranges::find(sections, kind, &Section::kind);
  return found == sections.end() ? nullptr : &*found;
}

Result<Bundle> ReadBundle(const SharedBytes& file, std::string_view name) {
  const std::string_view head = AsText(file->view().first(std::min<uint64_t>(file->size(), kSniffedBytes)));
  if (head.starts_with(kLitertlmMagic)) return ReadLitertlm(file, name);
  if (LooksLikeTask(head)) return ReadTask(file, name);
  return std::unexpected(WithContext(DescribeForeignFile(head, file->size()), name));
}

Result<Bundle> ReadBundle(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  return ReadBundle(TRY(MakeMappedSource(file, 0, file->size())), path.string());
}

std::vector<std::string> Bundle::SizeNames() const {
  std::vector<std::string> names;
  for (const BundleSize& size : sizes) names.push_back(size.name);
  if (names.empty()) names.emplace_back();
  return names;
}

Result<const BundleSize*> Bundle::FindSize(std::string_view name) const {
  const std::string wanted = ToLowerAscii(name);
  std::string names;
  for (const BundleSize& size : sizes) {
    if (ToLowerAscii(size.name) == wanted) return &size;
    names += Format("{}{}", names.empty() ? "" : ", ", size.name);
  }
  if (names.empty()) return Fail(ErrorCode::kUsage, "{}: not an elastic bundle, it has one size without a name", path);
  return Fail(ErrorCode::kUsage, "{}: no size \"{}\"; it has {}", path, Printable(name), names);
}

Status VerifyChecksums(const Bundle& bundle) {
  TRY(VerifySizes(bundle));
  if (bundle.container != Container::kTask) return {};
  for (const Section& section : bundle.sections) {
    if (section.kind == SectionKind::kPrefillDecode && !bundle.sizes.empty()) continue;  // E7: it is one of the sizes
    uint32_t crc = 0;
    TRY(ForEachBlock(*section.bytes, [&](uint64_t, ByteView block) -> Status {
      crc = Crc32(crc, block);
      return {};
    }));
    if (crc != section.crc32) {
      return Fail(ErrorCode::kZipChecksum, "{}: section \"{}\" ({} bytes at {}) has CRC-32 {:08x}, the archive says {:08x}", bundle.path,
                  section.name, section.bytes->size(), section.offset, crc, section.crc32);
    }
  }
  return {};
}

SectionToWrite SectionFromSource(SectionKind kind, SharedBytes bytes) {
  const uint64_t size = bytes->size();
  const auto write = [bytes = std::move(bytes)](OutputFile& file, uint64_t offset) -> Result<uint32_t> {
    uint32_t crc = 0;
    TRY(ForEachBlock(*bytes, [&](uint64_t at, ByteView block) -> Status {
      crc = Crc32(crc, block);
      return file.WriteAt(offset + at, block);
    }));
    return crc;
  };
  return {.kind = kind, .name = {}, .size = size, .write = write};
}

Result<BundleLayout> PlanBundle(Container container, std::span<const SectionToWrite> sections) {
  if (container == Container::kTask) {
    TaskPlan plan = TRY(PlanTask(sections));
    return BundleLayout{.file_size = plan.file_size, .offsets = std::move(plan.data_offsets)};
  }
  LitertlmPlan plan = TRY(PlanLitertlm(sections));
  return BundleLayout{.file_size = plan.file_size, .offsets = std::move(plan.offsets)};
}

Status WriteBundle(Container container, std::span<const SectionToWrite> sections, OutputFile& file) {
  const BundleLayout layout = TRY(PlanBundle(container, sections));
  if (layout.file_size != file.size()) {
    return Fail(ErrorCode::kWriteFailed, "{}: created with {} bytes, the bundle has {}", file.path().string(), file.size(),
                layout.file_size);
  }
  if (container == Container::kTask) return WriteTask(TRY(PlanTask(sections)), sections, file);
  return WriteLitertlm(TRY(PlanLitertlm(sections)), sections, file);
}

}  // namespace taskpress
