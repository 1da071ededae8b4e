#include "schema/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "schema/base/sigbus_guard.h"

namespace taskpress {

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::filesystem::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const int reason = errno;
    return Fail(reason == ENOENT || reason == ENOTDIR ? ErrorCode::kFileNotFound : ErrorCode::kReadFailed, "{}: cannot open: {}",
                path.string(), std::strerror(reason));
  }
  struct stat info{};
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(descriptor);
    return Fail(ErrorCode::kNotRegularFile, "{}: not a regular file", path.string());
  }
  const auto size = static_cast<size_t>(info.st_size);
  ByteView bytes;
  if (size > 0) {
    void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) {
      const int reason = errno;
      close(descriptor);
      return Fail(ErrorCode::kReadFailed, "{}: cannot map {} bytes: {}", path.string(), size, std::strerror(reason));
    }
    bytes = {static_cast<const std::byte*>(address), size};
    GuardMapping(bytes);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, descriptor, bytes));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    ReleaseMapping(bytes_);
    munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
  close(descriptor_);
}

Status MappedFile::CheckUnchanged() const {
  struct stat info{};
  if (fstat(descriptor_, &info) != 0 || static_cast<uint64_t>(info.st_size) < size()) {
    return Fail(ErrorCode::kFileChanged, "{}: had {} bytes when opened, has {} now", path_.string(), size(), info.st_size);
  }
  // Also when the file has grown back, or when the disk failed.
  if (!bytes_.empty() && LostPages(bytes_)) {
    return Fail(ErrorCode::kFileChanged, "{}: a part of its {} bytes could not be read any more", path_.string(), size());
  }
  return {};
}

void MappedFile::WillRead(uint64_t offset, uint64_t size) const {
  posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(size), POSIX_FADV_WILLNEED);
}

void MappedFile::Forget(uint64_t offset, uint64_t size) const { taskpress::Forget(bytes_.subspan(offset, size)); }

void Forget(ByteView mapped) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t first = reinterpret_cast<uintptr_t>(mapped.data());
  const uint64_t begin = (first + page - 1) / page * page;
  const uint64_t end = (first + mapped.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void Populate(ByteView mapped) {
#ifdef MADV_POPULATE_READ
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = reinterpret_cast<uintptr_t>(mapped.data()) / page * page;
  const uint64_t end = reinterpret_cast<uintptr_t>(mapped.data()) + mapped.size();
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
#else
  static_cast<void>(mapped);
#endif
}

}  // namespace taskpress
