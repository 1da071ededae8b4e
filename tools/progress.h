// Progress of a long job on stderr: a bar on a terminal, a line now and then elsewhere, or JSON lines.
#ifndef TASKPRESS_TOOLS_PROGRESS_H_
#define TASKPRESS_TOOLS_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "tools/stage_clock.h"

namespace taskpress {

enum class ProgressStyle : uint8_t { kSilent, kBar, kPlain, kJson };

// "auto" is a bar when stderr is a terminal, else plain lines.
Result<ProgressStyle> ProgressStyleFromName(std::string_view name);

// "640 B", "20.6 MB", "210 GB": powers of 1000, as disks are sold.
std::string HumanBytes(double bytes);
// "0.4 s", "42 s", "3 min 05 s", "2 h 07 min".
std::string HumanSeconds(double seconds);

// Columns of the terminal that stderr is, 80 when it does not say.
int TerminalColumns();

// What a Progress speaks to and lives in; tests give it another world.
struct ProgressWorld {
  std::ostream* out = &std::cerr;
  std::function<StageClock::Time()> now = std::chrono::steady_clock::now;
  std::function<int()> columns = TerminalColumns;
};

class Progress {
 public:
  explicit Progress(ProgressStyle style, ProgressWorld world = {}) : style_(style), world_(std::move(world)) {}
  // Takes the bar away. A stage that was left in its middle, by an error or a signal, gets a last line that says where.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Called as often as one likes; prints when it is time. total 0: the stage has no measure.
  void Update(std::string_view stage, std::string_view item, uint64_t done, uint64_t total);

  // Seconds and bytes of each stage so far, in order; of a silent one too.
  [[nodiscard]] std::vector<StageTime> Stages() const { return clock_.Stages(world_.now()); }
  // "write 12.1 s 210 MB/s | verify 1.2 s": one line, or one JSON event {"schema", "stages": [{"name", "seconds", "bytes"}]}.
  void ShowStages();

 private:
  struct Position {
    std::string item;
    uint64_t done = 0;
    uint64_t total = 0;
    [[nodiscard]] double share() const;
  };
  void ShowBar(const Position& at);
  void ShowLine(const Position& at) const;
  void ShowEvent(const Position& at) const;
  // Seconds until the stage is done, at the speed of the last ones.
  [[nodiscard]] std::optional<double> SecondsLeft(const Position& at) const;
  [[nodiscard]] std::string Speed(const Position& at) const;
  void EndBar();

  ProgressStyle style_;
  ProgressWorld world_;
  StageClock clock_;
  StageClock::Time now_;    // of the last update
  StageClock::Time shown_;  // when something was printed last
  std::string stage_;
  Position at_;
  bool bar_open_ = false;
};

// Leaves the line of an open bar, for a handler that ends the process. Async-signal-safe.
void LeaveBarFromSignalHandler() noexcept;

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_PROGRESS_H_
