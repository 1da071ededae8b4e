// One choice for each group, the least cost within a number of bytes: the multiple-choice knapsack of mixed precision.
//
// Solved exactly: the linear relaxation gives a bound and a first solution, its reduced costs rule most choices out, and dynamic
// programming over what is left keeps every state that no other one beats in both bytes and cost (Pisinger, "A minimal algorithm for the
// multiple-choice knapsack problem", 1995, without the incremental core). Where states would not fit in memory, of those whose bytes are
// close only the cheapest stays; the answer is then within the budget still, and `bound` says how far from the best it can be.
#ifndef TASKPRESS_QUANTIZER_BUDGET_H_
#define TASKPRESS_QUANTIZER_BUDGET_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

struct BudgetChoice {
  uint64_t bytes = 0;
  double cost = 0;  // finite, not negative
};

struct BudgetSolution {
  std::vector<size_t> chosen;  // [groups] index of the choice
  uint64_t bytes = 0;
  double cost = 0;
  double bound = 0;   // no solution within the budget costs less
  bool exact = true;  // none does: cost is the least
};

struct BudgetOptions {
  size_t max_states = size_t{1} << 14;  // per group
};

// groups: [groups][choices], at least one choice each; of equal costs the fewest bytes, then the first. kUsage naming the least
// number of bytes when nothing fits.
Result<BudgetSolution> SolveBudget(std::span<const std::vector<BudgetChoice>> groups, uint64_t budget, const BudgetOptions& options = {});

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_BUDGET_H_
