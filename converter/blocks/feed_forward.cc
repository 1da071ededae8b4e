#include "converter/blocks/feed_forward.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace taskpress {
namespace {

Value CutToTopK(BlockContext& c, Value gate, double sparsity) {
  GraphBuilder& b = c.b;
  const Value mean = b.MeanOfLast(gate);
  const Value deviation = b.Sqrt(b.MeanOfLast(b.Square(b.Sub(gate, mean))));
  const Value cutoff = b.Add(mean, b.Mul(deviation, b.Float(static_cast<float>(NormalQuantile(sparsity)))));
  return b.Relu(b.Sub(gate, cutoff));
}

}  // namespace

double NormalQuantile(double p) {
  // Newton's method on the distribution function (erfc is accurate in both tails); it converges from 0 for every p by halving over-long
  // steps.
  double z = 0;
  for (int i = 0; i < 200; ++i) {
    const double error = 0.5 * std::erfc(-z / std::numbers::sqrt2) - p;
    const double density = std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi);
    const double step = std::clamp(error / density, -0.5, 0.5);
    z -= step;
    if (std::abs(step) < 1e-15) break;
  }
  return z;
}

Value FeedForward(BlockContext& c, int64_t layer, Value x) {
  Value gate = c.b.FullyConnected(x, c.Matrix(layer, "mlp.gate_proj.weight"));  // [1, tokens, ffn]
  const Value up = c.b.FullyConnected(x, c.Matrix(layer, "mlp.up_proj.weight"));
  const double sparsity = c.config.activation_sparsity_pattern[static_cast<size_t>(layer)];
  if (sparsity > 0) gate = CutToTopK(c, gate, sparsity);
  return c.b.FullyConnected(c.b.Mul(c.b.GeluTanh(gate), up), c.Matrix(layer, "mlp.down_proj.weight"));
}

}  // namespace taskpress
