// Progress of a long job on stderr: a bar on a terminal, a line now and then elsewhere, or JSON lines.
#ifndef TASKPRESS_TOOLS_PROGRESS_H_
#define TASKPRESS_TOOLS_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "schema/base/error.h"

namespace taskpress {

enum class ProgressStyle : uint8_t { kSilent, kBar, kPlain, kJson };

// "auto" is a bar when stderr is a terminal, else plain lines.
Result<ProgressStyle> ProgressStyleFromName(std::string_view name);

class Progress {
 public:
  explicit Progress(ProgressStyle style) : style_(style), start_(std::chrono::steady_clock::now()), shown_(start_) {}
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Called as often as one likes; prints when it is time. total 0: the stage has no measure.
  void Update(std::string_view stage, std::string_view item, uint64_t done, uint64_t total);

 private:
  void ShowBar(std::string_view item, uint64_t done, uint64_t total, double seconds);
  void ShowLine(std::string_view item, uint64_t done, uint64_t total, double seconds) const;
  void EndBar();

  ProgressStyle style_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point shown_;
  std::string stage_;
  bool bar_open_ = false;
};

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_PROGRESS_H_
