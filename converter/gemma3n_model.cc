#include <numbers>

#include "converter/blocks/altup.h"
#include "converter/blocks/feed_forward.h"
#include "converter/blocks/laurel.h"
#include "converter/blocks/per_layer_embedding.h"
#include "converter/blocks/rms_norm.h"
#include "converter/gemma3n.h"

namespace taskpress {
namespace {

// The decoder layer of the paper's figure. All values [1, tokens, hidden].
Streams DecoderLayer(BlockContext& c, int64_t layer, const Streams& streams, Value per_layer_inputs, const AttentionInputs& inputs,
                     KvCaches& caches) {
  GraphBuilder& b = c.b;
  const Streams predicted = AltupPredict(c, layer, streams);
  const Value active = predicted[0];
  const Value normed = RmsNorm(c, active, c.Vector(layer, "input_layernorm.weight"));
  const Value laurel = Laurel(c, layer, normed);

  if (layer < c.config.first_kv_shared_layer()) {
    KvCache& own = caches[static_cast<size_t>(layer)];
    const Value keys = Keys(c, layer, normed, inputs);
    const Value values = RmsNorm(c, Values(c, layer, normed));  // normed without gain
    own = UpdateKvCache(c, layer, keys, values, inputs, own);
  }
  const KvCache& read = caches[static_cast<size_t>(c.config.kv_source_layer(layer))];
  const Value attended = RmsNorm(c, Attention(c, layer, normed, inputs, read), c.Vector(layer, "post_attention_layernorm.weight"));

  const Value residual = b.Add(active, attended);
  const Value h = b.Mul(b.Add(residual, laurel), b.Float(static_cast<float>(1.0 / std::numbers::sqrt2)));
  const Value ffn_in = RmsNorm(c, h, c.Vector(layer, "pre_feedforward_layernorm.weight"));
  const double sparsity = c.config.activation_sparsity_pattern[static_cast<size_t>(layer)];
  const Value ffn = RmsNorm(c, FeedForward(c, layer, ffn_in, sparsity), c.Vector(layer, "post_feedforward_layernorm.weight"));
  const Value y = b.Add(h, ffn);

  return AddPerLayerInput(c, layer, AltupCorrect(c, layer, predicted, y), per_layer_inputs);
}

}  // namespace

Value Gemma3nDecoder(BlockContext& c, const DecoderInputs& inputs, KvCaches& caches) {
  const Value per_layer_inputs = PerLayerInputs(c, inputs.embeddings, inputs.per_layer_rows.value());
  Streams streams = AltupExpand(c, inputs.embeddings);
  const bool all = inputs.output != DecoderOutput::kCaches;
  const int64_t layers = all ? c.config.num_hidden_layers : c.config.first_kv_shared_layer();
  for (int64_t layer = 0; layer < layers; ++layer) streams = DecoderLayer(c, layer, streams, per_layer_inputs, inputs.attention, caches);
  return all ? FinishDecoder(c, inputs.output, AltupCollapse(c, streams)) : Value{};
}

}  // namespace taskpress
