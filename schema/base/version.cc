#include "schema/base/version.h"

namespace taskpress {

std::string_view Version() { return TASKPRESS_VERSION; }

}  // namespace taskpress
