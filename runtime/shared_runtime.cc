#include "runtime/shared_runtime.h"

#include <utility>

#include "runtime/passes/step_groups.h"
#include "runtime/xnnpack_kernels.h"

namespace taskpress {

Result<std::unique_ptr<SharedRuntime>> SharedRuntime::Create(ExecutorOptions options) {
  if (options.kernels != Kernels::kReference) TRY(InitializeXnnpack());
  // Weights in place are read at the pace of the memory; a check at the end of a long job may share its CPUs with others.
  const IdleWorkers idle = options.kernels == Kernels::kInPlace ? IdleWorkers::kSleep : IdleWorkers::kSpin;
  for (const std::string& name : options.disabled_passes) TRY(CheckPassName(name));
  ThreadPool threads = TRY(ThreadPool::Create(options.threads, idle));
  const bool packs = options.kernels == Kernels::kXnnpack || options.kernels == Kernels::kFast;
  std::optional<WeightSource> source = packs ? std::move(options.source) : std::nullopt;
  const std::filesystem::path weight_cache = std::move(options.weight_cache);
  std::unique_ptr<SharedRuntime> shared(new SharedRuntime(std::move(options), std::move(threads)));
  if (source) shared->packed_weights_.UseSource(*std::move(source), weight_cache, shared->threads_);
  return shared;
}

}  // namespace taskpress
