#include "converter/blocks/feed_forward.h"

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
  // Halving an interval always converges, also in the far tails; erfc is accurate in both. Phi(-40) underflows, so nothing lies outside.
  double low = -40;
  double high = 40;
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return middle;
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? low : high) = middle;
  }
}

Value FeedForward(BlockContext& c, int64_t layer, Value x, double sparsity) {
  Value gate = c.b.FullyConnected(x, c.Matrix(layer, "mlp.gate_proj.weight"));  // [1, tokens, ffn]
  const Value up = c.b.FullyConnected(x, c.Matrix(layer, "mlp.up_proj.weight"));
  if (sparsity > 0) gate = CutToTopK(c, gate, sparsity);
  return c.b.FullyConnected(c.b.Mul(c.b.GeluTanh(gate), up), c.Matrix(layer, "mlp.down_proj.weight"));
}

}  // namespace taskpress
