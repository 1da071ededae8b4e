// The records of a zip archive, each with its encoder and decoder (APPNOTE 6.3.10, 4.3.7 to 4.3.16; zip64 included).
//
// Only bytes <-> numbers: what a `.task` may contain is decided in schema/task.cc. Decoders check every length against the bytes they are
// given; encoders write what a `.task` needs: method 0, no flags, no comment, one disk, the DOS date 1980-01-01 so that equal contents give
// equal bytes.
#ifndef TASKPRESS_SCHEMA_ZIP_RECORDS_H_
#define TASKPRESS_SCHEMA_ZIP_RECORDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// One entry, as its local header and its line in the central directory both describe it.
struct ZipEntry {
  std::string name;
  uint16_t flags = 0;
  uint16_t method = 0;
  uint32_t crc32 = 0;
  uint64_t stored_size = 0;    // bytes in the archive
  uint64_t size = 0;           // bytes after decompression
  uint64_t header_offset = 0;  // of the local header
  bool operator==(const ZipEntry&) const = default;
};

// From this value on, a number does not fit its 32-bit field: the field says 0xFFFFFFFF and a zip64 extra field holds the number.
// A parameter of the encoders, so that tests meet zip64 in small files.
inline constexpr uint64_t kZip64From = 0xFFFFFFFF;

inline constexpr uint64_t kZipLocalHeaderBytes = 30;  // before name and extra fields
inline constexpr uint64_t kZipEndBytes = 22;          // end record without comment

struct DecodedZipEntry {
  ZipEntry entry;
  uint64_t end = 0;  // first byte after the record; of a local header: where the data starts
};
Result<DecodedZipEntry> DecodeLocalHeader(ByteView file, uint64_t offset);
Result<DecodedZipEntry> DecodeCentralEntry(ByteView file, uint64_t offset);

struct ZipDirectory {
  uint64_t offset = 0;
  uint64_t end = 0;  // where the (zip64) end record starts
  uint64_t entries = 0;
};
// The last end record signature where a whole end record fits, as readers look for it; nothing in a file that was cut.
std::optional<uint64_t> FindEndRecord(ByteView file);
// `at` is where FindEndRecord found it. kZipStructure when bytes follow the end record or its comment, or directory and end record do not
// join; kZipUnsupported for split archives.
Result<ZipDirectory> DecodeEndOfDirectory(ByteView file, uint64_t at);

// Bytes of the local header including its padding, which makes the data start at a multiple of `alignment`.
uint64_t LocalHeaderBytes(const ZipEntry& entry, uint64_t alignment, uint64_t zip64_from = kZip64From);
void AppendLocalHeader(std::vector<std::byte>& out, const ZipEntry& entry, uint64_t alignment, uint64_t zip64_from = kZip64From);
void AppendCentralEntry(std::vector<std::byte>& out, const ZipEntry& entry, uint64_t zip64_from = kZip64From);
// `directory.end` is where the end record will be written.
void AppendEndOfDirectory(std::vector<std::byte>& out, const ZipDirectory& directory, uint64_t zip64_from = kZip64From);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_ZIP_RECORDS_H_
