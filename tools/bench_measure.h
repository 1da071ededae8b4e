// What `taskpress bench` measures, apart from how it is printed.
#ifndef TASKPRESS_TOOLS_BENCH_MEASURE_H_
#define TASKPRESS_TOOLS_BENCH_MEASURE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/packed_weight_report.h"
#include "schema/base/error.h"
#include "tools/model_source.h"

namespace taskpress {

struct BenchArguments {
  std::string file;
  int prefill = 512;
  int decode = 64;
  int repetitions = 5;
  int warm_ups = 1;          // runs before them that do not count
  bool second_start = true;  // whether the model is loaded again at the end, to time it
  std::vector<int> threads = {0};
  std::vector<int> depths;
  bool roofline = true;
  int64_t checkpoint_context = 4096;
  RunFlags flags;
};

struct Series {
  std::vector<double> runs;
  [[nodiscard]] double mean() const;
  [[nodiscard]] double deviation() const;  // of the sample, as llama-bench prints it
};

struct DepthSpeed {
  int depth = 0;  // tokens in the context when decoding begins
  Series tokens_per_s;
};

// One model with one number of threads.
struct BenchResult {
  int threads = 0;
  double load_seconds = 0;  // the first start of this process with this number of threads
  WeightCacheState cache_at_load = WeightCacheState::kOff;
  std::optional<double> load_again_seconds;  // a second one, which finds the packed weights, if they are kept
  int prefill_tokens = 0;                    // that the session really took in each run
  int decode_tokens = 0;
  Series prefill;      // tokens per second
  Series decode;       // tokens per second
  Series first_token;  // seconds
  std::vector<DepthSpeed> depths;
  PackedWeightReport packed;
  uint64_t state_bytes = 0;
  uint64_t model_bytes = 0;
};

// What the machine could do, and what one token takes of it.
struct BenchRoofline {
  std::string matrix;                     // "i4 [8192, 2048], 512 rows"
  double peak_products_per_s = 0;         // of the matrix kernel
  double read_bytes_per_s = 0;            // all threads together
  double prefill_products_per_token = 0;  // of all matrices, skipped ones too
  double decode_bytes_per_token = 0;      // of the matrices, as far as a token read them
  [[nodiscard]] double PrefillShare(const BenchResult& result) const;
  [[nodiscard]] double DecodeShare(const BenchResult& result) const;
};

struct BenchReport {
  std::vector<BenchResult> results;       // one for each number of threads; never empty
  std::optional<BenchRoofline> roofline;  // with the first number of threads
  uint64_t peak_resident_bytes = 0;
  uint64_t peak_anonymous_bytes = 0;
  uint64_t peak_file_bytes = 0;
  std::string cpu;
};

// Prefill, decode and depths of a model that is loaded. kContextFull, kInterrupted.
Result<BenchResult> MeasureSpeed(const BenchArguments& arguments, OpenedModel& model);

// kUsage, kContextFull, kInterrupted, and the errors of OpenModel and Session.
Result<BenchReport> MeasureBench(const BenchArguments& arguments);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_BENCH_MEASURE_H_
