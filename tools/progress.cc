#include "tools/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>

#include "schema/base/text.h"
#include "schema/json.h"

namespace taskpress {
namespace {

constexpr std::chrono::duration<double> kBarPeriod{0.1};   // between redraws
constexpr std::chrono::duration<double> kLinePeriod{5.0};  // between plain lines
constexpr size_t kBarWidth = 30;
constexpr size_t kShortestBar = 10;
constexpr std::string_view kClearLine = "\r\x1b[K";

std::atomic<bool> bar_on_terminal{false};

// The end of a name tells more than its beginning: "..12.mlp.up_proj.weight".
std::string Tail(const std::string& name, size_t width) {
  if (name.size() <= width) return name;
  return width < 3 ? "" : ".." + name.substr(name.size() - (width - 2));
}

std::string Bar(double share, size_t width) {
  const auto filled = static_cast<size_t>(share * static_cast<double>(width));
  return "[" + std::string(filled, '#') + std::string(width - filled, '.') + "]";
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

std::string HumanBytes(double bytes) {
  constexpr std::array<std::string_view, 5> kUnits{"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (unit + 1 < kUnits.size() && bytes >= 999.5) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 || bytes >= 99.95 ? Format("{:.0f} {}", bytes, kUnits[unit]) : Format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string HumanSeconds(double seconds) {
  if (seconds < 9.95) return Format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 3.6e6)));
  if (whole < 60) return Format("{} s", whole);
  if (whole < 3600) return Format("{} min {:02} s", whole / 60, whole % 60);
  return Format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

int TerminalColumns() {
  constexpr int kUsual = 80;
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

void LeaveBarFromSignalHandler() noexcept {
  if (!bar_on_terminal.exchange(false)) return;
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, "\n", 1);  // there is nobody left to tell
}

double Progress::Position::share() const {
  return total == 0 ? 0.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
}

Progress::~Progress() {
  EndBar();
  const bool talks = style_ == ProgressStyle::kBar || style_ == ProgressStyle::kPlain;
  if (!talks || at_.total == 0 || at_.done >= at_.total) return;
  *world_.out << Format("{}: stopped at {:.0f}% of {} after {}\n", stage_, std::floor(at_.share() * 100),
                        HumanBytes(static_cast<double>(at_.total)), HumanSeconds(clock_.Seconds(world_.now())));
}

void Progress::EndBar() {
  if (bar_open_) *world_.out << kClearLine << std::flush;
  bar_open_ = false;
  bar_on_terminal = false;
}

void Progress::Update(std::string_view stage, std::string_view item, uint64_t done, uint64_t total) {
  now_ = world_.now();
  const bool begins = clock_.Advance(stage, done, now_);
  if (style_ == ProgressStyle::kSilent) return;
  if (begins) {
    EndBar();
    stage_ = Printable(stage);
  }
  at_.done = done;
  at_.total = total;
  const bool last = total > 0 && done == total;
  if (!begins && !last && now_ - shown_ < (style_ == ProgressStyle::kBar ? kBarPeriod : kLinePeriod)) return;
  shown_ = now_;
  at_.item = item;
  if (style_ == ProgressStyle::kBar) ShowBar(at_);
  if (style_ == ProgressStyle::kPlain) ShowLine(at_);
  if (style_ == ProgressStyle::kJson) ShowEvent(at_);
}

std::optional<double> Progress::SecondsLeft(const Position& at) const {
  const std::optional<double> speed = clock_.BytesPerSecond();
  if (!speed || at.done >= at.total) return std::nullopt;
  return static_cast<double>(at.total - at.done) / *speed;
}

std::string Progress::Speed(const Position& at) const {
  const std::optional<double> speed = clock_.BytesPerSecond();
  std::string text = speed ? HumanBytes(*speed) + "/s" : "";
  if (const std::optional<double> left = SecondsLeft(at)) text += ", ETA " + HumanSeconds(*left);
  return text;
}

void Progress::ShowBar(const Position& at) {
  const auto columns = static_cast<size_t>(std::max(1, world_.columns() - 1));  // a full line would make terminals begin another
  std::string line = Format("{:7} ", stage_);
  if (at.total > 0) {
    const std::string speed = Speed(at);
    const std::string numbers = Format(" {:3.0f}%{}{}", std::floor(at.share() * 100), speed.empty() ? "" : " ", speed);
    const size_t left = columns - std::min(columns, line.size() + numbers.size() + 2);
    if (left >= kShortestBar) line += Bar(at.share(), std::min(left, kBarWidth));
    line += numbers;
  }
  line.resize(std::min(line.size(), columns));
  if (columns > line.size() + 1) line += " " + Tail(Printable(at.item), columns - line.size() - 1);
  *world_.out << kClearLine << line << std::flush;
  bar_open_ = true;
  bar_on_terminal = world_.out == &std::cerr;
}

void Progress::ShowLine(const Position& at) const {
  std::string line = stage_;
  if (at.total > 0) line += Format(": {:.0f}% of {}", std::floor(at.share() * 100), HumanBytes(static_cast<double>(at.total)));
  const std::string speed = Speed(at);
  if (at.total > 0 && !speed.empty()) line += ", " + speed;
  if (!at.item.empty()) line += " " + Printable(at.item);
  *world_.out << line + "\n" << std::flush;
}

void Progress::ShowEvent(const Position& at) const {
  OrderedJson event{
      {"schema", "taskpress/progress/1"}, {"stage", stage_}, {"tensor", at.item}, {"bytes_done", at.done}, {"bytes_total", at.total},
      {"seconds", clock_.Seconds(now_)}};
  if (const std::optional<double> speed = clock_.BytesPerSecond()) event["bytes_per_s"] = *speed;
  if (const std::optional<double> left = SecondsLeft(at)) event["eta_s"] = *left;
  *world_.out << event.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n" << std::flush;
}

void Progress::ShowStages() {
  EndBar();
  if (style_ == ProgressStyle::kSilent) return;
  std::string line;
  OrderedJson rows = OrderedJson::array();
  for (const StageTime& stage : Stages()) {
    rows.push_back({{"name", stage.name}, {"seconds", stage.seconds}, {"bytes", stage.bytes}});
    line += Format("{}{} {}", line.empty() ? "" : " | ", Printable(stage.name), HumanSeconds(stage.seconds));
    if (stage.bytes > 0 && stage.seconds > 0) line += " " + HumanBytes(static_cast<double>(stage.bytes) / stage.seconds) + "/s";
  }
  if (rows.empty()) return;
  if (style_ == ProgressStyle::kJson) line = OrderedJson{{"schema", "taskpress/progress/1"}, {"stages", rows}}.dump();
  *world_.out << line + "\n" << std::flush;
}

}  // namespace taskpress
