#include "runtime/shared_runtime.h"

#include "runtime/xnnpack_kernels.h"

namespace taskpress {

Result<std::unique_ptr<SharedRuntime>> SharedRuntime::Create(ExecutorOptions options) {
  if (options.kernels != Kernels::kReference) TRY(InitializeXnnpack());
  // Weights in place are read at the pace of the memory; a check at the end of a long job may share its CPUs with others.
  const IdleWorkers idle = options.kernels == Kernels::kInPlace ? IdleWorkers::kSleep : IdleWorkers::kSpin;
  ThreadPool threads = TRY(ThreadPool::Create(options.threads, idle));
  std::unique_ptr<SharedRuntime> shared(new SharedRuntime(options.kernels, std::move(threads)));
  if (options.source && options.kernels == Kernels::kXnnpack) {
    shared->packed_weights_.UseSource(*std::move(options.source), options.weight_cache, shared->threads_);
  }
  return shared;
}

}  // namespace taskpress
