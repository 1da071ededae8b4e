#include "converter/blocks/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "converter/blocks/rms_norm.h"

namespace taskpress {
namespace {

constexpr float kHidden = -1e9F;  // per position outside the window; two masked values must not add up to -inf, so they meet in a MINIMUM

Rotation MakeRotation(BlockContext& c, Value positions, double base, double linear_factor) {
  const int64_t half = c.config.head_dim / 2;
  std::vector<float> frequencies;  // base^(-2j / head_dim) / factor, as transformers computes it in float32
  for (int64_t j = 0; j < half; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(c.config.head_dim);
    frequencies.push_back(1.0F / std::pow(static_cast<float>(base), exponent) / static_cast<float>(linear_factor));
  }
  const Value angles = c.b.Mul(positions, c.b.Floats(frequencies, {1, 1, 1, half}));
  return {.cos = c.b.Cos(angles), .sin = c.b.Sin(angles)};
}

// x [1, tokens, heads, head_dim], the two halves of head_dim turned against each other.
Value Rotate(BlockContext& c, Value x, const Rotation& rotation) {
  const int64_t half = c.config.head_dim / 2;
  const Value first = c.b.SliceOfLast(x, 0, half);
  const Value second = c.b.SliceOfLast(x, half, half);
  const std::array<Value, 2> halves{c.b.Sub(c.b.Mul(first, rotation.cos), c.b.Mul(second, rotation.sin)),
                                    c.b.Add(c.b.Mul(second, rotation.cos), c.b.Mul(first, rotation.sin))};
  return c.b.Concatenation(halves, 3);
}

// [1, a, b, d] -> [1, b, a, d]; no data moves when one of them is 1.
Value SwapMiddle(GraphBuilder& b, Value x) {
  const Shape& shape = b.shape(x);
  if (shape.size() == 4 && (shape[1] == 1 || shape[2] == 1)) return b.Reshape(x, {shape[0], shape[2], shape[1], shape[3]});
  constexpr std::array<int32_t, 4> kSwap{0, 2, 1, 3};
  return b.Transpose(x, kSwap);
}

// [1, tokens, heads, d] -> [1, heads, d, tokens]
Value ToColumns(GraphBuilder& b, Value x) {
  const Shape& shape = b.shape(x);
  if (shape.size() == 4 && shape[1] == 1) return b.Reshape(x, {1, shape[2], shape[3], 1});
  constexpr std::array<int32_t, 4> kHeadsFirst{0, 2, 3, 1};
  return b.Transpose(x, kHeadsFirst);
}

Value Heads(BlockContext& c, Value flat, int64_t heads) { return c.b.Reshape(flat, {1, c.b.dim(flat, 1), heads, c.config.head_dim}); }

const Rotation& RotationOf(const AttentionInputs& inputs, LayerType type) {
  return type == LayerType::kFull ? inputs.full : inputs.sliding;
}

LayerType TypeOf(const BlockContext& c, int64_t layer) { return c.config.layer_types[static_cast<size_t>(layer)]; }

// Rows of the cache that the queries of this call can see through the window, i32 [seen].
Value WindowRows(BlockContext& c, Value position0, int64_t seen, int64_t context) {
  GraphBuilder& b = c.b;
  const auto integer = [&](int64_t value) {
    const auto narrow = static_cast<int32_t>(value);
    return b.Integers(std::span(&narrow, 1));
  };
  const Value oldest = b.Sub(position0, integer(c.config.sliding_window - 1));
  const Value first = b.Minimum(b.Maximum(oldest, integer(0)), integer(context - seen));
  std::vector<int32_t> range(static_cast<size_t>(seen));
  std::iota(range.begin(), range.end(), 0);
  return b.Add(first, b.Integers(range));
}

// mask [1, 1, tokens, seen] with columns older than the window hidden. columns: f32, broadcastable to [1, 1, 1, seen].
Value HideOutsideWindow(BlockContext& c, Value mask, Value columns, Value positions) {
  GraphBuilder& b = c.b;
  // column - position + window - 1 is negative exactly outside the window
  const Value margin = b.Add(b.Sub(columns, positions), b.Float(static_cast<float>(c.config.sliding_window - 1)));
  return b.Minimum(mask, b.Mul(b.Minimum(margin, b.Float(0.0F)), b.Float(-kHidden)));
}

}  // namespace

bool ValuesAreTransposed(LayerType type, WindowForm form) { return type == LayerType::kFull || form == WindowForm::kMask; }

std::array<Shape, 2> KvCacheShapes(const TextConfig& config, int64_t layer, int64_t context, WindowForm form) {
  const Shape rows{1, config.num_key_value_heads, context, config.head_dim};
  const Shape columns{1, config.num_key_value_heads, config.head_dim, context};
  return {rows, ValuesAreTransposed(config.layer_types[static_cast<size_t>(layer)], form) ? columns : rows};
}

AttentionInputs MakeAttentionInputs(BlockContext& c, Value input_pos, Value mask, WindowForm form) {
  GraphBuilder& b = c.b;
  AttentionInputs inputs{.tokens = b.dim(input_pos, 0), .context = b.dim(mask, 3), .form = form};
  constexpr std::array<int32_t, 1> kZero{0};
  constexpr std::array<int32_t, 1> kOne{1};
  inputs.position0 = b.Slice(input_pos, kZero, kOne);
  constexpr std::array<int32_t, 2> kZeros{0, 0};
  constexpr std::array<int32_t, 3> kThreeZeros{0, 0, 0};
  inputs.row_start = b.Concatenation(std::array{b.Integers(kZeros), inputs.position0, b.Integers(kZero)}, 0);
  inputs.column_start = b.Concatenation(std::array{b.Integers(kThreeZeros), inputs.position0}, 0);
  const Value positions = b.IntegersToFloats(input_pos);
  const Value per_token = b.Reshape(positions, {1, inputs.tokens, 1, 1});
  inputs.full = MakeRotation(c, per_token, c.config.rope_theta, c.config.rope_linear_factor);
  inputs.sliding = MakeRotation(c, per_token, c.config.rope_local_base_freq, 1.0);

  const int64_t seen = std::min(inputs.context, c.config.sliding_window + inputs.tokens - 1);
  Value sliding = mask;
  Value columns;
  if (form == WindowForm::kGather && seen < inputs.context) {
    inputs.window_rows = WindowRows(c, inputs.position0, seen, inputs.context);
    sliding = b.Gather(mask, *inputs.window_rows, 3);
    columns = b.Reshape(b.IntegersToFloats(*inputs.window_rows), {1, 1, 1, seen});
  } else {
    std::vector<float> all(static_cast<size_t>(inputs.context));
    std::iota(all.begin(), all.end(), 0.0F);
    columns = b.Floats(all, {1, 1, 1, inputs.context});
  }
  sliding = HideOutsideWindow(c, sliding, columns, b.Reshape(positions, {1, 1, inputs.tokens, 1}));
  inputs.full_mask = b.Reshape(mask, {1, 1, 1, inputs.tokens, inputs.context});
  inputs.sliding_mask = b.Reshape(sliding, {1, 1, 1, inputs.tokens, b.dim(sliding, 3)});
  return inputs;
}

Value Keys(BlockContext& c, int64_t layer, Value n, const AttentionInputs& inputs) {
  const Value keys = Heads(c, c.b.FullyConnected(n, c.Matrix(layer, "self_attn.k_proj.weight")), c.config.num_key_value_heads);
  return Rotate(c, RmsNorm(c, keys, c.Vector(layer, "self_attn.k_norm.weight")), RotationOf(inputs, TypeOf(c, layer)));
}

Value Values(BlockContext& c, int64_t layer, Value n) {
  return Heads(c, c.b.FullyConnected(n, c.Matrix(layer, "self_attn.v_proj.weight")), c.config.num_key_value_heads);
}

KvCache UpdateKvCache(BlockContext& c, int64_t layer, Value keys, Value values, const AttentionInputs& inputs, const KvCache& cache) {
  GraphBuilder& b = c.b;
  const Value key_rows = SwapMiddle(b, keys);  // [1, kv_heads, tokens, head_dim]
  const bool transposed = ValuesAreTransposed(TypeOf(c, layer), inputs.form);
  const Value new_value_block = transposed ? ToColumns(b, values) : SwapMiddle(b, values);

  // Side by side, so that a delegate's partition is cut once per layer.
  const Value new_keys = b.DynamicUpdateSlice(cache.keys, key_rows, inputs.row_start);
  const Value new_values = b.DynamicUpdateSlice(cache.values, new_value_block, transposed ? inputs.column_start : inputs.row_start);
  return {.keys = new_keys, .values = new_values};
}

Value Attention(BlockContext& c, int64_t layer, Value n, const AttentionInputs& inputs, const KvCache& updated) {
  GraphBuilder& b = c.b;
  const LayerType type = TypeOf(c, layer);
  const int64_t heads = c.config.num_attention_heads;
  const int64_t kv_heads = c.config.num_key_value_heads;
  const int64_t group = heads / kv_heads;
  const int64_t tokens = inputs.tokens;
  Value query = Heads(c, b.FullyConnected(n, c.Matrix(layer, "self_attn.q_proj.weight")), heads);
  query = Rotate(c, RmsNorm(c, query, c.Vector(layer, "self_attn.q_norm.weight")), RotationOf(inputs, type));
  // The heads of a group share keys and values, so they become rows of one matrix.
  query = b.Reshape(SwapMiddle(b, query), {1, kv_heads, group * tokens, c.config.head_dim});

  const bool windowed = type == LayerType::kSliding && inputs.window_rows.has_value();
  const Value keys = windowed ? b.Gather(updated.keys, *inputs.window_rows, 2) : updated.keys;
  const Value values = windowed ? b.Gather(updated.values, *inputs.window_rows, 2) : updated.values;
  const Value mask = type == LayerType::kFull ? inputs.full_mask : inputs.sliding_mask;
  const int64_t seen = b.dim(mask, 4);

  Value scores = b.BatchMatMul(query, keys, /*adj_y=*/true);  // [1, kv_heads, group * tokens, seen]
  scores = b.Add(b.Reshape(scores, {1, kv_heads, group, tokens, seen}), mask);
  const Value weights = b.Reshape(b.Softmax(scores), {1, kv_heads, group * tokens, seen});
  const Value mixed = b.BatchMatMul(weights, values, /*adj_y=*/ValuesAreTransposed(type, inputs.form));
  const Value by_token = SwapMiddle(b, b.Reshape(mixed, {1, heads, tokens, c.config.head_dim}));
  return b.FullyConnected(b.Reshape(by_token, {1, tokens, heads * c.config.head_dim}), c.Matrix(layer, "self_attn.o_proj.weight"));
}

}  // namespace taskpress
