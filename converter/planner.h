// What a conversion will cost and which clients will take its result, before anything is written.
//
// Sizes are exact: they come from the plan that is executed. Memory is a sum of parts that are known. Time is measured, not guessed.
#ifndef TASKPRESS_CONVERTER_PLANNER_H_
#define TASKPRESS_CONVERTER_PLANNER_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "converter/conversion_plan.h"
#include "converter/time_forecast.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

struct SectionForecast {
  SectionKind kind = SectionKind::kOther;
  uint64_t bytes = 0;
};

struct OutputForecast {
  std::filesystem::path path;
  Container container = Container::kTask;
  size_t job = 0;
  uint64_t bytes = 0;
  std::vector<SectionForecast> sections;
};

// What one client or machine allows, and what this output asks of it.
struct LoaderLimit {
  size_t output = 0;
  std::string rule;
  uint64_t limit = 0;  // bytes or tokens, as the rule says
  uint64_t found = 0;
  [[nodiscard]] bool holds() const { return found <= limit; }
};

struct Forecast {
  std::vector<OutputForecast> outputs;
  uint64_t source_bytes = 0;  // of the checkpoint's files
  uint64_t disk_bytes = 0;    // free space that is needed
  uint64_t peak_anonymous_bytes = 0;
  uint64_t root_bytes = 0;       // of all FlatBuffer roots, scales included; a part of the memory
  uint64_t tokenizer_bytes = 0;  // the largest
  std::vector<LoaderLimit> limits;
  std::optional<TimeForecast> time;  // nothing when it was not asked for, or the outputs' folder takes no file
};

struct ForecastOptions {
  uint64_t memory_limit = 0;                // of the conversion
  std::optional<uint64_t> device_ram = {};  // bytes of the machine that will run the bundle
  bool measure_time = true;
  RowWork work;
};

// `jobs` may have outputs that exist already; nothing of them is touched.
Result<Forecast> MakeForecast(std::span<const BundleJob> jobs, const ForecastOptions& options);

// Anonymous memory that a client needs beside the mapped bundle: the KV caches, as float32.
uint64_t KvCacheBytes(const TextConfig& config, int64_t context);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_PLANNER_H_
