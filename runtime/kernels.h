// Which kernels a model runs on.
#ifndef TASKPRESS_RUNTIME_KERNELS_H_
#define TASKPRESS_RUNTIME_KERNELS_H_

#include <cstdint>

namespace taskpress {

enum class Kernels : uint8_t {
  kReference,  // plain loops, float64 sums: the oracle
  kXnnpack,    // XNNPACK operators and our own vector loops; an op that neither supports runs on its reference kernel
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_H_
