// What a machine could do at most, measured: to say which share of it a model reaches.
//
// Prefill is bound by multiplications, decode by reading the weights. The peak of the first is that of the matrix kernel itself on one
// matrix of the model, so the rest (attention, norms, glue) shows as what is missing; the second is how fast all threads together read
// memory.
#ifndef TASKPRESS_RUNTIME_ROOFLINE_H_
#define TASKPRESS_RUNTIME_ROOFLINE_H_

#include <cstdint>

#include "runtime/kernels.h"
#include "runtime/thread_pool.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

struct MatrixShape {
  DType type = DType::kI4;
  int64_t in = 0;
  int64_t out = 0;
};

// The matrices of one call of a signature.
struct MatrixWork {
  uint64_t products = 0;      // multiplications
  uint64_t weight_bytes = 0;  // as stored
  MatrixShape largest;        // of the kind that most products are in
};
// Of the FULLY_CONNECTED ops that run. Errors of MakePlan.
Result<MatrixWork> MatrixWorkOf(const Graph& graph, int32_t subgraph);

// Products per second of the FULLY_CONNECTED kernel, for `rows` tokens at once: the best of several runs. Errors of Executor::Create.
Result<double> MeasureMatrixPeak(const MatrixShape& shape, int64_t rows, Kernels kernels, int threads);

// Bytes per second that all threads together read from memory: the best of several passes over 256 MiB. kOutOfMemory.
Result<double> MeasureReadBandwidth(const ThreadPool& threads);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_ROOFLINE_H_
