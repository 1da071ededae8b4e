#include "quantizer/parallel_rows.h"

#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <vector>

namespace taskpress {
namespace {

// Hands out blocks in ascending order and keeps the error of the lowest one.
class BlockQueue {
 public:
  BlockQueue(int64_t num_blocks, const std::atomic<bool>* stop) : num_blocks_(num_blocks), stop_(stop) {}

  // The next block; nothing when all are taken, one has failed or the work was stopped.
  std::optional<int64_t> Take() {
    if (failed_.load()) return std::nullopt;
    if (next_.load() < num_blocks_ && stop_ != nullptr && stop_->load()) {
      stopped_.store(true);
      return std::nullopt;
    }
    const int64_t block = next_.fetch_add(1);
    if (block >= num_blocks_) return std::nullopt;
    return block;
  }
  void Report(int64_t block, Error error) {
    const std::scoped_lock lock(mutex_);
    if (!error_ || block < error_block_) {
      error_ = std::move(error);
      error_block_ = block;
    }
    failed_.store(true);
  }
  // After all workers are done.
  Status Finish() {
    if (error_) return std::unexpected(*std::move(error_));
    if (stopped_.load()) return Fail(ErrorCode::kInterrupted, "interrupted after {} of {} row blocks", next_.load(), num_blocks_);
    return {};
  }

 private:
  const int64_t num_blocks_;
  const std::atomic<bool>* const stop_;
  std::atomic<int64_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;
  std::optional<Error> error_;
  int64_t error_block_ = 0;
};

int64_t NumBlocks(int64_t num_rows, int64_t rows_per_block) { return (num_rows + rows_per_block - 1) / rows_per_block; }

std::unexpected<Error> LibraryFailure(const std::exception& exception) {
  return Fail(ErrorCode::kOutOfMemory, "working on row blocks: {}", exception.what());
}

Status RunGuarded(const RowRangeBody& body, const RowRange& range) {
  try {
    return body(range);
  } catch (const std::exception& exception) {
    return LibraryFailure(exception);
  }
}

}  // namespace

Status CheckNotStopped(const std::atomic<bool>* stop) {
  if (stop != nullptr && stop->load()) return Fail(ErrorCode::kInterrupted, "stopped by a signal");
  return {};
}

int RowWorkers(int64_t num_rows, int64_t rows_per_block, const RowWork& work) {
  const int wanted = work.threads > 0 ? work.threads : tbb::info::default_concurrency();
  return static_cast<int>(std::clamp<int64_t>(NumBlocks(num_rows, rows_per_block), 1, wanted));
}

Status ForEachRowBlock(int64_t num_rows, int64_t rows_per_block, const RowWork& work, const RowRangeBody& body) {
  BlockQueue queue(NumBlocks(num_rows, rows_per_block), work.stop);
  const auto run_worker = [&](int worker) {
    while (const std::optional<int64_t> block = queue.Take()) {
      const int64_t first_row = *block * rows_per_block;
      const RowRange range{worker, first_row, std::min(rows_per_block, num_rows - first_row)};
      if (Status done = RunGuarded(body, range); !done) queue.Report(*block, std::move(done).error());
    }
  };
  try {
    // One task per worker, each emptying the queue: when TBB grants fewer threads than asked for, the first ones do all the work.
    const int workers = RowWorkers(num_rows, rows_per_block, work);
    tbb::task_arena arena(workers);
    arena.execute([&] { tbb::parallel_for(0, workers, run_worker, tbb::simple_partitioner()); });
  } catch (const std::exception& exception) {
    return LibraryFailure(exception);
  }
  return queue.Finish();
}

}  // namespace taskpress
