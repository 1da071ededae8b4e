#include "quantizer/ordered_pipeline.h"

#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_pipeline.h>
#include <oneapi/tbb/task_arena.h>

#include <atomic>
#include <exception>
#include <vector>

namespace taskpress {
namespace {

std::unexpected<Error> LibraryFailure(const std::exception& exception) {
  return Fail(ErrorCode::kOutOfMemory, "in the pipeline: {}", exception.what());
}

Status Guarded(const std::function<Status(uint64_t, size_t)>& work, uint64_t item, size_t slot) {
  try {
    return work(item, slot);
  } catch (const std::exception& exception) {
    return LibraryFailure(exception);
  }
}

}  // namespace

Status RunOrdered(uint64_t first, uint64_t end, size_t slots, const RowWork& work, const ProduceItem& produce, const ConsumeItem& consume) {
  // Consuming in order keeps the items under way a window of at most `slots` numbers, so item % slots is nobody else's.
  std::vector<Status> produced(slots);
  Status result;
  std::atomic<bool> failed = false;
  uint64_t next = first;
  const auto take = [&](oneapi::tbb::flow_control& control) -> uint64_t {
    const bool stopped = work.stop != nullptr && work.stop->load();
    if (next >= end || failed.load() || stopped) {
      control.stop();
      return end;
    }
    return next++;
  };
  const auto make = [&](uint64_t item) {
    const size_t slot = item % slots;
    produced[slot] = failed.load() ? Status() : Guarded(produce, item, slot);
    return item;
  };
  const auto take_over = [&](uint64_t item) {
    if (failed.load()) return;
    const size_t slot = item % slots;
    Status done = std::move(produced[slot]);
    if (done) done = Guarded(consume, item, slot);
    if (done) return;
    result = std::move(done);
    failed.store(true);
  };
  try {
    const int threads = work.threads > 0 ? work.threads : oneapi::tbb::info::default_concurrency();
    oneapi::tbb::task_arena arena(threads);
    arena.execute([&] {
      using oneapi::tbb::filter_mode;
      oneapi::tbb::parallel_pipeline(slots, oneapi::tbb::make_filter<void, uint64_t>(filter_mode::serial_in_order, take) &
                                                oneapi::tbb::make_filter<uint64_t, uint64_t>(filter_mode::parallel, make) &
                                                oneapi::tbb::make_filter<uint64_t, void>(filter_mode::serial_in_order, take_over));
    });
  } catch (const std::exception& exception) {
    return LibraryFailure(exception);
  }
  if (result && next < end) return Fail(ErrorCode::kInterrupted, "interrupted after {} of {} pieces", next - first, end - first);
  return result;
}

}  // namespace taskpress
