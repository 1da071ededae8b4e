// Where the time of a model goes: one event for every step that an executor ran.
//
// Executors made over a SharedRuntime with a profile report to it; without one they do not look at a clock.
#ifndef TASKPRESS_RUNTIME_STEP_PROFILE_H_
#define TASKPRESS_RUNTIME_STEP_PROFILE_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schema/graph.h"

namespace taskpress {

struct StepInfo;

class StepProfile {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Beginning with it, `steps` of `subgraph` are reported under the number that this returns. An operator's layer is the number in the name
  // of a constant it reads ("layers.12."), or else the layer of the operator before it; a step's that of its first operator.
  size_t Register(const Subgraph& subgraph, std::span<const StepInfo> steps);
  void Add(size_t executor, size_t step, Time begin, Time end);
  // Forgets the events, such as those of a warm-up.
  void Clear();

  struct Row {
    std::string signature;
    std::string name;  // of the operator with its kernel, or of the layer
    int64_t calls = 0;
    double seconds = 0;
  };
  // Sums over all events, the longest first within a signature.
  [[nodiscard]] std::vector<Row> ByKind() const;
  // The same by layer, in the order of layers.
  [[nodiscard]] std::vector<Row> ByLayer() const;
  // Both as text, with shares of the signature's time.
  [[nodiscard]] std::string Table() const;
  // For chrome://tracing and Perfetto.
  [[nodiscard]] std::string ChromeTrace() const;

 private:
  static constexpr int32_t kNoLayer = -1;
  struct Step {
    std::string name;  // "FULLY_CONNECTED"
    std::string kernel;
    int32_t op = 0;
    int32_t layer = kNoLayer;
  };
  struct Executor {
    std::string signature;
    std::vector<Step> steps;
  };
  struct Event {
    uint32_t executor;
    uint32_t step;
    Time begin;
    Time end;
  };
  [[nodiscard]] const Step& StepOf(const Event& event) const { return executors_[event.executor].steps[event.step]; }

  std::vector<Executor> executors_;
  std::deque<Event> events_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_STEP_PROFILE_H_
