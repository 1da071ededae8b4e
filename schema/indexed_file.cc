#include "schema/indexed_file.h"

#include <algorithm>

#include "schema/base/checked_math.h"
#include "schema/base/hash.h"

namespace taskpress {
namespace {

constexpr uint32_t kVersion = 1;
constexpr uint64_t kCheckedHeaderBytes = 36;

}  // namespace

Result<IndexPlace> ParseIndexedHeader(const IndexedFileKind& kind, ByteView file) {
  if (file.size() < kIndexedHeaderBytes) {
    return Fail(kind.code, "has {} bytes, the header alone needs {}; the file is truncated", file.size(), kIndexedHeaderBytes);
  }
  const bool magic = AsText(file.first(kind.magic.size())) == kind.magic && file[kind.magic.size()] == std::byte{0};
  if (!magic) return Fail(kind.code, "does not begin with {}; this is no {}", kind.magic, kind.noun);
  if (LoadLittle<uint32_t>(file.data() + kCheckedHeaderBytes) != Crc32(0, file.first(kCheckedHeaderBytes))) {
    return Fail(kind.code, "the CRC-32 of the header is wrong");
  }
  const auto version = LoadLittle<uint32_t>(file.data() + 8);
  if (version != kVersion) return Fail(kind.code, "is of version {}, this program reads version {}", version, kVersion);
  if (LoadLittle<uint32_t>(file.data() + 12) != 0) return Fail(kind.code, "bytes 12 to 15 are not zero");
  const IndexPlace place{.offset = LoadLittle<uint64_t>(file.data() + 16), .bytes = LoadLittle<uint64_t>(file.data() + 24)};
  if (place.offset < kIndexedHeaderBytes || !RangeInside(place.offset, place.bytes, file.size()) ||
      place.offset + place.bytes != file.size()) {
    return Fail(kind.code, "an index of {} bytes at {} does not end with the file of {}; the file is truncated", place.bytes, place.offset,
                file.size());
  }
  if (place.bytes > kind.max_index_bytes) {
    return Fail(kind.code, "an index of {} bytes exceeds {}", place.bytes, kind.max_index_bytes);
  }
  if (LoadLittle<uint32_t>(file.data() + 32) != Crc32(0, file.subspan(place.offset, place.bytes))) {
    return Fail(kind.code, "the CRC-32 of the index is wrong");
  }
  return place;
}

std::vector<std::byte> FormatIndexedHeader(const IndexedFileKind& kind, uint64_t offset, std::string_view index) {
  std::vector<std::byte> header(kIndexedHeaderBytes);
  std::ranges::copy(AsBytes(kind.magic), header.begin());
  StoreLittle<uint32_t>(header.data() + 8, kVersion);
  StoreLittle<uint64_t>(header.data() + 16, offset);
  StoreLittle<uint64_t>(header.data() + 24, index.size());
  StoreLittle<uint32_t>(header.data() + 32, Crc32(0, AsBytes(index)));
  StoreLittle<uint32_t>(header.data() + kCheckedHeaderBytes, Crc32(0, ByteView(header).first(kCheckedHeaderBytes)));
  return header;
}

}  // namespace taskpress
