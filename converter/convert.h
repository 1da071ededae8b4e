// Writes prepared models as bundles, all of them in one pass over the checkpoint. A file gets its name only after it was read back and run.
#ifndef TASKPRESS_CONVERTER_CONVERT_H_
#define TASKPRESS_CONVERTER_CONVERT_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "converter/conversion_plan.h"
#include "converter/lock_file.h"
#include "converter/prepare.h"
#include "converter/stream_writer.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

inline constexpr uint64_t kDefaultMemoryLimit = uint64_t{1} << 30;
inline constexpr uint64_t kLeastMemoryLimit = uint64_t{256} << 20;

struct ConvertEvent {
  std::string_view stage;   // "write", "smoke", "verify", "flush", "digest"; smoke and verify overlap
  std::string_view tensor;  // being written, may be empty
  uint64_t bytes_done = 0;  // of the stage
  uint64_t bytes_total = 0;
};

struct WriteOptions {
  RowWork work;
  uint64_t memory_limit = kDefaultMemoryLimit;  // of anonymous memory
  bool replace = false;
  // Goes on with what an earlier call with the same jobs left unfinished, and leaves its own work for the next when it fails.
  bool resume = false;
  bool lock = false;  // writes a lock file beside each output and its line of SHA256SUMS; reads all inputs for their digests
  std::vector<std::pair<std::string, std::string>> recorded;  // options named in the lock file
  std::function<void(const ConvertEvent&)> on_event = {};     // one call at a time, from any thread
};

struct WrittenBundle {
  std::filesystem::path path;
  uint64_t bytes = 0;
  std::string sha256;
  size_t job = 0;
};

struct WriteReport {
  std::vector<WrittenBundle> bundles;  // in the order of jobs and their outputs
  uint64_t bytes_made = 0;             // of all constants
  uint64_t bytes_resumed = 0;          // of these, found from an earlier call
  StreamTimes times;
};

// Nothing is left under any output's name unless all of it succeeded for that output. kOutputExists, kCannotResume, kInterrupted,
// kWriteFailed, and the errors of all that is read.
Result<WriteReport> WriteBundles(std::span<const BundleJob> jobs, const WriteOptions& options);
// One model.
Result<std::vector<WrittenBundle>> WriteBundles(const PreparedModel& model, std::span<const std::filesystem::path> outputs,
                                                const WriteOptions& options);

// Bytes the output will have, without writing: exact.
Result<uint64_t> ForecastBundleSize(const PreparedModel& model, Container container);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CONVERT_H_
