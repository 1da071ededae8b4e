#include "converter/calibrate.h"

#include <chrono>
#include <iostream>
#include <memory>

#include "schema/base/version.h"
#include "tools/command.h"
#include "tools/memory_watch.h"

namespace taskpress {
namespace {

struct CalibrateArguments {
  std::string checkpoint;
  std::vector<std::string> merge;
  std::string output;
  std::string text;
  std::string slice = "e4b";
  std::string lora;
  int64_t tokens = 8192;
  int64_t window = 256;
  bool diagonal = false;
  int threads = 0;
  bool resume = false;
  bool force = false;
  bool json = false;
};

Result<ExitStatus> Merge(const CalibrateArguments& arguments) {
  const std::vector<std::filesystem::path> inputs(arguments.merge.begin(), arguments.merge.end());
  TRY(MergeCalibrations(inputs, arguments.output, std::string(Version()), arguments.force));
  const CalibrationFile merged = TRY(CalibrationFile::Open(arguments.output));
  if (arguments.json) {
    PrintJson("calibrate", {{"output", arguments.output}, {"tokens", merged.info().tokens}, {"sites", merged.sites().size()}});
  } else {
    std::cout << Format("{}: {} tokens, {} sites\n", arguments.output, merged.info().tokens, merged.sites().size());
  }
  return ExitStatus::kOk;
}

Result<ExitStatus> Run(const CalibrateArguments& arguments) {
  if (!arguments.merge.empty()) {
    if (!arguments.checkpoint.empty() || !arguments.text.empty())
      return Fail(ErrorCode::kUsage, "--merge takes calibration files; checkpoint and text were read when these were made");
    return Merge(arguments);
  }
  if (arguments.checkpoint.empty() || arguments.text.empty())
    return Fail(ErrorCode::kUsage, "give a checkpoint and --text, or --merge and calibration files");
  TRY(CheckThreads(arguments.threads));
  const auto start = std::chrono::steady_clock::now();
  MemoryWatch memory;
  const std::unique_ptr<const ModelFiles> files = TRY(OpenModelFiles(arguments.checkpoint));
  CalibrateOptions options{.text = arguments.text,
                           .slice = arguments.slice,
                           .lora = arguments.lora,
                           .tokens = arguments.tokens,
                           .window = arguments.window,
                           .kind = arguments.diagonal ? MomentKind::kDiagonal : MomentKind::kFull};
  options.work = {.threads = arguments.threads, .stop = &StopRequested()};
  options.writer = {.replace = arguments.force, .resume = arguments.resume};
  options.on_site = [](size_t done, size_t all) {
    if (done % 16 == 0 || done == all) std::cerr << Format("{} of {} sites\n", done, all);
  };
  const CalibrateReport report = TRY(Calibrate(*files, arguments.checkpoint, options, arguments.output));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (arguments.json) {
    PrintJson("calibrate", {{"output", arguments.output},
                            {"bytes", report.bytes},
                            {"tokens", report.tokens},
                            {"windows", report.windows},
                            {"window", report.window},
                            {"dropped_tokens", report.dropped_tokens},
                            {"seconds", seconds},
                            {"peak_anonymous_bytes", memory.peak_anonymous_bytes()}});
  } else {
    std::cout << Format("{}: {} bytes, {} tokens in {} windows of {}\n", arguments.output, report.bytes, report.tokens, report.windows,
                        report.window);
    std::cerr << Format("{} tokens of the text were not read; {:.1f} s, {:.0f} MB of memory at most\n", report.dropped_tokens, seconds,
                        static_cast<double>(memory.peak_anonymous_bytes()) / 1e6);
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddCalibrate(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("calibrate", "measure what a model's matrices are multiplied with, for convert --calibrate");
  const auto arguments = std::make_shared<CalibrateArguments>();
  verb->add_option("checkpoint", arguments->checkpoint, "a Hugging Face folder, or a .safetensors, .gguf or .onnx file");
  verb->add_option("--text", arguments->text, "a text file, or .jsonl with {\"text\": ..} or {\"messages\": [..]} a line");
  verb->add_option("-o,--output", arguments->output, "FILE.calib")->required();
  verb->add_option("--merge", arguments->merge, "calibration files of one model, to be added up")->expected(2, 1000);
  verb->add_option("--slice", arguments->slice, "as for convert")->capture_default_str();
  verb->add_option("--lora", arguments->lora, "as for convert");
  verb->add_option("--tokens", arguments->tokens, "at most")->capture_default_str();
  verb->add_option("--window", arguments->window, "tokens read together")->capture_default_str();
  verb->add_flag("--diagonal", arguments->diagonal, "mean squares only: enough for clip and folds, not for gptq");
  verb->add_option("--threads", arguments->threads, "0: all cores")->capture_default_str();
  verb->add_flag("--resume", arguments->resume, "go on with what an earlier call left unfinished");
  verb->add_flag("--force", arguments->force, "replace an existing file");
  verb->add_flag("--json", arguments->json, "one JSON document");
  verb->footer("Example: taskpress calibrate gemma-3n-E4B --text chats.jsonl -o e2b.calib --slice e2b");
  return {.app = verb, .body = [arguments] { return Run(*arguments); }};
}

}  // namespace taskpress
