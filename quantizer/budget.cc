#include "quantizer/budget.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// Sums of costs in another order differ by less; a state is ruled out only where it is worse by more.
constexpr double kRounding = 1e-12;

struct Option {
  uint64_t bytes = 0;
  double cost = 0;
  size_t index = 0;  // in the group as it was given
};
using Options = std::vector<Option>;  // of one group: bytes rise, costs fall

// From one option of a group to a later one on the lower convex hull.
struct Step {
  size_t group = 0;
  size_t to = 0;
  uint64_t bytes = 0;
  double gain = 0;
  [[nodiscard]] double rate() const { return gain / static_cast<double>(bytes); }
};

struct State {
  uint64_t bytes = 0;
  double cost = 0;
  uint32_t parent = 0;
  uint32_t option = 0;
};

struct Choice {  // of all groups
  std::vector<size_t> options;
  uint64_t bytes = 0;
  double cost = 0;
};

class Knapsack {
 public:
  Knapsack(std::vector<Options> groups, uint64_t budget, size_t max_states)
      : groups_(std::move(groups)), budget_(budget), max_states_(max_states) {}

  BudgetSolution Solve() {
    Relax();
    BudgetSolution solution{.chosen = {}, .bytes = best_.bytes, .cost = best_.cost, .bound = bound_};
    if (Gap() > 0) {
      Reduce();
      Search();
      solution.exact = exact_;
    }
    solution.bytes = best_.bytes;
    solution.cost = best_.cost;
    solution.bound = exact_ ? best_.cost : std::min(bound_, best_.cost);
    for (size_t g = 0; g < groups_.size(); ++g) solution.chosen.push_back(groups_[g][best_.options[g]].index);
    return solution;
  }

 private:
  // How much better than the best so far a solution could be.
  [[nodiscard]] double Gap() const { return best_.cost - bound_ - kRounding * best_.cost; }

  // The hull of a group as steps, the best rate first; rates fall along it.
  void AddSteps(size_t group, std::vector<Step>& steps) const {
    const Options& options = groups_[group];
    for (size_t from = 0; from + 1 < options.size();) {
      Step best;
      for (size_t to = from + 1; to < options.size(); ++to) {
        const Step step{
            .group = group, .to = to, .bytes = options[to].bytes - options[from].bytes, .gain = options[from].cost - options[to].cost};
        if (best.bytes == 0 || step.rate() >= best.rate()) best = step;
      }
      steps.push_back(best);
      from = best.to;
    }
  }

  // Greedy along all hulls: the bound is where the budget cuts a step, the first solution goes on with what still fits.
  void Relax() {
    std::vector<Step> steps;
    best_.options.assign(groups_.size(), 0);
    for (size_t g = 0; g < groups_.size(); ++g) {
      best_.bytes += groups_[g].front().bytes;
      AddSteps(g, steps);
    }
    std::ranges::stable_sort(steps, [](const Step& a, const Step& b) { return a.rate() > b.rate(); });
    std::vector<bool> stuck(groups_.size());
    bool cut = false;
    for (const Step& step : steps) {
      if (!stuck[step.group] && step.bytes <= budget_ - best_.bytes) {
        best_.options[step.group] = step.to;
        best_.bytes += step.bytes;
        continue;
      }
      stuck[step.group] = true;
      if (!cut) rate_ = step.rate();
      cut = true;
    }
    best_.cost = CostOf(best_.options);
    bound_ = cut ? LagrangianBound() : best_.cost;
  }

  [[nodiscard]] double CostOf(const std::vector<size_t>& options) const {
    double cost = 0;
    for (size_t g = 0; g < groups_.size(); ++g) cost += groups_[g][options[g]].cost;
    return cost;
  }

  [[nodiscard]] double Priced(const Option& option) const { return option.cost + rate_ * static_cast<double>(option.bytes); }
  [[nodiscard]] double LeastPriced(size_t group) const {
    double least = std::numeric_limits<double>::infinity();
    for (const Option& option : groups_[group]) least = std::min(least, Priced(option));
    return least;
  }

  // min over all choices of cost + rate * (bytes - budget), whatever the bytes: no solution within the budget costs less.
  [[nodiscard]] double LagrangianBound() const {
    double sum = 0;
    for (size_t g = 0; g < groups_.size(); ++g) sum += LeastPriced(g);
    return sum - rate_ * static_cast<double>(budget_);
  }

  // What the bound rises by with an option: solutions with more than the gap cannot win.
  [[nodiscard]] double Regret(size_t group, const Option& option) const { return Priced(option) - LeastPriced(group); }

  void Reduce() {
    const double slack = Gap() + Rounding();
    for (size_t g = 0; g < groups_.size(); ++g) {
      std::vector<uint32_t>& kept = kept_.emplace_back();
      for (size_t o = 0; o < groups_[g].size(); ++o) {
        if (Regret(g, groups_[g][o]) <= slack) kept.push_back(static_cast<uint32_t>(o));
      }
    }
  }

  // Regrets are differences of priced sums, which are larger than they are.
  [[nodiscard]] double Rounding() const { return kRounding * (best_.cost + rate_ * static_cast<double>(budget_)); }

