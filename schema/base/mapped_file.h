// A whole file, mapped read-only.
//
// Opening refuses anything but a regular file. Where a file is truncated while it is mapped, zeros are read (sigbus_guard.h): call
// CheckUnchanged() after reading and before believing.
#ifndef TASKPRESS_SCHEMA_BASE_MAPPED_FILE_H_
#define TASKPRESS_SCHEMA_BASE_MAPPED_FILE_H_

#include <filesystem>
#include <memory>
#include <string>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> Open(const std::filesystem::path& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] ByteView bytes() const { return bytes_; }
  [[nodiscard]] uint64_t size() const { return bytes_.size(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // File name without folders, for messages.
  [[nodiscard]] std::string name() const { return path_.filename().string(); }

  // kFileChanged when the file is shorter now than when it was opened, or a read met a part that was gone.
  [[nodiscard]] Status CheckUnchanged() const;
  // Tells the kernel to begin reading a range.
  void WillRead(uint64_t offset, uint64_t size) const;
  // Tells the kernel that a range will not be needed again soon; keeps resident memory low while streaming.
  void Forget(uint64_t offset, uint64_t size) const;

 private:
  MappedFile(std::filesystem::path path, int descriptor, ByteView bytes) : path_(std::move(path)), descriptor_(descriptor), bytes_(bytes) {}

  std::filesystem::path path_;
  int descriptor_;
  ByteView bytes_;
};

// Brings mapped bytes into this process's page table at once; one by one, their first reads cost several times as much. A hint: where the
// kernel does not know it, nothing happens.
void Populate(ByteView mapped);
// The opposite, for the whole pages of mapped bytes: they come back from the file when they are read again.
void Forget(ByteView mapped);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_MAPPED_FILE_H_
