#include "tools/speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "tools/command.h"

namespace taskpress {
namespace {

using std::chrono::steady_clock;

double Seconds(steady_clock::time_point since) { return std::chrono::duration<double>(steady_clock::now() - since).count(); }

// One prompt of `prefill` tokens, then `decode` tokens; which ids does not matter for the time.
Status RunOnce(const SpeedTest& test, OpenedModel& model, Timings* timings) {
  Session& session = model.session;
  session.Reset();
  std::vector<int32_t> prompt(static_cast<size_t>(test.prefill));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7919 + 5) % static_cast<size_t>(session.vocab_size()));
  const auto start = steady_clock::now();
  TRY(session.Prefill(prompt));
  const double prefill_seconds = Seconds(start);
  int32_t token = prompt.back();
  auto decode_start = steady_clock::now();
  for (int i = 0; i < test.decode; ++i) {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "while measuring");
    const std::span<const float> logits = TRY(session.Decode(token));
    token = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
    if (i == 0 && timings != nullptr) timings->first_token.runs.push_back(Seconds(start));
  }
  if (timings == nullptr) return {};
  timings->prefill.runs.push_back(test.prefill / prefill_seconds);
  timings->decode.runs.push_back(test.decode / Seconds(decode_start));
  return {};
}

}  // namespace

double Series::mean() const {
  return runs.empty() ? 0.0 : std::accumulate(runs.begin(), runs.end(), 0.0) / static_cast<double>(runs.size());
}

double Series::deviation() const {
  if (runs.size() < 2) return 0.0;
  double sum = 0;
  for (const double run : runs) sum += (run - mean()) * (run - mean());
  return std::sqrt(sum / static_cast<double>(runs.size() - 1));
}

Result<Timings> MeasureSpeed(OpenedModel& model, const SpeedTest& test) {
  if (test.prefill + test.decode > model.session.context_length()) {
    return Fail(ErrorCode::kContextFull, "-p {} and -n {} exceed the context of {}", test.prefill, test.decode,
                model.session.context_length());
  }
  TRY(RunOnce(test, model, nullptr));  // warm-up: compiles signatures, packs weights, touches pages
  Timings timings;
  for (int i = 0; i < test.repetitions; ++i) TRY(RunOnce(test, model, &timings));
  return timings;
}

}  // namespace taskpress
