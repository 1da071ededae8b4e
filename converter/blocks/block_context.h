// What every block works with: the builder it writes into, the model's config, and its weights by name.
#ifndef TASKPRESS_CONVERTER_BLOCKS_BLOCK_CONTEXT_H_
#define TASKPRESS_CONVERTER_BLOCKS_BLOCK_CONTEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "converter/graph_builder.h"
#include "converter/model_place.h"
#include "converter/text_config.h"
#include "converter/text_weights.h"

namespace taskpress {

class BlockContext {
 public:
  // Layers are those of `model_config`; `place` says which stored layers these are, null: the same ones. All outlive this.
  BlockContext(GraphBuilder& builder, const TextConfig& model_config, TextWeights& weights, const ModelPlace* place = nullptr)
      : b(builder), config(model_config), weights_(&weights), place_(place) {}

  // A matrix of the model, "norm.weight", or of a layer, "mlp.gate_proj.weight". Errors go to the builder.
  Value Matrix(std::string_view name) { return Take(weights_->Matrix(std::string(name))); }
  Value Matrix(int64_t layer, std::string_view name) { return Matrix(LayerName(layer, name)); }
  // The first rows, and columns [begin, end), of a layer's matrix.
  Value FirstRows(int64_t layer, std::string_view name, int64_t rows) { return Take(weights_->FirstRows(LayerName(layer, name), rows)); }
  Value Columns(int64_t layer, std::string_view name, int64_t begin, int64_t end) {
    return Take(weights_->Columns(LayerName(layer, name), begin, end));
  }
  Value Head() { return Take(weights_->Head()); }
  Value EmbeddingTable() { return Take(weights_->EmbeddingTable()); }
  Value PerLayerTable(int64_t layer) { return Take(weights_->PerLayerTable(layer)); }

  // A small weight as floats, to be folded into a constant.
  std::vector<float> Floats(const std::string& name);
  std::vector<float> Floats(int64_t layer, std::string_view name) { return Floats(LayerName(layer, name)); }
  // A norm's gain or another vector, under its own name. `factor` is folded in.
  Value Vector(const std::string& name, float factor = 1.0F);
  Value Vector(int64_t layer, std::string_view name, float factor = 1.0F) { return Vector(LayerName(layer, name), factor); }
  // A constant made from a weight.
  Value Folded(const std::string& name, std::span<const float> values, Shape shape);

  // Weights have the names of the stored model.
  [[nodiscard]] std::string LayerName(int64_t layer, std::string_view name) const {
    return Format("layers.{}.{}", StoredLayer(layer), name);
  }
  [[nodiscard]] int64_t StoredLayer(int64_t layer) const {
    return place_ == nullptr ? layer : place_->stored_layers[static_cast<size_t>(layer)];
  }
  // Layers that per-layer embeddings come for.
  [[nodiscard]] int64_t NumStoredLayers() const {
    return place_ == nullptr ? config.num_hidden_layers : static_cast<int64_t>(place_->ffn_cuts.size());
  }
  // Where the columns of the layer's down_proj end piece by piece, up to the layer's own width.
  [[nodiscard]] std::vector<int64_t> FfnCuts(int64_t layer) const;

  GraphBuilder& b;
  const TextConfig& config;

 private:
  Value Take(Result<Weight> weight);
  TextWeights* weights_;
  const ModelPlace* place_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_BLOCK_CONTEXT_H_
