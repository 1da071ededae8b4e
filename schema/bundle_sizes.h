// The list of sizes of an elastic bundle: its text, and whether the file is as it says. Rules E1 to E8 of FORMATS.md.
#ifndef TASKPRESS_SCHEMA_BUNDLE_SIZES_H_
#define TASKPRESS_SCHEMA_BUNDLE_SIZES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/bundle.h"
#include "schema/member_image.h"

namespace taskpress {

// What the list says of one size. Offsets count from the first root.
struct ListedSize {
  std::string name;
  int64_t text_parameters = 0;
  int64_t effective_parameters = 0;
  uint64_t offset = 0;
  uint64_t root_bytes = 0;
  uint32_t crc32 = 0;
  bool active = false;
};
struct SizeList {
  uint64_t region_bytes = 0;  // roots and weights
  std::vector<ListedSize> sizes;
};

// Equally long whatever the CRCs and whichever size is active.
std::string EncodeSizes(const SizeList& list);
// kBundleSizes: E1 to E3, and exactly one active size (E4).
Result<SizeList> DecodeSizes(ByteView text);
// The list that a bundle was read with.
SizeList ListOf(const Bundle& bundle);

// Fills Bundle::sizes from the bundle's list, if it has one; its sections are known and in file order. kBundleSizes: E1 to E7.
Status AttachSizes(Bundle& bundle, const SharedBytes& file);

// E8. kZipChecksum.
Status VerifySizes(const Bundle& bundle);

// All roots and the weights behind them, as one section of another file: the rooms come out as zeros. The list must follow in a section of
// its own.
SectionToWrite SectionFromSizes(const Bundle& bundle);

// The CRC-32 of every size, from those of each root's bytes and of all that follows the last root's.
struct SizeChecksums {
  std::vector<uint32_t> roots;    // of [offset, offset + root_bytes)
  std::vector<uint64_t> offsets;  // of the roots
  std::vector<uint64_t> root_bytes;
  uint32_t weights = 0;  // of [last root's end, region_bytes)
  uint64_t region_bytes = 0;
};
std::vector<uint32_t> CombineChecksums(const SizeChecksums& checksums);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BUNDLE_SIZES_H_
