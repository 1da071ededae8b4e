// What a bundle was made from, beside it: "<bundle>.lock.json", and a line in the folder's SHA256SUMS. Rules R6 to R8 of FORMATS.md.
#ifndef TASKPRESS_CONVERTER_LOCK_FILE_H_
#define TASKPRESS_CONVERTER_LOCK_FILE_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

struct FileDigest {
  std::string name;  // without folders
  uint64_t bytes = 0;
  std::string sha256;
};

struct LockFile {
  std::string version;  // of the Taskpress that made it
  FileDigest output;
  std::vector<std::pair<std::string, std::string>> options;  // every option that decides the bytes, in a fixed order
  std::string recipe;                                        // resolved, one line per weight
  std::vector<FileDigest> inputs;
};

std::filesystem::path LockPath(const std::filesystem::path& output);
// The same contents give the same bytes: no time, no folder, no machine.
Status WriteLockFile(const std::filesystem::path& output, const LockFile& lock);
// kLockMismatch for a file that is no lock of this version.
Result<LockFile> ReadLockFile(const std::filesystem::path& path);
// Puts the output's line into SHA256SUMS of its folder, in place of an older one; other lines stay. As sha256sum -c reads it.
Status UpdateSums(const std::filesystem::path& output, const FileDigest& digest);

// Size and SHA-256 of a file, read once in blocks. kInterrupted when `stop` is set meanwhile.
Result<FileDigest> DigestFile(const std::filesystem::path& path, const std::atomic<bool>* stop = nullptr);
// The bundle is the one that the lock names, and so are all inputs that are found by their names in `folders`; where folders are given,
// every input has to be in one of them. kLockMismatch.
Status CheckLock(const LockFile& lock, const std::filesystem::path& bundle, std::span<const std::filesystem::path> folders,
                 const std::atomic<bool>* stop = nullptr);
// kLockMismatch naming the file and both digests.
Status CheckDigest(const FileDigest& expected, const FileDigest& found, const std::filesystem::path& path);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_LOCK_FILE_H_
