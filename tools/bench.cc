#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

#include "tools/command.h"
#include "tools/memory_watch.h"
#include "tools/model_source.h"
#include "tools/speed.h"

namespace taskpress {
namespace {

struct BenchArguments {
  std::string file;
  SpeedTest speed;
  int64_t checkpoint_context = 4096;
  bool json = false;
  RunFlags flags;
};

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

Result<ExitStatus> Bench(const BenchArguments& arguments) {
  if (arguments.speed.prefill < 1 || arguments.speed.decode < 1 || arguments.speed.repetitions < 1)
    return Fail(ErrorCode::kUsage, "-p, -n and -r must be at least 1");
  OpenedModel model = TRY(OpenModel(arguments.file, arguments.flags, arguments.checkpoint_context));
  const Timings timings = TRY(MeasureSpeed(model, arguments.speed));
  const int threads = arguments.flags.threads > 0 ? arguments.flags.threads : static_cast<int>(std::thread::hardware_concurrency());
  if (arguments.json) {
    PrintJson("bench", {{"prefill", {{"tokens", arguments.speed.prefill}, {"tokens_per_s", timings.prefill.ToJson()}}},
                        {"decode", {{"tokens", arguments.speed.decode}, {"tokens_per_s", timings.decode.ToJson()}}},
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
                      arguments.flags.kernels, arguments.speed.repetitions);
  std::cout << Format("| {:24} | {:>20} |\n|{:-<26}|{:->22}|\n", "test", "mean +- sd", "", "");
  const auto row = [](std::string_view name, const std::string& value) { std::cout << Format("| {:24} | {:>20} |\n", name, value); };
  row(Format("prefill {} (tok/s)", arguments.speed.prefill),
      Format("{:.1f} +- {:.1f}", timings.prefill.mean(), timings.prefill.deviation()));
  row(Format("decode {} (tok/s)", arguments.speed.decode), Format("{:.1f} +- {:.1f}", timings.decode.mean(), timings.decode.deviation()));
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
  verb->add_option("-p,--prefill", arguments->speed.prefill, "prompt tokens")->capture_default_str();
  verb->add_option("-n,--decode", arguments->speed.decode, "tokens to decode")->capture_default_str();
  verb->add_option("-r,--repetitions", arguments->speed.repetitions, "measured runs")->capture_default_str();
  verb->add_option("--context", arguments->checkpoint_context, "KV cache length when FILE is a checkpoint")->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON document");
  AddRunFlags(*verb, arguments->flags);
  verb->footer("Example:\n  taskpress bench gemma.task -p 512 -n 64 -r 5 -t 2");
  return {verb, [arguments] { return Bench(*arguments); }};
}

}  // namespace taskpress
