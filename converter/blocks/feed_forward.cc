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

// W_down (gelu(gate) * up), piece by piece where the columns of W_down are stored in pieces. The first piece comes before what it is
// multiplied with: in a plain bundle, tensors keep the order they always had.
Value Down(BlockContext& c, int64_t layer, Value gate, Value up) {
  constexpr std::string_view kDown = "mlp.down_proj.weight";
  const std::vector<int64_t> cuts = c.FfnCuts(layer);
  Value weights = c.Columns(layer, kDown, 0, cuts[0]);
  const Value x = c.b.Mul(c.b.GeluTanh(gate), up);
  if (cuts.size() == 1) return c.b.FullyConnected(x, weights);
  Value sum = c.b.FullyConnected(c.b.SliceOfLast(x, 0, cuts[0]), weights);
  for (size_t i = 1; i < cuts.size(); ++i) {
    weights = c.Columns(layer, kDown, cuts[i - 1], cuts[i]);
    sum = c.b.Add(sum, c.b.FullyConnected(c.b.SliceOfLast(x, cuts[i - 1], cuts[i] - cuts[i - 1]), weights));
  }
  return sum;
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
  const int64_t width = c.config.intermediate_size[static_cast<size_t>(layer)];
  Value gate = c.b.FullyConnected(x, c.FirstRows(layer, "mlp.gate_proj.weight", width));  // [1, tokens, ffn]
  const Value up = c.b.FullyConnected(x, c.FirstRows(layer, "mlp.up_proj.weight", width));
  if (sparsity > 0) gate = CutToTopK(c, gate, sparsity);
  return Down(c, layer, gate, up);
}

}  // namespace taskpress
