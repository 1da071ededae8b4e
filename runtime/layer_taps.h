// Where a decoder layer ends: the tensors of the residual stream that the next layer begins with, found from the names of the weights.
#ifndef TASKPRESS_RUNTIME_LAYER_TAPS_H_
#define TASKPRESS_RUNTIME_LAYER_TAPS_H_

#include <cstdint>
#include <vector>

#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

inline constexpr int64_t kBeforeLayers = -1;

struct LayerTap {
  int64_t layer = kBeforeLayers;  // whose output it is
  int64_t stream = 0;             // of several (AltUp)
  Tap tap;
};

// Of the signature `decode`, in the order of their readers. A tensor belongs to layer n when weights called "layers.n." made it and none of
// later layers did; it is an output of n when something that weights of a later layer (or, behind the last one, of the head) make reads it,
// and it was made from the embeddings and has their size. What is made of one such tensor without weights (a norm before its gain) is not
// another. kSignatureMissing; kNotComparable for a graph without weights of such names.
Result<std::vector<LayerTap>> FindLayerTaps(const Graph& graph);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_LAYER_TAPS_H_
