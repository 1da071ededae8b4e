// What an Executor does for a subgraph, before any memory exists: which ops run, which tensors share memory, where each one lies.
//
// A plan is a pure function of the graph, so it is tested without kernels, and passes that replace ops have one place to happen in.
// - Ops whose results nobody reads are dropped.
// - RESHAPE, TRANSPOSE that only moves dimensions of 1, and SLICE of one contiguous piece become views: no step, no memory.
// - DYNAMIC_UPDATE_SLICE writes into its operand's memory when nobody reads the old contents afterwards.
// - A state (KV cache) is one buffer of the caller, bound to an input and the output that replaces it. When the graph reads the input after
// its
//   update, the update goes to other memory and is copied into the buffer at the end.
// - DEQUANTIZE of a constant happens once, at creation.
// - If asked for, a MEAN of a SQUARE reads what is squared, as the CPU clients run the pair.
// - All other tensors lie in one arena; tensors that are never alive together may share bytes.
#ifndef TASKPRESS_RUNTIME_PLAN_H_
#define TASKPRESS_RUNTIME_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// Memory of the caller that holds a state across runs.
struct ExternalBuffer {
  TensorId input = kNone;   // a subgraph input; kNone: the buffer is written only
  TensorId output = kNone;  // a subgraph output of the same type and shape; kNone: the buffer is read only
  ByteSpan bytes;           // exactly the tensor's size; kTensorPadding more bytes must be readable behind it
};

struct Placement {
  enum class Kind : uint8_t {
    kUnused,       // no live op touches the tensor
    kConstant,     // index: the constant tensor
    kDequantized,  // index: the f16 constant tensor
    kArena,        // index: into Plan::storages
    kExternal,     // index: into the external buffers
  };
  Kind kind = Kind::kUnused;
  int32_t index = kNone;
  uint64_t offset = 0;  // bytes from the start of that memory
  bool operator==(const Placement&) const = default;
};

// A piece of the arena, alive from op `first` to op `last`, both included.
struct Storage {
  uint64_t bytes = 0;
  int32_t first = 0;
  int32_t last = 0;
};

struct Plan {
  std::vector<int32_t> ops;              // indices of the ops that run, in order
  std::vector<int32_t> elided;           // live ops that became views or constants
  std::vector<Placement> placements;     // [tensors]
  std::vector<TensorId> values;          // [tensors] the tensor whose bytes this one shows under another shape; itself if none
  std::vector<TensorId> squared_inputs;  // [ops] of a MEAN that does the squaring before it: what is squared; else kNone
  std::vector<Storage> storages;
  struct CopyBack {
    int32_t external;
    TensorId tensor;
  };
  std::vector<CopyBack> copy_backs;  // after the last op
};

struct PlanOptions {
  // A MEAN over the last dimension of a SQUARE does the squaring; the SQUARE runs only if something else reads it.
  bool fuse_mean_of_squares = false;
};

// `graph` is valid (ValidateGraph). kGraphShape for tensors without elements or of absurd size and for external buffers that fit no input
// or output; kKernelUnsupported for a state that moves into another state's buffer.
Result<Plan> MakePlan(const Graph& graph, int32_t subgraph, std::span<const ExternalBuffer> externals, PlanOptions options = {});

struct ArenaLayout {
  std::vector<uint64_t> offsets;  // [storages], multiples of kTensorAlignment
  uint64_t bytes = 0;
};
// Places the largest first, each at the lowest offset that is free while it lives. Every storage gets kTensorPadding bytes behind it.
Result<ArenaLayout> LayOutArena(std::span<const Storage> storages);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PLAN_H_
