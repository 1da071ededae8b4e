// Elastic bundles put together by hand: roots and weights are text, the CRCs are computed over whole ranges.
#ifndef TASKPRESS_TESTS_SCHEMA_ELASTIC_FILES_H_
#define TASKPRESS_TESTS_SCHEMA_ELASTIC_FILES_H_

#include <string>
#include <utility>
#include <vector>

#include "schema/base/hash.h"
#include "schema/bundle_sizes.h"
#include "tests/schema/bundle_files.h"

namespace taskpress {

struct HandmadeSizes {
  std::string region;  // rooms are zeros
  SizeList list;       // the first size is active
};

// Three roots of 1000, 16384 and 77 bytes, each filled with its own letter, and weights of `weights` bytes.
inline HandmadeSizes MakeSizes(size_t weights = 5000) {
  HandmadeSizes made;
  const std::pair<const char*, size_t> roots[] = {{"big", 1000}, {"Middle 2.5B", 16384}, {"small", 77}};
  uint64_t offset = 0;
  for (const auto& [name, bytes] : roots) {
    made.region.resize(offset, '\0');
    made.region.append(bytes, name[0]);
    made.list.sizes.push_back({.name = name, .text_parameters = 900, .effective_parameters = 500, .offset = offset, .root_bytes = bytes});
    offset = (offset + bytes + 128 + 16383) / 16384 * 16384;
  }
  made.region.resize((made.region.size() + 63) / 64 * 64, '\0');
  for (size_t i = 0; i < weights; ++i) made.region += static_cast<char>('0' + i % 71);
  made.list.region_bytes = made.region.size();
  for (ListedSize& size : made.list.sizes) size.crc32 = Crc32(0, AsBytes(std::string_view(made.region).substr(size.offset)));
  made.list.sizes[0].active = true;
  return made;
}

// The region as it is, shown from `entry` on.
inline SectionToWrite RegionSection(const std::string& region, uint64_t entry) {
  SectionToWrite section = SectionFromSource(SectionKind::kPrefillDecode, InMemory(region));
  section.entry = entry;
  section.write = [region, entry](OutputFile& file, uint64_t offset) -> Result<uint32_t> {
    TRY(file.WriteAt(offset, AsBytes(region)));
    return Crc32(0, AsBytes(std::string_view(region).substr(entry)));
  };
  return section;
}

// SmallSections with the region for a model and `list`, or what is said instead of it, behind it.
inline std::vector<SectionToWrite> ElasticBundle(const HandmadeSizes& made, const std::string& list = "") {
  std::vector<SectionToWrite> sections = SmallSections();
  uint64_t entry = 0;
  for (const ListedSize& size : made.list.sizes) entry = size.active ? size.offset : entry;
  sections.back() = RegionSection(made.region, entry);
  sections.push_back(TextSection(SectionKind::kSizes, list.empty() ? EncodeSizes(made.list) : list));
  return sections;
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_SCHEMA_ELASTIC_FILES_H_
