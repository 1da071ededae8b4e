// The bytes of a file of packed weights (schema/FORMATS.md, "Packed weights"), for its reader and its writer.
#ifndef TASKPRESS_RUNTIME_WEIGHT_CACHE_LAYOUT_H_
#define TASKPRESS_RUNTIME_WEIGHT_CACHE_LAYOUT_H_

#include <array>
#include <cstdint>

#include "runtime/weight_cache_file.h"

namespace taskpress {

inline constexpr std::array<char, 8> kWeightCacheMagic = {'T', 'P', 'P', 'A', 'C', 'K', 'E', 'D'};
inline constexpr uint32_t kWeightCacheVersion = 1;

struct WeightCacheHeader {
  std::array<char, 8> magic = kWeightCacheMagic;
  uint32_t version = kWeightCacheVersion;
  uint32_t entries = 0;
  uint64_t table_offset = 0;
  uint64_t file_size = 0;
  WeightCacheFingerprint fingerprint = {};
  uint64_t table_checksum = 0;
  uint64_t checksum = 0;  // of what is before it
};
static_assert(sizeof(WeightCacheHeader) == 80 && sizeof(WeightCacheEntry) == 40);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_WEIGHT_CACHE_LAYOUT_H_
