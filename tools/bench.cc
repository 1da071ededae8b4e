#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <numeric>
#include <thread>

#include "tools/command.h"
#include "tools/memory_watch.h"
#include "tools/model_source.h"

namespace taskpress {
namespace {

using std::chrono::steady_clock;

struct BenchArguments {
  std::string file;
  int prefill = 512;
  int decode = 64;
  int repetitions = 5;
  int64_t checkpoint_context = 4096;
  bool json = false;
  RunFlags flags;
};

struct Series {
  std::vector<double> runs;
  [[nodiscard]] double mean() const {
    return runs.empty() ? 0.0 : std::accumulate(runs.begin(), runs.end(), 0.0) / static_cast<double>(runs.size());
  }
  // Of the sample, as llama-bench prints it.
  [[nodiscard]] double deviation() const {
    if (runs.size() < 2) return 0.0;
    double sum = 0;
    for (const double run : runs) sum += (run - mean()) * (run - mean());
    return std::sqrt(sum / static_cast<double>(runs.size() - 1));
  }
  [[nodiscard]] OrderedJson ToJson() const { return {{"mean", mean()}, {"sd", deviation()}, {"runs", runs}}; }
};

struct Timings {
  Series prefill;  // tokens per second
  Series decode;
  Series first_token;  // seconds
};

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

double Seconds(steady_clock::time_point since) { return std::chrono::duration<double>(steady_clock::now() - since).count(); }

// One prompt of `prefill` tokens, then `decode` tokens; which ids does not matter for the time.
Status RunOnce(const BenchArguments& arguments, OpenedModel& model, Timings* timings) {
  Session& session = model.session;
  session.Reset();
  std::vector<int32_t> prompt(static_cast<size_t>(arguments.prefill));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7919 + 5) % static_cast<size_t>(session.vocab_size()));
  const auto start = steady_clock::now();
  TRY(session.Prefill(prompt));
  const double prefill_seconds = Seconds(start);
  int32_t token = prompt.back();
  auto decode_start = steady_clock::now();
  for (int i = 0; i < arguments.decode; ++i) {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "while measuring");
    const std::span<const float> logits = TRY(session.Decode(token));
    token = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
    if (i == 0 && timings != nullptr) timings->first_token.runs.push_back(Seconds(start));
  }
  if (timings == nullptr) return {};
  timings->prefill.runs.push_back(arguments.prefill / prefill_seconds);
  timings->decode.runs.push_back(arguments.decode / Seconds(decode_start));
  return {};
}

Result<ExitStatus> Bench(const BenchArguments& arguments) {
  if (arguments.prefill < 1 || arguments.decode < 1 || arguments.repetitions < 1)
    return Fail(ErrorCode::kUsage, "-p, -n and -r must be at least 1");
  OpenedModel model = TRY(OpenModel(arguments.file, arguments.flags, arguments.checkpoint_context));
  if (arguments.prefill + arguments.decode > model.session.context_length()) {
    return Fail(ErrorCode::kContextFull, "-p {} and -n {} exceed the context of {}", arguments.prefill, arguments.decode,
                model.session.context_length());
  }
  TRY(RunOnce(arguments, model, nullptr));  // warm-up: compiles signatures, packs weights, touches pages
  Timings timings;
  for (int i = 0; i < arguments.repetitions; ++i) TRY(RunOnce(arguments, model, &timings));
  const int threads = arguments.flags.threads > 0 ? arguments.flags.threads : static_cast<int>(std::thread::hardware_concurrency());
  if (arguments.json) {
    PrintJson("bench", {{"prefill", {{"tokens", arguments.prefill}, {"tokens_per_s", timings.prefill.ToJson()}}},
                        {"decode", {{"tokens", arguments.decode}, {"tokens_per_s", timings.decode.ToJson()}}},
                        {"time_to_first_token_s", timings.first_token.mean()},
                        {"load_s", model.load_seconds},
                        {"model_bytes", model.model_bytes},
                        {"peak_rss_bytes", PeakResidentBytes()},
                        {"threads", threads},
                        {"kernels", arguments.flags.kernels},
                        {"cpu", CpuName()}});
    return ExitStatus::kOk;
  }
  std::cout << Format("{}\n{}, {} threads, {} kernels, {} runs after a warm-up\n\n", arguments.file, CpuName(), threads,
                      arguments.flags.kernels, arguments.repetitions);
  std::cout << Format("| {:24} | {:>20} |\n|{:-<26}|{:->22}|\n", "test", "mean +- sd", "", "");
  const auto row = [](std::string_view name, const std::string& value) { std::cout << Format("| {:24} | {:>20} |\n", name, value); };
  row(Format("prefill {} (tok/s)", arguments.prefill), Format("{:.1f} +- {:.1f}", timings.prefill.mean(), timings.prefill.deviation()));
  row(Format("decode {} (tok/s)", arguments.decode), Format("{:.1f} +- {:.1f}", timings.decode.mean(), timings.decode.deviation()));
  row("time to first token (s)", Format("{:.3f} +- {:.3f}", timings.first_token.mean(), timings.first_token.deviation()));
  row("load (s)", Format("{:.3f}", model.load_seconds));
  row("model (MB)", Format("{:.1f}", static_cast<double>(model.model_bytes) / 1e6));
  row("peak memory (MB)", Format("{:.1f}", static_cast<double>(PeakResidentBytes()) / 1e6));
  return ExitStatus::kOk;
}

}  // namespace

Verb AddBench(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("bench", "Prefill and decode speed, time to first token, load time, size, memory");
  const auto arguments = std::make_shared<BenchArguments>();
  verb->add_option("file", arguments->file, "a bundle, or a checkpoint (run in float)")->required();
  verb->add_option("-p,--prefill", arguments->prefill, "prompt tokens")->capture_default_str();
  verb->add_option("-n,--decode", arguments->decode, "tokens to decode")->capture_default_str();
  verb->add_option("-r,--repetitions", arguments->repetitions, "measured runs")->capture_default_str();
  verb->add_option("--context", arguments->checkpoint_context, "KV cache length when FILE is a checkpoint")->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON document");
  AddRunFlags(*verb, arguments->flags);
  verb->footer("Example:\n  taskpress bench gemma.task -p 512 -n 64 -r 5 -t 2");
  return {verb, [arguments] { return Bench(*arguments); }};
}

}  // namespace taskpress
