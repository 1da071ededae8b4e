// The peak of this process's memory by kind: anonymous, which it allocated itself, and pages of mapped files, which the system can drop.
#ifndef TASKPRESS_TOOLS_MEMORY_WATCH_H_
#define TASKPRESS_TOOLS_MEMORY_WATCH_H_

#include <atomic>
#include <cstdint>
#include <thread>

namespace taskpress {

// Samples RssAnon and RssFile of /proc/self/status every 20 ms while it lives.
class MemoryWatch {
 public:
  MemoryWatch();
  ~MemoryWatch() = default;
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  [[nodiscard]] uint64_t peak_anonymous_bytes();
  [[nodiscard]] uint64_t peak_file_bytes();

 private:
  void Sample();
  std::atomic<uint64_t> peak_anonymous_{0};
  std::atomic<uint64_t> peak_file_{0};
  std::jthread thread_;
};

// Resident memory at its highest, mapped files included: getrusage's ru_maxrss.
uint64_t PeakResidentBytes();

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_MEMORY_WATCH_H_
