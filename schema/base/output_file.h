// A file that appears under its name whole or not at all.
//
// Bytes go to "<name>.part" in the same folder (mode 0600 until done); Commit() makes them durable and renames. Without Commit() the part
// file is removed by the destructor. The final size is known beforehand, so a full disk is noticed before hours of work.
#ifndef TASKPRESS_SCHEMA_BASE_OUTPUT_FILE_H_
#define TASKPRESS_SCHEMA_BASE_OUTPUT_FILE_H_

#include <cstdint>
#include <filesystem>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

struct OutputFileOptions {
  bool replace = false;  // else an existing file under the final name is an error
};

class OutputFile {
 public:
  // kOutputExists, or kWriteFailed when the folder cannot be written or lacks `size` bytes.
  static Result<OutputFile> Create(const std::filesystem::path& path, uint64_t size, OutputFileOptions options = {});

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  // Writes at an absolute offset. Different ranges may be written from several threads.
  Status WriteAt(uint64_t offset, ByteView bytes);
  // fsync of data, file mode, rename to the final name, fsync of the folder. Consumes the file.
  Status Commit();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const std::filesystem::path& part_path() const { return part_path_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  // fsync without rename, so that the part can be reopened and checked before it gets its name.
  Status Flush();

 private:
  OutputFile(std::filesystem::path path, std::filesystem::path part_path, int descriptor, uint64_t size, bool replace)
      : path_(std::move(path)), part_path_(std::move(part_path)), descriptor_(descriptor), size_(size), replace_(replace) {}
  void Discard() noexcept;

  std::filesystem::path path_;
  std::filesystem::path part_path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  bool replace_ = false;
};

// A small file in one call, with the same guarantees.
Status WriteWholeFile(const std::filesystem::path& path, ByteView bytes, OutputFileOptions options = {});

// Removes the part files of this process that are still open. Async-signal-safe; for the handler of SIGINT and SIGTERM.
void DiscardOpenOutputsFromSignalHandler() noexcept;

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_OUTPUT_FILE_H_
