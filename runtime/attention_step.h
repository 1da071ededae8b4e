// Attention over the open positions of a cache as one step (kernels/native/attention.h).
#ifndef TASKPRESS_RUNTIME_ATTENTION_STEP_H_
#define TASKPRESS_RUNTIME_ATTENTION_STEP_H_

#include <cstdint>
#include <vector>

#include "runtime/kernels/native/attention.h"
#include "runtime/kernels/step.h"
#include "runtime/passes/step_groups.h"

namespace taskpress {

// The open columns of each row of a mask, shared by the layers that use it.
struct MaskRanges {
  std::vector<MaskRange> rows;  // [tokens]
};

// The tensors of an AttentionGroup.
struct AttentionTensors {
  const BoundTensor* queries = nullptr;
  const BoundTensor* keys = nullptr;
  const BoundTensor* values = nullptr;
  const BoundTensor* positions = nullptr;  // or null
  const BoundTensor* mask = nullptr;
  const BoundTensor* out = nullptr;
};

// The step that finds them, to be run before the first attention that reads them. `ranges` must outlive it.
StepPtr MakeMaskRanges(const AttentionGroup& group, const BoundTensor& mask, MaskRanges& ranges);

// The tensors and `ranges` must outlive the step. Running it: kRuntimeIndex when a
// position is outside the cache.
StepPtr MakeAttention(const AttentionGroup& group, const AttentionTensors& tensors, const MaskRanges& ranges, const ThreadPool& threads);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_ATTENTION_STEP_H_
