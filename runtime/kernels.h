// Which kernels a model runs on.
#ifndef TASKPRESS_RUNTIME_KERNELS_H_
#define TASKPRESS_RUNTIME_KERNELS_H_

#include <cstdint>

namespace taskpress {

enum class Kernels : uint8_t {
  kReference,  // plain loops, float64 sums: the oracle
  kXnnpack,    // XNNPACK operators and our own vector loops; an op that neither supports runs on its reference kernel
  // The same, except that matrices are multiplied where they lie in the file: nothing is packed, so a model of any size starts at once and
  // needs no memory beside caches and activations. A pass takes about as long as reading the weights; long prompts are XNNPACK's.
  kInPlace,
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_H_
