// Files that stand in for data: what a download stores when it did not fetch the real thing.
#ifndef TASKPRESS_SCHEMA_PLACEHOLDER_H_
#define TASKPRESS_SCHEMA_PLACEHOLDER_H_

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// kNotATensorFile.
inline Status RefuseLfsPointer(ByteView file) {
  if (!AsText(file).starts_with("version https://git-lfs")) return {};
  return Fail(ErrorCode::kNotATensorFile, "is a Git LFS pointer of {} bytes, not the data; run 'git lfs pull' or download the file again",
              file.size());
}

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_PLACEHOLDER_H_
