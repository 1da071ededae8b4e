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
  kSizes,  // the list of sizes of an elastic bundle
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

// One size of an elastic bundle: a root of the prefill_decode member in front of weights that all sizes share.
struct BundleSize {
  std::string name;
  int64_t text_parameters = 0;
  int64_t effective_parameters = 0;  // without the embedding tables
  uint64_t offset = 0;               // of its root, from the start of the file
  uint64_t root_bytes = 0;
  SharedBytes bytes;   // the member as this size: its root to the end of the weights
  uint32_t crc32 = 0;  // of those bytes, with zeros in the room of a zip header; see VerifyChecksums
  bool active = false;
};

struct Bundle {
  Container container = Container::kTask;
  std::string path;
  uint64_t file_size = 0;
  std::string version;  // .litertlm "1.5.0", empty for .task
  std::vector<std::pair<std::string, std::string>> system_items;
  std::vector<Section> sections;  // in file order
  std::vector<BundleSize> sizes;  // in file order; empty: the bundle is not elastic
  std::vector<std::string> warnings;

  [[nodiscard]] const Section* Find(SectionKind kind) const;
  // Of all sizes; one empty name for a bundle that is not elastic.
  [[nodiscard]] std::vector<std::string> SizeNames() const;
  // By name, in any case. kUsage with the names there are.
  [[nodiscard]] Result<const BundleSize*> FindSize(std::string_view name) const;
};

// Sniffs the container by its first bytes, maps the file, checks every range and name before anything is used. Never reads payloads.
// kUnknownContainer or kNotATensorFile, with the name of what it is instead, for anything that is not a bundle.
Result<Bundle> ReadBundle(const std::filesystem::path& path);
// The same for bytes in memory (they need a view()); `name` stands for the file in messages.
Result<Bundle> ReadBundle(const SharedBytes& file, std::string_view name);
// The checksums of a .task and of the sizes of an elastic bundle: reads every byte once. kZipChecksum. A plain .litertlm has none and
// passes.
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
  // Elastic bundles: clients are shown [entry, size) of these bytes, which begin with a root and keep room for a zip header in front of
  // every further one. `write` returns the CRC-32 of what they are shown.
  std::optional<uint64_t> entry = {};
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
