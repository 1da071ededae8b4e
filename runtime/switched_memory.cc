#include "runtime/switched_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <string>
#include <system_error>

#include "runtime/tensor_buffer.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

std::string Reason(int number) { return std::generic_category().message(number); }

// A file that is gone when its descriptor is closed, however the process ends. -1 and errno on failure.
int OpenNameless(const std::filesystem::path& folder) {
  const int descriptor = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return descriptor;
  std::string name = (folder / ".taskpress-XXXXXX").string();
  const int named = mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) unlink(name.c_str());
  return named;
}

}  // namespace

struct SwitchedMemory::Mapping {
  Mapping(int file, uint64_t size, uint64_t version_stride, int64_t count)
      : descriptor(file), bytes(size), stride(version_stride), versions(count) {}
  ~Mapping() {
    if (address != MAP_FAILED) munmap(address, stride);
    close(descriptor);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  int descriptor;
  uint64_t bytes;
  uint64_t stride;  // whole pages
  int64_t versions;
  void* address = MAP_FAILED;
};

SwitchedMemory::SwitchedMemory(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
SwitchedMemory::SwitchedMemory(SwitchedMemory&&) noexcept = default;
SwitchedMemory& SwitchedMemory::operator=(SwitchedMemory&&) noexcept = default;
SwitchedMemory::~SwitchedMemory() = default;

Result<SwitchedMemory> SwitchedMemory::Make(uint64_t bytes, int64_t versions, const std::filesystem::path& folder) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const std::optional<uint64_t> padded = CheckedAdd(bytes, kTensorPadding);
  const std::optional<uint64_t> stride = padded ? CheckedAlignUp(*padded, page) : std::nullopt;
  const std::optional<uint64_t> total = stride && versions > 0 ? CheckedMul(*stride, static_cast<uint64_t>(versions)) : std::nullopt;
  if (!total || *total > static_cast<uint64_t>(std::numeric_limits<off_t>::max())) {
    return Fail(ErrorCode::kOutOfMemory, "{} versions of {} bytes cannot be addressed", versions, bytes);
  }
  const std::filesystem::path where = folder.empty() ? std::filesystem::path(".") : folder;
  const int descriptor = OpenNameless(where);
  if (descriptor < 0) return Fail(ErrorCode::kWriteFailed, "{}: no temporary file: {}", where.string(), Reason(errno));
  auto mapping = std::make_unique<Mapping>(descriptor, bytes, *stride, versions);
  // Without it a full disk would be met in the middle of a vector loop.
  if (const int failed = posix_fallocate(descriptor, 0, static_cast<off_t>(*total)); failed != 0) {
    return Fail(ErrorCode::kWriteFailed, "{}: no room for a temporary file of {} bytes: {}", where.string(), *total, Reason(failed));
  }
  mapping->address = mmap(nullptr, *stride, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (mapping->address == MAP_FAILED) return Fail(ErrorCode::kOutOfMemory, "{} bytes cannot be mapped: {}", *stride, Reason(errno));
  return SwitchedMemory(std::move(mapping));
}

ByteSpan SwitchedMemory::bytes() const { return {static_cast<std::byte*>(mapping_->address), mapping_->bytes}; }

uint64_t SwitchedMemory::file_bytes() const { return mapping_->stride * static_cast<uint64_t>(mapping_->versions); }

Status SwitchedMemory::Select(int64_t version) {
  if (version < 0 || version >= mapping_->versions) return Fail(ErrorCode::kOutOfMemory, "there is no version {}", version);
  const auto offset = static_cast<off_t>(mapping_->stride * static_cast<uint64_t>(version));
  void* const at = mmap(mapping_->address, mapping_->stride, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, mapping_->descriptor, offset);
  if (at == mapping_->address) return {};
  return Fail(ErrorCode::kOutOfMemory, "{} bytes cannot be mapped: {}", mapping_->stride, Reason(errno));
}

}  // namespace taskpress
