#include "runtime/passes/step_groups.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "runtime/kernels/native/sparse_columns.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/passes/attention_pattern.h"
#include "runtime/passes/graph_facts.h"
#include "runtime/passes/row_ops.h"

namespace taskpress {
namespace {

constexpr std::string_view kAttention = "attention";
constexpr std::string_view kRowRegions = "row_regions";

constexpr std::string_view kSparseFfn = "sparse_ffn";

constexpr std::array kPasses = {
    PassInfo{.name = kAttention, .what = "softmax(q K^T + mask) V as one step over the open positions"},
    PassInfo{.name = kSparseFfn, .what = "a feed-forward without the rows and columns of units that the gate has closed"},
    PassInfo{.name = kRowRegions, .what = "a run of row-wise operators as one step, token by token in the cache"},
};

// Operators in one group, by position in Plan::ops: [begin, end).
struct Span {
  size_t begin;
  size_t end;
};

// Plan::ops where `ops` (ascending) stand, when nothing else stands between them.
std::optional<Span> SpanOf(const std::vector<int32_t>& plan_ops, const std::vector<int32_t>& ops) {
  const auto first = std::ranges::lower_bound(plan_ops, ops.front());
  const auto begin = static_cast<size_t>(first - plan_ops.begin());
  if (plan_ops.size() - begin < ops.size()) return std::nullopt;
  if (!std::equal(ops.begin(), ops.end(), first)) return std::nullopt;
  return Span{.begin = begin, .end = begin + ops.size()};
}

class Grouper {
 public:
  Grouper(const Graph& graph, const Subgraph& subgraph, const Plan& plan, std::span<const QuantizedInputPlan> quantized,
          const std::vector<bool>& reads_codes, const PassNames& disabled)
      : facts_(graph, subgraph, plan), plan_(plan), quantized_(quantized), reads_codes_(reads_codes), disabled_(disabled) {}

  std::vector<StepGroup> Build() {
    if (!disabled_.contains(kAttention)) FindAttention();
    tokens_ = GuessTokens(facts_, plan_);
    std::vector<StepGroup> groups;
    for (size_t i = 0; i < plan_.ops.size();) {
      const auto attention = attention_.find(i);
      if (attention != attention_.end()) {
        i += attention->second.ops.size();
        groups.push_back({.ops = std::move(attention->second.ops), .fused = attention->second.group});
        continue;
      }
      if (std::optional<StepGroup> sparse = MatchSparse(i)) {
        i += sparse->ops.size();
        groups.push_back(*std::move(sparse));
        continue;
      }
      const size_t end = disabled_.contains(kRowRegions) ? i : EndOfRows(i);
      if (end > i) {
        groups.push_back(
            MakeRows({plan_.ops.begin() + static_cast<std::ptrdiff_t>(i), plan_.ops.begin() + static_cast<std::ptrdiff_t>(end)}));
        i = end;
      } else {
        groups.push_back({.ops = {plan_.ops[i++]}, .fused = {}});
      }
    }
    return groups;
  }

 private:
  void FindAttention() {
    for (const int32_t index : plan_.ops) {
      if (facts_.op(index).kind != OpKind::kSoftmax) continue;
      std::optional<AttentionMatch> match = MatchAttention(facts_, index);
      if (!match) continue;
      if (const std::optional<Span> span = SpanOf(plan_.ops, match->ops)) attention_.emplace(span->begin, *std::move(match));
    }
  }

  size_t EndOfRows(size_t begin) const {
    size_t end = begin;
    if (tokens_ == 0) return end;
    while (end < plan_.ops.size() && !attention_.contains(end) && IsRowOp(facts_, plan_.ops[end], tokens_)) ++end;
    return end;
  }

  bool IsKind(int32_t index, OpKind kind) const { return index != kNone && facts_.op(index).kind == kind; }
  // A matrix of integers that reads nothing of its input but the int8 copy.
  bool IsIntegerProduct(size_t at, std::initializer_list<DType> weights) const {
    if (at >= plan_.ops.size() || attention_.contains(at) || !IsKind(plan_.ops[at], OpKind::kFullyConnected)) return false;
    const Op& op = facts_.op(plan_.ops[at]);
    const Tensor& matrix = facts_.tensor(op.inputs[1]);
    return reads_codes_[static_cast<size_t>(plan_.ops[at])] && std::ranges::contains(weights, matrix.type) && matrix.shape[1] % 2 == 0;
  }

