// Which files of a checkpoint hold its weights, and which file the index promises each tensor in. Looks at names and links only; no tensor
// is read.
#ifndef TASKPRESS_CONVERTER_CHECKPOINT_FOLDER_H_
#define TASKPRESS_CONVERTER_CHECKPOINT_FOLDER_H_

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

struct CheckpointFile {
  std::string name;            // as the folder and the index spell it, for messages
  std::filesystem::path path;  // what to open: the file itself, behind any link
};

struct CheckpointFiles {
  std::vector<CheckpointFile> files;
  // Tensor name -> file name. Empty when there is no index: then the only file says what the checkpoint holds.
  std::map<std::string, std::string> index;
};

// Rules C1 to C6 of FORMATS.md. Refuses pickle files, ambiguous folders, and shards that lie outside the folder.
Result<CheckpointFiles> FindCheckpointFiles(const std::filesystem::path& path);

// C6: the file behind `name`, a relative path below `folder` without "..", which no link may lead out of the folder. kUnsafePath when one
// does, kCheckpointIndex when a link leads nowhere; whether the file exists is not asked otherwise.
Result<CheckpointFile> ResolveInside(const std::filesystem::path& folder, const std::string& name);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CHECKPOINT_FOLDER_H_
