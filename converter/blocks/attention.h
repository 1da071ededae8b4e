// Gemma's attention: normed queries and keys, rotary positions, grouped heads, a sliding window on most layers, and caches that several
// layers may read. The scale of the scores is 1 (a family with another one has it in the gain of its queries); there is no soft-cap on
// them.
#ifndef TASKPRESS_CONVERTER_BLOCKS_ATTENTION_H_
#define TASKPRESS_CONVERTER_BLOCKS_ATTENTION_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "converter/blocks/block_context.h"

namespace taskpress {

// How sliding layers read their cache.
enum class WindowForm : uint8_t {
  kGather,  // only the window's rows are gathered; the cost does not grow with the context
  kMask,    // the whole cache is read and the mask hides what is too old
};

// cos and sin of position * frequency, [1, tokens, 1, head_dim / 2]
struct Rotation {
  Value cos;
  Value sin;
};

// What all layers of one signature share: positions, masks, the part of the cache a sliding layer looks at.
struct AttentionInputs {
  int64_t tokens = 0;
  int64_t context = 0;
  WindowForm form = WindowForm::kGather;
  Value position0;     // i32 [1]: where this call's tokens start
  Value row_start;     // i32 [4]: where they start in a cache of rows,
  Value column_start;  // and in one of columns
  Rotation full;
  Rotation sliding;
  Value full_mask;                   // [1, 1, 1, tokens, context]
  Value sliding_mask;                // [1, 1, 1, tokens, seen]
  std::optional<Value> window_rows;  // i32 [seen]: rows of the cache that a sliding layer gathers; absent: all of it
};

// input_pos i32 [tokens]; mask f32 [1, 1, tokens, context], 0 where a column may be seen.
AttentionInputs MakeAttentionInputs(BlockContext& c, Value input_pos, Value mask, WindowForm form);

// One layer's cache. keys [1, kv_heads, context, head_dim]; values the same on sliding layers of the gather form, else [1, kv_heads,
// head_dim, context] so that both matrix products read along rows.
struct KvCache {
  Value keys;
  Value values;
};
bool ValuesAreTransposed(LayerType type, WindowForm form);
// Shapes of keys and values.
std::array<Shape, 2> KvCacheShapes(const TextConfig& config, int64_t layer, int64_t context, WindowForm form);

// n [1, tokens, hidden] -> [1, tokens, kv_heads, head_dim]: keys normed and turned to their positions.
Value Keys(BlockContext& c, int64_t layer, Value n, const AttentionInputs& inputs);
// The same shape: values as projected.
Value Values(BlockContext& c, int64_t layer, Value n);
// Writes both into the layer's cache at position0. Returns the updated cache.
KvCache UpdateKvCache(BlockContext& c, int64_t layer, Value keys, Value values, const AttentionInputs& inputs, const KvCache& cache);
// n [1, tokens, hidden] -> [1, tokens, hidden], reading an updated cache (its own, or the one it shares).
Value Attention(BlockContext& c, int64_t layer, Value n, const AttentionInputs& inputs, const KvCache& updated);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BLOCKS_ATTENTION_H_
