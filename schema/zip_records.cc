#include "schema/zip_records.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

constexpr uint32_t kLocalSignature = 0x04034B50;    // "PK\3\4"
constexpr uint32_t kCentralSignature = 0x02014B50;  // "PK\1\2"
constexpr uint32_t kEndSignature = 0x06054B50;      // "PK\5\6"
constexpr uint32_t kEnd64Signature = 0x06064B50;    // "PK\6\6"
constexpr uint32_t kLocatorSignature = 0x07064B50;  // "PK\6\7"

constexpr uint64_t kCentralBytes = 46;
constexpr uint64_t kEnd64Bytes = 56;
constexpr uint64_t kLocatorBytes = 20;
constexpr uint64_t kLongestComment = 0xFFFF;

constexpr uint16_t kSentinel16 = 0xFFFF;
constexpr uint32_t kSentinel32 = 0xFFFFFFFF;

constexpr uint16_t kZip64Extra = 0x0001;
// Padding of the local header, in the form Android's zipalign and apksig write: u16 alignment, then zeros.
constexpr uint16_t kAlignmentExtra = 0xD935;
constexpr uint64_t kExtraHeaderBytes = 4;     // u16 id, u16 size
constexpr uint64_t kAlignmentExtraBytes = 6;  // the smallest one

constexpr uint16_t kVersionStored = 20;  // 2.0
constexpr uint16_t kVersionZip64 = 45;   // 4.5
constexpr uint16_t kDosTime = 0;         // 00:00:00
constexpr uint16_t kDosDate = 0x0021;    // 1980-01-01, the first day DOS knows

template <typename T>
T At(ByteView file, uint64_t offset) {
  return LoadLittle<T>(file.data() + offset);
}

template <typename T>
void Append(std::vector<std::byte>& out, T value) {
  const size_t end = out.size();
  out.resize(end + sizeof(T));
  StoreLittle(out.data() + end, value);
}

