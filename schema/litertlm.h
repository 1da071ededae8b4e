// `.litertlm`: a 16 KiB block with magic, version and a FlatBuffer table of sections, then the sections at multiples of 16 KiB.
//
// Rules L1.. are in schema/FORMATS.md. Callers outside schema/ use schema/bundle.h.
#ifndef TASKPRESS_SCHEMA_LITERTLM_H_
#define TASKPRESS_SCHEMA_LITERTLM_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/base/output_file.h"
#include "schema/bundle.h"
#include "schema/byte_source.h"

namespace taskpress {

inline constexpr std::string_view kLitertlmMagic = "LITERTLM";

// kLitertlmHeader, kLitertlmVersion, kLitertlmSection, kDuplicateSection. `file` needs a view(); only its header is read.
Result<Bundle> ReadLitertlm(const SharedBytes& file, std::string_view name);

struct LitertlmPlan {
  std::vector<std::byte> header;  // everything before the first section, complete
  std::vector<uint64_t> offsets;
  uint64_t file_size = 0;
};
// kLitertlmHeaderTooLarge, kLitertlmSection, kDuplicateSection when the sections cannot be written.
Result<LitertlmPlan> PlanLitertlm(std::span<const SectionToWrite> sections);

Status WriteLitertlm(const LitertlmPlan& plan, std::span<const SectionToWrite> sections, OutputFile& file);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_LITERTLM_H_
