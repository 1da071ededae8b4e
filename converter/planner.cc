#include "converter/planner.h"

#include <algorithm>

#include "converter/stream_writer.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kTwoGiB = uint64_t{1} << 31;

uint64_t FileBytes(const fs::path& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

// --- memory ------------------------------------------------------------------------------------------------------------------------------

// Fitted to conversions that were measured (tests/bench/conversion.py): Gemma 3n E2B 166 to 175 MB, E4B 206 to 212 MB, Gemma 3 270M from
// GGUF 206 MB. A root is there twice while it is built, a SentencePiece model becomes tables of many times its size, and one that is
// rebuilt is there as pieces, too. Models of some megabytes need 15 to 45 MB, which depends on the threads' allocators.
constexpr uint64_t kProgramBytes = 12'000'000;
constexpr double kTimesRoots = 2.2;
constexpr double kTimesTokenizer = 15;
constexpr double kTimesRebuiltTokenizer = 34;

void ForecastMemory(const ConversionPlan& plan, std::span<const BundleJob> jobs, Forecast& forecast) {
  for (const StreamRoot& root : plan.stream.roots()) forecast.root_bytes += root.bytes.size();
  for (const BundleJob& job : jobs) forecast.tokenizer_bytes = std::max(forecast.tokenizer_bytes, job.model->tokenizer->size());
  const bool rebuilt = jobs.front().model->inputs.front().extension() == ".gguf";
  const double tokenizer = (rebuilt ? kTimesRebuiltTokenizer : kTimesTokenizer) * static_cast<double>(forecast.tokenizer_bytes);
  forecast.peak_anonymous_bytes = kProgramBytes + static_cast<uint64_t>(kTimesRoots * static_cast<double>(forecast.root_bytes) + tokenizer);
}

// --- clients -----------------------------------------------------------------------------------------------------------------------------

void AddLimits(Forecast& forecast, size_t index, const PreparedModel& model, const ForecastOptions& options) {
  const OutputForecast& output = forecast.outputs[index];
  for (const SectionForecast& section : output.sections) {
    if (!InfoOf(section.kind).is_model) continue;
    forecast.limits.push_back({.output = index,
                               .rule = Format("section {} below 2 GiB (iOS, legacy TFLite)", InfoOf(section.kind).name),
                               .limit = kTwoGiB - 1,
                               .found = section.bytes});
  }
  forecast.limits.push_back({.output = index,
                             .rule = "context within the model's positions",
                             .limit = static_cast<uint64_t>(model.config.max_position_embeddings),
                             .found = static_cast<uint64_t>(model.metadata.max_num_tokens)});
  if (!options.device_ram) return;
  const uint64_t needed = output.bytes + KvCacheBytes(model.config, model.metadata.max_num_tokens);
  forecast.limits.push_back(
      {.output = index, .rule = "weights and KV cache within the device's memory", .limit = *options.device_ram, .found = needed});
}

}  // namespace

uint64_t KvCacheBytes(const TextConfig& config, int64_t context) {
  const int64_t values = 2 * config.first_kv_shared_layer() * config.num_key_value_heads * config.head_dim * context;
  return static_cast<uint64_t>(values) * sizeof(float);
}

Result<Forecast> MakeForecast(std::span<const BundleJob> jobs, const ForecastOptions& options) {
  ConversionPlan plan = TRY(PlanConversion(jobs));
  Forecast forecast;
  for (const PlannedOutput& output : plan.outputs) {
    OutputForecast row{
        .path = output.path, .container = output.container, .job = output.job, .bytes = output.layout.file_size, .sections = {}};
    for (const SectionToWrite& section : output.sections) row.sections.push_back({.kind = section.kind, .bytes = section.size});
    forecast.disk_bytes += row.bytes;
    forecast.outputs.push_back(std::move(row));
  }
  const std::vector<fs::path> inputs = InputsOf(jobs);
  for (const fs::path& input : inputs) forecast.source_bytes += FileBytes(input);
  ForecastMemory(plan, jobs, forecast);
  forecast.limits.push_back({.output = 0,
                             .rule = "memory of the conversion within --memory-limit",
                             .limit = options.memory_limit,
                             .found = forecast.peak_anonymous_bytes});
  for (size_t i = 0; i < forecast.outputs.size(); ++i) AddLimits(forecast, i, *jobs[forecast.outputs[i].job].model, options);
  if (options.measure_time && !plan.outputs.empty()) {
    Result<TimeForecast> time = MeasureTime(plan, jobs, forecast.source_bytes, BufferBytes(options.memory_limit), options.work);
    if (!time && time.error().code != ErrorCode::kWriteFailed) return std::unexpected(std::move(time).error());
    if (time) forecast.time = *time;
  }
  return forecast;
}

}  // namespace taskpress
