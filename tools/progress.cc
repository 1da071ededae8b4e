#include "tools/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "schema/json.h"

namespace taskpress {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr double kBarPeriod = 0.1;   // seconds between redraws
constexpr double kLinePeriod = 5.0;  // seconds between plain lines
constexpr int kBarWidth = 30;

double Share(uint64_t done, uint64_t total) {
  return total == 0 ? 0.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
}

}  // namespace

Result<ProgressStyle> ProgressStyleFromName(std::string_view name) {
  if (name == "none") return ProgressStyle::kSilent;
  if (name == "bar") return ProgressStyle::kBar;
  if (name == "plain") return ProgressStyle::kPlain;
  if (name == "json") return ProgressStyle::kJson;
  if (name != "auto") return Fail(ErrorCode::kUsage, "--progress {}: auto, bar, plain, json or none", name);
  return isatty(STDERR_FILENO) == 1 && std::getenv("CI") == nullptr ? ProgressStyle::kBar : ProgressStyle::kPlain;
}

Progress::~Progress() { EndBar(); }

void Progress::EndBar() {
  if (bar_open_) std::cerr << "\r\x1b[K";
  bar_open_ = false;
}

void Progress::Update(std::string_view stage, std::string_view item, uint64_t done, uint64_t total) {
  if (style_ == ProgressStyle::kSilent) return;
  const steady_clock::time_point now = steady_clock::now();
  const bool new_stage = stage != stage_;
  if (new_stage) {
    EndBar();
    stage_ = stage;
    start_ = now;
  }
  const double period = style_ == ProgressStyle::kBar ? kBarPeriod : kLinePeriod;
  const bool last = total > 0 && done == total;
  if (!new_stage && !last && duration<double>(now - shown_).count() < period) return;
  shown_ = now;
  const double seconds = duration<double>(now - start_).count();
  if (style_ == ProgressStyle::kBar) {
    ShowBar(item, done, total, seconds);
  } else {
    ShowLine(item, done, total, seconds);
  }
}

void Progress::ShowBar(std::string_view item, uint64_t done, uint64_t total, double seconds) {
  const double share = Share(done, total);
  const auto filled = static_cast<int>(share * kBarWidth);
  std::string line = Format("\r\x1b[K{:7} ", stage_);
  if (total > 0) {
    line += Format("[{}{}] {:3.0f}%", std::string(static_cast<size_t>(filled), '#'),
                   std::string(static_cast<size_t>(kBarWidth - filled), '.'), share * 100);
    if (seconds > 0.2 && share > 0) {
      line += Format(" {:.0f} MB/s ETA {:.0f}s", static_cast<double>(done) / 1e6 / seconds, seconds / share - seconds);
    }
  }
  std::cerr << line << " " << item.substr(0, 50) << std::flush;
  bar_open_ = true;
}

void Progress::ShowLine(std::string_view item, uint64_t done, uint64_t total, double seconds) const {
  if (style_ == ProgressStyle::kJson) {
    const OrderedJson event{{"schema", "taskpress/progress/1"},
                            {"stage", stage_},
                            {"tensor", item},
                            {"bytes_done", done},
                            {"bytes_total", total},
                            {"seconds", seconds}};
    std::cerr << event.dump() << "\n";
  } else if (total > 0) {
    std::cerr << Format("{}: {:.0f}% of {:.1f} MB {}\n", stage_, Share(done, total) * 100, static_cast<double>(total) / 1e6, item);
  } else {
    std::cerr << stage_ << "\n";
  }
}

}  // namespace taskpress
