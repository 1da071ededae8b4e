// Writes a prepared model as bundles: the first is streamed, the others copy its sections. A file gets its name only after it was reopened,
// verified and run.
#ifndef TASKPRESS_CONVERTER_CONVERT_H_
#define TASKPRESS_CONVERTER_CONVERT_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "converter/prepare.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

struct ConvertEvent {
  std::string_view stage;   // "write", "copy", "verify", "smoke"
  std::string_view tensor;  // being written, may be empty
  uint64_t bytes_done = 0;  // of the stage
  uint64_t bytes_total = 0;
};

struct WriteOptions {
  RowWork work;
  bool replace = false;
  std::function<void(const ConvertEvent&)> on_event;  // one call at a time, from any thread
};

struct WrittenBundle {
  std::filesystem::path path;
  uint64_t bytes = 0;
  std::string sha256;
};

// Outputs end in .task or .litertlm. Nothing is left under any output's name unless all of it succeeded for that output.
Result<std::vector<WrittenBundle>> WriteBundles(const PreparedModel& model, std::span<const std::filesystem::path> outputs,
                                                const WriteOptions& options);

// Bytes each output will have, without writing: exact.
Result<uint64_t> ForecastBundleSize(const PreparedModel& model, Container container);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CONVERT_H_
