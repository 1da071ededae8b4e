// How long each stage of a job takes, and how fast the present one is. Knows no clock of its own: times are told.
#ifndef TASKPRESS_TOOLS_STAGE_CLOCK_H_
#define TASKPRESS_TOOLS_STAGE_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace taskpress {

struct StageTime {
  std::string name;
  double seconds = 0;
  uint64_t bytes = 0;  // 0: the stage has no measure
};

class StageClock {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // The job is in `stage` and has done `done` bytes of it. True when the stage begins with this call: another name, or the same one over
  // again, with fewer bytes than before.
  bool Advance(std::string_view stage, uint64_t done, Time now);

  // Of the present stage.
  [[nodiscard]] double Seconds(Time now) const;
  // Over the last seconds, so that an estimate follows what happens instead of what happened. Nothing until there is something to go by,
  // and while nothing moves.
  [[nodiscard]] std::optional<double> BytesPerSecond() const;

  // In order of their beginning, the present one until now. A stage that came several times is one row.
  [[nodiscard]] std::vector<StageTime> Stages(Time now) const;

 private:
  struct Sample {
    Time time;
    uint64_t done;
  };
  [[nodiscard]] StageTime Present(Time now) const;

  std::vector<StageTime> ended_;
  std::string stage_;
  bool running_ = false;
  Time start_;
  uint64_t done_ = 0;
  std::deque<Sample> samples_;  // the oldest one is at the window's edge or outside it
};

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_STAGE_CLOCK_H_
