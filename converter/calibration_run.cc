#include "converter/calibration_run.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "runtime/executor.h"
#include "runtime/shared_runtime.h"
#include "runtime/switched_memory.h"
#include "runtime/text_inputs.h"
#include "runtime/text_signatures.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

constexpr std::string_view kHeadSite = "lm_head.weight";

struct Site {
  std::string name;
  TensorId input = kNone;
  int64_t columns = 0;
  size_t step = 0;  // the first that reads it
};

class CalibrationRun {
 public:
  CalibrationRun(const TextModel& model, std::span<const std::vector<int32_t>> windows, const CalibrationRunOptions& options)
      : model_(model), windows_(windows), options_(options) {}

  Status Run(const TakeSite& take) {
    TRY(Begin());
    const std::vector<Site> sites = Sites();
    size_t step = 0;
    for (size_t i = 0; i < sites.size(); ++i) {
      TRY(Advance(step, sites[i].step));
      step = sites[i].step;
      if (!options_.has || !options_.has(sites[i].name)) TRY(take(sites[i].name, TRY(Sum(sites[i]))));
      if (options_.on_site) options_.on_site(i + 1, sites.size());
    }
    return {};
  }

 private:
  // One executor; its arena and its states have a version for each window.
  Status Begin() {
    shared_ = TRY(SharedRuntime::Create({.kernels = Kernels::kStreamed, .threads = options_.work.threads}));
    TRY(ValidateGraph(model_.prefill_decode));
    signatures_ = TRY(FindTextSignatures(model_.prefill_decode));
    if (signatures_.calibrate.empty()) return Fail(ErrorCode::kSignatureMissing, "the model has no signature calibrate_<T>");
    if (windows_.empty()) return Fail(ErrorCode::kUsage, "no text to calibrate with");
    for (const std::vector<int32_t>& window : windows_) {
      if (std::cmp_equal(window.size(), signature().tokens)) continue;
      return Fail(ErrorCode::kUsage, "a window of {} tokens for a signature of {}", window.size(), signature().tokens);
    }
    const auto versions = static_cast<int64_t>(windows_.size());
    std::vector<uint64_t> offsets;
    uint64_t bytes = 0;
    for (const StateTensor& state : signatures_.states) {
      offsets.push_back(bytes);
      bytes += AlignUp(NumBytes(state.type, state.shape).value_or(0) + kTensorPadding, kTensorAlignment);
    }
    states_ = TRY(SwitchedMemory::Make(std::max<uint64_t>(bytes, 1), versions, options_.scratch));
    std::vector<ExternalBuffer> externals;
    for (const TextSignature::State& state : signature().states) {
      const StateTensor& tensor = signatures_.states[state.index];
      externals.push_back({.input = state.input,
                           .output = state.output,
                           .bytes = states_->bytes().subspan(offsets[state.index], NumBytes(tensor.type, tensor.shape).value_or(0))});
    }
    const ArenaMaker make_arena = [&](uint64_t size) -> Result<ByteSpan> {
      arena_ = TRY(SwitchedMemory::Make(std::max<uint64_t>(size, 1), versions, options_.scratch));
      return arena_->bytes();
    };
    executor_ = TRY(Executor::Create(model_.prefill_decode, signature().subgraph, *shared_, externals, make_arena));
    TextInputs inputs = TRY(TextInputs::Create(model_, signatures_, *shared_));
    for (size_t window = 0; window < windows_.size(); ++window) {
      TRY(Select(window));
      TRY(inputs.Fill(*executor_, signature(), windows_[window], 0));
    }
    return {};
  }

  [[nodiscard]] const TextSignature& signature() const { return signatures_.calibrate.front(); }
  [[nodiscard]] const Subgraph& subgraph() const { return model_.prefill_decode.subgraphs[static_cast<size_t>(signature().subgraph)]; }

  [[nodiscard]] const Op* MatrixOfStep(size_t step) const {
    const StepInfo& info = executor_->steps()[step];
    if (info.op == kNone) return nullptr;
    const Op& op = subgraph().ops[static_cast<size_t>(info.op)];
    const bool matrix = op.kind == OpKind::kFullyConnected && subgraph().tensors[static_cast<size_t>(op.inputs[1])].is_constant();
    return matrix ? &op : nullptr;
  }

