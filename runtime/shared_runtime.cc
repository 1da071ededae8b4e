#include "runtime/shared_runtime.h"

#include "runtime/passes/step_groups.h"
#include "runtime/xnnpack_kernels.h"

namespace taskpress {

Result<std::unique_ptr<SharedRuntime>> SharedRuntime::Create(ExecutorOptions options) {
  if (options.kernels != Kernels::kReference) TRY(InitializeXnnpack());
  // Weights in place are read at the pace of the memory; a check at the end of a long job may share its CPUs with others.
  const IdleWorkers idle = options.kernels == Kernels::kInPlace ? IdleWorkers::kSleep : IdleWorkers::kSpin;
  for (const std::string& name : options.disabled_passes) TRY(CheckPassName(name));
  ThreadPool threads = TRY(ThreadPool::Create(options.threads, idle));
  return std::unique_ptr<SharedRuntime>(new SharedRuntime(std::move(options), std::move(threads)));
}

}  // namespace taskpress
