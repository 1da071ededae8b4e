#include "converter/elastic_sections.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "schema/base/hash.h"
#include "schema/bundle_sizes.h"
#include "schema/member_image.h"

namespace taskpress {
namespace {

SizeList DescribeSizes(const PreparedModel& model, const MemberImage& image) {
  SizeList list{.region_bytes = image.size, .sizes = {}};
  list.sizes.push_back({.name = model.size_name,
                        .text_parameters = model.parameters.text,
                        .effective_parameters = model.parameters.effective,
                        .active = true});
  for (const PreparedSize& size : model.smaller) {
    list.sizes.push_back({.name = size.name, .text_parameters = size.parameters.text, .effective_parameters = size.parameters.effective});
  }
  for (size_t i = 0; i < list.sizes.size(); ++i) {
    list.sizes[i].offset = image.roots[i].offset;
    list.sizes[i].root_bytes = image.roots[i].image.root.size();
  }
  return list;
}

}  // namespace

Result<ElasticMember> MakeElasticMember(const PreparedModel& model) {
  std::vector<const Graph*> graphs{&model.graphs.prefill_decode};
  for (const PreparedSize& size : model.smaller) graphs.push_back(&size.prefill_decode);
  ElasticMember member;
  member.image = TRY(BuildMemberImage(graphs));
  member.list = DescribeSizes(model, member.image);
  TRY(DecodeSizes(AsBytes(EncodeSizes(member.list))));  // the reader's rules are the writer's
  return member;
}

SectionToWrite SizesSection(const SizeList& list, std::shared_ptr<const std::vector<uint32_t>> crcs) {
  SectionToWrite section{.kind = SectionKind::kSizes, .size = EncodeSizes(list).size(), .write = {}};
  section.write = [list, crcs = std::move(crcs)](OutputFile& file, uint64_t offset) -> Result<uint32_t> {
    SizeList known = list;
    for (size_t i = 0; i < crcs->size(); ++i) known.sizes[i].crc32 = (*crcs)[i];
    const std::string text = EncodeSizes(known);
    TRY(file.WriteAt(offset, AsBytes(text)));
    return Crc32(0, AsBytes(text));
  };
  return section;
}

}  // namespace taskpress
