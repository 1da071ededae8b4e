#include "converter/blocks/per_layer_embedding.h"

#include <cmath>
#include <numbers>

#include "converter/blocks/rms_norm.h"

namespace taskpress {

Value PerLayerInputs(BlockContext& c, Value x0, Value table_rows) {
  GraphBuilder& b = c.b;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.config.hidden_size)));
  const Value projected = b.Mul(b.FullyConnected(x0, c.Matrix("per_layer_model_projection.weight")), b.Float(scale));
  const Value normed = RmsNorm(c, b.Reshape(projected, b.shape(table_rows)), c.Vector("per_layer_projection_norm.weight"));
  return b.Mul(b.Add(normed, table_rows), b.Float(static_cast<float>(1.0 / std::numbers::sqrt2)));
}

Streams AddPerLayerInput(BlockContext& c, int64_t layer, const Streams& corrected, Value per_layer_inputs) {
  GraphBuilder& b = c.b;
  const auto tokens = static_cast<int32_t>(b.dim(per_layer_inputs, 1));
  const auto width = static_cast<int32_t>(c.config.hidden_size_per_layer_input);
  const std::array<int32_t, 4> begin{0, 0, static_cast<int32_t>(c.StoredLayer(layer)), 0};
  const std::array<int32_t, 4> size{1, tokens, 1, width};
  const Value own = b.Reshape(b.Slice(per_layer_inputs, begin, size), {1, tokens, width});  // [1, tokens, per_layer]
  const Value scaled = c.config.altup_correct_scale ? b.Mul(corrected[0], c.Vector(layer, "altup.correct_output_scale")) : corrected[0];
  const Value gate = b.GeluTanh(b.FullyConnected(scaled, c.Matrix(layer, "per_layer_input_gate.weight")));
  const Value projected = b.FullyConnected(b.Mul(gate, own), c.Matrix(layer, "per_layer_projection.weight"));
  const Value delta = RmsNorm(c, projected, c.Vector(layer, "post_per_layer_input_norm.weight"));
  Streams out{corrected[0]};
  for (size_t i = 1; i < corrected.size(); ++i) out.push_back(b.Add(corrected[i], delta));
  return out;
}

}  // namespace taskpress
