#include "runtime/weight_cache_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cstring>

#include "runtime/tensor_buffer.h"
#include "runtime/weight_cache_layout.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

std::unexpected<Error> Damaged(const std::filesystem::path& path, std::string_view what) {
  return Fail(ErrorCode::kReadFailed, "{}: {}", path.string(), what);
}

// K1. Sizes in a file are believed only as far as they can be checked, and kernels read what they need: so nobody else's file.
Status CheckOwner(const std::filesystem::path& path) {
  struct stat info{};
  if (lstat(path.c_str(), &info) != 0) return Fail(ErrorCode::kFileNotFound, "{}: is not there", path.string());
  if (!S_ISREG(info.st_mode)) return Damaged(path, "not a regular file");
  if (info.st_uid != geteuid() && info.st_uid != 0) return Damaged(path, "belongs to another user");
  return {};
}

// K2 to K5.
Result<WeightCacheHeader> ReadHeader(const std::filesystem::path& path, ByteView file, const WeightCacheFingerprint& fingerprint) {
  if (file.size() < kWeightCachePage) return Damaged(path, "too short to have a header");
  const auto header = LoadLittle<WeightCacheHeader>(file.data());
  if (header.magic != kWeightCacheMagic) return Damaged(path, "not a file of packed weights");
  if (header.checksum != WeightChecksum(file.first(offsetof(WeightCacheHeader, checksum)))) return Damaged(path, "damaged header");
  if (header.version != kWeightCacheVersion || header.fingerprint != fingerprint) {
    return Fail(ErrorCode::kFileChanged, "{}: packed from another bundle, for another CPU or by another version", path.string());
  }
  const uint64_t table_bytes = uint64_t{header.entries} * sizeof(WeightCacheEntry);
  if (header.file_size != file.size() || header.table_offset < kWeightCachePage || header.table_offset % kWeightCachePage != 0 ||
      CheckedAdd(header.table_offset, table_bytes) != header.file_size) {
    return Damaged(path, Format("has {} bytes, its header says {}, with a table of {} at {}", file.size(), header.file_size, table_bytes,
                                header.table_offset));
  }
  if (header.table_checksum != WeightChecksum(file.subspan(header.table_offset))) return Damaged(path, "damaged table");
  return header;
}

// K6.
Status CheckPlaces(const std::filesystem::path& path, std::span<const WeightCacheEntry> entries, uint64_t table_offset) {
  uint64_t end = kWeightCachePage;
  for (const WeightCacheEntry& entry : entries) {
    const std::optional<uint64_t> room = CheckedAdd(entry.bytes, kTensorPadding);
    if (entry.offset % kWeightCachePage != 0 || entry.offset < end || entry.bytes == 0 || !room ||
        !RangeInside(entry.offset, *room, table_offset)) {
      return Damaged(path, Format("a matrix of {} bytes at {} is out of place", entry.bytes, entry.offset));
    }
    end = entry.offset + *room;
  }
  return {};
}

}  // namespace

// Eight chains of a bijective step each, so a damaged word cannot go unnoticed and a processor can work on several at once.
uint64_t WeightChecksum(ByteView bytes) {
  constexpr size_t kLanes = 8;
  constexpr uint64_t kPrime = 0x9E3779B185EBCA87;
  std::array<uint64_t, kLanes> lanes = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto mix = [](uint64_t lane, uint64_t word) { return std::rotl((lane ^ word) * kPrime, 29); };
  const size_t whole = bytes.size() / sizeof(lanes) * sizeof(lanes);
  for (size_t at = 0; at < whole; at += sizeof(lanes)) {
    const auto words = LoadLittle<std::array<uint64_t, kLanes>>(bytes.data() + at);
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = mix(lanes[i], words[i]);
  }
  std::array<uint64_t, kLanes> rest = {};
  std::memcpy(rest.data(), bytes.data() + whole, bytes.size() - whole);
  uint64_t sum = bytes.size();
  for (size_t i = 0; i < kLanes; ++i) sum = mix(sum, mix(lanes[i], rest[i]));
  return sum;
}

Result<WeightCacheFile> WeightCacheFile::Open(const std::filesystem::path& path, const WeightCacheFingerprint& fingerprint,
                                              const ThreadPool& threads) {
  TRY(CheckOwner(path));
  WeightCacheFile cache;
  cache.file_ = TRY(MappedFile::Open(path));
  const ByteView file = cache.file_->bytes();
  const WeightCacheHeader header = TRY(ReadHeader(path, file, fingerprint));
  cache.entries_.resize(header.entries);
  if (header.entries > 0) std::memcpy(cache.entries_.data(), file.data() + header.table_offset, file.size() - header.table_offset);
  TRY(CheckPlaces(path, cache.entries_, header.table_offset));
  for (size_t i = 0; i < cache.entries_.size(); ++i) {
    if (!cache.index_.emplace(cache.entries_[i].key, i).second) return Damaged(path, "a matrix is there twice");  // K7
  }
  // K8. The first token reads all of it anyway; here it comes in file order and by all threads.
  cache.file_->WillRead(0, file.size());
  std::vector<char> sound(cache.entries_.size());
  threads.ForEach(std::ssize(cache.entries_), [&](int64_t i) {
    const WeightCacheEntry& entry = cache.entries_[static_cast<size_t>(i)];
    sound[static_cast<size_t>(i)] = WeightChecksum(cache.BytesOf(entry)) == entry.checksum ? 1 : 0;
  });
  for (size_t i = 0; i < sound.size(); ++i) {
    if (sound[i] == 0) return Damaged(path, Format("the matrix at {} is damaged", cache.entries_[i].offset));
  }
  TRY(cache.file_->CheckUnchanged());
  return cache;
}

void WeightCacheFile::Forget(ByteView bytes) const {
  const auto file = reinterpret_cast<uintptr_t>(file_->bytes().data());
  const auto at = reinterpret_cast<uintptr_t>(bytes.data());
  if (at >= file && RangeInside(at - file, bytes.size(), file_->size())) taskpress::Forget(bytes);
}

ByteView WeightCacheFile::Find(const WeightCacheKey& key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? ByteView() : BytesOf(entries_[found->second]);
}

}  // namespace taskpress