void AppendBytes(std::vector<std::byte>& out, ByteView bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

uint32_t Field32(uint64_t value, uint64_t zip64_from) { return value >= zip64_from ? kSentinel32 : static_cast<uint32_t>(value); }

// --- zip64 extra field ------------------------------------------------------------------------------------------------------------------

// The body of extra field 0x0001. Readers differ on which of two they take, so two are refused.
Result<ByteView> FindZip64(ByteView extras) {
  std::optional<ByteView> found;
  while (extras.size() >= kExtraHeaderBytes) {
    const auto id = At<uint16_t>(extras, 0);
    const auto size = At<uint16_t>(extras, 2);
    if (size > extras.size() - kExtraHeaderBytes) {
      return Fail(ErrorCode::kZipEntry, "extra field 0x{:04x} says {} bytes, {} are left", id, size, extras.size() - kExtraHeaderBytes);
    }
    if (id == kZip64Extra) {
      if (found) return Fail(ErrorCode::kZipEntry, "two zip64 extra fields");
      found = extras.subspan(kExtraHeaderBytes, size);
    }
    extras = extras.subspan(kExtraHeaderBytes + size);
  }
  // Old zipalign pads with one to three zero bytes that are no field at all.
  if (std::ranges::any_of(extras, [](std::byte b) { return b != std::byte{0}; })) {
    return Fail(ErrorCode::kZipEntry, "{} stray bytes after the extra fields", extras.size());
  }
  return found.value_or(ByteView());
}

// Replaces the 32-bit sentinels by the numbers of the zip64 field, which holds only those that did not fit, in the order of `numbers`.
Status ResolveZip64(ByteView extras, std::initializer_list<uint64_t*> numbers) {
  ByteView zip64 = TRY(FindZip64(extras));
  for (uint64_t* number : numbers) {
    if (*number != kSentinel32) continue;
    if (zip64.size() < sizeof(uint64_t)) {
      return Fail(ErrorCode::kZipEntry, "a 32-bit field says \"see the zip64 extra field\" (0xFFFFFFFF), which is missing or too short");
    }
    *number = At<uint64_t>(zip64, 0);
    zip64 = zip64.subspan(sizeof(uint64_t));
  }
  return {};
}

Status CheckRecord(ByteView file, uint64_t offset, uint64_t bytes, uint32_t signature, std::string_view what) {
  if (!RangeInside(offset, bytes, file.size())) {
    return Fail(ErrorCode::kZipStructure, "{} at byte {} needs {} bytes, the file ends at {}", what, offset, bytes, file.size());
  }
  if (At<uint32_t>(file, offset) != signature) {
    return Fail(ErrorCode::kZipStructure, "no {} at byte {}: found {:08x}, expected {:08x}", what, offset, At<uint32_t>(file, offset),
                signature);
  }
  return {};
}

// --- end records ------------------------------------------------------------------------------------------------------------------------

struct EndRecord {
  ZipDirectory directory;
  uint64_t size = 0;
  uint64_t disks = 0;  // not 0 when the archive is split: another disk number, or entries on other disks
};

EndRecord DecodeEnd32(ByteView file, uint64_t at) {
  EndRecord out;
  out.disks = At<uint16_t>(file, at + 4) | At<uint16_t>(file, at + 6) | (At<uint16_t>(file, at + 8) ^ At<uint16_t>(file, at + 10));
  out.directory = {.offset = At<uint32_t>(file, at + 16), .end = at, .entries = At<uint16_t>(file, at + 10)};
  out.size = At<uint32_t>(file, at + 12);
  return out;
}

// The zip64 end record sits right before its locator, the locator right before the end record.
Result<EndRecord> DecodeEnd64(ByteView file, uint64_t locator) {
  const auto at = At<uint64_t>(file, locator + 8);
  TRY(CheckRecord(file, at, kEnd64Bytes, kEnd64Signature, "zip64 end record"));
  const std::optional<uint64_t> end = CheckedAdd<uint64_t>(at + 12, At<uint64_t>(file, at + 4));
  if (end != locator) {
    return Fail(ErrorCode::kZipStructure, "zip64 end record at byte {} does not end at its locator at byte {}", at, locator);
  }
  EndRecord out;
  out.disks = At<uint32_t>(file, locator + 4) | At<uint32_t>(file, at + 16) | At<uint32_t>(file, at + 20) |
              (At<uint64_t>(file, at + 24) ^ At<uint64_t>(file, at + 32));
  out.directory = {.offset = At<uint64_t>(file, at + 48), .end = at, .entries = At<uint64_t>(file, at + 32)};
  out.size = At<uint64_t>(file, at + 40);
  return out;
}

// A small number must be the same in both end records: readers differ on which one they take.
Status CheckEndsAgree(const EndRecord& small, const EndRecord& big) {
  const bool agree = (small.directory.entries == kSentinel16 || small.directory.entries == big.directory.entries) &&
                     (small.directory.offset == kSentinel32 || small.directory.offset == big.directory.offset) &&
                     (small.size == kSentinel32 || small.size == big.size) && (small.disks == kSentinel16 || small.disks == 0);
  if (!agree) return Fail(ErrorCode::kZipStructure, "end record and zip64 end record disagree");
  return {};
}

}  // namespace

Result<DecodedZipEntry> DecodeLocalHeader(ByteView file, uint64_t offset) {
  TRY(CheckRecord(file, offset, kZipLocalHeaderBytes, kLocalSignature, "local header"));
  const uint64_t name = At<uint16_t>(file, offset + 26);
  const uint64_t extra = At<uint16_t>(file, offset + 28);
  const uint64_t name_offset = offset + kZipLocalHeaderBytes;
  if (!RangeInside(name_offset, name + extra, file.size())) {
    return Fail(ErrorCode::kZipStructure, "local header at byte {} ends at {}, the file at {}", offset, name_offset + name + extra,
                file.size());
  }
  DecodedZipEntry out;
  out.entry = {.name = std::string(AsText(file.subspan(name_offset, name))),
               .flags = At<uint16_t>(file, offset + 6),
               .method = At<uint16_t>(file, offset + 8),
               .crc32 = At<uint32_t>(file, offset + 14),
               .stored_size = At<uint32_t>(file, offset + 18),
               .size = At<uint32_t>(file, offset + 22),
               .header_offset = offset};
  TRY(ResolveZip64(file.subspan(name_offset + name, extra), {&out.entry.size, &out.entry.stored_size}));
  out.end = name_offset + name + extra;
  return out;
}

