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

// W_down x, piece by piece where the columns of W_down are stored in pieces.
Value Down(BlockContext& c, int64_t layer, Value x) {
  constexpr std::string_view kDown = "mlp.down_proj.weight";
  const std::vector<int64_t> cuts = c.FfnCuts(layer);
  if (cuts.size() == 1) return c.b.FullyConnected(x, c.Columns(layer, kDown, 0, cuts[0]));
  Value sum;
  int64_t begin = 0;
  for (const int64_t end : cuts) {
    const Value part = c.b.FullyConnected(c.b.SliceOfLast(x, begin, end - begin), c.Columns(layer, kDown, begin, end));
    sum = begin == 0 ? part : c.b.Add(sum, part);
    begin = end;
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
  return Down(c, layer, c.b.Mul(c.b.GeluTanh(gate), up));
}

}  // namespace taskpress
