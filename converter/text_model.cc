#include "converter/text_model.h"

#include "converter/blocks/rms_norm.h"
#include "converter/model_family.h"

namespace taskpress {
namespace {

struct SignatureSpec {
  std::string key;
  int64_t tokens = 1;
  DecoderOutput output = DecoderOutput::kCaches;
};

KvCaches CacheInputs(BlockContext& c, const TextModelOptions& options) {
  KvCaches caches;
  for (int64_t layer = 0; layer < c.config.first_kv_shared_layer(); ++layer) {
    const auto [keys, values] = KvCacheShapes(c.config, layer, options.context, options.window);
    const Value k = c.b.Input(Format("kv_cache_k_{}", layer), DType::kF32, keys);
    const Value v = c.b.Input(Format("kv_cache_v_{}", layer), DType::kF32, values);
    caches.push_back({.keys = k, .values = v});
  }
  return caches;
}

void BuildSignature(BlockContext& c, const SignatureSpec& spec, const TextModelOptions& options) {
  GraphBuilder& b = c.b;
  const TextConfig& config = c.config;
  b.BeginSubgraph(spec.key);
  DecoderInputs inputs;
  inputs.output = spec.output;
  inputs.embeddings = b.Input("embeddings", DType::kF32, {1, spec.tokens, config.hidden_size});
  if (config.family->has_per_layer_embedder) {
    const Shape rows{1, spec.tokens, c.NumStoredLayers(), config.hidden_size_per_layer_input};
    inputs.per_layer_rows = b.Input("per_layer_embeddings", DType::kF32, rows);
  }
  const Value input_pos = b.Input("input_pos", DType::kI32, {spec.tokens});
  const Value mask = b.Input("mask", DType::kF32, {1, 1, spec.tokens, options.context});
  KvCaches caches = CacheInputs(c, options);
  inputs.attention = MakeAttentionInputs(c, input_pos, mask, options.window);
  const Value result = config.family->decoder(c, inputs, caches);

  std::vector<std::pair<std::string, Value>> outputs;
  for (size_t layer = 0; layer < caches.size(); ++layer) {
    outputs.emplace_back(Format("kv_cache_k_{}", layer), caches[layer].keys);
    outputs.emplace_back(Format("kv_cache_v_{}", layer), caches[layer].values);
  }
  if (spec.output == DecoderOutput::kLogits) outputs.emplace_back("logits", result);
  if (spec.output == DecoderOutput::kHidden) outputs.emplace_back("hidden", result);
  b.EndSubgraph(spec.key, outputs);
}

Status CheckOptions(const TextModelOptions& options) {
  constexpr int64_t kMaxContext = 1 << 24;  // positions are compared as float32
  if (options.context < 1 || options.context > kMaxContext) {
    return Fail(ErrorCode::kUsage, "a context of {} tokens; from 1 to {} are possible", options.context, kMaxContext);
  }
  std::vector<int64_t> lengths = options.prefill_lengths;
  if (options.score_length) lengths.push_back(*options.score_length);
  if (options.calibration_length) lengths.push_back(*options.calibration_length);
  for (const int64_t tokens : lengths) {
    if (tokens < 1 || tokens > options.context) {
      return Fail(ErrorCode::kUsage, "{} tokens a call; from 1 to the context of {} are possible", tokens, options.context);
    }
  }
  return {};
}

std::string Description(const TextConfig& config, std::string_view member) {
  return Format("{} {}, made by Taskpress", config.family->title, member);
}

}  // namespace

Value FinishDecoder(BlockContext& c, DecoderOutput output, Value stream) {
  if (output == DecoderOutput::kCaches) return {};
  GraphBuilder& b = c.b;
  const Value normed = RmsNorm(c, stream, c.Vector("norm.weight"));
  if (output == DecoderOutput::kHidden) return normed;
  const Value logits = b.FullyConnected(normed, c.Head());
  const auto cap = static_cast<float>(c.config.final_logit_softcapping);
  return cap > 0 ? b.Mul(b.Tanh(b.Mul(logits, b.Float(1.0F / cap))), b.Float(cap)) : logits;
}

Result<Graph> BuildPrefillDecode(const TextConfig& config, TextWeights& weights, const TextModelOptions& options, const ModelPlace* place) {
  TRY(CheckOptions(options));
  GraphBuilder builder;
  builder.SetDescription(Description(config, "prefill and decode"));
  BlockContext c(builder, config, weights, place);
  for (const int64_t tokens : options.prefill_lengths) BuildSignature(c, {.key = Format("prefill_{}", tokens), .tokens = tokens}, options);
  BuildSignature(c, {.key = "decode", .tokens = 1, .output = DecoderOutput::kLogits}, options);
  if (options.score_length) {
    const int64_t tokens = *options.score_length;
    BuildSignature(c, {.key = Format("score_{}", tokens), .tokens = tokens, .output = DecoderOutput::kLogits}, options);
  }
  if (options.calibration_length) {
    const int64_t tokens = *options.calibration_length;
    BuildSignature(c, {.key = Format("calibrate_{}", tokens), .tokens = tokens, .output = DecoderOutput::kHidden}, options);
  }
  builder.AddMetadata("taskpress.recipe", weights.resolved_recipe());
  if (!weights.folds().empty()) builder.AddMetadata(std::string(kFoldsEntry), EncodeFolds(weights.folds()));
  return builder.Finish();
}

Result<Graph> BuildEmbedder(const TextConfig& config, TextWeights& weights) {
  GraphBuilder b;
  b.SetDescription(Description(config, "token embedder"));
  BlockContext c(b, config, weights);
  b.BeginSubgraph("embedder");
  const Value ids = b.Reshape(b.Input("token_ids", DType::kI32, {1, 1}), {1});
  const Value row = b.EmbeddingLookup(ids, c.EmbeddingTable());  // [1, hidden]
  b.EndSubgraph("embedder", std::vector<std::pair<std::string, Value>>{{"embeddings", b.Reshape(row, {1, 1, config.hidden_size})}});
  return b.Finish();
}

Result<Graph> BuildPerLayerEmbedder(const TextConfig& config, TextWeights& weights) {
  GraphBuilder b;
  b.SetDescription(Description(config, "per-layer embedder"));
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
