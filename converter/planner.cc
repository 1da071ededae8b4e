#include "converter/planner.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "quantizer/ordered_pipeline.h"
#include "schema/base/hash.h"
#include "schema/base/output_file.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kTwoGiB = uint64_t{1} << 31;

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

uint64_t FileBytes(const fs::path& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

uint64_t SourceBytes(std::span<const BundleJob> jobs) {
  std::set<fs::path> files;
  for (const BundleJob& job : jobs) files.insert(job.model->inputs.begin(), job.model->inputs.end());
  uint64_t bytes = 0;
  for (const fs::path& file : files) bytes += FileBytes(file);
  return bytes;
}

// --- memory
// -------------------------------------------------------------------------------------------------------------------------------

// What the process is made of, by measurement of conversions from 16 MB to 16 GB (tests/bench/conversion.py): the program, its libraries'
// tables and the threads; a FlatBuffer root and the copy it is taken from; a SentencePiece model and what the library makes of it.
constexpr uint64_t kProgramBytes = 24 << 20;
constexpr uint64_t kCopiesOfRoots = 2;
constexpr uint64_t kTimesTokenizer = 8;

uint64_t PeakMemory(const ConversionPlan& plan, std::span<const BundleJob> jobs) {
  uint64_t roots = 0;
  for (const StreamRoot& root : plan.stream.roots()) roots += root.bytes.size();
  uint64_t tokenizer = 0;
  for (const BundleJob& job : jobs) tokenizer = std::max(tokenizer, job.model->tokenizer->size());
  return kProgramBytes + kCopiesOfRoots * roots + kTimesTokenizer * tokenizer;
}

// --- time
// ---------------------------------------------------------------------------------------------------------------------------------

// Makes some units of every part of the stream and throws them away. Bytes made per second.
Result<double> MeasureMaking(const StreamPlan& stream, const RowWork& work) {
  constexpr double kSeconds = 1.5;
  constexpr uint64_t kSamples = 512;
  const uint64_t stride = std::max<uint64_t>(1, stream.units() / kSamples);
  const uint64_t count = (stream.units() + stride - 1) / stride;
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::vector<std::byte>> packed(8);
  std::vector<std::vector<float>> scales(packed.size());
  uint64_t bytes = 0;
  double took = 0;
  // From both ends to the middle would be a sample too; an odd multiplier visits all parts evenly when time runs out.
  const auto unit_of = [&](uint64_t sample) { return (sample * 2654435761ULL % count) * stride; };
  TRY(RunOrdered(
      0, count, packed.size(), work,
      [&](uint64_t sample, size_t slot) -> Status {
        if (Seconds(start) > kSeconds) return {};
        for (const StreamPiece& piece : stream.PiecesOf(unit_of(sample))) {
          const StreamConstant& constant = stream.constants()[piece.constant];
          packed[slot].resize(BytesOf(constant, piece.count));
          const RowSource* rows = constant.bytes->rows();
          if (rows == nullptr) {
            TRY(constant.bytes->Read(piece.first, packed[slot]));
            continue;
          }
          scales[slot].resize(piece.count * static_cast<uint64_t>(rows->scales_per_row()));
          TRY(rows->ReadRows(static_cast<int64_t>(piece.first), static_cast<int64_t>(piece.count), packed[slot], scales[slot]));
          static_cast<void>(Crc32(0, packed[slot]));
        }
        return {};
      },
      [&](uint64_t sample, size_t) -> Status {
        if (Seconds(start) > kSeconds) return {};
        for (const StreamPiece& piece : stream.PiecesOf(unit_of(sample))) bytes += BytesOf(stream.constants()[piece.constant], piece.count);
        took = Seconds(start);
        return {};
      }));
  return took > 0 ? static_cast<double>(bytes) / took : 1e9;
}

// Writes and syncs a file where the output will be. Bytes per second.
Result<double> MeasureWriting(const fs::path& output, uint64_t bytes) {
  constexpr uint64_t kBlock = 4 << 20;
  const uint64_t size = std::clamp<uint64_t>(bytes, kBlock, 192 << 20);
  fs::path path = output;
  path += ".probe";
  OutputFile file = TRY(OutputFile::Create(path, size, {.replace = true}));
  std::vector<std::byte> block(kBlock);
  for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::byte>(i * 2654435761U >> 24);
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t at = 0; at < size; at += kBlock) TRY(file.WriteAt(at, ByteView(block).first(std::min(kBlock, size - at))));
  TRY(file.Flush());
  return static_cast<double>(size) / Seconds(start);
}

Result<TimeForecast> MeasureTime(const ConversionPlan& plan, const RowWork& work) {
  uint64_t written = 0;
  for (const PlannedOutput& output : plan.outputs) written += output.layout.file_size;
  TimeForecast time;
  time.make_s = static_cast<double>(plan.stream.bytes()) / TRY(MeasureMaking(plan.stream, work));
  time.write_s = static_cast<double>(written) / TRY(MeasureWriting(plan.outputs.front().path, written));
  // Hashing and checksums read every output once, beside each other; the smoke run reads the models' weights some times more.
  constexpr double kReadBackRate = 1.2e9;
  constexpr double kSmokeRate = 1e9;
  uint64_t spoken = 0;
  for (const PlannedMember& member : plan.members) spoken += member.stream.size;
  time.prove_s = static_cast<double>(written) / kReadBackRate + static_cast<double>(spoken) / kSmokeRate;
  // The disk writes while units are made and while outputs are read back.
  time.total_s = std::max(time.make_s + time.prove_s, time.write_s);
  return time;
}

// --- clients
// ------------------------------------------------------------------------------------------------------------------------------

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
  const ConversionPlan plan = TRY(PlanConversion(jobs));
  Forecast forecast;
  for (const PlannedOutput& output : plan.outputs) {
    OutputForecast row{
        .path = output.path, .container = output.container, .job = output.job, .bytes = output.layout.file_size, .sections = {}};
    for (const SectionToWrite& section : output.sections) row.sections.push_back({.kind = section.kind, .bytes = section.size});
    forecast.disk_bytes += row.bytes;
    forecast.outputs.push_back(std::move(row));
  }
  forecast.source_bytes = SourceBytes(jobs);
  forecast.peak_anonymous_bytes = PeakMemory(plan, jobs);
  for (size_t i = 0; i < forecast.outputs.size(); ++i) AddLimits(forecast, i, *jobs[forecast.outputs[i].job].model, options);
  if (options.measure_time && !plan.outputs.empty()) {
    Result<TimeForecast> time = MeasureTime(plan, options.work);
    if (!time && time.error().code != ErrorCode::kWriteFailed) return std::unexpected(std::move(time).error());
    if (time) forecast.time = *time;
  }
  return forecast;
}

}  // namespace taskpress
