#include "schema/bundle_sizes.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "schema/base/checked_math.h"
#include "schema/base/hash.h"
#include "schema/base/text.h"
#include "schema/json.h"

namespace taskpress {
namespace {

constexpr uint64_t kMaxListBytes = 64 * 1024;  // E1
constexpr size_t kMinSizes = 2;                // E2
constexpr size_t kMaxSizes = 16;
constexpr size_t kMaxNameBytes = 64;
constexpr uint64_t kMinRootBytes = 8;  // E3: the file identifier ends there
constexpr uint64_t kLargestRegion = uint64_t{1} << 62;
constexpr uint64_t kCopyBlock = 1 << 20;
constexpr std::string_view kVersion = "taskpress_sizes";

// --- the text ---------------------------------------------------------------------------------------------------------------------------

Result<ListedSize> DecodeSize(const Json& json) {
  // What is missing or of another type leaves a value behind that the writer would spell differently (E1).
  ListedSize size;
  size.name = json.value("name", "");
  size.text_parameters = json.value("text", int64_t{0});
  size.effective_parameters = json.value("effective", int64_t{0});
  size.offset = json.value("offset", uint64_t{0});
  size.root_bytes = json.value("root", uint64_t{0});
  size.active = json.value("active", 0) == 1;
  const std::string crc = json.value("crc32", "");
  std::from_chars(crc.data(), crc.data() + crc.size(), size.crc32, 16);
  return size;
}

// E2
Status CheckNames(const SizeList& list) {
  if (list.sizes.size() < kMinSizes || list.sizes.size() > kMaxSizes) {
    return Fail(ErrorCode::kBundleSizes, "{} sizes, from {} to {} are possible", list.sizes.size(), kMinSizes, kMaxSizes);
  }
  std::set<std::string> names;
  for (const ListedSize& size : list.sizes) {
    const bool printable = std::ranges::all_of(size.name, [](char c) { return c >= 0x20 && c < 0x7F; });
    if (size.name.empty() || size.name.size() > kMaxNameBytes || !printable) {
      return Fail(ErrorCode::kBundleSizes, "\"{}\" is no name of a size: 1 to {} printable ASCII characters", Printable(size.name),
                  kMaxNameBytes);
    }
    if (!names.insert(ToLowerAscii(size.name)).second) return Fail(ErrorCode::kBundleSizes, "two sizes are called \"{}\"", size.name);
    if (size.effective_parameters < 1 || size.text_parameters < size.effective_parameters) {
      return Fail(ErrorCode::kBundleSizes, "size \"{}\" has {} parameters, {} of them effective", size.name, size.text_parameters,
                  size.effective_parameters);
    }
  }
  return {};
}

// E3
Status CheckRoots(const SizeList& list) {
  if (list.region_bytes > kLargestRegion) return Fail(ErrorCode::kBundleSizes, "a region of {} bytes", list.region_bytes);
  uint64_t expected = 0;
  for (const ListedSize& size : list.sizes) {
    if (size.offset != expected) {
      return Fail(ErrorCode::kBundleSizes, "the root of size \"{}\" is at {}, expected at {}", size.name, size.offset, expected);
    }
    if (size.root_bytes < kMinRootBytes || !RangeInside(size.offset, size.root_bytes, list.region_bytes)) {
      return Fail(ErrorCode::kBundleSizes, "the root of size \"{}\" has {} bytes at {}, the region has {}", size.name, size.root_bytes,
                  size.offset, list.region_bytes);
    }
    expected = NextRoot(size.offset, size.root_bytes);
  }
  return {};
}

// --- the file ---------------------------------------------------------------------------------------------------------------------------

Status CheckZeros(ByteView file, uint64_t begin, uint64_t end) {
  const ByteView gap = file.subspan(begin, end - begin);
  if (std::ranges::all_of(gap, [](std::byte b) { return b == std::byte{0}; })) return {};
  return Fail(ErrorCode::kBundleSizes, "the {} bytes at {}, between two roots, are not zero", gap.size(), begin);
}

// E4, E5: where the region begins in the file.
Result<uint64_t> FindRegion(const Bundle& bundle, const SizeList& list) {
  const Section* model = bundle.Find(SectionKind::kPrefillDecode);
  if (model == nullptr) return Fail(ErrorCode::kBundleSizes, "a list of sizes without a prefill_decode section");
  const auto active = std::ranges::find(list.sizes, true, &ListedSize::active);
  if (active->offset > model->offset || model->bytes->size() != list.region_bytes - active->offset) {
    return Fail(ErrorCode::kBundleSizes, "size \"{}\" is active and has {} bytes, {} in front of it; prefill_decode has {} bytes at {}",
                active->name, list.region_bytes - active->offset, active->offset, model->bytes->size(), model->offset);
  }
  if (bundle.container == Container::kTask && model->crc32 != active->crc32) {  // E7
    return Fail(ErrorCode::kBundleSizes, "the CRC-32 of prefill_decode is {:08x}, that of the active size \"{}\" {:08x}", model->crc32,
                active->name, active->crc32);
  }
  const uint64_t begin = model->offset - active->offset;
  for (const Section& section : bundle.sections) {
    if (&section == model || section.offset + section.bytes->size() <= begin || section.offset >= begin + list.region_bytes) continue;
    return Fail(ErrorCode::kBundleSizes, "section \"{}\" at {} reaches into the sizes' roots and weights at [{}, {})",
                Printable(section.name), section.offset, begin, begin + list.region_bytes);
  }
  return begin;
}

// E6. In a .task the last bytes in front of the active root are the local header, which the reader of the archive looks at.
Status CheckBetweenRoots(const Bundle& bundle, const SizeList& list, uint64_t region, ByteView file) {
  for (size_t i = 0; i + 1 < list.sizes.size(); ++i) {
    const ListedSize& next = list.sizes[i + 1];
    const uint64_t header = next.active && bundle.container == Container::kTask ? kRootRoom : 0;
    TRY(CheckZeros(file, region + list.sizes[i].offset + list.sizes[i].root_bytes, region + next.offset - header));
  }
  return {};
}

Result<uint32_t> ChecksumOf(const ByteSource& source, uint64_t begin, uint64_t end) {
  uint32_t crc = 0;
  std::vector<std::byte> block;
  for (uint64_t at = begin; at < end; at += block.size()) {
    block.resize(std::min(kCopyBlock, end - at));
    TRY(source.Read(at, block));
    crc = Crc32(crc, block);
  }
  return crc;
}

Result<uint32_t> Copy(const ByteSource& source, uint64_t begin, uint64_t end, OutputFile& file, uint64_t offset) {
  uint32_t crc = 0;
  std::vector<std::byte> block;
  for (uint64_t at = begin; at < end; at += block.size()) {
    block.resize(std::min(kCopyBlock, end - at));
    TRY(source.Read(at, block));
    TRY(file.WriteAt(offset + at, block));
    crc = Crc32(crc, block);
  }
  return crc;
}

// Which of the bytes of a bundle's region to look at: everything but the rooms.
SizeChecksums PartsOf(const Bundle& bundle) {
  SizeChecksums parts;
  const uint64_t region = bundle.sizes.front().offset;
  for (const BundleSize& size : bundle.sizes) {
    parts.offsets.push_back(size.offset - region);
    parts.root_bytes.push_back(size.root_bytes);
  }
  parts.region_bytes = bundle.sizes.front().bytes->size();
  return parts;
}

}  // namespace

std::string EncodeSizes(const SizeList& list) {
  OrderedJson sizes = OrderedJson::array();
  for (const ListedSize& size : list.sizes) {
    sizes.push_back({{"name", size.name},
                     {"text", size.text_parameters},
                     {"effective", size.effective_parameters},
                     {"offset", size.offset},
                     {"root", size.root_bytes},
                     {"crc32", Format("{:08x}", size.crc32)},
                     {"active", size.active ? 1 : 0}});
  }
  return OrderedJson({{kVersion, 1}, {"region", list.region_bytes}, {"sizes", sizes}}).dump();
}

Result<SizeList> DecodeSizes(ByteView text) {
  Result<Json> json = ParseJson(text, {.max_bytes = kMaxListBytes, .max_depth = 4});
  if (!json) return Fail(ErrorCode::kBundleSizes, "the list of sizes: {}", json.error().message);
  SizeList list;
  try {
    list.region_bytes = json->value("region", uint64_t{0});
    const Json sizes = json->value("sizes", Json::array());
    for (const Json& size : sizes) list.sizes.push_back(TRY(DecodeSize(size)));
  } catch (const Json::exception& exception) {
    return Fail(ErrorCode::kBundleSizes, "the list of sizes: {}", exception.what());
  }
  TRY(CheckNames(list));
  TRY(CheckRoots(list));
  if (const auto active = std::ranges::count(list.sizes, true, &ListedSize::active); active != 1) {  // E4
    return Fail(ErrorCode::kBundleSizes, "{} sizes are active, expected one", active);
  }
  if (EncodeSizes(list) != AsText(text)) {  // E1
    return Fail(ErrorCode::kBundleSizes, "the list of sizes says more, or says it differently, than {}", EncodeSizes(list));
  }
  return list;
}

SizeList ListOf(const Bundle& bundle) {
  SizeList list;
  if (bundle.sizes.empty()) return list;
  list.region_bytes = bundle.sizes.front().bytes->size();
  for (const BundleSize& size : bundle.sizes) {
    list.sizes.push_back({.name = size.name,
                          .text_parameters = size.text_parameters,
                          .effective_parameters = size.effective_parameters,
                          .offset = size.offset - bundle.sizes.front().offset,
                          .root_bytes = size.root_bytes,
                          .crc32 = size.crc32,
                          .active = size.active});
  }
  return list;
}

Status AttachSizes(Bundle& bundle, const SharedBytes& file) {
  const Section* section = bundle.Find(SectionKind::kSizes);
  if (section == nullptr) return {};
  const SizeList list = TRY(DecodeSizes(section->bytes->view()));
  const uint64_t region = TRY(FindRegion(bundle, list));
  TRY(CheckBetweenRoots(bundle, list, region, file->view()));
  for (const ListedSize& size : list.sizes) {
    BundleSize attached{.name = size.name,
                        .text_parameters = size.text_parameters,
                        .effective_parameters = size.effective_parameters,
                        .offset = region + size.offset,
                        .root_bytes = size.root_bytes,
                        .bytes = nullptr,
                        .crc32 = size.crc32,
                        .active = size.active};
    attached.bytes = TRY(MakeSubSource(file, attached.offset, list.region_bytes - size.offset));
    bundle.sizes.push_back(std::move(attached));
  }
  return {};
}

std::vector<uint32_t> CombineChecksums(const SizeChecksums& checksums) {
  std::vector<uint32_t> combined(checksums.roots.size());
  uint32_t behind = checksums.weights;
  uint64_t end = checksums.region_bytes;  // of what `behind` is about, its begin is the root's end
  uint64_t begin = checksums.offsets.back() + checksums.root_bytes.back();
  for (size_t i = combined.size(); i-- > 0;) {
    const uint64_t root_end = checksums.offsets[i] + checksums.root_bytes[i];
    const uint32_t with_room = Crc32Zeros(checksums.roots[i], begin - root_end);
    combined[i] = behind = Crc32Combine(with_room, behind, end - begin);
    begin = checksums.offsets[i];
  }
  return combined;
}

Status VerifySizes(const Bundle& bundle) {
  if (bundle.sizes.empty()) return {};
  SizeChecksums parts = PartsOf(bundle);
  for (const BundleSize& size : bundle.sizes) parts.roots.push_back(TRY(ChecksumOf(*size.bytes, 0, size.root_bytes)));
  const BundleSize& last = bundle.sizes.back();
  parts.weights = TRY(ChecksumOf(*last.bytes, last.root_bytes, last.bytes->size()));
  const std::vector<uint32_t> found = CombineChecksums(parts);
  for (size_t i = 0; i < found.size(); ++i) {
    const BundleSize& size = bundle.sizes[i];
    if (found[i] == size.crc32) continue;
    return Fail(ErrorCode::kZipChecksum, "{}: size \"{}\" ({} bytes at {}) has CRC-32 {:08x}, the list of sizes says {:08x}", bundle.path,
                size.name, size.bytes->size(), size.offset, found[i], size.crc32);
  }
  return {};
}

SectionToWrite SectionFromSizes(const Bundle& bundle) {
  const auto active = std::ranges::find(bundle.sizes, true, &BundleSize::active);
  SectionToWrite section{.kind = SectionKind::kPrefillDecode, .size = bundle.sizes.front().bytes->size(), .write = nullptr};
  section.entry = active->offset - bundle.sizes.front().offset;
  const auto index = static_cast<size_t>(active - bundle.sizes.begin());
  section.write = [region = bundle.sizes.front().bytes, parts = PartsOf(bundle), index](OutputFile& file,
                                                                                        uint64_t offset) -> Result<uint32_t> {
    SizeChecksums checksums = parts;
    for (size_t i = 0; i < parts.offsets.size(); ++i) {
      const uint64_t end = parts.offsets[i] + parts.root_bytes[i];
      checksums.roots.push_back(TRY(Copy(*region, parts.offsets[i], end, file, offset)));
      if (i + 1 == parts.offsets.size()) continue;
      TRY(file.WriteAt(offset + end, std::vector<std::byte>(parts.offsets[i + 1] - end)));
    }
    checksums.weights = TRY(Copy(*region, parts.offsets.back() + parts.root_bytes.back(), parts.region_bytes, file, offset));
    return CombineChecksums(checksums)[index];
  };
  return section;
}

}  // namespace taskpress
