// The file that weights come from: which one it is, so that what was packed from it can be told from what was packed from another.
#ifndef TASKPRESS_RUNTIME_WEIGHT_SOURCE_H_
#define TASKPRESS_RUNTIME_WEIGHT_SOURCE_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <utility>

#include "runtime/weight_cache_file.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

// A file that was changed has another one: nobody can set the time of the last change of its inode, though the time of its last
// modification anybody can.
struct FileIdentity {
  uint64_t inode = 0;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  bool operator==(const FileIdentity&) const = default;
};

// Times move in ticks: two changes within one look alike. So this waits until the last change is a tick ago (0.05 s; 2 s where the file
// system counts whole seconds); whatever changes afterwards then shows. kFileNotFound; kFileChanged for a file that keeps changing, or that
// changed in the future.
Result<FileIdentity> SettledIdentityOf(const std::filesystem::path& path);

struct WeightSource {
  std::filesystem::path path;
  FileIdentity identity;  // as it was before the file was mapped
  ByteView mapping;       // the whole file
};

// Reads parts of the source without mapping them. Around every page of a mapping that is touched the kernel maps fifteen more: rows picked
// out of large tables would fill the process with their neighbours.
class SourceReader {
 public:
  // Nothing when the path does not lead to the file of `source` any more.
  static std::optional<SourceReader> Open(const WeightSource& source);
  SourceReader(SourceReader&& other) noexcept : mapping_(other.mapping_), descriptor_(std::exchange(other.descriptor_, -1)) {}
  SourceReader& operator=(SourceReader&&) = delete;
  ~SourceReader();

  // Whether these bytes are part of the source's mapping.
  [[nodiscard]] bool Covers(ByteView bytes) const;
  // The bytes at `place`, an address in the mapping. kReadFailed, also for a file that has become shorter.
  Status Read(const std::byte* place, ByteSpan to) const;

 private:
  SourceReader(ByteView mapping, int descriptor) : mapping_(mapping), descriptor_(descriptor) {}
  ByteView mapping_;
  int descriptor_;
};

// Of a bundle read from a file. Nothing for one that holds no section, or whose bytes are not mapped.
std::optional<WeightSource> WeightSourceOf(const Bundle& bundle, const FileIdentity& identity);

// kFileChanged when the path leads to another file by now, or to the same one with other contents.
Status CheckSource(const WeightSource& source);

// What packed weights depend on: the source, by its identity and by samples of its bytes; this version; XNNPACK's build; the CPU's
// instruction sets. Errors of CheckSource.
Result<WeightCacheFingerprint> FingerprintOf(const WeightSource& source);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_WEIGHT_SOURCE_H_
