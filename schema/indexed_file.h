// The frame that files of ours with large bodies share: a header of 40 bytes, bodies, and at the end of the file an index in JSON.
//
//   0           8             12      16             24            32           36            40
//   magic, zero version: u32  zeros   index offset   index bytes   CRC-32 of    CRC-32 of     bodies, index
//   (8 bytes)   1             u32     u64            u64           index: u32   0...35: u32
#ifndef TASKPRESS_SCHEMA_INDEXED_FILE_H_
#define TASKPRESS_SCHEMA_INDEXED_FILE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

inline constexpr uint64_t kIndexedHeaderBytes = 40;

struct IndexedFileKind {
  std::string_view magic;  // 7 bytes
  std::string_view noun;   // "calibration file", for messages
  ErrorCode code;
  uint64_t max_index_bytes = 16 << 20;
};

struct IndexPlace {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// Where the index of `file` is: it lies between header and end, ends with the file and has its CRC-32. An error of kind.code for anything
// else.
Result<IndexPlace> ParseIndexedHeader(const IndexedFileKind& kind, ByteView file);
// The header of a file whose index is `index`, at `offset`. [kIndexedHeaderBytes]
std::vector<std::byte> FormatIndexedHeader(const IndexedFileKind& kind, uint64_t offset, std::string_view index);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_INDEXED_FILE_H_
