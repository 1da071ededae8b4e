#include "tools/stored_weights.h"

#include <algorithm>

#include "schema/base/half.h"

namespace taskpress {

Status StoredRows::ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const {
  TRY(bytes_->Read(static_cast<uint64_t>(first_row) * row_bytes_, packed));
  const auto per_row = static_cast<size_t>(scales_per_row());
  std::ranges::copy(scales_.subspan(static_cast<size_t>(first_row) * per_row, static_cast<size_t>(count) * per_row), scales.begin());
  return {};
}

Result<std::span<const float>> StoredWeight::Scales(std::vector<float>& scratch) const {
  if (tensor->block_scales != kNone) {
    const Tensor& scales = subgraph->tensors[static_cast<size_t>(tensor->block_scales)];
    std::vector<std::byte> copy;
    const ByteView halves = TRY(ViewOrRead(*graph->buffers[static_cast<size_t>(scales.buffer)].bytes, copy));
    for (size_t i = 0; i < halves.size(); i += 2) scratch.push_back(F16ToFloat(LoadLittle<uint16_t>(halves.data() + i)));
    return scratch;
  }
  if (tensor->quantization == kNone) return std::span<const float>();
  return ScalesOf(graph->quantizations[static_cast<size_t>(tensor->quantization)]);
}

std::vector<const Graph*> GraphsOf(const TextModel& model) {
  std::vector<const Graph*> all{&model.prefill_decode, &model.embedder};
  if (model.per_layer_embedder) all.push_back(&*model.per_layer_embedder);
  return all;
}

WeightsByName WeightsOf(std::span<const Graph* const> graphs) {
  WeightsByName weights;
  for (const Graph* graph : graphs) {
    for (const Subgraph& subgraph : graph->subgraphs) {
      for (const Tensor& tensor : subgraph.tensors) {
        if (tensor.is_constant()) weights.try_emplace(tensor.name, graph, &subgraph, &tensor);
      }
    }
  }
  return weights;
}

}  // namespace taskpress
