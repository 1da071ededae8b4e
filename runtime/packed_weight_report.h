// Where the packed weights of a model are, for reports.
#ifndef TASKPRESS_RUNTIME_PACKED_WEIGHT_REPORT_H_
#define TASKPRESS_RUNTIME_PACKED_WEIGHT_REPORT_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace taskpress {

enum class WeightCacheState : uint8_t {
  kOff,          // not asked for
  kUsed,         // everything so far came from the file
  kWritten,      // packed by this process into a file that is being finished
  kUnavailable,  // asked for, but packed in memory: see the note
};
[[nodiscard]] constexpr std::string_view NameOf(WeightCacheState state) {
  switch (state) {
    case WeightCacheState::kOff:
      return "off";
    case WeightCacheState::kUsed:
      return "used";
    case WeightCacheState::kWritten:
      return "written";
    case WeightCacheState::kUnavailable:
      return "unavailable";
  }
  return "unknown";
}

struct PackedWeightReport {
  uint64_t anonymous_bytes = 0;
  uint64_t mapped_bytes = 0;  // pages of a file: shared between processes, and the system can drop them
  WeightCacheState state = WeightCacheState::kOff;
  std::string note;  // why there is no file, or why an old one was not used
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_PACKED_WEIGHT_REPORT_H_