Result<DecodedZipEntry> DecodeCentralEntry(ByteView file, uint64_t offset) {
  TRY(CheckRecord(file, offset, kCentralBytes, kCentralSignature, "directory entry"));
  const uint64_t name = At<uint16_t>(file, offset + 28);
  const uint64_t extra = At<uint16_t>(file, offset + 30);
  const uint64_t comment = At<uint16_t>(file, offset + 32);
  const uint64_t name_offset = offset + kCentralBytes;
  if (!RangeInside(name_offset, name + extra + comment, file.size())) {
    return Fail(ErrorCode::kZipStructure, "directory entry at byte {} ends at {}, the directory at {}", offset,
                name_offset + name + extra + comment, file.size());
  }
  if (At<uint16_t>(file, offset + 34) != 0) {
    return Fail(ErrorCode::kZipUnsupported, "directory entry at byte {} points to another disk of a split archive", offset);
  }
  DecodedZipEntry out;
  out.entry = {.name = std::string(AsText(file.subspan(name_offset, name))),
               .flags = At<uint16_t>(file, offset + 8),
               .method = At<uint16_t>(file, offset + 10),
               .crc32 = At<uint32_t>(file, offset + 16),
               .stored_size = At<uint32_t>(file, offset + 20),
               .size = At<uint32_t>(file, offset + 24),
               .header_offset = At<uint32_t>(file, offset + 42)};
  TRY(ResolveZip64(file.subspan(name_offset + name, extra), {&out.entry.size, &out.entry.stored_size, &out.entry.header_offset}));
  out.end = name_offset + name + extra + comment;
  return out;
}

std::optional<uint64_t> FindEndRecord(ByteView file) {
  if (file.size() < kZipEndBytes) return std::nullopt;
  const uint64_t last = file.size() - kZipEndBytes;
  const uint64_t first = last > kLongestComment ? last - kLongestComment : 0;
  for (uint64_t at = last + 1; at-- > first;) {
    if (At<uint32_t>(file, at) == kEndSignature) return at;
  }
  return std::nullopt;
}

Result<ZipDirectory> DecodeEndOfDirectory(ByteView file, uint64_t at) {
  const uint64_t comment_end = at + kZipEndBytes + At<uint16_t>(file, at + 20);
  if (comment_end != file.size()) {
    return Fail(ErrorCode::kZipStructure, "the end record at byte {} and its comment end at {}, the file at {}", at, comment_end,
                file.size());
  }
  EndRecord end = DecodeEnd32(file, at);
  const bool has_locator = at >= kLocatorBytes && At<uint32_t>(file, at - kLocatorBytes) == kLocatorSignature;
  if (has_locator) {
    const EndRecord small = std::exchange(end, TRY(DecodeEnd64(file, at - kLocatorBytes)));
    TRY(CheckEndsAgree(small, end));
  } else if (end.directory.offset == kSentinel32 || end.size == kSentinel32) {
    return Fail(ErrorCode::kZipStructure, "the end record refers to a zip64 end record that is missing");
  }
  if (end.disks != 0) return Fail(ErrorCode::kZipUnsupported, "one part of a split archive");
  if (CheckedAdd(end.directory.offset, end.size) != end.directory.end) {
    return Fail(ErrorCode::kZipStructure,
                "the directory [{}, +{}) does not end where the end record starts, at byte {}; bytes were cut or inserted",
                end.directory.offset, end.size, end.directory.end);
  }
  return end.directory;
}

// --- encoders ---------------------------------------------------------------------------------------------------------------------------

namespace {

bool SizesNeedZip64(const ZipEntry& entry, uint64_t zip64_from) { return entry.size >= zip64_from || entry.stored_size >= zip64_from; }

uint64_t Zip64LocalBytes(const ZipEntry& entry, uint64_t zip64_from) {
  return SizesNeedZip64(entry, zip64_from) ? kExtraHeaderBytes + 2 * sizeof(uint64_t) : 0;
}

uint64_t PaddingBytes(const ZipEntry& entry, uint64_t alignment, uint64_t zip64_from) {
  const uint64_t unpadded = entry.header_offset + kZipLocalHeaderBytes + entry.name.size() + Zip64LocalBytes(entry, zip64_from);
  uint64_t padding = AlignUp(unpadded, alignment) - unpadded;
  while (padding > 0 && padding < kAlignmentExtraBytes) padding += alignment;
  return padding;
}

}  // namespace

uint64_t LocalHeaderBytes(const ZipEntry& entry, uint64_t alignment, uint64_t zip64_from) {
  return kZipLocalHeaderBytes + entry.name.size() + Zip64LocalBytes(entry, zip64_from) + PaddingBytes(entry, alignment, zip64_from);
}

