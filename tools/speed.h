// How fast a model reads and speaks.
#ifndef TASKPRESS_TOOLS_SPEED_H_
#define TASKPRESS_TOOLS_SPEED_H_

#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"
#include "tools/model_source.h"

namespace taskpress {

struct SpeedTest {
  int prefill = 512;  // tokens
  int decode = 64;
  int repetitions = 5;  // after a warm-up
};

struct Series {
  std::vector<double> runs;
  [[nodiscard]] double mean() const;
  // Of the sample, as llama-bench prints it.
  [[nodiscard]] double deviation() const;
  [[nodiscard]] OrderedJson ToJson() const { return {{"mean", mean()}, {"sd", deviation()}, {"runs", runs}}; }
};

struct Timings {
  Series prefill;  // tokens per second
  Series decode;
  Series first_token;  // seconds
};

// kContextFull when the tokens do not fit, kInterrupted.
Result<Timings> MeasureSpeed(OpenedModel& model, const SpeedTest& test);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_SPEED_H_
