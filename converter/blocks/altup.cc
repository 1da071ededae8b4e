#include "converter/blocks/altup.h"

#include "converter/blocks/rms_norm.h"

namespace taskpress {
namespace {

// rho(x) = tanh(W_router (RMS(x; w_router) / hidden)), [1, tokens, A]
Value Router(BlockContext& c, int64_t layer, Value x) {
  const auto scale = 1.0F / static_cast<float>(c.config.hidden_size);
  const Value normed = RmsNorm(c, x, c.Vector(layer, "altup.router_norm.weight", scale));
  const int64_t streams = c.config.altup_num_inputs;
  const std::string name = c.LayerName(layer, "altup.modality_router.weight");
  const Value weights = c.Folded(name, c.Floats(name), {streams, c.config.hidden_size});
  return c.b.Tanh(c.b.FullyConnected(normed, weights));
}

// Coefficients from the router's output; what they are added to anyway (the identity, or 1) comes in as the bias.
Value Coefficients(BlockContext& c, int64_t layer, std::string_view weight, Value routed, const std::vector<float>& bias) {
  const std::string name = c.LayerName(layer, weight);
  const auto rows = static_cast<int64_t>(bias.size());
  const Value weights = c.Folded(name, c.Floats(name), {rows, c.config.altup_num_inputs});
  return c.b.FullyConnected(routed, weights, c.b.Floats(bias, {rows}));
}

}  // namespace

Streams AltupExpand(BlockContext& c, Value x0) {
  const Value magnitude = RootMeanSquare(c, x0);
  Streams streams{x0};
  for (int64_t i = 0; i + 1 < c.config.altup_num_inputs; ++i) {
    const Value projected = c.b.FullyConnected(x0, c.Matrix(Format("altup_projections.{}.weight", i)));
    streams.push_back(MatchMagnitude(c, projected, magnitude));
  }
  return streams;
}

Streams AltupPredict(BlockContext& c, int64_t layer, const Streams& streams) {
  const size_t count = streams.size();
  std::vector<float> identity(count * count, 0.0F);
  for (size_t i = 0; i < count; ++i) identity[i * count + i] = 1.0F;
  // [1, tokens, A*A], entry A*i + j weighs stream j in prediction i
  const Value coefficients = Coefficients(c, layer, "altup.prediction_coefs.weight", Router(c, layer, streams[0]), identity);
  Streams predicted;
  for (size_t i = 0; i < count; ++i) {
    Value sum;
    for (size_t j = 0; j < count; ++j) {
      const Value term = c.b.Mul(streams[j], c.b.SliceOfLast(coefficients, static_cast<int64_t>(i * count + j), 1));
      sum = j == 0 ? term : c.b.Add(sum, term);
    }
    predicted.push_back(sum);
  }
  return predicted;
}

Streams AltupCorrect(BlockContext& c, int64_t layer, const Streams& predicted, Value y) {
  const std::vector<float> ones(predicted.size(), 1.0F);
  const Value gains = Coefficients(c, layer, "altup.correction_coefs.weight", Router(c, layer, y), ones);  // [1, tokens, A]
  const Value innovation = c.b.Sub(y, predicted[0]);
  Streams corrected;
  for (size_t i = 0; i < predicted.size(); ++i) {
    corrected.push_back(c.b.Add(predicted[i], c.b.Mul(innovation, c.b.SliceOfLast(gains, static_cast<int64_t>(i), 1))));
  }
  return corrected;
}

Value AltupCollapse(BlockContext& c, const Streams& streams) {
  const Value magnitude = RootMeanSquare(c, streams[0]);
  Value sum = streams[0];
  for (size_t i = 1; i < streams.size(); ++i) {
    const Value projected = c.b.FullyConnected(streams[i], c.Matrix(Format("altup_unembed_projections.{}.weight", i - 1)));
    sum = c.b.Add(sum, MatchMagnitude(c, projected, magnitude));
  }
  return c.b.Mul(sum, c.b.Float(1.0F / static_cast<float>(streams.size())));
}

}  // namespace taskpress