  void Search() {
    least_after_.assign(groups_.size() + 1, 0);
    for (size_t g = groups_.size(); g-- > 0;) least_after_[g] = least_after_[g + 1] + groups_[g][kept_[g].front()].bytes;
    std::vector<std::vector<State>> layers{{State{}}};
    double regret_base = 0;
    for (size_t g = 0; g < groups_.size(); ++g) {
      regret_base += LeastPriced(g);
      std::vector<State> next = Extend(g, layers.back(), regret_base);
      if (next.empty()) return;  // the first solution is the best
      layers.push_back(Undominated(std::move(next)));
    }
    TakeBest(layers);
  }

  std::vector<State> Extend(size_t group, const std::vector<State>& states, double regret_base) const {
    const double slack = Gap() + Rounding();
    std::vector<State> next;
    for (size_t s = 0; s < states.size(); ++s) {
      for (const uint32_t o : kept_[group]) {
        const Option& option = groups_[group][o];
        const State state{
            .bytes = states[s].bytes + option.bytes, .cost = states[s].cost + option.cost, .parent = static_cast<uint32_t>(s), .option = o};
        if (state.bytes + least_after_[group + 1] > budget_) continue;
        const double regret = state.cost + rate_ * static_cast<double>(state.bytes) - regret_base;
        if (regret <= slack) next.push_back(state);
      }
    }
    return next;
  }

  std::vector<State> Undominated(std::vector<State> states) {
    std::ranges::sort(states, [](const State& a, const State& b) {
      return std::tie(a.bytes, a.cost, a.parent, a.option) < std::tie(b.bytes, b.cost, b.parent, b.option);
    });
    std::vector<State> kept;
    for (const State& state : states) {
      if (kept.empty() || state.cost < kept.back().cost) kept.push_back(state);
    }
    if (kept.size() > max_states_) kept = Thinned(kept);
    return kept;
  }

  // The cheapest of each interval of bytes, which is the last: costs fall.
  std::vector<State> Thinned(const std::vector<State>& states) {
    exact_ = false;
    const uint64_t begin = states.front().bytes;
    const uint64_t width = (states.back().bytes - begin) / (max_states_ - 1) + 1;
    std::vector<State> kept;
    for (const State& state : states) {
      if (kept.size() > 1 && (kept.back().bytes - begin) / width == (state.bytes - begin) / width) kept.pop_back();
      kept.push_back(state);
    }
    return kept;
  }

  // Of the last layer the cheapest state, when it beats the first solution.
  void TakeBest(const std::vector<std::vector<State>>& layers) {
    Choice found{.options = std::vector<size_t>(groups_.size()), .bytes = layers.back().back().bytes, .cost = 0};
    uint32_t at = static_cast<uint32_t>(layers.back().size() - 1);
    for (size_t g = groups_.size(); g-- > 0;) {
      const State& state = layers[g + 1][at];
      found.options[g] = state.option;
      at = state.parent;
    }
    found.cost = CostOf(found.options);
    if (std::tie(found.cost, found.bytes) < std::tie(best_.cost, best_.bytes)) best_ = std::move(found);
  }

  std::vector<Options> groups_;
  uint64_t budget_;
  size_t max_states_;
  double rate_ = 0;   // what a byte is worth
  double bound_ = 0;  // no solution costs less
  Choice best_;
  std::vector<std::vector<uint32_t>> kept_;  // [groups] options that may be part of a better solution, bytes rise
  std::vector<uint64_t> least_after_;        // [groups + 1] bytes of the smallest options from here on
  bool exact_ = true;
};

// Bytes rise, costs fall: what costs no less than something smaller is never chosen.
Options Useful(std::span<const BudgetChoice> choices) {
  Options all;
  for (size_t i = 0; i < choices.size(); ++i) all.push_back({.bytes = choices[i].bytes, .cost = choices[i].cost, .index = i});
  std::ranges::sort(
      all, [](const Option& a, const Option& b) { return std::tie(a.bytes, a.cost, a.index) < std::tie(b.bytes, b.cost, b.index); });
  Options useful;
  for (const Option& option : all) {
    if (useful.empty() || option.cost < useful.back().cost) useful.push_back(option);
  }
  return useful;
}

}  // namespace

Result<BudgetSolution> SolveBudget(std::span<const std::vector<BudgetChoice>> groups, uint64_t budget, const BudgetOptions& options) {
  std::vector<Options> useful;
  std::optional<uint64_t> least = 0;
  std::optional<uint64_t> most = 0;
  for (const std::vector<BudgetChoice>& choices : groups) {
    const bool sound = !choices.empty() && std::ranges::all_of(choices, [](const BudgetChoice& choice) {
      return std::isfinite(choice.cost) && choice.cost >= 0;
    });
    if (!sound) return Fail(ErrorCode::kUsage, "group {} has no choices, or costs that are no numbers", useful.size());
    useful.push_back(Useful(choices));
    least = least ? CheckedAdd(*least, useful.back().front().bytes) : least;
    most = most ? CheckedAdd(*most, useful.back().back().bytes) : most;
  }
  if (!least || !most || *least > budget) {
    return Fail(ErrorCode::kUsage, "{} bytes; the smallest types need {}", budget, least.value_or(std::numeric_limits<uint64_t>::max()));
  }
  return Knapsack(std::move(useful), budget, std::max<size_t>(options.max_states, 2)).Solve();
}

}  // namespace taskpress
