#include "converter/time_forecast.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "converter/stream_writer.h"
#include "schema/base/hash.h"
#include "schema/base/output_file.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWindows = 16;
constexpr uint64_t kSourceBytes = 1'600'000'000;  // read by all windows together
constexpr double kMostSeconds = 6;                // no window begins behind this
constexpr double kSmokeRate = 0.8e9;              // weight bytes per second of one core in the smoke run

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// Reads and hashes bytes [begin, end) of the inputs, one behind the other.
void HashInputs(std::span<const fs::path> inputs, uint64_t begin, uint64_t end) {
  Sha256 hash;
  std::vector<std::byte> block(1 << 20);
  uint64_t first = 0;  // byte of this input
  for (const fs::path& input : inputs) {
    std::error_code error;
    const uintmax_t size = fs::file_size(input, error);
    if (error) continue;
    const uint64_t last = std::min<uint64_t>(end, first + size);
    uint64_t at = std::max(begin, first);
    const int descriptor = at < last ? open(input.c_str(), O_RDONLY | O_CLOEXEC) : -1;
    while (descriptor >= 0 && at < last) {
      const ssize_t got = pread(descriptor, block.data(), std::min<uint64_t>(block.size(), last - at), static_cast<off_t>(at - first));
      if (got <= 0) break;
      hash.Update(ByteView(block).first(static_cast<size_t>(got)));
      at += static_cast<uint64_t>(got);
    }
    if (descriptor >= 0) close(descriptor);
    first += size;
  }
  static_cast<void>(hash.FinishHex());
}

// SHA-256 on one core, bytes per second: processors with instructions for it are three times as fast as those without.
double MeasureHashing() {
  const std::vector<std::byte> block(16 << 20, std::byte{0x5A});
  const auto start = std::chrono::steady_clock::now();
  static_cast<void>(Sha256Hex(block));
  return static_cast<double>(block.size()) / std::max(1e-6, Seconds(start));
}

Result<std::vector<OutputFile>> CreateProbes(const ConversionPlan& plan) {
  std::vector<OutputFile> probes;
  for (const PlannedOutput& output : plan.outputs) {
    fs::path path = output.path;
    path += ".probe";
    probes.push_back(TRY(OutputFile::Create(path, output.layout.file_size, {.replace = true})));
  }
  return probes;
}

// Seconds for the whole stream.
Result<double> Rehearse(ConversionPlan& plan, std::span<const fs::path> inputs, uint64_t source_bytes, uint64_t buffer_bytes,
                        const RowWork& work) {
  StreamPlan& stream = plan.stream;
  std::vector<OutputFile> probes = TRY(CreateProbes(plan));
  const double part = std::min(1.0, static_cast<double>(kSourceBytes) / static_cast<double>(std::max<uint64_t>(1, source_bytes)));
  const auto start = std::chrono::steady_clock::now();
  double took = 0;
  uint64_t bytes = 0;
  StreamTimes times;
  for (uint64_t i = 0; i < kWindows && Seconds(start) < kMostSeconds; ++i) {
    // An odd multiplier visits all parts evenly when time runs out.
    const uint64_t window = i * 7 % kWindows;
    StreamState state{.units = window * stream.units() / kWindows, .bytes = 0, .crcs = {}};
    const uint64_t room = (window + 1) * stream.units() / kWindows - state.units;
    const uint64_t units = std::min(room, 1 + static_cast<uint64_t>(part * static_cast<double>(room)));
    const double from = static_cast<double>(state.units) / static_cast<double>(std::max<uint64_t>(1, stream.units()));
    const double to = from + static_cast<double>(units) / static_cast<double>(std::max<uint64_t>(1, stream.units()));
    const auto window_start = std::chrono::steady_clock::now();
    std::jthread digest([&] {
      HashInputs(inputs, static_cast<uint64_t>(from * static_cast<double>(source_bytes)),
                 static_cast<uint64_t>(to * static_cast<double>(source_bytes)));
    });
    TRY(WriteStream(stream, probes, {.work = work, .buffer_bytes = buffer_bytes, .end = state.units + units}, state, times));
    digest.join();
    took += Seconds(window_start);
    bytes += state.bytes;
  }
  // What the disk still has to take counts for the bytes that were made.
  const auto flush_start = std::chrono::steady_clock::now();
  for (OutputFile& probe : probes) TRY(probe.Flush());
  took += Seconds(flush_start);
  return bytes > 0 ? took * static_cast<double>(stream.bytes()) / static_cast<double>(bytes) : took;
}

}  // namespace

Result<TimeForecast> MeasureTime(ConversionPlan& plan, std::span<const BundleJob> jobs, uint64_t source_bytes, uint64_t buffer_bytes,
                                 const RowWork& work) {
  const std::vector<fs::path> inputs = InputsOf(jobs);
  TimeForecast time{.write_s = TRY(Rehearse(plan, inputs, source_bytes, buffer_bytes, work)), .prove_s = 0};
  uint64_t written = 0;
  for (const PlannedOutput& output : plan.outputs) written += output.layout.file_size;
  uint64_t spoken = 0;
  for (const PlannedMember& member : plan.members) spoken += member.stream.size;
  const double cores = work.threads > 0 ? work.threads : std::max(1U, std::thread::hardware_concurrency());
  time.prove_s = (static_cast<double>(written) / MeasureHashing() + static_cast<double>(spoken) / kSmokeRate) / cores;
  return time;
}

}  // namespace taskpress
