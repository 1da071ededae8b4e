#include "runtime/passes/attention_pattern.h"

#include <algorithm>

#include "runtime/kernels/native/attention.h"

namespace taskpress {
namespace {

class Matcher {
 public:
  explicit Matcher(const GraphFacts& facts) : facts_(facts) {}

  std::optional<AttentionMatch> Match(int32_t softmax) {
    if (!MatchScores(softmax) || !MatchValues(softmax) || !MatchSizes()) return std::nullopt;
    TakeOutTransposes();
    std::ranges::sort(ops_);
    return AttentionMatch{.group = group_, .ops = std::move(ops_)};
  }

 private:
  const Shape& shape(TensorId id) const { return facts_.tensor(id).shape; }
  bool IsFloat(TensorId id) const { return facts_.tensor(id).type == DType::kF32; }

  bool IsProduct(int32_t index, bool adj_y) const {
    if (index == kNone || facts_.op(index).kind != OpKind::kBatchMatMul) return false;
    const auto* attributes = std::get_if<BatchMatMulAttributes>(&facts_.op(index).attributes);
    return attributes != nullptr && !attributes->adj_x && attributes->adj_y == adj_y;
  }
  bool IsKind(int32_t index, OpKind kind) const { return index != kNone && facts_.op(index).kind == kind; }

  // SOFTMAX reads ADD reads BATCH_MATMUL; the other operand of the ADD is the mask.
  bool MatchScores(int32_t softmax) {
    const auto* attributes = std::get_if<SoftmaxAttributes>(&facts_.op(softmax).attributes);
    if (attributes != nullptr && attributes->beta != 1.0F) return false;
    const TensorId masked = facts_.op(softmax).inputs[0];
    const int32_t add = facts_.Producer(masked);
    if (!IsKind(add, OpKind::kAdd) || facts_.OnlyReader(masked) != softmax) return false;
    for (const size_t side : {size_t{0}, size_t{1}}) {
      const TensorId scores = facts_.op(add).inputs[side];
      const int32_t product = facts_.Producer(scores);
      if (!IsProduct(product, /*adj_y=*/true) || facts_.OnlyReader(scores) != add) continue;
      if (facts_.elements(scores) != facts_.elements(masked) || shape(scores).back() != shape(masked).back()) continue;
      product_ = product;
      masked_ = masked;
      group_.mask = facts_.op(add).inputs[1 - side];
      ops_ = {product, add, softmax};
      return true;
    }
    return false;
  }

  bool MatchValues(int32_t softmax) {
    const TensorId weights = facts_.op(softmax).outputs[0];
    const int32_t mix = facts_.OnlyReader(weights);
    group_.transposed_values = IsProduct(mix, /*adj_y=*/true);
    if (!group_.transposed_values && !IsProduct(mix, /*adj_y=*/false)) return false;
    if (facts_.value(facts_.op(mix).inputs[0]) != facts_.value(weights)) return false;
    ops_.push_back(mix);
    group_.out = facts_.op(mix).outputs[0];
    group_.queries = facts_.op(product_).inputs[0];
    group_.keys = facts_.op(product_).inputs[1];
    group_.values = facts_.op(mix).inputs[1];
    return TakeOutGathers(mix);
  }

  // Rows taken out of the caches for this attention alone.
  bool TakeOutGathers(int32_t mix) {
    const int32_t keys = facts_.Producer(group_.keys);
    const int32_t values = facts_.Producer(group_.values);
    if (!IsRowGather(keys, product_) || !IsRowGather(values, mix) || group_.transposed_values) return true;
    const TensorId positions = facts_.op(keys).inputs[1];
    if (facts_.value(facts_.op(values).inputs[1]) != facts_.value(positions)) return true;
    seen_keys_ = group_.keys;
    seen_values_ = group_.values;
    group_.positions = positions;
    group_.keys = facts_.op(keys).inputs[0];
    group_.values = facts_.op(values).inputs[0];
    ops_.push_back(keys);
    ops_.push_back(values);
    return true;
  }
  bool IsRowGather(int32_t index, int32_t reader) const {
    if (!IsKind(index, OpKind::kGather)) return false;
    const auto* attributes = std::get_if<GatherAttributes>(&facts_.op(index).attributes);
    if (attributes == nullptr || attributes->batch_dims != 0) return false;
    const Shape& from = shape(facts_.op(index).inputs[0]);
    const int32_t rank = static_cast<int32_t>(from.size());
    return rank == 4 && (attributes->axis == 2 || attributes->axis == -2) && facts_.OnlyReader(facts_.op(index).outputs[0]) == reader;
  }

