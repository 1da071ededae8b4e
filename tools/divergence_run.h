// Two models over the same text, window by window.
#ifndef TASKPRESS_TOOLS_DIVERGENCE_RUN_H_
#define TASKPRESS_TOOLS_DIVERGENCE_RUN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/divergence.h"
#include "schema/base/error.h"
#include "tools/model_source.h"

namespace taskpress {

// A model and what messages call it.
struct NamedModel {
  std::string name;
  OpenedModel& model;
};

// b is the reference. Memory: the logits of a window, of both. kNotComparable for models of different vocabularies, kNotFinite naming the
// model, kInterrupted.
Result<DivergenceSummary> MeasureDivergence(const NamedModel& a, const NamedModel& b, std::span<const std::vector<int32_t>> windows);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_DIVERGENCE_RUN_H_
