// Makes another size of an elastic bundle the one that clients load. Rules E10 and E11 of FORMATS.md.
#ifndef TASKPRESS_SCHEMA_ACTIVATE_H_
#define TASKPRESS_SCHEMA_ACTIVATE_H_

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/base/output_file.h"
#include "schema/bundle.h"

namespace taskpress {

// Bytes of a file that become others.
struct FilePatch {
  uint64_t offset = 0;
  std::vector<std::byte> bytes;
};
struct FilePatches {
  std::vector<FilePatch> patches;
  uint64_t file_size = 0;  // of the new file; what lies behind the old one's end is in the patches
};

// What changes in the file that `bundle` was read from when `name` becomes its active size. Nothing when it is that already. `file` needs a
// view(). kUsage when there is no such size.
Result<FilePatches> PlanActivation(const Bundle& bundle, const SharedBytes& file, std::string_view name);

// Copies the bundle `from` to `to` with the size `name` active: headers change, roots and weights stay as they are. The copy is read again
// before it gets its name. kUsage, kOutputExists, and the errors of ReadBundle.
Status ActivateSize(const std::filesystem::path& from, const std::filesystem::path& to, std::string_view name,
                    OutputFileOptions options = {});

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_ACTIVATE_H_
