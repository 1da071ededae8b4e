#include "converter/planner.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "quantizer/ordered_pipeline.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
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

// --- time --------------------------------------------------------------------------------------------------------------------------------

// Makes some units of every part of the stream and throws them away.
class MakingSample {
 public:
  MakingSample(const StreamPlan& stream, const RowWork& work) : stream_(stream), work_(work), packed_(8), scales_(packed_.size()) {
    constexpr uint64_t kSamples = 512;
    stride_ = std::max<uint64_t>(1, stream.units() / kSamples);
    count_ = (stream.units() + stride_ - 1) / stride_;
  }

  // Bytes made per second. What is read comes from the page cache: the first round brings it there, the second one counts.
  Result<double> Measure() {
    TRY(Round(count_));
    TRY(Round(done_));
    return took_ > 0 ? static_cast<double>(bytes_) / took_ : 1e9;
  }

 private:
  // An odd multiplier visits all parts evenly when time runs out.
  [[nodiscard]] uint64_t UnitOf(uint64_t sample) const { return (sample * 2654435761ULL % count_) * stride_; }

  Status Round(uint64_t samples) {
    constexpr double kSeconds = 1.5;
    const auto start = std::chrono::steady_clock::now();
    done_ = 0;
    bytes_ = 0;
    return RunOrdered(
        0, samples, packed_.size(), work_,
        [&](uint64_t sample, size_t slot) { return Seconds(start) > kSeconds ? Status() : Make(UnitOf(sample), slot); },
        [&](uint64_t sample, size_t) -> Status {
          if (Seconds(start) > kSeconds) return {};
          for (const StreamPiece& piece : stream_.PiecesOf(UnitOf(sample)))
            bytes_ += BytesOf(stream_.constants()[piece.constant], piece.count);
          took_ = Seconds(start);
          ++done_;
          return {};
        });
  }

  Status Make(uint64_t unit, size_t slot) {
    for (const StreamPiece& piece : stream_.PiecesOf(unit)) {
      const StreamConstant& constant = stream_.constants()[piece.constant];
      packed_[slot].resize(BytesOf(constant, piece.count));
      const RowSource* rows = constant.bytes->rows();
      if (rows == nullptr) {
        TRY(constant.bytes->Read(piece.first, packed_[slot]));
        continue;
      }
      scales_[slot].resize(piece.count * static_cast<uint64_t>(rows->scales_per_row()));
      TRY(rows->ReadRows(static_cast<int64_t>(piece.first), static_cast<int64_t>(piece.count), packed_[slot], scales_[slot]));
      static_cast<void>(Crc32(0, packed_[slot]));
    }
    return {};
  }

  const StreamPlan& stream_;
  const RowWork& work_;
  std::vector<std::vector<std::byte>> packed_;
  std::vector<std::vector<float>> scales_;
  uint64_t stride_ = 1;
  uint64_t count_ = 0;
  uint64_t done_ = 0;  // samples of the last round
  uint64_t bytes_ = 0;
  double took_ = 0;
};

// SHA-256 on one core, bytes per second: processors with instructions for it are three times as fast as those without.
double MeasureHashing() {
  const std::vector<std::byte> block(16 << 20, std::byte{0x5A});
  const auto start = std::chrono::steady_clock::now();
  static_cast<void>(Sha256Hex(block));
  return static_cast<double>(block.size()) / std::max(1e-6, Seconds(start));
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

// Bytes of a file that are not in the page cache.
uint64_t UncachedBytes(const fs::path& path) {
  const Result<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  if (!file || (*file)->size() == 0) return 0;
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident(((*file)->size() + page - 1) / page);
  if (mincore(const_cast<std::byte*>((*file)->bytes().data()), (*file)->size(), resident.data()) != 0) return 0;
  uint64_t pages = 0;
  for (const unsigned char state : resident) pages += (state & 1U) == 0 ? 1 : 0;
  return std::min((*file)->size(), pages * page);
}

// Reads a part of a file. Bytes per second; nothing when it is too small to tell.
std::optional<double> MeasureReading(const fs::path& path) {
  constexpr uint64_t kBlock = 4 << 20;
  constexpr uint64_t kSample = 256 << 20;
  const uint64_t size = FileBytes(path);
  if (size < 2 * kSample) return std::nullopt;
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return std::nullopt;
  std::vector<std::byte> block(kBlock);
  const uint64_t begin = size / 2 / kBlock * kBlock;
  const auto start = std::chrono::steady_clock::now();
  uint64_t done = 0;
  while (done < kSample) {
    const ssize_t got = pread(descriptor, block.data(), block.size(), static_cast<off_t>(begin + done));
    if (got <= 0) break;
    done += static_cast<uint64_t>(got);
  }
  const double seconds = Seconds(start);
  close(descriptor);
  return done > 0 && seconds > 0 ? std::optional(static_cast<double>(done) / seconds) : std::nullopt;
}

// source_bytes: of all inputs.
Result<TimeForecast> MeasureTime(const ConversionPlan& plan, std::span<const BundleJob> jobs, uint64_t source_bytes, const RowWork& work) {
  const std::vector<fs::path> files = InputsOf(jobs);
  uint64_t uncached = 0;
  for (const fs::path& file : files) uncached += UncachedBytes(file);
  TimeForecast time;
  uint64_t written = 0;
  for (const PlannedOutput& output : plan.outputs) written += output.layout.file_size;
  // Both at once, as the conversion does them: some disks do one at the other's cost, some do not.
  const auto largest = std::ranges::max_element(files, {}, FileBytes);
  const bool reads = uncached > 0 && largest != files.end();
  std::optional<double> read_rate;
  std::jthread reader;
  if (reads) reader = std::jthread([&read_rate, path = *largest] { read_rate = MeasureReading(path); });
  const Result<double> write_rate = MeasureWriting(plan.outputs.front().path, written);
  if (reads) reader.join();
  time.write_s = static_cast<double>(written) / TRY(write_rate);
  if (reads) time.read_s = static_cast<double>(uncached) / read_rate.value_or(2e9);
  // Of one core, for what the sample does not do: digests of inputs and outputs, and the smoke run's passes over the weights.
  const double hash_rate = MeasureHashing();
  constexpr double kSmokeRate = 0.8e9;
  const double cores = work.threads > 0 ? work.threads : std::max(1U, std::thread::hardware_concurrency());
  time.make_s = static_cast<double>(plan.stream.bytes()) / TRY(MakingSample(plan.stream, work).Measure()) +
                static_cast<double>(source_bytes) / hash_rate / cores;
  uint64_t spoken = 0;
  for (const PlannedMember& member : plan.members) spoken += member.stream.size;
  time.prove_s = (static_cast<double>(written) / hash_rate + static_cast<double>(spoken) / kSmokeRate) / cores;
  time.total_s = std::max({time.make_s, time.read_s, time.write_s}) + time.prove_s;
  return time;
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
  const ConversionPlan plan = TRY(PlanConversion(jobs));
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
    Result<TimeForecast> time = MeasureTime(plan, jobs, forecast.source_bytes, options.work);
    if (!time && time.error().code != ErrorCode::kWriteFailed) return std::unexpected(std::move(time).error());
    if (time) forecast.time = *time;
  }
  return forecast;
}

}  // namespace taskpress
