// Runs one subgraph of a model: plan once, run often.
//
// Create() decides everything: memory (runtime/plan.h), kernels, packed weights. Run() walks the steps and allocates nothing. Inputs keep
// their values from run to run; outputs are valid until the next run.
#ifndef TASKPRESS_RUNTIME_EXECUTOR_H_
#define TASKPRESS_RUNTIME_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/attention_step.h"
#include "runtime/kernels/step.h"
#include "runtime/plan.h"
#include "runtime/shared_runtime.h"
#include "runtime/tensor_buffer.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

enum class KernelKind : uint8_t { kReference, kXnnpack, kNative };
[[nodiscard]] std::string_view NameOf(KernelKind kind);

// One step of an executor, for reports.
struct StepInfo {
  int32_t op = kNone;     // index in the subgraph; of a fused step, the first of its operators
  std::string_view name;  // the operator, "QUANTIZE_ROWS" for the int8 copy of a FULLY_CONNECTED's input, or what was fused
  KernelKind kernel = KernelKind::kReference;
};

// Gives memory for an executor's tensors, kTensorAlignment and with kTensorPadding readable bytes behind it, in place of its own. The
// caller may put other contents under the same addresses between two steps (SwitchedMemory): many calls in progress, one executor.
using ArenaMaker = std::function<Result<ByteSpan>(uint64_t bytes)>;

class StepProfile;

class Executor {
 public:
  // `graph`, `shared`, the external buffers and memory from `make_arena` must outlive the executor. Refuses graphs that ValidateGraph
  // refuses, operators whose tensors do not fit them (kGraphShape), operators no kernel covers (kKernelUnsupported), and kOutOfMemory.
  static Result<Executor> Create(const Graph& graph, int32_t subgraph, SharedRuntime& shared,
                                 std::span<const ExternalBuffer> externals = {}, const ArenaMaker& make_arena = {});

  // kRuntimeIndex when an index computed by the graph leaves its table.
  Status Run();
  // Steps [begin, end) of steps(). Run() is all of them, and then CopyStatesBack() for states that cannot be updated in place.
  Status RunSteps(size_t begin, size_t end);
  void CopyStatesBack();

  // Bytes of an input or output of the subgraph.
  [[nodiscard]] ByteSpan Input(TensorId id) const;
  [[nodiscard]] ByteView Output(TensorId id) const;
  template <typename T>
  [[nodiscard]] std::span<T> InputAs(TensorId id) const {
    const ByteSpan bytes = Input(id);
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  template <typename T>
  [[nodiscard]] std::span<const T> OutputAs(TensorId id) const {
    const ByteView bytes = Output(id);
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }

  // A tensor of the subgraph that a step still to be run reads: its bytes are there when every step before that one has run.
  template <typename T>
  [[nodiscard]] std::span<const T> ValueAs(TensorId id) const {
    return OutputAs<T>(id);
  }

  [[nodiscard]] std::span<const StepInfo> steps() const { return infos_; }
  // Bytes of weights that the last Run() had no need to read.
  [[nodiscard]] uint64_t skipped_bytes() const;
  [[nodiscard]] uint64_t arena_bytes() const { return arena_.size(); }

 private:
  friend class ExecutorBuilder;
  Executor() = default;
  Status RunStepsWatched(size_t begin, size_t end);

  struct CopyBack {
    const std::byte* from;
    std::byte* to;
    size_t bytes;
  };

  std::vector<std::unique_ptr<MaskRanges>> mask_ranges_;
  TensorBuffer own_arena_;
  ByteSpan arena_;
  TensorBuffer workspace_;
  std::vector<BoundTensor> tensors_;  // by TensorId; steps point into it
  std::vector<StepPtr> steps_;
  std::vector<StepInfo> infos_;
  std::vector<CopyBack> copy_backs_;
  StepProfile* profile_ = nullptr;  // SharedRuntime::profile()
  size_t profile_number_ = 0;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_EXECUTOR_H_
