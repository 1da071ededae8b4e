// What every block works with: the builder it writes into, the model's config, and its weights by name.
#ifndef TASKPRESS_CONVERTER_BLOCKS_BLOCK_CONTEXT_H_
#define TASKPRESS_CONVERTER_BLOCKS_BLOCK_CONTEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "converter/graph_builder.h"
#include "converter/text_config.h"
#include "converter/text_weights.h"

namespace taskpress {

class BlockContext {
 public:
  BlockContext(GraphBuilder& builder, const TextConfig& model_config, TextWeights& weights)
      : b(builder), config(model_config), weights_(&weights) {}

  // A matrix of the model, "norm.weight", or of a layer, "mlp.gate_proj.weight". Errors go to the builder.
  Value Matrix(std::string_view name) { return Take(weights_->Matrix(std::string(name))); }
  Value Matrix(int64_t layer, std::string_view name) { return Matrix(LayerName(layer, name)); }
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

  static std::string LayerName(int64_t layer, std::string_view name) { return Format("layers.{}.{}", layer, name); }

  GraphBuilder& b;
  const TextConfig& config;

 private:
  Value Take(Result<Weight> weight);
  TextWeights* weights_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_BLOCK_CONTEXT_H_