void AppendLocalHeader(std::vector<std::byte>& out, const ZipEntry& entry, uint64_t alignment, uint64_t zip64_from) {
  const uint64_t zip64 = Zip64LocalBytes(entry, zip64_from);
  const uint64_t padding = PaddingBytes(entry, alignment, zip64_from);
  // APPNOTE 4.5.3: a local zip64 field holds both sizes, so both 32-bit fields refer to it.
  const uint64_t sizes_from = zip64 != 0 ? 0 : zip64_from;
  Append(out, kLocalSignature);
  Append(out, zip64 != 0 ? kVersionZip64 : kVersionStored);
  Append(out, entry.flags);
  Append(out, entry.method);
  Append(out, kDosTime);
  Append(out, kDosDate);
  Append(out, entry.crc32);
  Append(out, Field32(entry.stored_size, sizes_from));
  Append(out, Field32(entry.size, sizes_from));
  Append(out, static_cast<uint16_t>(entry.name.size()));
  Append(out, static_cast<uint16_t>(zip64 + padding));
  AppendBytes(out, AsBytes(entry.name));
  if (zip64 != 0) {
    Append(out, kZip64Extra);
    Append(out, static_cast<uint16_t>(2 * sizeof(uint64_t)));
    Append(out, entry.size);
    Append(out, entry.stored_size);
  }
  if (padding != 0) {
    Append(out, kAlignmentExtra);
    Append(out, static_cast<uint16_t>(padding - kExtraHeaderBytes));
    Append(out, static_cast<uint16_t>(alignment));
    out.resize(out.size() + padding - kAlignmentExtraBytes);
  }
}

void AppendCentralEntry(std::vector<std::byte>& out, const ZipEntry& entry, uint64_t zip64_from) {
  std::vector<std::byte> big;
  for (const uint64_t number : {entry.size, entry.stored_size, entry.header_offset}) {
    if (number >= zip64_from) Append(big, number);
  }
  const uint16_t version = big.empty() ? kVersionStored : kVersionZip64;
  Append(out, kCentralSignature);
  Append(out, version);  // made by; high byte 0 = DOS, so that unpackers give files ordinary permissions
  Append(out, version);  // needed
  Append(out, entry.flags);
  Append(out, entry.method);
  Append(out, kDosTime);
  Append(out, kDosDate);
  Append(out, entry.crc32);
  Append(out, Field32(entry.stored_size, zip64_from));
  Append(out, Field32(entry.size, zip64_from));
  Append(out, static_cast<uint16_t>(entry.name.size()));
  Append(out, static_cast<uint16_t>(big.empty() ? 0 : kExtraHeaderBytes + big.size()));
  Append(out, uint16_t{0});  // comment
  Append(out, uint16_t{0});  // disk
  Append(out, uint16_t{0});  // internal attributes
  Append(out, uint32_t{0});  // external attributes
  Append(out, Field32(entry.header_offset, zip64_from));
  AppendBytes(out, AsBytes(entry.name));
  if (big.empty()) return;
  Append(out, kZip64Extra);
  Append(out, static_cast<uint16_t>(big.size()));
  AppendBytes(out, big);
}

void AppendEndOfDirectory(std::vector<std::byte>& out, const ZipDirectory& directory, uint64_t zip64_from) {
  const uint64_t size = directory.end - directory.offset;
  if (directory.offset >= zip64_from || size >= zip64_from) {
    Append(out, kEnd64Signature);
    Append(out, uint64_t{kEnd64Bytes - 12});  // of the rest of this record
    Append(out, kVersionZip64);
    Append(out, kVersionZip64);
    Append(out, uint32_t{0});        // this disk
    Append(out, uint32_t{0});        // disk of the directory
    Append(out, directory.entries);  // on this disk
    Append(out, directory.entries);
    Append(out, size);
    Append(out, directory.offset);
    Append(out, kLocatorSignature);
    Append(out, uint32_t{0});  // disk of the zip64 end record
    Append(out, directory.end);
    Append(out, uint32_t{1});  // disks
  }
  Append(out, kEndSignature);
  Append(out, uint16_t{0});  // this disk
  Append(out, uint16_t{0});  // disk of the directory
  Append(out, static_cast<uint16_t>(directory.entries));
  Append(out, static_cast<uint16_t>(directory.entries));
  Append(out, Field32(size, zip64_from));
  Append(out, Field32(directory.offset, zip64_from));
  Append(out, uint16_t{0});  // comment
}

}  // namespace taskpress
