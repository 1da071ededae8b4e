// Runs a StreamPlan: row blocks are read, transformed, quantized and packed on all cores and written in order, within a bound of memory.
#ifndef TASKPRESS_CONVERTER_STREAM_WRITER_H_
#define TASKPRESS_CONVERTER_STREAM_WRITER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "converter/stream_plan.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"
#include "schema/base/output_file.h"

namespace taskpress {

// How far a stream has come: everything that units below `units` make is in the files, their scales in the plan's roots.
struct StreamState {
  uint64_t units = 0;
  uint64_t bytes = 0;          // made so far
  std::vector<uint32_t> crcs;  // [constants] CRC-32 of what is made of each
  bool operator==(const StreamState&) const = default;
};

struct StreamOptions {
  RowWork work;
  uint64_t buffer_bytes = 0;         // at most, for units on their way
  bool scales_in_files = false;      // also stores scales in the files as they come, so that a later process finds them
  std::optional<uint64_t> end = {};  // stops before this unit: a part of the stream
  // So many bytes of a constant are written. Called by one thread at a time, as is the next.
  std::function<void(std::string_view name, uint64_t bytes)> on_bytes = {};
  // After each unit.
  std::function<Status(const StreamState& state)> on_unit = {};
};

// What units on their way may take of a conversion's memory. The other half is for what does not grow with them: graphs, roots, tokenizer,
// and the smoke run.
constexpr uint64_t BufferBytes(uint64_t memory_limit) { return memory_limit / 2; }

struct StreamTimes {
  double make_s = 0;   // of all threads together: read, transform, quantize, pack, CRC-32
  double write_s = 0;  // of the one thread that writes
};

// Makes what is left behind `state` and brings it to the end. The plan's roots are complete afterwards, but not written. The errors of
// sources and files; kInterrupted. The same bytes for any number of threads.
Status WriteStream(StreamPlan& plan, std::span<OutputFile> files, const StreamOptions& options, StreamState& state, StreamTimes& times);

// Writes all roots to their places.
Status WriteRoots(const StreamPlan& plan, std::span<OutputFile> files);
// Fetches the scales that an earlier process stored before it came to `unit`.
Status RestoreScales(StreamPlan& plan, std::span<const OutputFile> files, uint64_t unit);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_STREAM_WRITER_H_
