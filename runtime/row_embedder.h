// An embedder member: token id in, one row of floats out.
#ifndef TASKPRESS_RUNTIME_ROW_EMBEDDER_H_
#define TASKPRESS_RUNTIME_ROW_EMBEDDER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/executor.h"
#include "runtime/shared_runtime.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

class RowEmbedder {
 public:
  // Uses the first signature: one i32 input with one element, one f32 output with `row_size` elements. kBundleContract, kSignatureMissing.
  // `graph` and `shared` must outlive the embedder.
  static Result<RowEmbedder> Create(const Graph& graph, SharedRuntime& shared, int64_t row_size);

  // Valid until the next call. kRuntimeIndex for a token the table does not have.
  Result<std::span<const float>> Embed(int32_t token);
  // Token 0's row, for the empty rows of a chunk.
  [[nodiscard]] std::span<const float> padding_row() const { return padding_row_; }

 private:
  RowEmbedder(Executor executor, TensorId input, TensorId output) : executor_(std::move(executor)), input_(input), output_(output) {}

  Executor executor_;
  TensorId input_;
  TensorId output_;
  std::vector<float> padding_row_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_ROW_EMBEDDER_H_
