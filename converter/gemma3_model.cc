#include "converter/blocks/feed_forward.h"
#include "converter/blocks/rms_norm.h"
#include "converter/gemma3.h"

namespace taskpress {
namespace {

// Attention, then feed-forward, each normed before and after and added to the stream. All values [1, tokens, hidden].
Value DecoderLayer(BlockContext& c, int64_t layer, Value stream, const AttentionInputs& inputs, KvCache& cache) {
  GraphBuilder& b = c.b;
  const Value normed = RmsNorm(c, stream, c.Vector(layer, "input_layernorm.weight"));
  cache = UpdateKvCache(c, layer, Keys(c, layer, normed, inputs), Values(c, layer, normed), inputs, cache);
  const Value attended = RmsNorm(c, Attention(c, layer, normed, inputs, cache), c.Vector(layer, "post_attention_layernorm.weight"));
  const Value h = b.Add(stream, attended);

  const Value ffn_in = RmsNorm(c, h, c.Vector(layer, "pre_feedforward_layernorm.weight"));
  const Value ffn = RmsNorm(c, FeedForward(c, layer, ffn_in), c.Vector(layer, "post_feedforward_layernorm.weight"));
  return b.Add(h, ffn);
}

}  // namespace

Value Gemma3Decoder(BlockContext& c, const DecoderInputs& inputs, KvCaches& caches) {
  Value stream = inputs.embeddings;
  for (int64_t layer = 0; layer < c.config.num_hidden_layers; ++layer) {
    stream = DecoderLayer(c, layer, stream, inputs.attention, caches[static_cast<size_t>(layer)]);
  }
  return FinishDecoder(c, inputs.output, stream);
}

}  // namespace taskpress
