#include "runtime/passes/step_groups.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "runtime/passes/attention_pattern.h"
#include "runtime/passes/graph_facts.h"
#include "runtime/passes/row_ops.h"

namespace taskpress {
namespace {

constexpr std::string_view kAttention = "attention";
constexpr std::string_view kRowRegions = "row_regions";

constexpr std::array kPasses = {
    PassInfo{.name = kAttention, .what = "softmax(q K^T + mask) V as one step over the open positions"},
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
          const PassNames& disabled)
      : facts_(graph, subgraph, plan), plan_(plan), quantized_(quantized), disabled_(disabled) {}

  std::vector<StepGroup> Build() {
    if (!disabled_.contains(kAttention)) FindAttention();
    if (!disabled_.contains(kRowRegions)) tokens_ = GuessTokens(facts_, plan_);
    std::vector<StepGroup> groups;
    for (size_t i = 0; i < plan_.ops.size();) {
      const auto attention = attention_.find(i);
      if (attention != attention_.end()) {
        i += attention->second.ops.size();
        groups.push_back({.ops = std::move(attention->second.ops), .fused = attention->second.group});
        continue;
      }
      const size_t end = EndOfRows(i);
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

  StepGroup MakeRows(std::vector<int32_t> ops) const {
    RowGroup rows{.tokens = tokens_, .quantized_inputs = {}};
    for (size_t i = 0; i < quantized_.size(); ++i) {
      const int32_t producer = facts_.Producer(quantized_[i].value);
      if (quantized_[i].rows == tokens_ && std::ranges::binary_search(ops, producer))
        rows.quantized_inputs.push_back(static_cast<int32_t>(i));
    }
    return {.ops = std::move(ops), .fused = std::move(rows)};
  }

  GraphFacts facts_;
  const Plan& plan_;
  std::span<const QuantizedInputPlan> quantized_;
  const PassNames& disabled_;
  int64_t tokens_ = 0;
  std::map<size_t, AttentionMatch> attention_;  // by where it starts in Plan::ops
};

}  // namespace

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
                                  std::span<const QuantizedInputPlan> quantized, const PassNames& disabled) {
  return Grouper(graph, subgraph, plan, quantized, disabled).Build();
}

}  // namespace taskpress
