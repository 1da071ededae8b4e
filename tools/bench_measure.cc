#include "tools/bench_measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <numeric>
#include <thread>

#include "runtime/roofline.h"
#include "runtime/text_signatures.h"
#include "tools/command.h"
#include "tools/memory_watch.h"

namespace taskpress {
namespace {

using std::chrono::steady_clock;

// Decoding at a depth is timed over this many tokens at most, so that a long -n and many depths stay bearable.
constexpr int kMostDepthTokens = 16;

double Seconds(steady_clock::time_point since) { return std::chrono::duration<double>(steady_clock::now() - since).count(); }

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

int32_t Best(std::span<const float> logits) { return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin()); }

// Greedy, from `token`; seconds.
Result<double> DecodeTokens(Session& session, int32_t token, int count, const std::function<void()>& after_first) {
  const auto start = steady_clock::now();
  for (int i = 0; i < count; ++i) {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "while measuring");
    token = Best(TRY(session.Decode(token)));
    if (i == 0 && after_first) after_first();
  }
  return Seconds(start);
}

// One prompt of `prefill` tokens, then `decode` tokens; which ids does not matter for the time.
Status RunOnce(const BenchArguments& arguments, Session& session, BenchResult* result) {
  session.Reset();
  std::vector<int32_t> prompt(static_cast<size_t>(arguments.prefill));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7919 + 5) % static_cast<size_t>(session.vocab_size()));
  const auto start = steady_clock::now();
  TRY(session.Prefill(prompt));
  const double prefill_seconds = Seconds(start);
  const int prefilled = session.position();
  double first_token = 0;
  const double decode_seconds = TRY(DecodeTokens(session, prompt.back(), arguments.decode, [&] { first_token = Seconds(start); }));
  if (result == nullptr) return {};
  result->prefill_tokens = prefilled;
  result->decode_tokens = session.position() - prefilled;
  result->prefill.runs.push_back(result->prefill_tokens / prefill_seconds);
  result->decode.runs.push_back(result->decode_tokens / decode_seconds);
  result->first_token.runs.push_back(first_token);
  return {};
}

// Decoding behind `depth` tokens that were never there: a step reads the cache's slots whatever is in them.
Result<DepthSpeed> RunDepth(const BenchArguments& arguments, Session& session, int depth) {
  const int tokens = std::min({arguments.decode, kMostDepthTokens, session.context_length() - depth});
  if (depth < 0 || tokens < 1) {
    return Fail(ErrorCode::kContextFull, "--depth {}: the context has {} tokens", depth, session.context_length());
  }
  DepthSpeed speed{.depth = depth};
  session.Reset();
  for (int i = 0; i <= arguments.repetitions; ++i) {
    TRY(session.PretendPosition(depth));
    const double seconds = TRY(DecodeTokens(session, 1, tokens, {}));
    if (i > 0) speed.tokens_per_s.runs.push_back(tokens / seconds);
  }
  return speed;
}

Result<BenchRoofline> MeasureRoofline(const BenchArguments& arguments, const OpenedModel& model, int threads) {
  const Graph& graph = model.session.graph();
  const TextSignatures signatures = TRY(FindTextSignatures(graph));
  const TextSignature* prefill = &signatures.decode;
  for (const TextSignature& signature : signatures.prefill) {
    if (signature.tokens <= arguments.prefill) prefill = &signature;
  }
  const MatrixWork prompt = TRY(MatrixWorkOf(graph, prefill->subgraph));
  const MatrixWork decode = TRY(MatrixWorkOf(graph, signatures.decode.subgraph));
  const MatrixShape& shape = prompt.largest;
  const ThreadPool pool = TRY(ThreadPool::Create(threads));
  BenchRoofline roofline{.matrix = Format("{} [{}, {}], {} rows", NameOf(shape.type), shape.out, shape.in, prefill->tokens),
                         .peak_products_per_s = TRY(MeasureMatrixPeak(shape, prefill->tokens, model.kernels, threads)),
                         .prefill_products_per_token = static_cast<double>(prompt.products) / static_cast<double>(prefill->tokens),
                         .decode_bytes_per_token = static_cast<double>(decode.weight_bytes - model.session.skipped_bytes())};
  roofline.read_bytes_per_s = TRY(MeasureReadBandwidth(pool));
  return roofline;
}

}  // namespace

Result<BenchResult> MeasureSpeed(const BenchArguments& arguments, OpenedModel& model) {
  Session& session = model.session;
  if (arguments.prefill + arguments.decode > session.context_length()) {
    return Fail(ErrorCode::kContextFull, "-p {} and -n {} exceed the context of {}", arguments.prefill, arguments.decode,
                session.context_length());
  }
  BenchResult result{.load_seconds = model.load_seconds,
                     .cache_at_load = session.packed_weights().state,
                     .state_bytes = session.state_bytes(),
                     .model_bytes = model.model_bytes};
  // They compile signatures and touch pages.
  for (int i = 0; i < arguments.warm_ups; ++i) TRY(RunOnce(arguments, session, nullptr));
  for (int i = 0; i < arguments.repetitions; ++i) TRY(RunOnce(arguments, session, &result));
  for (const int depth : arguments.depths) result.depths.push_back(TRY(RunDepth(arguments, session, depth)));
  result.packed = session.packed_weights();
  return result;
}

double Series::mean() const {
  return runs.empty() ? 0.0 : std::accumulate(runs.begin(), runs.end(), 0.0) / static_cast<double>(runs.size());
}

double Series::deviation() const {
  if (runs.size() < 2) return 0.0;
  double sum = 0;
  for (const double run : runs) sum += (run - mean()) * (run - mean());
  return std::sqrt(sum / static_cast<double>(runs.size() - 1));
}

double BenchRoofline::PrefillShare(const BenchResult& result) const {
  return peak_products_per_s > 0 ? result.prefill.mean() * prefill_products_per_token / peak_products_per_s : 0.0;
}

double BenchRoofline::DecodeShare(const BenchResult& result) const {
  return read_bytes_per_s > 0 ? result.decode.mean() * decode_bytes_per_token / read_bytes_per_s : 0.0;
}

Result<BenchReport> MeasureBench(const BenchArguments& arguments) {
  if (arguments.prefill < 1 || arguments.decode < 1 || arguments.repetitions < 1)
    return Fail(ErrorCode::kUsage, "-p, -n and -r must be at least 1");
  if (arguments.warm_ups < 0) return Fail(ErrorCode::kUsage, "--warm-up must be at least 0");
  MemoryWatch memory;
  BenchReport report{.cpu = CpuName()};
  for (const int asked : arguments.threads) {
    const int threads = asked > 0 ? asked : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    RunFlags flags = arguments.flags;
    flags.threads = asked;
    {
      OpenedModel model = TRY(OpenModel(arguments.file, flags, arguments.checkpoint_context));
      BenchResult result = TRY(MeasureSpeed(arguments, model));
      result.threads = threads;
      report.results.push_back(std::move(result));
      if (report.results.size() == 1) {
        // The model's memory, before this program needs some for itself.
        report.peak_resident_bytes = PeakResidentBytes();
        report.peak_anonymous_bytes = memory.peak_anonymous_bytes();
        report.peak_file_bytes = memory.peak_file_bytes();
        if (arguments.roofline) report.roofline = TRY(MeasureRoofline(arguments, model, threads));
      }
    }
    if (!arguments.second_start) continue;
    report.results.back().load_again_seconds = TRY(OpenModel(arguments.file, flags, arguments.checkpoint_context)).load_seconds;
  }
  return report;
}

}  // namespace taskpress
