// Attention over a cache: softmax(q K^T + mask) V without the matrix of scores in memory, and only over positions that the mask leaves
// open.
//
// Keys are walked in blocks; a row keeps its largest score so far, the sum of its weights and the weighted sum of values, and rescales both
// when a larger score turns up (online softmax: Milakov and Gimelshein, arXiv:1805.02867; as in FlashAttention, arXiv:2205.14135). The
// queries of a group share the keys and values they read. Sums are split by fixed blocks of positions, so results do not depend on the
// number of threads.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_ATTENTION_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_ATTENTION_H_

#include <cstdint>
#include <span>

namespace taskpress {

struct AttentionShape {
  int64_t tokens = 0;
  int64_t kv_heads = 0;
  int64_t group = 0;  // query heads that share a KV head
  int64_t head_dim = 0;
  int64_t seen = 0;  // columns of the mask: positions that are looked at
  bool transposed_values = false;
};

// Where the tensors lie. Query head h of token t is at queries + t * query_token_stride + h * query_head_stride, results likewise.
struct AttentionOperands {
  const float* queries = nullptr;
  int64_t query_token_stride = 0;
  int64_t query_head_stride = 0;
  const float* keys = nullptr;  // position 0 of KV head 0; [kv_heads] keys_stride apart, positions head_dim apart
  int64_t keys_stride = 0;
  const float* values = nullptr;  // rows: as keys. Transposed: element d of position j at values + d * value_row_stride + j
  int64_t values_stride = 0;
  int64_t value_row_stride = 0;
  const float* mask = nullptr;  // [tokens, seen], added to the scores
  float* out = nullptr;
  int64_t out_token_stride = 0;
  int64_t out_head_stride = 0;
};

// Columns [begin, end) of a row of the mask.
struct MaskRange {
  int32_t begin = 0;
  int32_t end = 0;
};

// The smallest range that holds every open column: one whose mask is above -1e8, since no score makes up for that and its weight is exactly
// 0 otherwise. All columns for a row without an open one, whose softmax weighs closed columns.
MaskRange OpenRange(std::span<const float> mask_row);

// Larger groups are not supported.
inline constexpr int64_t kMaxAttentionGroup = 128;

// Tokens whose queries are processed together.
int64_t TokensPerAttentionBlock(const AttentionShape& shape);

// Floats of scratch memory for one call of AttendBlock.
int64_t AttentionScratchFloats(const AttentionShape& shape);

// Tokens [first, first + count), count <= TokensPerAttentionBlock, of one KV head. `ranges` [tokens]: OpenRange of each row.
void AttendBlock(const AttentionShape& shape, const AttentionOperands& operands, std::span<const MaskRange> ranges, int64_t kv_head,
                 int64_t first, int64_t count, float* scratch);

// One token's part over positions [begin, end), to be merged with the others: the group's largest scores [group], sums of weights [group]
// and weighted sums of values [group, head_dim].
int64_t PartialFloats(const AttentionShape& shape);
void AttendPart(const AttentionShape& shape, const AttentionOperands& operands, int64_t kv_head, MaskRange positions, float* scratch,
                float* partial);
// Merges `count` parts, in order, PartialFloats apart.
void MergeParts(const AttentionShape& shape, const AttentionOperands& operands, int64_t kv_head, const float* partials, int64_t count);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_ATTENTION_H_
