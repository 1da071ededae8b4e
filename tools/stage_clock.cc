#include "tools/stage_clock.h"

#include <algorithm>

namespace taskpress {
namespace {

constexpr std::chrono::duration<double> kWindow{6.0};
constexpr std::chrono::duration<double> kSampleEvery{0.2};
constexpr std::chrono::duration<double> kLeastToGoBy{0.2};

void AddUp(std::vector<StageTime>& stages, const StageTime& stage) {
  const auto known = std::ranges::find(stages, stage.name, &StageTime::name);
  if (known == stages.end()) {
    stages.push_back(stage);
    return;
  }
  known->seconds += stage.seconds;
  known->bytes += stage.bytes;
}

}  // namespace

bool StageClock::Advance(std::string_view stage, uint64_t done, Time now) {
  const bool begins = !running_ || stage != stage_ || done < done_;
  if (begins) {
    if (running_) AddUp(ended_, Present(now));
    stage_ = stage;
    start_ = now;
    running_ = true;
    samples_.assign(1, {now, done});
  }
  done_ = done;
  // The newest sample is kept up to date until it is old enough to stay.
  if (samples_.size() > 1 && now - samples_[samples_.size() - 2].time < kSampleEvery) samples_.pop_back();
  if (!begins) samples_.push_back({now, done});
  while (samples_.size() > 2 && now - samples_[1].time >= kWindow) samples_.pop_front();
  return begins;
}

double StageClock::Seconds(Time now) const { return running_ ? std::chrono::duration<double>(now - start_).count() : 0.0; }

std::optional<double> StageClock::BytesPerSecond() const {
  if (samples_.size() < 2) return std::nullopt;
  const std::chrono::duration<double> span = samples_.back().time - samples_.front().time;
  const uint64_t bytes = samples_.back().done - samples_.front().done;
  if (span < kLeastToGoBy || bytes == 0) return std::nullopt;
  return static_cast<double>(bytes) / span.count();
}

StageTime StageClock::Present(Time now) const { return {.name = stage_, .seconds = Seconds(now), .bytes = done_}; }

std::vector<StageTime> StageClock::Stages(Time now) const {
  std::vector<StageTime> stages = ended_;
  if (running_) AddUp(stages, Present(now));
  return stages;
}

}  // namespace taskpress
