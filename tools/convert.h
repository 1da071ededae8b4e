// What `convert`, `quantize` and sweeps share: preparing is in convert_arguments.h, here is the writing.
#ifndef TASKPRESS_TOOLS_CONVERT_H_
#define TASKPRESS_TOOLS_CONVERT_H_

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "converter/convert.h"
#include "tools/command.h"
#include "tools/convert_arguments.h"
#include "tools/progress.h"

namespace taskpress {

struct WriteArguments {
  bool dry_run = false;
  bool force = false;
  bool resume = false;
  bool errors = false;
  bool no_lock = false;
  std::string progress = "auto";
};
void AddWriteOptions(CLI::App& verb, const std::shared_ptr<WriteArguments>& how);

// Writes what was prepared.
Result<WriteReport> Write(const ConvertArguments& arguments, const WriteArguments& how, const PreparedJobs& prepared, Progress& progress);
// All of the verb: prepares, writes, reports.
Result<ExitStatus> Convert(std::string_view verb, const ConvertArguments& arguments, const WriteArguments& how);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_CONVERT_H_
