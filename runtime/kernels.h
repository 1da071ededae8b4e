// Which kernels a model runs on.
#ifndef TASKPRESS_RUNTIME_KERNELS_H_
#define TASKPRESS_RUNTIME_KERNELS_H_

#include <cstdint>
#include <set>
#include <string>

namespace taskpress {

enum class Kernels : uint8_t {
  kReference,  // plain loops, float64 sums: the oracle
  kXnnpack,    // XNNPACK operators and our own vector loops; an op that neither supports runs on its reference kernel
  // As kXnnpack, with operators fused into larger steps (runtime/passes), and i4 and i8 matrices with a scale per channel multiplied by
  // loops of our own (packed_product.h): the same numbers, bit for bit, from packed weights that do not depend on the CPU.
  kFast,
  // As kXnnpack, except that matrices are multiplied where they lie in the file: nothing is packed, so a model of any size starts at once
  // and needs no memory beside caches and activations. A pass takes about as long as reading the weights; long prompts are XNNPACK's.
  kInPlace,
  // As kXnnpack, except that f32 matrices which are computed on demand (a checkpoint's) are packed when a step needs them and forgotten
  // when another one does, and rows of such tables are read one by one: a float model of any size runs in the memory of its largest matrix.
  // For calls of many tokens; every run reads all weights.
  kStreamed,
};

// Names of passes (runtime/passes/step_groups.h).
using PassNames = std::set<std::string, std::less<>>;

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_H_
