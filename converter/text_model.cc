#include "converter/text_model.h"

#include <numbers>

#include "converter/blocks/altup.h"
#include "converter/blocks/feed_forward.h"
#include "converter/blocks/laurel.h"
#include "converter/blocks/per_layer_embedding.h"
#include "converter/blocks/rms_norm.h"

namespace taskpress {
namespace {

using Caches = std::vector<KvCache>;  // one per owning layer

// The decoder layer of the paper's figure. All values [1, tokens, hidden].
Streams DecoderLayer(BlockContext& c, int64_t layer, const Streams& streams, Value per_layer_inputs, const AttentionInputs& inputs,
                     Caches& caches) {
  GraphBuilder& b = c.b;
  const Streams predicted = AltupPredict(c, layer, streams);
  const Value active = predicted[0];
  const Value normed = RmsNorm(c, active, c.Vector(layer, "input_layernorm.weight"));
  const Value laurel = Laurel(c, layer, normed);

  if (layer < c.config.first_kv_shared_layer()) {
    KvCache& own = caches[static_cast<size_t>(layer)];
    own = UpdateKvCache(c, layer, normed, inputs, own);
  }
  const KvCache& read = caches[static_cast<size_t>(c.config.kv_source_layer(layer))];
  const Value attended = RmsNorm(c, Attention(c, layer, normed, inputs, read), c.Vector(layer, "post_attention_layernorm.weight"));

  const Value residual = b.Add(active, attended);
  const Value h = b.Mul(b.Add(residual, laurel), b.Float(static_cast<float>(1.0 / std::numbers::sqrt2)));
  const Value ffn_in = RmsNorm(c, h, c.Vector(layer, "pre_feedforward_layernorm.weight"));
  const Value ffn = RmsNorm(c, FeedForward(c, layer, ffn_in), c.Vector(layer, "post_feedforward_layernorm.weight"));
  const Value y = b.Add(h, ffn);

  return AddPerLayerInput(c, layer, AltupCorrect(c, layer, predicted, y), per_layer_inputs);
}

// [1, tokens, hidden] streams -> logits [1, tokens, vocab]
Value Logits(BlockContext& c, const Streams& streams) {
  GraphBuilder& b = c.b;
  const Value hidden = RmsNorm(c, AltupCollapse(c, streams), c.Vector("norm.weight"));
  const Value logits = b.FullyConnected(hidden, c.Head());
  const auto cap = static_cast<float>(c.config.final_logit_softcapping);
  return cap > 0 ? b.Mul(b.Tanh(b.Mul(logits, b.Float(1.0F / cap))), b.Float(cap)) : logits;
}

struct SignatureSpec {
  std::string key;
  int64_t tokens = 1;
  bool logits = false;
};

void BuildSignature(BlockContext& c, const SignatureSpec& spec, const TextModelOptions& options) {
  GraphBuilder& b = c.b;
  const Gemma3nConfig& config = c.config;
  b.BeginSubgraph(spec.key);
  const Value embeddings = b.Input("embeddings", DType::kF32, {1, spec.tokens, config.hidden_size});
  const Value rows =
      b.Input("per_layer_embeddings", DType::kF32, {1, spec.tokens, config.num_hidden_layers, config.hidden_size_per_layer_input});
  const Value input_pos = b.Input("input_pos", DType::kI32, {spec.tokens});
  const Value mask = b.Input("mask", DType::kF32, {1, 1, spec.tokens, options.context});
  Caches caches;
  for (int64_t layer = 0; layer < config.first_kv_shared_layer(); ++layer) {
    const auto [keys, values] = KvCacheShapes(config, layer, options.context, options.window);
    const Value k = b.Input(Format("kv_cache_k_{}", layer), DType::kF32, keys);
    const Value v = b.Input(Format("kv_cache_v_{}", layer), DType::kF32, values);
    caches.push_back({.keys = k, .values = v});
  }

  const AttentionInputs inputs = MakeAttentionInputs(c, input_pos, mask, options.window);
  const Value per_layer_inputs = PerLayerInputs(c, embeddings, rows);
  Streams streams = AltupExpand(c, embeddings);
  // Without logits nothing above the last cache matters.
  const int64_t layers = spec.logits ? config.num_hidden_layers : config.first_kv_shared_layer();
  for (int64_t layer = 0; layer < layers; ++layer) streams = DecoderLayer(c, layer, streams, per_layer_inputs, inputs, caches);

  std::vector<std::pair<std::string, Value>> outputs;
  for (size_t layer = 0; layer < caches.size(); ++layer) {
    outputs.emplace_back(Format("kv_cache_k_{}", layer), caches[layer].keys);
    outputs.emplace_back(Format("kv_cache_v_{}", layer), caches[layer].values);
  }
  if (spec.logits) outputs.emplace_back("logits", Logits(c, streams));
  b.EndSubgraph(spec.key, outputs);
}

Status CheckOptions(const TextModelOptions& options) {
  constexpr int64_t kMaxContext = 1 << 24;  // positions are compared as float32
  if (options.context < 1 || options.context > kMaxContext) {
    return Fail(ErrorCode::kUsage, "a context of {} tokens; from 1 to {} are possible", options.context, kMaxContext);
  }
  std::vector<int64_t> lengths = options.prefill_lengths;
  if (options.score_length) lengths.push_back(*options.score_length);
  for (const int64_t tokens : lengths) {
    if (tokens < 1 || tokens > options.context) {
      return Fail(ErrorCode::kUsage, "{} tokens a call; from 1 to the context of {} are possible", tokens, options.context);
    }
  }
  return {};
}

}  // namespace

Result<Graph> BuildPrefillDecode(const Gemma3nConfig& config, TextWeights& weights, const TextModelOptions& options) {
  TRY(CheckOptions(options));
  GraphBuilder builder;
  builder.SetDescription("Gemma 3n prefill and decode, made by Taskpress");
  BlockContext c(builder, config, weights);
  for (const int64_t tokens : options.prefill_lengths) BuildSignature(c, {.key = Format("prefill_{}", tokens), .tokens = tokens}, options);
  BuildSignature(c, {.key = "decode", .tokens = 1, .logits = true}, options);
  if (options.score_length) {
    const int64_t tokens = *options.score_length;
    BuildSignature(c, {.key = Format("score_{}", tokens), .tokens = tokens, .logits = true}, options);
  }
  builder.AddMetadata("taskpress.recipe", weights.resolved_recipe());
  return builder.Finish();
}

Result<Graph> BuildEmbedder(const Gemma3nConfig& config, TextWeights& weights) {
  GraphBuilder b;
  b.SetDescription("Gemma 3n token embedder, made by Taskpress");
  BlockContext c(b, config, weights);
  b.BeginSubgraph("embedder");
  const Value ids = b.Reshape(b.Input("token_ids", DType::kI32, {1, 1}), {1});
  const Value row = b.EmbeddingLookup(ids, c.EmbeddingTable());  // [1, hidden]
  b.EndSubgraph("embedder", std::vector<std::pair<std::string, Value>>{{"embeddings", b.Reshape(row, {1, 1, config.hidden_size})}});
  return b.Finish();
}

Result<Graph> BuildPerLayerEmbedder(const Gemma3nConfig& config, TextWeights& weights) {
  GraphBuilder b;
  b.SetDescription("Gemma 3n per-layer embedder, made by Taskpress");
  BlockContext c(b, config, weights);
  b.BeginSubgraph("per_layer_embedder");
  const Value ids = b.Reshape(b.Input("token_ids", DType::kI32, {1, 1}), {1});
  std::vector<Value> rows;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) rows.push_back(b.EmbeddingLookup(ids, c.PerLayerTable(layer)));
  const Value all = b.Concatenation(rows, 1);  // [1, layers * per_layer]
  const Shape out{1, 1, config.num_hidden_layers, config.hidden_size_per_layer_input};
  b.EndSubgraph("per_layer_embedder", std::vector<std::pair<std::string, Value>>{{"per_layer_embeddings", b.Reshape(all, out)}});
  return b.Finish();
}

}  // namespace taskpress
