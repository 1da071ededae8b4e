// Which bytes a repacked bundle will hold, decided and checked before anything is written.
#ifndef TASKPRESS_CONVERTER_REPACK_PLAN_H_
#define TASKPRESS_CONVERTER_REPACK_PLAN_H_

#include <string>
#include <vector>

#include "converter/repack.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

struct RepackPlan {
  std::vector<Section> sections;   // in the order of the input; offsets and checksums mean nothing yet
  std::vector<std::string> notes;  // see RepackedBundle
};

// Drops, replaces and respells; then the sections are loaded together as a client would load them. Only roots and small sections are read.
Result<RepackPlan> PlanRepack(const Bundle& from, Container to, const SectionChanges& changes);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_REPACK_PLAN_H_
