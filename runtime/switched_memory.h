// Memory with several versions of its contents, one of which lies under its address at a time.
//
// The versions are in a file without a name, so they are file cache that the system can write out, not memory of this process, and a switch
// moves a mapping instead of bytes. One executor whose arena and states lie here has as many calls in progress as there are versions.
#ifndef TASKPRESS_RUNTIME_SWITCHED_MEMORY_H_
#define TASKPRESS_RUNTIME_SWITCHED_MEMORY_H_

#include <cstdint>
#include <filesystem>
#include <memory>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

class SwitchedMemory {
 public:
  // All versions are zeros, the first is selected. The file takes its whole size on the disk of `folder` at once. kWriteFailed when that is
  // not possible, kOutOfMemory when no address is free.
  static Result<SwitchedMemory> Make(uint64_t bytes, int64_t versions, const std::filesystem::path& folder);

  SwitchedMemory(SwitchedMemory&&) noexcept;
  SwitchedMemory& operator=(SwitchedMemory&&) noexcept;
  ~SwitchedMemory();

  // Page-aligned; kTensorPadding more bytes are readable behind it. The address never changes.
  [[nodiscard]] ByteSpan bytes() const;
  [[nodiscard]] uint64_t file_bytes() const;
  // Puts version [0, versions) under bytes(). kOutOfMemory: bytes() are gone then.
  Status Select(int64_t version);

 private:
  struct Mapping;
  explicit SwitchedMemory(std::unique_ptr<Mapping> mapping);
  std::unique_ptr<Mapping> mapping_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SWITCHED_MEMORY_H_