  [[nodiscard]] std::vector<Site> Sites() const {
    std::vector<Site> sites;
    for (size_t step = 0; step < executor_->steps().size(); ++step) {
      const Op* op = MatrixOfStep(step);
      if (op == nullptr) continue;
      const Tensor& weights = subgraph().tensors[static_cast<size_t>(op->inputs[1])];
      if (!options_.wanted(weights.name)) continue;
      const auto known = std::ranges::find(sites, op->inputs[0], &Site::input);
      if (known != sites.end()) {
        known->name += " " + weights.name;
        continue;
      }
      sites.push_back({.name = weights.name, .input = op->inputs[0], .columns = weights.shape.back(), .step = step});
    }
    if (options_.wanted(kHeadSite)) {
      sites.push_back({.name = std::string(kHeadSite),
                       .input = signature().hidden,
                       .columns = subgraph().tensors[static_cast<size_t>(signature().hidden)].shape.back(),
                       .step = executor_->steps().size()});
    }
    return sites;
  }

  Status Select(size_t window) {
    TRY(states_->Select(static_cast<int64_t>(window)));
    return arena_->Select(static_cast<int64_t>(window));
  }

  // Takes every window from one step to another. A matrix comes into memory once for all windows; what lies between two matrices is done
  // window by window.
  Status Advance(size_t from, size_t to) {
    while (from < to) {
      size_t end = from + 1;
      if (MatrixOfStep(from) == nullptr) {
        while (end < to && MatrixOfStep(end) == nullptr) ++end;
      }
      for (size_t window = 0; window < windows_.size(); ++window) {
        TRY(CheckNotStopped(options_.work.stop));
        TRY(Select(window));
        TRY(executor_->RunSteps(from, end));
      }
      from = end;
    }
    return {};
  }

  Result<SecondMoments> Sum(const Site& site) {
    MomentAccumulator accumulator = TRY(MomentAccumulator::Make(site.columns, options_.kind));
    for (size_t window = 0; window < windows_.size(); ++window) {
      TRY(CheckNotStopped(options_.work.stop));
      TRY(Select(window));
      const std::span<const float> values = ByOwnSize(executor_->ValueAs<float>(site.input), site.columns);
      if (Status added = accumulator.Add(values, static_cast<int64_t>(values.size()) / site.columns, options_.work); !added) {
        return std::unexpected(WithContext(std::move(added).error(), Format("input of {}, window {}", site.name, window)));
      }
    }
    return accumulator.Finish(options_.work);
  }

  // Every row with root mean square one. What follows the matrices norms each token by itself, so an error counts by the token's own size;
  // without this, the few tokens of enormous size that every model has (the first of a text) would count alone.
  std::span<const float> ByOwnSize(std::span<const float> values, int64_t columns) {
    normed_.assign(values.begin(), values.end());
    const auto width = static_cast<size_t>(columns);
    for (size_t begin = 0; begin < normed_.size(); begin += width) {
      const std::span<float> row = std::span(normed_).subspan(begin, width);
      double sum = 0;
      for (const float value : row) sum += static_cast<double>(value) * static_cast<double>(value);
      if (!(sum > 0) || !std::isfinite(sum)) continue;
      const auto factor = static_cast<float>(1 / std::sqrt(sum / static_cast<double>(width)));
      for (float& value : row) value *= factor;
    }
    return normed_;
  }

  std::vector<float> normed_;
  const TextModel& model_;
  std::span<const std::vector<int32_t>> windows_;
  const CalibrationRunOptions& options_;
  std::unique_ptr<SharedRuntime> shared_;
  TextSignatures signatures_;
  std::optional<SwitchedMemory> states_;
  std::optional<SwitchedMemory> arena_;
  std::optional<Executor> executor_;
};

}  // namespace

Status RunCalibration(const TextModel& model, std::span<const std::vector<int32_t>> windows, const CalibrationRunOptions& options,
                      const TakeSite& take) {
  return CalibrationRun(model, windows, options).Run(take);
}

}  // namespace taskpress
