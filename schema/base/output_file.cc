#include "schema/base/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace taskpress {
namespace {

// Part files open now, as C strings a signal handler can unlink. Slots are claimed and released with one atomic exchange. A name is
// registered before the file is created, else a signal between the two would leave it; whose the file is meanwhile, DiscardPart() finds
// out.
struct PartSlot {
  std::atomic<char*> name = nullptr;
  std::atomic<int> descriptor = -1;  // set once it is open
  std::atomic<bool> ours = false;    // set once it is locked
};
constexpr size_t kMaxOpenOutputs = 64;
std::array<PartSlot, kMaxOpenOutputs> part_slots{};

PartSlot* Register(const std::filesystem::path& part) {
  char* name = strdup(part.c_str());
  for (PartSlot& slot : part_slots) {
    char* expected = nullptr;
    if (slot.name.compare_exchange_strong(expected, name)) return &slot;
  }
  free(name);
  return nullptr;
}

void Release(PartSlot* slot) {
  if (slot == nullptr) return;
  slot->ours = false;
  slot->descriptor = -1;
  free(slot->name.exchange(nullptr));
}

void Unregister(const std::filesystem::path& part) {
  for (PartSlot& slot : part_slots) {
    const char* name = slot.name.load();
    if (name == nullptr || !slot.ours || part.native() != name) continue;
    Release(&slot);
    return;
  }
}

// Files that go with a part. Only the holder of the part's lock has any.
std::array<std::atomic<char*>, kMaxOpenOutputs> companions{};

void RegisterCompanion(const std::filesystem::path& path) {
  char* name = strdup(path.c_str());
  for (std::atomic<char*>& slot : companions) {
    char* expected = nullptr;
    if (slot.compare_exchange_strong(expected, name)) return;
  }
  free(name);
}

void UnregisterCompanion(const std::filesystem::path& path) {
  for (std::atomic<char*>& slot : companions) {
    char* name = slot.load();
    if (name == nullptr || path.native() != name || !slot.compare_exchange_strong(name, nullptr)) continue;
    free(name);
    return;
  }
}

// Whether the name still leads to the open file. Async-signal-safe.
bool IsNamed(int descriptor, const char* name) {
  struct stat open_file = {};
  struct stat named = {};
  return fstat(descriptor, &open_file) == 0 && lstat(name, &named) == 0 && open_file.st_ino == named.st_ino &&
         open_file.st_dev == named.st_dev;
}

// An empty file that nobody has locked was just created, by us or by somebody who will notice that it is gone (OpenLocked). A part that a
// killed process left has bytes and stays. Async-signal-safe.
bool IsJustCreated(const PartSlot& slot, const char* name) {
  int descriptor = slot.descriptor;
  if (descriptor < 0) descriptor = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);  // the signal came before open() had returned
  struct stat info = {};
  return descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) == 0 && fstat(descriptor, &info) == 0 && info.st_size == 0 &&
         IsNamed(descriptor, name);
}

void DiscardPart(const PartSlot& slot) {
  const char* name = slot.name.load();
  if (name != nullptr && (slot.ours ? IsNamed(slot.descriptor, name) : IsJustCreated(slot, name))) unlink(name);
}

std::unexpected<Error> WriteError(const std::filesystem::path& path, std::string_view what, int reason) {
  return Fail(ErrorCode::kWriteFailed, "{}: {}: {}", path.string(), what, std::strerror(reason));
}

Status SyncFolder(const std::filesystem::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return WriteError(folder, "cannot open the folder", errno);
  const int result = fsync(descriptor);
  const int reason = errno;
  close(descriptor);
  if (result != 0 && reason != EINVAL) return WriteError(folder, "cannot sync the folder", reason);
  return {};
}

// Opens and locks a part. Another process may be converting to the same name; a part left by a killed one is simply written over.
Result<int> OpenLocked(const std::filesystem::path& part, PartSlot* slot, int flags) {
  constexpr int kAttempts = 16;  // each is lost to somebody who finished at this very moment
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int descriptor = open(part.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (descriptor < 0 && (flags & O_CREAT) == 0 && errno == ENOENT) {
      return Fail(ErrorCode::kCannotResume, "{}: is not there", part.string());
    }
    if (descriptor < 0) return WriteError(part, "cannot create", errno);
    if (slot != nullptr) slot->descriptor = descriptor;
    const bool locked = flock(descriptor, LOCK_EX | LOCK_NB) == 0;
    if (locked && IsNamed(descriptor, part.c_str())) {
      if (slot != nullptr) slot->ours = true;
      return descriptor;
    }
    if (slot != nullptr) slot->descriptor = -1;
    close(descriptor);
    if (!locked) break;
    // Whoever held the lock has just committed or discarded the file: it is a finished output now, or nothing.
  }
  return Fail(ErrorCode::kOutputExists, "{}: another process is writing it", part.string());
}

std::filesystem::path FolderOf(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

}  // namespace

std::filesystem::path PartPath(const std::filesystem::path& path) {
  std::filesystem::path part = path;
  part += ".part";
  return part;
}

