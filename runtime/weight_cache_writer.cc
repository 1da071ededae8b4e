#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <numeric>

#include "runtime/tensor_buffer.h"
#include "runtime/weight_cache_file.h"
#include "runtime/weight_cache_layout.h"
#include "schema/base/checked_math.h"
#include "schema/base/sigbus_guard.h"

namespace taskpress {
namespace {

struct Mapping {
  std::byte* address;
  uint64_t size;  // whole pages
  bool guarded;
};

}  // namespace

struct WeightCacheWriter::State {
  State(OutputFile out, const WeightCacheFingerprint& made_for) : file(std::move(out)), fingerprint(made_for) {}
  ~State() {
    for (const Mapping& mapping : mappings) {
      if (mapping.guarded) ReleaseMapping({mapping.address, mapping.size});
      munmap(mapping.address, mapping.size);
    }
    if (descriptor >= 0) close(descriptor);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::optional<OutputFile> file;  // nothing once it has its name, or never will
  WeightCacheFingerprint fingerprint;
  int descriptor = -1;  // of the part, beside the file's own: OutputFile writes, here it is mapped
  uint64_t end = kWeightCachePage;
  uint64_t reserved = 0;  // bytes of the matrix under way
  std::vector<Mapping> mappings;
  std::vector<WeightCacheEntry> entries;
};

WeightCacheWriter::WeightCacheWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
WeightCacheWriter::WeightCacheWriter(WeightCacheWriter&&) noexcept = default;
WeightCacheWriter& WeightCacheWriter::operator=(WeightCacheWriter&&) noexcept = default;
WeightCacheWriter::~WeightCacheWriter() = default;

Result<WeightCacheWriter> WeightCacheWriter::Create(const std::filesystem::path& path, const WeightCacheFingerprint& fingerprint) {
  OutputFile file = TRY(OutputFile::Create(path, kWeightCachePage, {.replace = true}));
  auto state = std::make_unique<State>(std::move(file), fingerprint);
  state->descriptor = open(state->file->part_path().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (state->descriptor < 0) {
    return Fail(ErrorCode::kWriteFailed, "{}: cannot open: {}", state->file->part_path().string(), std::strerror(errno));
  }
  return WeightCacheWriter(std::move(state));
}

Result<ByteSpan> WeightCacheWriter::Reserve(uint64_t bytes) {
  const std::optional<uint64_t> padded = CheckedAdd(bytes, kTensorPadding);
  const std::optional<uint64_t> room = padded ? CheckedAlignUp(*padded, kWeightCachePage) : std::nullopt;
  if (state_->reserved > 0) state_->end += state_->mappings.back().size;  // a matrix that was never finished keeps its place
  state_->reserved = 0;
  if (!room || *room > INT64_MAX - state_->end) return Fail(ErrorCode::kOutOfMemory, "{} bytes cannot be addressed", bytes);
  // Else a full disk would be met by whoever writes to the mapping.
  const int failed = posix_fallocate(state_->descriptor, static_cast<off_t>(state_->end), static_cast<off_t>(*room));
  if (failed != 0) {
    return Fail(ErrorCode::kWriteFailed, "{}: no room for {} more bytes: {}", state_->file->part_path().string(), *room,
                std::strerror(failed));
  }
  void* const address = mmap(nullptr, *room, PROT_READ | PROT_WRITE, MAP_SHARED, state_->descriptor, static_cast<off_t>(state_->end));
  if (address == MAP_FAILED) return Fail(ErrorCode::kOutOfMemory, "{} bytes cannot be mapped: {}", *room, std::strerror(errno));
  state_->mappings.push_back({.address = static_cast<std::byte*>(address), .size = *room, .guarded = false});
  state_->reserved = bytes;
  return ByteSpan(state_->mappings.back().address, bytes);
}

void WeightCacheWriter::Finish(const WeightCacheKey& key) {
  Mapping& mapping = state_->mappings.back();
  const ByteView bytes(mapping.address, state_->reserved);
  state_->entries.push_back({.key = key, .offset = state_->end, .bytes = bytes.size(), .checksum = WeightChecksum(bytes)});
  mprotect(mapping.address, mapping.size, PROT_READ);
  GuardMapping({mapping.address, mapping.size});
  mapping.guarded = true;
  sync_file_range(state_->descriptor, static_cast<off_t>(state_->end), static_cast<off_t>(mapping.size), SYNC_FILE_RANGE_WRITE);
  state_->end += mapping.size;
  state_->reserved = 0;
}

Status WeightCacheWriter::Append(const WeightCacheKey& key, ByteView bytes) {
  const ByteSpan to = TRY(Reserve(bytes.size()));
  std::memcpy(to.data(), bytes.data(), bytes.size());
  Finish(key);
  return {};
}

Status WeightCacheWriter::Commit() {
  if (state_->reserved > 0) state_->end += state_->mappings.back().size;
  const ByteView table = std::as_bytes(std::span(state_->entries));
  WeightCacheHeader header{.entries = static_cast<uint32_t>(state_->entries.size()),
                           .table_offset = state_->end,
                           .file_size = state_->end + table.size(),
                           .fingerprint = state_->fingerprint,
                           .table_checksum = WeightChecksum(table)};
  const ByteView head = std::as_bytes(std::span(&header, 1));
  header.checksum = WeightChecksum(head.first(offsetof(WeightCacheHeader, checksum)));
  TRY(state_->file->WriteAt(state_->end, table));
  TRY(state_->file->WriteAt(0, head));
  const Status status = state_->file->Commit();
  Abandon();
  return status;
}

void WeightCacheWriter::Abandon() { state_->file.reset(); }

uint64_t WeightCacheWriter::mapped_bytes() const {
  return std::accumulate(state_->mappings.begin(), state_->mappings.end(), uint64_t{0},
                         [](uint64_t sum, const Mapping& one) { return sum + one.size; });
}

}  // namespace taskpress
