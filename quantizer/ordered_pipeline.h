// Numbered pieces of work through a bounded pipeline: made by all threads at once, taken over one by one in order.
#ifndef TASKPRESS_QUANTIZER_ORDERED_PIPELINE_H_
#define TASKPRESS_QUANTIZER_ORDERED_PIPELINE_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

// Called concurrently. Nobody else uses `slot` from here until the item was consumed.
using ProduceItem = std::function<Status(uint64_t item, size_t slot)>;
// Called for one item at a time, in ascending order, never after a failure.
using ConsumeItem = std::function<Status(uint64_t item, size_t slot)>;

// Items [first, end). At most `slots` are between the beginning of produce and the end of consume; `slot` counts from 0 to slots - 1. The
// first failure in the order of the items is returned, whatever the number of threads; every item below it has been consumed. Exceptions of
// libraries become kOutOfMemory.
Status RunOrdered(uint64_t first, uint64_t end, size_t slots, const RowWork& work, const ProduceItem& produce, const ConsumeItem& consume);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_ORDERED_PIPELINE_H_