  std::optional<StepGroup> MatchSparse(size_t at) const {
    if (disabled_.contains(kSparseFfn) || tokens_ == 0 || !IsIntegerProduct(at, {DType::kI4, DType::kI8})) return std::nullopt;
    const size_t end = EndOfRows(at + 1);
    if (end == at + 1 || !IsIntegerProduct(end, {DType::kI4})) return std::nullopt;
    SparseGroup sparse{.tokens = tokens_, .up = plan_.ops[at], .rows = {}, .mul = plan_.ops[end - 1], .down = plan_.ops[end]};
    if (facts_.tensor(facts_.op(sparse.down).inputs[1]).shape[1] > kMaxSparseColumns) return std::nullopt;
    const TensorId up = facts_.op(sparse.up).outputs[0];
    const TensorId product = facts_.op(sparse.mul).outputs[0];
    if (!IsKind(sparse.mul, OpKind::kMul) || facts_.OnlyReader(up) != sparse.mul || facts_.OnlyReader(product) != sparse.down)
      return std::nullopt;
    const std::vector<TensorId> factors = facts_.Inputs(sparse.mul);
    sparse.gate = facts_.value(factors[0]) == facts_.value(up) ? factors[1] : factors[0];
    if (facts_.elements(sparse.gate) != facts_.elements(up) || facts_.elements(product) != facts_.elements(up)) return std::nullopt;
    if (!ComesFromRelu(sparse.gate)) return std::nullopt;
    for (size_t i = 0; i < quantized_.size(); ++i) {
      if (quantized_[i].rows == tokens_ && quantized_[i].ops == std::vector{sparse.down}) sparse.down_input = static_cast<int32_t>(i);
    }
    if (sparse.down_input == kNone) return std::nullopt;
    const auto iterator = [&](size_t i) { return plan_.ops.begin() + static_cast<std::ptrdiff_t>(i); };
    sparse.rows.assign(iterator(at + 1), iterator(end - 1));
    return StepGroup{.ops = {iterator(at), iterator(end + 1)}, .fused = std::move(sparse)};
  }

  // Zero wherever the RELU closes: GELU keeps zeros.
  bool ComesFromRelu(TensorId gate) const {
    int32_t producer = facts_.Producer(gate);
    if (IsKind(producer, OpKind::kGelu)) producer = facts_.Producer(facts_.op(producer).inputs[0]);
    return IsKind(producer, OpKind::kRelu);
  }

  StepGroup MakeRows(std::vector<int32_t> ops) const {
    RowGroup rows{.tokens = tokens_, .quantized_inputs = {}};
    for (size_t i = 0; i < quantized_.size(); ++i) {
      const int32_t producer = facts_.Producer(quantized_[i].value);
      // A token has one row, or as many as were put side by side.
      if (quantized_[i].rows % tokens_ == 0 && std::ranges::binary_search(ops, producer))
        rows.quantized_inputs.push_back(static_cast<int32_t>(i));
    }
    return {.ops = std::move(ops), .fused = std::move(rows)};
  }

  GraphFacts facts_;
  const Plan& plan_;
  std::span<const QuantizedInputPlan> quantized_;
  const std::vector<bool>& reads_codes_;
  const PassNames& disabled_;
  int64_t tokens_ = 0;
  std::map<size_t, AttentionMatch> attention_;  // by where it starts in Plan::ops
};

}  // namespace

std::string_view PassOf(const StepGroup& group) {
  if (std::holds_alternative<AttentionGroup>(group.fused)) return kAttention;
  if (std::holds_alternative<RowGroup>(group.fused)) return kRowRegions;
  return std::holds_alternative<SparseGroup>(group.fused) ? kSparseFfn : std::string_view();
}

std::vector<bool> OpsThatReadCodes(const Graph& graph, const Subgraph& subgraph, std::span<const QuantizedInputPlan> quantized) {
  std::vector<bool> reads(subgraph.ops.size());
  for (const QuantizedInputPlan& input : quantized) {
    for (const int32_t index : input.ops) {
      const Op& op = subgraph.ops[static_cast<size_t>(index)];
      const Tensor& weights = subgraph.tensors[static_cast<size_t>(op.inputs[1])];
      if (!HasIntegerWeights(weights.type) || weights.quantization == kNone) continue;
      const Quantization& quantization = graph.quantizations[static_cast<size_t>(weights.quantization)];
      const std::span<const float> scales = ScalesOf(quantization);
      reads[static_cast<size_t>(index)] = static_cast<int64_t>(scales.size()) == weights.shape[0] &&
                                          std::ranges::all_of(scales, [](float scale) { return std::isnormal(scale) && scale > 0.0F; });
    }
  }
  return reads;
}

std::span<const PassInfo> AllPasses() { return kPasses; }

Status CheckPassName(std::string_view name) {
  std::string names;
  for (const PassInfo& pass : kPasses) {
    if (pass.name == name) return {};
    names += Format("{}{}", names.empty() ? "" : ", ", pass.name);
  }
  return Fail(ErrorCode::kUsage, "there is no pass \"{}\"; there are {}", name, names);
}

std::vector<StepGroup> GroupSteps(const Graph& graph, const Subgraph& subgraph, const Plan& plan,
                                  std::span<const QuantizedInputPlan> quantized, const std::vector<bool>& reads_codes,
                                  const PassNames& disabled) {
  return Grouper(graph, subgraph, plan, quantized, reads_codes, disabled).Build();
}

}  // namespace taskpress
