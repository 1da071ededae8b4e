// The prefill_decode member of an elastic bundle: all sizes' roots over one set of weights, and the list that says so. FORMATS, rules E.
#ifndef TASKPRESS_CONVERTER_ELASTIC_SECTIONS_H_
#define TASKPRESS_CONVERTER_ELASTIC_SECTIONS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "converter/prepare.h"
#include "schema/base/error.h"
#include "schema/bundle_sizes.h"
#include "schema/member_image.h"

namespace taskpress {

struct ElasticMember {
  MemberImage image;
  SizeList list;  // but for the checksums
};

// Of a model with smaller sizes. The errors of BuildMemberImage() and DecodeSizes().
Result<ElasticMember> MakeElasticMember(const PreparedModel& model);

// The list's section; crcs: [sizes], read when the section is written.
SectionToWrite SizesSection(const SizeList& list, std::shared_ptr<const std::vector<uint32_t>> crcs);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ELASTIC_SECTIONS_H_
