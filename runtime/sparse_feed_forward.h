// The end of a feed-forward block whose gate leaves few units active: rows of W_up and columns of W_down of the other units are not read.
#ifndef TASKPRESS_RUNTIME_SPARSE_FEED_FORWARD_H_
#define TASKPRESS_RUNTIME_SPARSE_FEED_FORWARD_H_

#include <vector>

#include "runtime/kernels/step.h"

namespace taskpress {

// FULLY_CONNECTED(x, W_up) -> MUL with `gate` -> FULLY_CONNECTED(W_down), with the bits of the three operators: sums of integers are exact
// in any order, what is skipped adds zeros, and zero belongs to the range that a row is quantized by.
struct SparseFeedForward {
  const OpContext& up;    // i4 or i8 weights; its input's int8 copy is filled
  const OpContext& down;  // i4 weights, at most kMaxSparseColumns columns
  const BoundTensor& gate;
  int64_t tokens = 1;
  // For several tokens: the same by the operators as they are, when too many units are open. One token reads less than all weights in any
  // case.
  std::vector<StepPtr> dense;
};
// kGraphShape, kOutOfMemory.
Result<StepPtr> MakeSparseFeedForward(SparseFeedForward parts);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SPARSE_FEED_FORWARD_H_
