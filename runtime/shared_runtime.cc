#include "runtime/shared_runtime.h"

#include "runtime/xnnpack_kernels.h"

namespace taskpress {

Result<std::unique_ptr<SharedRuntime>> SharedRuntime::Create(ExecutorOptions options) {
  if (options.kernels == Kernels::kXnnpack) TRY(InitializeXnnpack());
  ThreadPool threads = TRY(ThreadPool::Create(options.threads));
  return std::unique_ptr<SharedRuntime>(new SharedRuntime(options.kernels, std::move(threads)));
}

}  // namespace taskpress
