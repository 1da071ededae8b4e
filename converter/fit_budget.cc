#include "converter/fit_budget.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "converter/conversion_plan.h"
#include "quantizer/budget.h"

namespace taskpress {
namespace {

// What lies beside the weights changes by a few hundred bytes from mix to mix: two or three plans are enough.
constexpr int kMostPlans = 8;

struct Mix {
  std::vector<size_t> chosen;
  uint64_t weight_bytes = 0;
  double cost = 0;
  double bound = 0;
  uint64_t file_bytes = 0;
};

class BudgetFitting {
 public:
  BudgetFitting(const ModelFiles& files, const std::filesystem::path& checkpoint, const PrepareOptions& options,
                const BudgetRequest& request)
      : files_(files), checkpoint_(checkpoint), options_(options), request_(request) {}

  Result<BudgetFit> Run() {
    weights_ = TRY(MeasureSensitivity(files_, checkpoint_, options_, request_.sensitivity));
    Mix smallest = SmallestMix();
    TRY(Plan(smallest));
    if (smallest.file_bytes > target_) {
      return Fail(ErrorCode::kUsage, "{} bytes; with the smallest types of all weights the file has {}", target_, smallest.file_bytes);
    }
    best_ = smallest;
    TRY(Improve(smallest.file_bytes - smallest.weight_bytes));
    BudgetFit fit{.recipe = RecipeOf(best_),
                  .target = target_,
                  .bytes = best_.file_bytes,
                  .cost = best_.cost,
                  .bound = best_.bound,
                  .plans = plans_,
                  .weights = std::move(weights_),
                  .chosen = best_.chosen};
    return fit;
  }

 private:
  [[nodiscard]] Mix SmallestMix() const {
    Mix mix;
    for (const WeightCosts& weight : weights_) {
      const auto least = std::ranges::min_element(weight.candidates, {}, &CandidateCost::bytes);
      mix.chosen.push_back(static_cast<size_t>(least - weight.candidates.begin()));
      mix.weight_bytes += least->bytes;
      mix.cost += least->cost;
    }
    return mix;
  }

  // `beside`: bytes of the file that are not of weights, as the last plan had them.
  Status Improve(uint64_t beside) {
    std::vector<std::vector<BudgetChoice>> groups;
    for (const WeightCosts& weight : weights_) {
      std::vector<BudgetChoice>& choices = groups.emplace_back();
      for (const CandidateCost& candidate : weight.candidates) choices.push_back({.bytes = candidate.bytes, .cost = candidate.cost});
    }
    std::vector<std::vector<size_t>> seen;
    while (plans_ < kMostPlans && beside < target_) {
      const Result<BudgetSolution> solved = SolveBudget(groups, target_ - beside);
      if (!solved) return {};  // more lies beside the weights than at first: what was found stays
      Mix mix{.chosen = solved->chosen, .weight_bytes = solved->bytes, .cost = solved->cost, .bound = solved->bound};
      if (std::ranges::contains(seen, mix.chosen)) return {};
      seen.push_back(mix.chosen);
      TRY(Plan(mix));
      if (mix.file_bytes <= target_ && mix.cost < best_.cost) best_ = mix;
      const uint64_t now = mix.file_bytes - mix.weight_bytes;
      // A mix that is too large leaves less for weights the next time, whatever its own share beside them was.
      beside = mix.file_bytes > target_ ? std::max(now, beside + (mix.file_bytes - target_)) : now;
    }
    return {};
  }

  // The file's size, exactly.
  Status Plan(Mix& mix) {
    PrepareOptions options = options_;
    options.recipe = RecipeOf(mix);
    const PreparedModel model = TRY(PrepareModel(files_, checkpoint_, options));
    if (plans_++ == 0) TRY(FindTarget(model));
    BundleJob job{.model = &model, .outputs = {}};
    for (const Container container : request_.containers) job.outputs.emplace_back(container == Container::kTask ? "a.task" : "a.litertlm");
    const ConversionPlan plan = TRY(PlanConversion(std::span(&job, 1)));
    for (const PlannedOutput& output : plan.outputs) mix.file_bytes = std::max(mix.file_bytes, output.layout.file_size);
    return {};
  }

  Status FindTarget(const PreparedModel& model) {
    target_ = request_.bytes;
    if (target_ > 0) return {};
    const double bytes = request_.bits_per_weight * static_cast<double>(model.parameters.text) / 8;
    if (!(bytes >= 1) || bytes > 0x1p60) return Fail(ErrorCode::kUsage, "{} bits per weight", request_.bits_per_weight);
    target_ = static_cast<uint64_t>(bytes);
    return {};
  }

  [[nodiscard]] Recipe RecipeOf(const Mix& mix) const {
    Recipe recipe{.name = "budget", .rules = {}, .method = options_.recipe.method};
    for (size_t i = 0; i < weights_.size(); ++i) {
      const QuantSpec& spec = weights_[i].candidates[mix.chosen[i]].spec;
      const QuantSpec type{.type = spec.type, .block_size = spec.block_size, .two_terms = spec.two_terms};
      const auto known = std::ranges::find_if(recipe.rules, [&](const RecipeRule& rule) { return rule.spec == type; });
      if (known != recipe.rules.end()) {
        known->names.push_back(weights_[i].name);
      } else {
        recipe.rules.push_back({.pattern = "", .classes = {}, .spec = type, .names = {weights_[i].name}});
      }
    }
    recipe.rules.insert(recipe.rules.end(), options_.recipe.rules.begin(), options_.recipe.rules.end());
    return recipe;
  }

  const ModelFiles& files_;
  const std::filesystem::path& checkpoint_;
  const PrepareOptions& options_;
  const BudgetRequest& request_;
  std::vector<WeightCosts> weights_;
  uint64_t target_ = 0;
  Mix best_;
  int plans_ = 0;
};

}  // namespace

Result<BudgetFit> FitBudget(const ModelFiles& files, const std::filesystem::path& checkpoint, const PrepareOptions& options,
                            const BudgetRequest& request) {
  return BudgetFitting(files, checkpoint, options, request).Run();
}

}  // namespace taskpress