Result<OutputFile> OutputFile::OpenPart(const std::filesystem::path& path, uint64_t size, OutputFileOptions options, int flags) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return WriteError(path, "cannot create", EISDIR);
  if (!options.replace && std::filesystem::exists(path, ignored)) {
    return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", path.string());
  }
  const std::filesystem::path part = PartPath(path);
  PartSlot* const slot = options.keep ? nullptr : Register(part);
  const Result<int> opened = OpenLocked(part, slot, flags);
  if (!opened) {
    Release(slot);
    return std::unexpected(opened.error());
  }
  return OutputFile(path, part, *opened, size, options);
}

Result<OutputFile> OutputFile::Create(const std::filesystem::path& path, uint64_t size, OutputFileOptions options) {
  OutputFile file = TRY(OpenPart(path, size, {.replace = options.replace}, O_CREAT));
  if (ftruncate(file.descriptor_, 0) != 0) return WriteError(file.part_path_, "cannot truncate", errno);
  if (size > 0) {
    const int reason = posix_fallocate(file.descriptor_, 0, static_cast<off_t>(size));
    if (reason != 0 && reason != EOPNOTSUPP && reason != EINVAL) {
      return WriteError(file.part_path_, Format("cannot reserve {} bytes", size), reason);
    }
    if (reason != 0 && ftruncate(file.descriptor_, static_cast<off_t>(size)) != 0)
      return WriteError(file.part_path_, "cannot resize", errno);
  }
  file.options_ = options;  // from here on the part may be worth keeping
  if (options.keep) Unregister(file.part_path_);
  return file;
}

Result<OutputFile> OutputFile::Reopen(const std::filesystem::path& path, uint64_t size, OutputFileOptions options) {
  options.keep = true;
  OutputFile file = TRY(OpenPart(path, size, options, 0));
  struct stat info{};
  if (fstat(file.descriptor_, &info) != 0 || static_cast<uint64_t>(info.st_size) != size) {
    return Fail(ErrorCode::kCannotResume, "{}: has {} bytes, {} are expected", file.part_path_.string(), info.st_size, size);
  }
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      part_path_(std::move(other.part_path_)),
      companion_(std::move(other.companion_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_),
      options_(other.options_) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  if (this == &other) return *this;
  Discard();
  path_ = std::move(other.path_);
  part_path_ = std::move(other.part_path_);
  companion_ = std::move(other.companion_);
  descriptor_ = std::exchange(other.descriptor_, -1);
  size_ = other.size_;
  options_ = other.options_;
  return *this;
}

OutputFile::~OutputFile() { Discard(); }

void OutputFile::Discard() noexcept {
  if (descriptor_ < 0) return;
  if (!options_.keep) {
    unlink(part_path_.c_str());
    if (!companion_.empty()) unlink(companion_.c_str());
  }
  Forget();
}

// The signal handler's knowledge goes first: once the lock is gone the name may be another's.
void OutputFile::Forget() noexcept {
  Unregister(part_path_);
  UnregisterCompanion(companion_);
  close(descriptor_);
  descriptor_ = -1;
}

void OutputFile::SetCompanion(std::filesystem::path path) {
  companion_ = std::move(path);
  if (!options_.keep) RegisterCompanion(companion_);
}

Status OutputFile::WriteAt(uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return WriteError(part_path_, Format("cannot write {} bytes at {}", bytes.size(), offset), errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return {};
}

Status OutputFile::ReadAt(uint64_t offset, ByteSpan bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Fail(ErrorCode::kReadFailed, "{}: cannot read {} bytes at {}", part_path_.string(), bytes.size(), offset);
    bytes = bytes.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

void OutputFile::BeginFlush() { sync_file_range(descriptor_, 0, 0, SYNC_FILE_RANGE_WRITE); }

Status OutputFile::Flush() {
  if (fsync(descriptor_) != 0) return WriteError(part_path_, "cannot sync", errno);
  return {};
}

Status OutputFile::Commit() {
  TRY(Flush());
  const mode_t mask = umask(0);
  umask(mask);
  if (fchmod(descriptor_, 0666 & ~mask) != 0) return WriteError(part_path_, "cannot set the mode", errno);
  if (options_.replace) {
    if (rename(part_path_.c_str(), path_.c_str()) != 0) return WriteError(path_, "cannot rename", errno);
  } else if (renameat2(AT_FDCWD, part_path_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) return Fail(ErrorCode::kOutputExists, "{}: appeared while it was being written", path_.string());
    // Not every file system knows RENAME_NOREPLACE.
    if (rename(part_path_.c_str(), path_.c_str()) != 0) return WriteError(path_, "cannot rename", errno);
  }
  Forget();
  return SyncFolder(FolderOf(path_));
}

Status WriteWholeFile(const std::filesystem::path& path, ByteView bytes, OutputFileOptions options) {
  OutputFile file = TRY(OutputFile::Create(path, bytes.size(), options));
  TRY(file.WriteAt(0, bytes));
  return file.Commit();
}

void DiscardOpenOutputsFromSignalHandler() noexcept {
  for (const PartSlot& slot : part_slots) DiscardPart(slot);
  for (const std::atomic<char*>& slot : companions) {
    const char* name = slot.load();
    if (name != nullptr) unlink(name);
  }
}

}  // namespace taskpress
