// Where the error of a model comes from: its weights, matrix by matrix, and its residual stream, layer by layer.
#ifndef TASKPRESS_TOOLS_LAYER_ERRORS_H_
#define TASKPRESS_TOOLS_LAYER_ERRORS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quantizer/error_report.h"
#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

// Of a stream behind a layer, over positions. Every position counts by its own size, so that one enormous token does not stand for all.
struct StreamError {
  int64_t layer = 0;  // -1: before the first
  int64_t stream = 0;
  double relative_error = 0;  // root mean square over positions of |a - b| / |b|
  double cosine = 1;          // mean of a.b / |a||b|
};

struct LayerErrors {
  int64_t positions = 0;
  std::vector<StreamError> streams;   // by layer, then stream
  std::vector<TensorError> matrices;  // of a that are not exact
  std::vector<std::string> skipped;   // matrices that b has under other names or shapes
};

// Runs both token by token over windows until `most_positions` were seen. b is the reference, whose weights are floats or at least finer.
// kNotComparable when layers or streams differ.
Result<LayerErrors> MeasureLayerErrors(Session& a, Session& b, std::span<const std::vector<int32_t>> windows, int64_t most_positions,
                                       const RowWork& work);

[[nodiscard]] std::string FormatLayerErrors(const LayerErrors& errors);
[[nodiscard]] OrderedJson LayerErrorsJson(const LayerErrors& errors);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_LAYER_ERRORS_H_
