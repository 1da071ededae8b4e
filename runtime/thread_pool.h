// A pool of worker threads (pthreadpool), shared by XNNPACK's operators and our own loops.
//
// Work is split by the shape of the data, never by the number of threads, so results do not depend on it.
#ifndef TASKPRESS_RUNTIME_THREAD_POOL_H_
#define TASKPRESS_RUNTIME_THREAD_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "schema/base/error.h"

struct pthreadpool;

namespace taskpress {

// What workers do between two pieces of work. Spinning answers within a microsecond, but takes its CPU from whoever else is there: with a
// compiler beside it, spinning workers cost eight times the CPU time of the work itself.
enum class IdleWorkers : uint8_t { kSpin, kSleep };

// Products of a matrix that are as much work as one element of an elementwise function, in which HandleFor and ForEachBlock count.
inline constexpr int64_t kProductsPerElement = 16;

class ThreadPool {
 public:
  // `threads` = 0: one per CPU this process may run on. 1: no worker, everything happens on the caller's thread. kOutOfMemory.
  static Result<ThreadPool> Create(int threads, IdleWorkers idle = IdleWorkers::kSpin);

  [[nodiscard]] int threads() const { return threads_; }
  // For XNNPACK; null for one thread, and when workers sleep: XNNPACK's operators would let them spin.
  [[nodiscard]] pthreadpool* handle() const { return idle_ == IdleWorkers::kSpin ? pool_.get() : nullptr; }
  // The handle when `elements` are worth waking a worker, else null: then the caller's thread does all.
  [[nodiscard]] pthreadpool* HandleFor(int64_t elements) const { return elements >= kMinElements ? handle() : nullptr; }

  // Calls task(i) for every i in [0, count), on all threads.
  template <typename Task>
  void ForEach(int64_t count, Task&& task) const {
    Run(count, [](void* context, size_t i) { (*static_cast<std::remove_reference_t<Task>*>(context))(static_cast<int64_t>(i)); }, &task);
  }

  // Calls task(worker, i) for every i in [0, count). Of the at most threads() workers each is one thread at a time, so scratch memory can
  // be given out by them; who does what changes from run to run.
  template <typename Task>
  void ForEachWithWorker(int64_t count, Task&& task) const {
    const int64_t workers = std::min<int64_t>(threads_, count);
    std::atomic<int64_t> next = 0;
    auto work = [&](int64_t worker) {
      for (int64_t i = next++; i < count; i = next++) task(worker, i);
    };
    workers > 1 ? ForEach(workers, work) : work(0);
  }

  // Calls task(first, count) for blocks of `items`, each worth about kBlockElements; at once and on this thread when they do not make two.
  template <typename Task>
  void ForEachBlock(int64_t items, int64_t elements_per_item, Task&& task) const {
    const int64_t block = std::max<int64_t>(1, kBlockElements / elements_per_item);
    if (items < 2 * block) return task(int64_t{0}, items);
    ForEach((items + block - 1) / block, [&](int64_t i) { task(i * block, std::min(block, items - i * block)); });
  }

 private:
  static constexpr int64_t kBlockElements = 8192;
  // Below this, waking and joining a worker (a few microseconds) costs more than it saves.
  static constexpr int64_t kMinElements = 32768;

  struct Destroy {
    void operator()(pthreadpool* pool) const;
  };
  ThreadPool(pthreadpool* pool, int threads, IdleWorkers idle) : pool_(pool), threads_(threads), idle_(idle) {}
  void Run(int64_t count, void (*task)(void*, size_t), void* context) const;

  std::unique_ptr<pthreadpool, Destroy> pool_;
  int threads_;
  IdleWorkers idle_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_THREAD_POOL_H_
