// Row blocks over threads: bounded memory, the same content and the same error whatever the number of threads.
#ifndef TASKPRESS_QUANTIZER_PARALLEL_ROWS_H_
#define TASKPRESS_QUANTIZER_PARALLEL_ROWS_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "schema/base/error.h"

namespace taskpress {

struct RowWork {
  int threads = 0;                          // at most; 0 or less: one per core
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler: no new block is started, the result is kInterrupted
};

// kInterrupted once `stop` is set; null: never.
Status CheckNotStopped(const std::atomic<bool>* stop);

struct RowRange {
  int worker = 0;  // 0 ... RowWorkers() - 1: an index for scratch memory
  int64_t first_row = 0;
  int64_t count = 0;
};
// Called concurrently; calls with the same `worker` never overlap.
using RowRangeBody = std::function<Status(const RowRange& range)>;

// The number of workers ForEachRowBlock will use.
[[nodiscard]] int RowWorkers(int64_t num_rows, int64_t rows_per_block, const RowWork& work);

// Cuts [0, num_rows) into blocks of rows_per_block (the last may be shorter) and runs body on each, started in ascending order.
// When blocks fail, the error of the lowest one is returned: blocks start in order, so every block below a failing one is finished first.
// Exceptions of libraries become kOutOfMemory.
Status ForEachRowBlock(int64_t num_rows, int64_t rows_per_block, const RowWork& work, const RowRangeBody& body);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_PARALLEL_ROWS_H_
