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

// Where a file is until it is whole: "<name>.part".
std::filesystem::path PartPath(const std::filesystem::path& path);

struct OutputFileOptions {
  bool replace = false;  // else an existing file under the final name is an error
  bool keep = false;     // the part file outlives this object when it is not committed, for a later Reopen()
};

class OutputFile {
 public:
  // kOutputExists, or kWriteFailed when the folder cannot be written or lacks `size` bytes.
  static Result<OutputFile> Create(const std::filesystem::path& path, uint64_t size, OutputFileOptions options = {});

  // Takes up a part file that an earlier process left, with its bytes. kCannotResume when there is none of this size.
  static Result<OutputFile> Reopen(const std::filesystem::path& path, uint64_t size, OutputFileOptions options = {});

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  // Writes at an absolute offset. Different ranges may be written from several threads.
  Status WriteAt(uint64_t offset, ByteView bytes);
  // A small file about the part, such as how far it has come: it goes when the part is discarded.
  void SetCompanion(std::filesystem::path path);
  // Reads back what was written.
  Status ReadAt(uint64_t offset, ByteSpan bytes) const;
  // Lets the disk begin with what was written so far, without waiting for it.
  void BeginFlush();
  // fsync of data, file mode, rename to the final name, fsync of the folder. Consumes the file.
  Status Commit();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const std::filesystem::path& part_path() const { return part_path_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  // fsync without rename, so that the part can be reopened and checked before it gets its name. Safe beside WriteAt().
  Status Flush();

 private:
  OutputFile(std::filesystem::path path, std::filesystem::path part_path, int descriptor, uint64_t size, OutputFileOptions options)
      : path_(std::move(path)), part_path_(std::move(part_path)), descriptor_(descriptor), size_(size), options_(options) {}
  static Result<OutputFile> OpenPart(const std::filesystem::path& path, uint64_t size, OutputFileOptions options, int flags);
  void Discard() noexcept;
  void Forget() noexcept;

  std::filesystem::path path_;
  std::filesystem::path part_path_;
  std::filesystem::path companion_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  OutputFileOptions options_;
};

// A small file in one call, with the same guarantees.
Status WriteWholeFile(const std::filesystem::path& path, ByteView bytes, OutputFileOptions options = {});

// Removes the part files of this process that are still open. Async-signal-safe; for the handler of SIGINT and SIGTERM.
void DiscardOpenOutputsFromSignalHandler() noexcept;

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_OUTPUT_FILE_H_
