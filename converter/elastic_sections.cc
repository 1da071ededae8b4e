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

Result<std::vector<SectionToWrite>> ElasticSections(const PreparedModel& model, const RowWork& work, const BytesWritten& on_bytes) {
  std::vector<const Graph*> graphs{&model.graphs.prefill_decode};
  for (const PreparedSize& size : model.smaller) graphs.push_back(&size.prefill_decode);
  const auto image = std::make_shared<MemberImage>(TRY(BuildMemberImage(graphs)));
  const auto list = std::make_shared<SizeList>(DescribeSizes(model, *image));
  TRY(DecodeSizes(AsBytes(EncodeSizes(*list))));  // the reader's rules are the writer's
  std::vector<SectionToWrite> sections;
  sections.push_back({.kind = SectionKind::kPrefillDecode, .size = image->size, .write = nullptr});
  sections.back().entry = 0;
  sections.back().write = [image, list, work, on_bytes](OutputFile& file, uint64_t offset) -> Result<uint32_t> {
    const std::vector<uint32_t> checksums = TRY(WriteMember(std::move(*image), file, offset, work, on_bytes));
    if (checksums.size() != list->sizes.size()) return Fail(ErrorCode::kWriteFailed, "the sizes of a model are written once");
    for (size_t i = 0; i < checksums.size(); ++i) list->sizes[i].crc32 = checksums[i];
    return checksums.front();
  };
  sections.push_back({.kind = SectionKind::kSizes, .size = EncodeSizes(*list).size(), .write = nullptr});
  sections.back().write = [list](OutputFile& file, uint64_t offset) -> Result<uint32_t> {
    const std::string text = EncodeSizes(*list);
    TRY(file.WriteAt(offset, AsBytes(text)));
    return Crc32(0, AsBytes(text));
  };
  return sections;
}

}  // namespace taskpress
