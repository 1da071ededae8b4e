#include "tools/memory_watch.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

namespace taskpress {
namespace {

struct Resident {
  uint64_t anonymous = 0;
  uint64_t file = 0;
};

Resident ResidentNow() {
  Resident now;
  std::ifstream status("/proc/self/status");
  std::string key;
  while (status >> key) {
    if (key != "RssAnon:" && key != "RssFile:") continue;
    uint64_t kilobytes = 0;
    status >> kilobytes;
    (key == "RssAnon:" ? now.anonymous : now.file) = kilobytes * 1024;
  }
  return now;
}

void Raise(std::atomic<uint64_t>& peak, uint64_t now) {
  uint64_t before = peak.load();
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
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
  const Resident now = ResidentNow();
  Raise(peak_anonymous_, now.anonymous);
  Raise(peak_file_, now.file);
}

uint64_t MemoryWatch::peak_anonymous_bytes() {
  Sample();
  return peak_anonymous_.load();
}

uint64_t MemoryWatch::peak_file_bytes() {
  Sample();
  return peak_file_.load();
}

uint64_t PeakResidentBytes() {
  struct rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace taskpress
