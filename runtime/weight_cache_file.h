// Packed matrices in a file that later processes map: what an engine packs once need not be packed at every start.
//
// The file is made for one machine and one source and is worth nothing elsewhere: anything that does not fit, is damaged or cannot be
// trusted makes Open() fail, and the caller packs anew. Rules K1.. are in schema/FORMATS.md, "Packed weights".
#ifndef TASKPRESS_RUNTIME_WEIGHT_CACHE_FILE_H_
#define TASKPRESS_RUNTIME_WEIGHT_CACHE_FILE_H_

#include <array>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/thread_pool.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/base/output_file.h"

namespace taskpress {

// SHA-256 of everything the contents depend on; a file with another one is stale.
using WeightCacheFingerprint = std::array<std::byte, 32>;
// Names a matrix and its packing within a file: the first half of a SHA-256.
using WeightCacheKey = std::array<std::byte, 16>;

struct WeightCacheEntry {
  WeightCacheKey key = {};
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
  uint64_t checksum = 0;
};

class WeightCacheFile {
 public:
  // Maps the file and checks all of it, contents included, on all threads. kFileNotFound when there is none; kReadFailed for one that
  // breaks a rule or belongs to somebody else, kFileChanged for one of another source, machine or version.
  static Result<WeightCacheFile> Open(const std::filesystem::path& path, const WeightCacheFingerprint& fingerprint,
                                      const ThreadPool& threads);

  [[nodiscard]] std::span<const WeightCacheEntry> entries() const { return entries_; }
  // At a multiple of kWeightCachePage, with kTensorPadding readable bytes behind it. Empty: not there.
  [[nodiscard]] ByteView Find(const WeightCacheKey& key) const;
  [[nodiscard]] ByteView BytesOf(const WeightCacheEntry& entry) const { return file_->bytes().subspan(entry.offset, entry.bytes); }
  // Gives back the memory of a part of the file; it comes back when it is read again. Nothing happens to other bytes.
  void Forget(ByteView bytes) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<WeightCacheEntry> entries_;  // in file order
  std::map<WeightCacheKey, size_t> index_;
};

// Writes such a file matrix by matrix. Memory that was handed out stays valid, and keeps its contents, for the writer's life, whatever
// becomes of the file.
class WeightCacheWriter {
 public:
  // Locks "<path>.part". kOutputExists while another process writes it; kWriteFailed.
  static Result<WeightCacheWriter> Create(const std::filesystem::path& path, const WeightCacheFingerprint& fingerprint);

  WeightCacheWriter(WeightCacheWriter&&) noexcept;
  WeightCacheWriter& operator=(WeightCacheWriter&&) noexcept;
  ~WeightCacheWriter();

  // Zeros at the end of the file, mapped, with kTensorPadding readable bytes behind them. kWriteFailed on a full disk, kOutOfMemory.
  Result<ByteSpan> Reserve(uint64_t bytes);
  // The bytes reserved last are complete: they cannot be written any more and go to the disk when it has time.
  void Finish(const WeightCacheKey& key);
  // Reserve, copy, finish: for matrices of an older file that go into the new one.
  Status Append(const WeightCacheKey& key, ByteView bytes);
  // Table and header, fsync, and only then the name. The mapped memory stays. Nothing may be written afterwards.
  Status Commit();
  // There will be no file. The mapped memory stays.
  void Abandon();

  [[nodiscard]] uint64_t mapped_bytes() const;

 private:
  struct State;
  explicit WeightCacheWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

inline constexpr uint64_t kWeightCachePage = 4096;

// For matrices: fast, and certain to notice any one damaged word. Not against intent.
[[nodiscard]] uint64_t WeightChecksum(ByteView bytes);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_WEIGHT_CACHE_FILE_H_
