#include <iostream>
#include <map>
#include <memory>

#include "tools/bench_measure.h"
#include "tools/bench_report.h"
#include "tools/command.h"

namespace taskpress {
namespace {

struct BenchFlags {
  BenchArguments arguments;
  std::string threads = "0";
  std::string depths;
  std::string format = "text";
  bool no_roofline = false;
  bool no_second_start = false;
  bool json = false;
};

Result<std::vector<int>> ParseNumbers(std::string_view option, const std::string& text) {
  const std::vector<int64_t> numbers = TRY(ParseLengths(option, text));
  return std::vector<int>(numbers.begin(), numbers.end());
}

Result<ExitStatus> Bench(const BenchFlags& flags) {
  const std::map<std::string, BenchFormat> formats{
      {"text", BenchFormat::kText}, {"md", BenchFormat::kMarkdown}, {"csv", BenchFormat::kCsv}};
  const auto format = formats.find(flags.format);
  if (format == formats.end()) return Fail(ErrorCode::kUsage, "--format {}: text, md or csv", flags.format);
  BenchArguments arguments = flags.arguments;
  arguments.threads = TRY(ParseNumbers("--threads", flags.threads));
  arguments.depths = TRY(ParseNumbers("--depth", flags.depths));
  arguments.roofline = !flags.no_roofline;
  arguments.second_start = !flags.no_second_start;
  if (arguments.threads.empty()) return Fail(ErrorCode::kUsage, "--threads: at least one number is needed");
  const BenchReport report = TRY(MeasureBench(arguments));
  if (flags.json) {
    PrintJson("bench", BenchToJson(arguments, report));
  } else {
    std::cout << FormatBench(arguments, report, format->second);
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddBench(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("bench", "Prefill and decode speed, time to first token, load time, size, memory");
  const auto flags = std::make_shared<BenchFlags>();
  BenchArguments& arguments = flags->arguments;
  verb->add_option("file", arguments.file, "a bundle, or a checkpoint (run in float)")->required();
  verb->add_option("-p,--prefill", arguments.prefill, "prompt tokens")->capture_default_str();
  verb->add_option("-n,--decode", arguments.decode, "tokens to decode")->capture_default_str();
  verb->add_option("-r,--repetitions", arguments.repetitions, "measured runs")->capture_default_str();
  verb->add_option("--warm-up", arguments.warm_ups, "runs before them that do not count; 0: the first is what a user meets")
      ->capture_default_str();
  verb->add_option("-t,--threads", flags->threads, "threads; 0: all cores. Several, 1,2: one after the other")->capture_default_str();
  verb->add_option("--depth", flags->depths,
                   "0,1024,4096: decode speed behind so many tokens. They are not computed: steps read the cache whatever is in it");
  verb->add_flag("--no-roofline", flags->no_roofline, "do not measure what matrix kernel and memory could do");
  verb->add_flag("--no-second-start", flags->no_second_start, "do not load the model again to time that");
  verb->add_option("--context", arguments.checkpoint_context, "KV cache length when FILE is a checkpoint")->capture_default_str();
  verb->add_option("--format", flags->format, "text, md or csv")->capture_default_str();
  verb->add_flag("--json", flags->json, "one JSON document");
  AddRunFlags(*verb, arguments.flags, /*threads=*/false);
  verb->footer(
      "Examples:\n  taskpress bench gemma.task -p 512 -n 64 -r 5 -t 2\n  taskpress bench gemma.task -t 1,2 --depth 0,1024,4000 --format "
      "md");
  return {verb, [flags] { return Bench(*flags); }};
}

}  // namespace taskpress
