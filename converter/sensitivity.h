// What each type would cost each weight of a model: bytes, and an estimate of the harm. What mixed precision is chosen from.
//
// The estimate is the relative error of the weight's outputs, noise over signal (quantizer/output_error.h), times how much the model minds
// it. Every matrix of these models is followed by a norm or feeds something normalized, so that a relative error means the same in all of
// them; where it is measured how much the divergence rises (kKl), that takes the place of the weighing by hand.
#ifndef TASKPRESS_CONVERTER_SENSITIVITY_H_
#define TASKPRESS_CONVERTER_SENSITIVITY_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "converter/model_files.h"
#include "converter/prepare.h"
#include "quantizer/quant_spec.h"
#include "quantizer/recipe.h"
#include "schema/base/error.h"

namespace taskpress {

enum class SensitivityKind : uint8_t {
  kWeights,  // relative error of the weights
  kOutputs,  // of the outputs, as calibration knows the inputs; tables, whose inputs are tokens, as kWeights
  kKl,       // kOutputs or kWeights, times the divergence that one type of the weight alone causes
};
std::optional<SensitivityKind> SensitivityKindFromName(std::string_view name);
std::string_view NameOf(SensitivityKind kind);

struct CandidateCost {
  QuantSpec spec;
  uint64_t bytes = 0;  // values and scales
  double error = 0;    // noise over signal
  double cost = 0;
};

// A weight of the recipe with the types it may get; those that rules pin have one.
struct WeightCosts {
  std::string name;
  QuantClass quant_class = QuantClass::kSmall;
  std::vector<CandidateCost> candidates;
};

struct SensitivityOptions {
  std::vector<QuantSpec> candidates;  // at least one, integers
  SensitivityKind kind = SensitivityKind::kWeights;
  std::string text;         // for kKl
  int64_t kl_tokens = 256;  // of the text, at most
  std::function<void(size_t done, size_t all)> on_weight = {};
};

// How much the model minds errors of each of `weights`: the float model runs over the text with one weight alone in its smallest type, and
// the nats by which predictions change are divided by that weight's error. 0 for weights without a choice and for exact ones.
Result<std::vector<double>> MeasureKlPerError(const ModelFiles& files, const std::filesystem::path& checkpoint,
                                              const PrepareOptions& options, std::span<const WeightCosts> weights,
                                              const SensitivityOptions& asked);

// `options.recipe` has the method and the rules that pin weights. In the order of the recipe's weights. kUsage for kOutputs without
// calibration and kKl without a text; the errors of PrepareModel and of what is read.
Result<std::vector<WeightCosts>> MeasureSensitivity(const ModelFiles& files, const std::filesystem::path& checkpoint,
                                                    const PrepareOptions& options, const SensitivityOptions& asked);

// A recipe that gives all weights one type where it is possible; what `pinned` says stays.
Recipe UniformRecipe(const QuantSpec& spec, const Recipe& pinned);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_SENSITIVITY_H_
