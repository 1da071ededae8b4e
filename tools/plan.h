// What `plan` and `convert --dry-run` print.
#ifndef TASKPRESS_TOOLS_PLAN_H_
#define TASKPRESS_TOOLS_PLAN_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "tools/convert_arguments.h"

namespace taskpress {

// Every tensor, sizes, memory, time and the limits of clients, as text or JSON on stdout. kOk, also when a client's limit is broken.
Result<ExitStatus> PrintPlan(std::string_view verb, const ConvertArguments& arguments, const PreparedJobs& prepared,
                             std::optional<uint64_t> device_ram = {});

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_PLAN_H_
