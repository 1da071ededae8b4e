#include "runtime/thread_pool.h"

#include <pthreadpool.h>

#include <algorithm>
#include <thread>

namespace taskpress {

void ThreadPool::Destroy::operator()(pthreadpool* pool) const { pthreadpool_destroy(pool); }

Result<ThreadPool> ThreadPool::Create(int threads, IdleWorkers idle) {
  if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (threads == 1) return ThreadPool(nullptr, 1, idle);
  pthreadpool* pool = pthreadpool_create(static_cast<size_t>(threads));
  if (pool == nullptr) return Fail(ErrorCode::kOutOfMemory, "a pool of {} threads could not be started; ask for fewer threads", threads);
  return ThreadPool(pool, threads, idle);
}

void ThreadPool::Run(int64_t count, void (*task)(void*, size_t), void* context) const {
  const uint32_t flags = idle_ == IdleWorkers::kSleep ? PTHREADPOOL_FLAG_YIELD_WORKERS : 0;
  pthreadpool_parallelize_1d(pool_.get(), task, context, static_cast<size_t>(count), flags);
}

}  // namespace taskpress
