// The constants of a model's graphs as matrices: what a bundle stores, to be measured against floats.
#ifndef TASKPRESS_TOOLS_STORED_WEIGHTS_H_
#define TASKPRESS_TOOLS_STORED_WEIGHTS_H_

#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "quantizer/quant_spec.h"
#include "quantizer/quantized_source.h"
#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/byte_source.h"
#include "schema/graph.h"

namespace taskpress {

// Rows of a constant with the scales that belong to them.
class StoredRows final : public RowSource {
 public:
  // `scales`: several or none per row, and valid as long as this is.
  StoredRows(SharedBytes bytes, std::span<const float> scales, int64_t num_rows)
      : bytes_(std::move(bytes)), scales_(scales), num_rows_(num_rows), row_bytes_(bytes_->size() / static_cast<uint64_t>(num_rows)) {}
  [[nodiscard]] int64_t num_rows() const override { return num_rows_; }
  [[nodiscard]] uint64_t row_bytes() const override { return row_bytes_; }
  [[nodiscard]] int64_t scales_per_row() const override { return std::ssize(scales_) / num_rows_; }
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const override;

 private:
  SharedBytes bytes_;
  std::span<const float> scales_;
  int64_t num_rows_;
  uint64_t row_bytes_;
};

struct StoredWeight {
  const Graph* graph;
  const Subgraph* subgraph;
  const Tensor* tensor;
  [[nodiscard]] const SharedBytes& bytes() const { return graph->buffers[static_cast<size_t>(tensor->buffer)].bytes; }
  [[nodiscard]] QuantSpec spec() const { return {.type = tensor->type, .block_size = BlockSizeOf(*subgraph, *tensor)}; }
  // As float32: in place, or in `scratch`.
  Result<std::span<const float>> Scales(std::vector<float>& scratch) const;
};

using WeightsByName = std::map<std::string_view, StoredWeight>;

std::vector<const Graph*> GraphsOf(const TextModel& model);
// Every constant; the names are valid as long as the graphs are.
WeightsByName WeightsOf(std::span<const Graph* const> graphs);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_STORED_WEIGHTS_H_
