#include "runtime/shared_runtime.h"

#include "runtime/xnnpack_kernels.h"

namespace taskpress {

Result<std::unique_ptr<SharedRuntime>> SharedRuntime::Create(ExecutorOptions options) {
  if (options.kernels != Kernels::kReference) TRY(InitializeXnnpack());
  // Weights in place are read at the pace of the memory; a check at the end of a long job may share its CPUs with others.
  const IdleWorkers idle = options.kernels == Kernels::kInPlace ? IdleWorkers::kSleep : IdleWorkers::kSpin;
  ThreadPool threads = TRY(ThreadPool::Create(options.threads, idle));
  return std::unique_ptr<SharedRuntime>(new SharedRuntime(options.kernels, std::move(threads)));
}

}  // namespace taskpress
