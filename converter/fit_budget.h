// Mixed precision for a size: which type each weight gets so that the file is no larger than asked for and the estimated harm is least.
//
// Weights and their types are the groups and choices of quantizer/budget.h. What a file holds beside them, some of which depends on the
// types, is known exactly once a mix is planned (conversion_plan.h); the choice is repeated with that until the plan fits.
#ifndef TASKPRESS_CONVERTER_FIT_BUDGET_H_
#define TASKPRESS_CONVERTER_FIT_BUDGET_H_

#include <cstdint>
#include <filesystem>
#include <vector>

#include "converter/model_files.h"
#include "converter/prepare.h"
#include "converter/sensitivity.h"
#include "quantizer/recipe.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

struct BudgetRequest {
  uint64_t bytes = 0;                 // of the file at most; 0: bits_per_weight decides
  double bits_per_weight = 0;         // of the file, for each parameter of the text model
  std::vector<Container> containers;  // all of them have to fit; at least one
  SensitivityOptions sensitivity;
};

struct BudgetFit {
  Recipe recipe;        // every weight by its name, then what was pinned
  uint64_t target = 0;  // bytes
  uint64_t bytes = 0;   // of the largest container, exact
  double cost = 0;      // estimated harm
  double bound = 0;     // no mix within the bytes costs less
  int plans = 0;        // how many mixes were planned
  std::vector<WeightCosts> weights;
  std::vector<size_t> chosen;  // [weights] candidate
};

// `options.recipe` has the method and the rules that pin weights. kBudgetImpossible with the least size there is; the errors of
// MeasureSensitivity and PrepareModel.
Result<BudgetFit> FitBudget(const ModelFiles& files, const std::filesystem::path& checkpoint, const PrepareOptions& options,
                            const BudgetRequest& request);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_FIT_BUDGET_H_
