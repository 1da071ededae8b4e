// A bundle is a list of named sections. `.task` (stored zip) and `.litertlm` are two spellings of the same list.
//
// One table says how a section is called in each spelling and whether a Gemma 3n text bundle needs it; readers, writers, inspect and verify
// all loop over it.
#ifndef TASKPRESS_SCHEMA_BUNDLE_H_
#define TASKPRESS_SCHEMA_BUNDLE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/base/output_file.h"
#include "schema/byte_source.h"

namespace taskpress {

enum class Container : uint8_t { kTask, kLitertlm };
[[nodiscard]] std::string_view NameOf(Container container);  // "task", "litertlm"
// By the extension of an output name.
[[nodiscard]] std::optional<Container> ContainerFromPath(const std::filesystem::path& path);

enum class SectionKind : uint8_t {
  kMetadata,
  kTokenizer,  // SentencePiece ModelProto
  kEmbedder,
  kPerLayerEmbedder,
  kPrefillDecode,
  kVisionEncoder,
  kVisionAdapter,
  kAudioEncoder,
  kAudioAdapter,
  kEndOfAudio,
  kEndOfVision,
  kOther,  // known to neither table nor readers: carried along, reported, never interpreted
};

struct SectionInfo {
  SectionKind kind;
  std::string_view name;           // ours: "prefill_decode"
  std::string_view task_entry;     // "TF_LITE_PREFILL_DECODE"
  int litertlm_data_type;          // AnySectionDataType
  std::string_view litertlm_type;  // value of the item "model_type", empty for non-models
  bool is_model;
  bool required;
};

std::span<const SectionInfo> AllSections();
const SectionInfo& InfoOf(SectionKind kind);

// A section as read from a file.
struct Section {
  SectionKind kind = SectionKind::kOther;
  std::string name;                                        // SectionInfo::name, or the file's own name for kOther
  uint64_t offset = 0;                                     // from the start of the file
  SharedBytes bytes;                                       // over the file's mapping
  std::vector<std::pair<std::string, std::string>> items;  // .litertlm key/value items (strings)
  uint32_t crc32 = 0;                                      // .task: what the directory says; see VerifyChecksums
};

struct Bundle {
  Container container = Container::kTask;
  std::string path;
  uint64_t file_size = 0;
  std::string version;  // .litertlm "1.5.0", empty for .task
  std::vector<std::pair<std::string, std::string>> system_items;
  std::vector<Section> sections;  // in file order
  std::vector<std::string> warnings;

  [[nodiscard]] const Section* Find(SectionKind kind) const;
};

// Sniffs the container by its first bytes, maps the file, checks every range and name before anything is used. Never reads payloads.
// kUnknownContainer or kNotATensorFile, with the name of what it is instead, for anything that is not a bundle.
Result<Bundle> ReadBundle(const std::filesystem::path& path);
// The same for bytes in memory (they need a view()); `name` stands for the file in messages.
Result<Bundle> ReadBundle(const SharedBytes& file, std::string_view name);
// The .task checksums: reads every byte. kZipChecksum. A .litertlm has none and passes.
Status VerifyChecksums(const Bundle& bundle);

// A section to be written. `write` puts exactly `size` bytes at `offset` of the file and returns their CRC-32 (zip needs it).
struct SectionToWrite {
  SectionKind kind = SectionKind::kOther;
  std::string name = {};  // needed for kOther only
  uint64_t size = 0;
  std::function<Result<uint32_t>(OutputFile& file, uint64_t offset)> write;
  // .litertlm: further key/value items, such as {"backend_constraint", "cpu"}; the model_type of a known kind is written without being
  // asked.
  std::vector<std::pair<std::string, std::string>> items = {};
};
// Copies a source block by block.
SectionToWrite SectionFromSource(SectionKind kind, SharedBytes bytes);

// Bytes of the finished file and the offset of each section, known before anything is written.
struct BundleLayout {
  uint64_t file_size = 0;
  std::vector<uint64_t> offsets;
};
Result<BundleLayout> PlanBundle(Container container, std::span<const SectionToWrite> sections);

// Writes all sections and the framing around them into `file`, created with PlanBundle's size. The caller commits. Same sections, same
// bytes.
Status WriteBundle(Container container, std::span<const SectionToWrite> sections, OutputFile& file);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BUNDLE_H_
