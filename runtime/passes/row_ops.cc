#include "runtime/passes/row_ops.h"

#include <algorithm>
#include <map>

#include "runtime/kernels/native/narrow_matmul.h"
#include "runtime/passes/row_layout.h"

namespace taskpress {
namespace {

// A token's values beyond this are worth more than one thread, and would not stay in the cache.
constexpr int64_t kMaxElementsPerToken = 32768;

class RowOpCheck {
 public:
  RowOpCheck(const GraphFacts& facts, int32_t op, int64_t tokens)
      : facts_(facts), op_(facts.op(op)), inputs_(facts.Inputs(op)), tokens_(tokens) {}

  bool Holds() const {
    if (!AreFloats() || facts_.elements(op_.outputs[0]) / tokens_ > kMaxElementsPerToken) return false;
    switch (op_.kind) {
      case OpKind::kAdd:
      case OpKind::kSub:
      case OpKind::kMul:
      case OpKind::kMinimum:
      case OpKind::kMaximum:
      case OpKind::kSquare:
      case OpKind::kSqrt:
      case OpKind::kRsqrt:
      case OpKind::kTanh:
      case OpKind::kRelu:
      case OpKind::kCos:
      case OpKind::kSin:
        return IsElementwise();
      case OpKind::kGelu: {
        const auto* attributes = std::get_if<GeluAttributes>(&op_.attributes);
        return (attributes == nullptr || attributes->approximate) && IsElementwise();
      }
      case OpKind::kMean:
        return IsMeanOfRows();
      case OpKind::kSlice:
        return LayoutOfSlice(tokens_, out(), in(0), facts_.SmallInts(inputs_[1])).has_value();
      case OpKind::kConcatenation:
        return JoinsColumns();
      case OpKind::kFullyConnected:
        return IsNarrowProduct();
      case OpKind::kCast:
      case OpKind::kSoftmax:
      case OpKind::kReshape:
      case OpKind::kTranspose:
      case OpKind::kGather:
      case OpKind::kBatchMatMul:
      case OpKind::kDynamicUpdateSlice:
      case OpKind::kEmbeddingLookup:
      case OpKind::kDequantize:
        return false;
    }
    return false;
  }

 private:
  const Shape& in(size_t i) const { return facts_.tensor(inputs_[i]).shape; }
  const Shape& out() const { return facts_.tensor(op_.outputs[0]).shape; }

  // All but the integers of axes, begins and sizes.
  bool AreFloats() const {
    const bool only_first = op_.kind == OpKind::kMean || op_.kind == OpKind::kSlice;
    for (size_t i = 0; i < (only_first ? 1 : inputs_.size()); ++i) {
      if (inputs_[i] != kNone && facts_.tensor(inputs_[i]).type != DType::kF32) return false;
    }
    return facts_.tensor(op_.outputs[0]).type == DType::kF32;
  }
  bool IsElementwise() const {
    std::vector<Shape> operands;
    for (const TensorId input : inputs_) operands.push_back(facts_.tensor(input).shape);
    return BroadcastLayout(tokens_, out(), operands).has_value();
  }
  bool IsMeanOfRows() const {
    const auto rank = static_cast<int32_t>(in(0).size());
    const std::vector<int32_t> axes = facts_.SmallInts(inputs_[1]);
    return axes.size() == 1 && (axes[0] == -1 || axes[0] == rank - 1) && DenseRows(tokens_, in(0)).has_value();
  }
  bool JoinsColumns() const {
    const auto* attributes = std::get_if<ConcatenationAttributes>(&op_.attributes);
    const auto rank = static_cast<int32_t>(out().size());
    if (attributes == nullptr || (attributes->axis != -1 && attributes->axis != rank - 1)) return false;
    return DenseRows(tokens_, out()).has_value();
  }
  bool IsNarrowProduct() const {
    const Tensor& weights = facts_.tensor(inputs_[1]);
    const bool constant_bias = inputs_.size() < 3 || inputs_[2] == kNone || facts_.tensor(inputs_[2]).is_constant();
    if (!weights.is_constant() || !constant_bias || weights.shape.size() != 2 || weights.shape[0] >= kNarrow) return false;
    return in(0).back() == weights.shape[1] && DenseRows(tokens_, in(0)).has_value();
  }

  const GraphFacts& facts_;
  const Op& op_;
  std::vector<TensorId> inputs_;
  int64_t tokens_;
};

// Whole rows that were put side by side and are multiplied one by one: several terms of one token.
int64_t RowsOfToken(const GraphFacts& facts, const Op& product) {
  const int32_t producer = facts.Producer(product.inputs[0]);
  if (producer == kNone || facts.op(producer).kind != OpKind::kConcatenation) return 1;
  const int64_t columns = facts.tensor(product.inputs[1]).shape[1];
  const std::vector<TensorId> parts = facts.Inputs(producer);
  const auto is_row = [&](TensorId part) { return !facts.tensor(part).shape.empty() && facts.tensor(part).shape.back() == columns; };
  const auto count = static_cast<int64_t>(parts.size());
  return std::ranges::all_of(parts, is_row) && facts.tensor(facts.op(producer).outputs[0]).shape.back() == count * columns ? count : 1;
}

}  // namespace

int64_t GuessTokens(const GraphFacts& facts, const Plan& plan) {
  std::map<int64_t, int64_t> votes;
  for (const int32_t index : plan.ops) {
    const Op& op = facts.op(index);
    const Shape& weights = facts.tensor(op.kind == OpKind::kFullyConnected ? op.inputs[1] : op.outputs[0]).shape;
    if (op.kind == OpKind::kFullyConnected && weights.size() == 2)
      ++votes[facts.elements(op.inputs[0]) / weights[1] / RowsOfToken(facts, op)];
  }
  const auto most = std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; });
  return most == votes.end() ? 0 : most->first;
}

bool IsRowOp(const GraphFacts& facts, int32_t op, int64_t tokens) { return RowOpCheck(facts, op, tokens).Holds(); }

}  // namespace taskpress
