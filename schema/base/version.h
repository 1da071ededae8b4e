// The version of this build, as `taskpress --version` prints it.
#ifndef TASKPRESS_SCHEMA_BASE_VERSION_H_
#define TASKPRESS_SCHEMA_BASE_VERSION_H_

#include <string_view>

namespace taskpress {

[[nodiscard]] std::string_view Version();

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_VERSION_H_
