#include "tools/divergence_run.h"

#include <algorithm>
#include <cmath>

#include "tools/command.h"

namespace taskpress {
namespace {

// Logits after each token of a window: [tokens, vocab].
Result<std::vector<float>> WindowLogits(std::string_view path, OpenedModel& model, std::span<const int32_t> tokens) {
  std::vector<float> rows;
  rows.reserve(tokens.size() * static_cast<size_t>(model.session.vocab_size()));
  model.session.Reset();
  TRY(model.session.Score(tokens, [&](int32_t index, std::span<const float> logits) -> Status {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "while comparing");
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
      return Fail(ErrorCode::kNotFinite, "{}: among the logits after token {} of a window", path, index);
    }
    rows.insert(rows.end(), logits.begin(), logits.end());
    return {};
  }));
  return rows;
}

}  // namespace

Result<DivergenceSummary> MeasureDivergence(const NamedModel& a, const NamedModel& b, std::span<const std::vector<int32_t>> windows) {
  if (a.model.session.vocab_size() != b.model.session.vocab_size()) {
    return Fail(ErrorCode::kNotComparable, "{} has {} tokens, {} has {}", a.name, a.model.session.vocab_size(), b.name,
                b.model.session.vocab_size());
  }
  Divergence divergence(a.model.session.vocab_size());
  for (const std::vector<int32_t>& window : windows) {
    const std::vector<float> rows_a = TRY(WindowLogits(a.name, a.model, window));
    const std::vector<float> rows_b = TRY(WindowLogits(b.name, b.model, window));
    divergence.AddWindow(window, rows_a, rows_b);
  }
  return divergence.Summarize();
}

}  // namespace taskpress