  // q [1, kv_heads, group * tokens, head_dim], K [1, kv_heads, seen, head_dim], V [1, kv_heads, seen, head_dim] or its transpose.
  bool MatchSizes() {
    const Shape& q = shape(group_.queries);
    const Shape& k = shape(seen_keys_ != kNone ? seen_keys_ : group_.keys);
    const Shape& v = shape(seen_values_ != kNone ? seen_values_ : group_.values);
    if (q.size() != 4 || k.size() != 4 || v.size() != 4 || q[0] != 1 || k[0] != 1 || v[0] != 1) return false;
    if (q[1] != k[1] || q[1] != v[1] || q[3] != k[3]) return false;
    group_.kv_heads = q[1];
    group_.head_dim = q[3];
    group_.seen = k[2];
    if (group_.transposed_values ? (v[2] != q[3] || v[3] != k[2]) : (v[3] != q[3] || v[2] != k[2])) return false;
    for (const TensorId id : {group_.queries, group_.keys, group_.values, group_.mask, group_.out}) {
      if (!IsFloat(id)) return false;
    }
    return MatchMask(q[2]);
  }

  // The mask has rows for the tokens; every other dimension of it is 1, and in the scores such a row comes once for every head of a group.
  bool MatchMask(int64_t rows) {
    const Shape& mask = shape(group_.mask);
    const Shape& masked = shape(masked_);
    if (mask.size() < 2 || masked.size() < mask.size() || mask.back() != group_.seen || masked.back() != group_.seen) return false;
    group_.tokens = mask[mask.size() - 2];
    if (facts_.elements(group_.mask) != group_.tokens * group_.seen || masked[masked.size() - 2] != group_.tokens) return false;
    if (rows % group_.tokens != 0) return false;
    group_.group = rows / group_.tokens;
    if (group_.group > kMaxAttentionGroup) return false;
    return facts_.elements(masked_) == group_.kv_heads * rows * group_.seen;
  }

  // [1, heads, tokens, d] from [1, tokens, heads, d], or back: the step reads and writes either form itself.
  bool SwapsTokensAndHeads(int32_t index) const {
    if (!IsKind(index, OpKind::kTranspose)) return false;
    const Op& op = facts_.op(index);
    return facts_.SmallInts(op.inputs[1]) == std::vector<int32_t>{0, 2, 1, 3} && IsFloat(op.inputs[0]);
  }
  void TakeOutTransposes() {
    const int64_t heads = group_.kv_heads * group_.group;
    const Shape by_token{1, group_.tokens, heads, group_.head_dim};
    const Shape by_head{1, heads, group_.tokens, group_.head_dim};
    // For one token, both forms have the same bytes and the transposition is a view.
    group_.queries_by_head = group_.tokens != 1;
    group_.out_by_head = group_.tokens != 1;
    const int32_t before = facts_.Producer(group_.queries);
    if (SwapsTokensAndHeads(before) && facts_.OnlyReader(facts_.op(before).outputs[0]) == product_ &&
        shape(facts_.op(before).inputs[0]) == by_token) {
      group_.queries = facts_.op(before).inputs[0];
      group_.queries_by_head = false;
      ops_.push_back(before);
    }
    const int32_t after = facts_.OnlyReader(group_.out);
    if (SwapsTokensAndHeads(after) && shape(facts_.op(after).inputs[0]) == by_head) {
      group_.out = facts_.op(after).outputs[0];
      group_.out_by_head = false;
      ops_.push_back(after);
    }
  }

  const GraphFacts& facts_;
  AttentionGroup group_;
  std::vector<int32_t> ops_;
  int32_t product_ = kNone;
  TensorId masked_ = kNone;
  TensorId seen_keys_ = kNone;
  TensorId seen_values_ = kNone;
};

}  // namespace

std::optional<AttentionMatch> MatchAttention(const GraphFacts& facts, int32_t softmax) { return Matcher(facts).Match(softmax); }

}  // namespace taskpress
