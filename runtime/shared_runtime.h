// What the executors of one model share: kernels, threads, constants, packed weights.
#ifndef TASKPRESS_RUNTIME_SHARED_RUNTIME_H_
#define TASKPRESS_RUNTIME_SHARED_RUNTIME_H_

#include <filesystem>
#include <memory>
#include <optional>

#include "runtime/constant_store.h"
#include "runtime/kernels.h"
#include "runtime/streamed_weights.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_packed_weights.h"
#include "schema/base/error.h"

namespace taskpress {

class StepProfile;

struct ExecutorOptions {
  Kernels kernels = Kernels::kFast;
  int threads = 0;                 // 0: all CPUs of this process
  PassNames disabled_passes = {};  // of kFast
  // The bundle that the constants are in, and where its packed weights are kept between starts; see PackedWeights::UseSource. Only kXnnpack
  // and kFast pack.
  std::optional<WeightSource> source = {};
  std::filesystem::path weight_cache = {};
  StepProfile* profile = nullptr;  // what executors report their steps to; must outlive them
};

class SharedRuntime {
 public:
  // kXnnpackFailed when XNNPACK does not support this CPU.
  static Result<std::unique_ptr<SharedRuntime>> Create(ExecutorOptions options = {});

  [[nodiscard]] Kernels kernels() const { return options_.kernels; }
  [[nodiscard]] const PassNames& disabled_passes() const { return options_.disabled_passes; }
  [[nodiscard]] const ThreadPool& threads() const { return threads_; }
  [[nodiscard]] ConstantStore& constants() { return constants_; }
  [[nodiscard]] PackedWeights& packed_weights() { return packed_weights_; }
  [[nodiscard]] StepProfile* profile() const { return options_.profile; }
  [[nodiscard]] StreamedWeights& streamed_weights() { return streamed_weights_; }

 private:
  SharedRuntime(ExecutorOptions options, ThreadPool threads)
      : options_(std::move(options)), threads_(std::move(threads)), constants_(threads_) {}

  ExecutorOptions options_;
  ThreadPool threads_;
  ConstantStore constants_;
  PackedWeights packed_weights_;
  StreamedWeights streamed_weights_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SHARED_RUNTIME_H_
