#include "converter/sensitivity.h"

#include <algorithm>
#include <array>
#include <utility>

#include "quantizer/output_error.h"
#include "runtime/divergence.h"
#include "runtime/session.h"
#include "schema/tokenizer.h"

namespace taskpress {
namespace {

constexpr std::array<std::string_view, 3> kKinds = {"weights", "outputs", "kl"};

// Logits of the reference that are kept, and of one model at a time.
constexpr int64_t kMaxLogits = 64 << 20;

// --- errors ------------------------------------------------------------------------------------------------------------------------------

// The parts of each weight in one uniform model, in the order of their first use.
struct WeightParts {
  std::string name;
  std::vector<const BundleWeight*> parts;
};

std::vector<WeightParts> PartsOf(std::span<const BundleWeight> weights) {
  std::vector<WeightParts> all;
  for (const BundleWeight& weight : weights) {
    if (weight.quant_class == QuantClass::kSmall) continue;
    const auto known = std::ranges::find(all, weight.recipe_name, &WeightParts::name);
    if (known == all.end()) {
      all.push_back({.name = weight.recipe_name, .parts = {&weight}});
    } else {
      known->parts.push_back(&weight);
    }
  }
  return all;
}

Result<OutputError> ErrorOf(const WeightParts& weight, const Calibration* calibration, const RowWork& work) {
  OutputError total;
  for (const BundleWeight* part : weight.parts) {
    std::optional<SecondMoments> moments;
    if (calibration != nullptr && !part->inputs.weight.empty()) moments = TRY(calibration->Moments(part->inputs));
    total += TRY(MeasureOutputError(*part->rows, moments ? &*moments : nullptr, {.work = work}));
  }
  return total;
}

// Types that a weight does not take come out as another one, which is there already.
Status AddCandidate(const WeightParts& weight, const Calibration* calibration, const RowWork& work, WeightCosts& costs) {
  CandidateCost candidate{.spec = weight.parts.front()->spec};
  if (std::ranges::contains(costs.candidates, candidate.spec, &CandidateCost::spec)) return {};
  for (const BundleWeight* part : weight.parts) candidate.bytes += StoredBytes(*part);
  candidate.error = TRY(ErrorOf(weight, calibration, work)).relative();
  costs.candidates.push_back(candidate);
  return {};
}

// --- divergence --------------------------------------------------------------------------------------------------------------------------

// The start token and the text, in one window.
Result<std::vector<int32_t>> WindowOf(const PreparedModel& model, const SensitivityOptions& asked) {
  std::vector<std::byte> scratch;
  const Tokenizer tokenizer = TRY(Tokenizer::FromModel(TRY(ViewOrRead(*model.tokenizer, scratch))));
  std::vector<int32_t> window;
  if (model.metadata.start_token) window.push_back(model.metadata.start_token->id);
  const std::vector<int32_t> text = TRY(tokenizer.Encode(asked.text));
  const int64_t most = std::clamp<int64_t>(kMaxLogits / model.config.text_vocab_size, 2, std::max<int64_t>(asked.kl_tokens, 2));
  for (size_t i = 0; i < text.size() && std::ssize(window) < most; ++i) window.push_back(text[i]);
  if (window.size() < 2) return Fail(ErrorCode::kEmptyPrompt, "the text to measure with has no tokens");
  return window;
}

Result<std::vector<float>> LogitsOf(TextModel graphs, std::span<const int32_t> window, const RowWork& work) {
  Session session = TRY(Session::Create(std::move(graphs), {.threads = work.threads}));
  std::vector<float> rows;
  rows.reserve(window.size() * static_cast<size_t>(session.vocab_size()));
  TRY(session.Score(window, [&](int32_t, std::span<const float> logits) -> Status {
    rows.insert(rows.end(), logits.begin(), logits.end());
    return CheckNotStopped(work.stop);
  }));
  return rows;
}

// Of the smallest type: what is left of the float model in its divergence is largest there.
const CandidateCost& Smallest(const WeightCosts& weight) { return *std::ranges::min_element(weight.candidates, {}, &CandidateCost::bytes); }

// --- weighing by hand --------------------------------------------------------------------------------------------------------------------

// Nats per unit of relative error, as kKl finds them for the micro checkpoint: the rounded medians of a class. The head's error is the
// logits' own; errors inside the layers are diluted by what all other layers add to the residual stream, those of altup's projections and
// of tables by less.
double HandWeight(QuantClass quant_class, const TextConfig& config) {
  const auto layers = static_cast<double>(std::max<int64_t>(1, config.num_hidden_layers));
  switch (quant_class) {
    case QuantClass::kHead:
      return 1;
    case QuantClass::kEmbedding:
      return 0.3;
    case QuantClass::kPerLayerEmbedding:
      return 0.2;
    case QuantClass::kAltup:
      return 0.08;
    case QuantClass::kFeedForward:
    case QuantClass::kSmall:
      return 0.14 / layers;
    case QuantClass::kPerLayer:
      return 0.11 / layers;
    case QuantClass::kAttention:
      return 0.03 / layers;
    case QuantClass::kLaurel:
      return 0.01 / layers;
  }
  return 0;
}

}  // namespace

std::optional<SensitivityKind> SensitivityKindFromName(std::string_view name) {
  const auto* const found = std::ranges::find(kKinds, name);
  return found == kKinds.end() ? std::nullopt : std::optional(static_cast<SensitivityKind>(found - kKinds.begin()));
}

std::string_view NameOf(SensitivityKind kind) { return kKinds[std::to_underlying(kind)]; }

Recipe UniformRecipe(const QuantSpec& spec, const Recipe& pinned) {
  Recipe recipe = pinned;
  recipe.rules.insert(recipe.rules.begin(), {.pattern = "", .classes = {}, .spec = spec, .yields = true});
  return recipe;
}

Result<std::vector<double>> MeasureKlPerError(const ModelFiles& files, const std::filesystem::path& checkpoint,
                                              const PrepareOptions& options, std::span<const WeightCosts> weights,
                                              const SensitivityOptions& asked) {
  PrepareOptions floats = options;
  floats.recipe = {.name = "one weight", .rules = {{.pattern = "", .classes = {}, .spec = {.type = DType::kF32}}}};
  floats.recipe.method = options.recipe.method;
  floats.choose_folds = false;  // they change nothing in floats
  floats.score_signature = true;
  floats.elastic = {};
  PreparedModel model = TRY(PrepareModel(files, checkpoint, floats));
  const std::vector<int32_t> window = TRY(WindowOf(model, asked));
  floats.model.context = std::max<int64_t>(16, std::ssize(window));
  floats.model.prefill_lengths = {std::min<int64_t>(8, floats.model.context)};
  model = TRY(PrepareModel(files, checkpoint, floats));
  const std::vector<float> reference = TRY(LogitsOf(std::move(model.graphs), window, options.work));
  std::vector<double> factors;
  for (const WeightCosts& weight : weights) {
    double factor = 0;
    if (weight.candidates.size() > 1) {
      PrepareOptions changed = floats;
      changed.recipe.rules.push_back({.pattern = "", .classes = {}, .spec = Smallest(weight).spec, .names = {weight.name}});
      model = TRY(PrepareModel(files, checkpoint, changed));
      const std::vector<WeightParts> parts = PartsOf(model.weights);
      const auto own = std::ranges::find(parts, weight.name, &WeightParts::name);
      const double error = own == parts.end() ? 0 : TRY(ErrorOf(*own, options.calibration.get(), options.work)).relative();
      const std::vector<float> rows = TRY(LogitsOf(std::move(model.graphs), window, options.work));
      Divergence divergence(model.config.text_vocab_size);
      divergence.AddWindow(window, rows, reference);
      if (error > 0) factor = std::max(0.0, divergence.Summarize().kl_mean) / error;
    }
    factors.push_back(factor);
    if (asked.on_weight) asked.on_weight(factors.size(), weights.size());
  }
  return factors;
}

Result<std::vector<WeightCosts>> MeasureSensitivity(const ModelFiles& files, const std::filesystem::path& checkpoint,
                                                    const PrepareOptions& options, const SensitivityOptions& asked) {
  if (asked.candidates.empty()) return Fail(ErrorCode::kUsage, "no types to choose from");
  if (asked.kind == SensitivityKind::kOutputs && options.calibration == nullptr)
    return Fail(ErrorCode::kUsage, "sensitivity outputs: calibrate, so that the inputs of the matrices are known");
  if (asked.kind == SensitivityKind::kKl && asked.text.empty())
    return Fail(ErrorCode::kUsage, "sensitivity kl: give a text to measure the divergence with");
  const Calibration* calibration = asked.kind == SensitivityKind::kWeights ? nullptr : options.calibration.get();
  std::vector<WeightCosts> costs;
  TextConfig config;
  for (const QuantSpec& spec : asked.candidates) {
    PrepareOptions uniform = options;
    uniform.recipe = UniformRecipe(spec, options.recipe);
    const PreparedModel model = TRY(PrepareModel(files, checkpoint, uniform));
    const std::vector<WeightParts> parts = PartsOf(model.weights);
    if (costs.empty()) {
      for (const WeightParts& weight : parts)
        costs.push_back({.name = weight.name, .quant_class = weight.parts.front()->quant_class, .candidates = {}});
      config = model.config;
    }
    for (size_t i = 0; i < parts.size(); ++i) TRY(AddCandidate(parts[i], calibration, options.work, costs[i]));
  }
  std::vector<double> factors;
  if (asked.kind == SensitivityKind::kKl) {
    factors = TRY(MeasureKlPerError(files, checkpoint, options, costs, asked));
  } else {
    for (const WeightCosts& weight : costs) factors.push_back(HandWeight(weight.quant_class, config));
  }
  for (size_t i = 0; i < costs.size(); ++i) {
    for (CandidateCost& candidate : costs[i].candidates) candidate.cost = factors[i] * candidate.error;
  }
  return costs;
}

}  // namespace taskpress
