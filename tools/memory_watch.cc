#include "tools/memory_watch.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

namespace taskpress {
namespace {

uint64_t AnonymousBytesNow() {
  std::ifstream status("/proc/self/status");
  std::string key;
  while (status >> key) {
    if (key == "RssAnon:") {
      uint64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  }
  return 0;
}

}  // namespace

MemoryWatch::MemoryWatch()
    : thread_([this](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          Sample();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      }) {}

void MemoryWatch::Sample() {
  const uint64_t now = AnonymousBytesNow();
  uint64_t peak = peak_.load();
  while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
  }
}

uint64_t MemoryWatch::peak_anonymous_bytes() {
  Sample();
  return peak_.load();
}

uint64_t PeakResidentBytes() {
  struct rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace taskpress
