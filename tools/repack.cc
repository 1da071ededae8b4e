#include "converter/repack.h"

#include <chrono>
#include <iostream>
#include <memory>

#include "tools/command.h"
#include "tools/progress.h"

namespace taskpress {
namespace {

struct RepackArguments {
  std::string file;
  std::string output;
  std::vector<std::string> drop;
  std::vector<std::string> replace;
  std::string activate;
  int threads = 0;
  bool force = false;
  std::string progress = "auto";
  bool json = false;
};

Result<SectionChanges> ChangesFrom(const RepackArguments& arguments) {
  SectionChanges changes{.drop = arguments.drop, .replace = {}};
  for (const std::string& text : arguments.replace) {
    const size_t equals = text.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == text.size()) {
      return Fail(ErrorCode::kUsage, "--replace {}: SECTION=FILE is needed, as in tokenizer=tokenizer.model", text);
    }
    changes.replace.push_back({.section = text.substr(0, equals), .file = text.substr(equals + 1)});
  }
  return changes;
}

Result<RepackedBundle> RepackWithProgress(const RepackArguments& arguments, const SectionChanges& changes) {
  Progress progress(TRY(ProgressStyleFromName(arguments.progress)));
  WriteOptions options;
  options.work = {.threads = arguments.threads, .stop = &StopRequested()};
  options.replace = arguments.force;
  options.on_event = [&progress](const ConvertEvent& event) {
    progress.Update(event.stage, event.tensor, event.bytes_done, event.bytes_total);
  };
  RepackedBundle repacked;
  if (arguments.activate.empty()) {
    repacked = TRY(RepackBundle(arguments.file, arguments.output, changes, options));
  } else {
    repacked.bundle = TRY(ActivateBundle(arguments.file, arguments.output, arguments.activate, options));
  }
  progress.ShowStages();
  return repacked;
}

Result<ExitStatus> Repack(const RepackArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  TRY(CheckThreads(arguments.threads));
  if (!arguments.activate.empty() && !(arguments.drop.empty() && arguments.replace.empty())) {
    return Fail(ErrorCode::kUsage, "--activate changes headers only; drop or replace sections in a step of their own");
  }
  const auto [bundle, notes] = TRY(RepackWithProgress(arguments, TRY(ChangesFrom(arguments))));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  for (const std::string& note : notes) std::cerr << "note: " << note << "\n";
  if (!arguments.json) {
    std::cout << Format("{}  {}  {} bytes\n", bundle.sha256, bundle.path.string(), bundle.bytes);
    return ExitStatus::kOk;
  }
  OrderedJson outputs = OrderedJson::array();
  outputs.push_back({{"path", bundle.path.string()}, {"bytes", bundle.bytes}, {"sha256", bundle.sha256}});
  PrintJson("repack", {{"outputs", outputs}, {"seconds", seconds.count()}, {"notes", notes}});
  return ExitStatus::kOk;
}

}  // namespace

Verb AddRepack(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("repack", "A bundle in the other container, or with sections dropped or replaced; weights bit-identical");
  const auto arguments = std::make_shared<RepackArguments>();
  verb->add_option("file", arguments->file, "a .task or .litertlm bundle")->required();
  verb->add_option("-o,--output", arguments->output, "FILE.task or FILE.litertlm")->required();
  verb->add_option("--drop", arguments->drop, "a section to leave out, by the name inspect shows; repeatable")->allow_extra_args(false);
  verb->add_option("--replace", arguments->replace, "SECTION=FILE: other contents for a section, checked before they are used; repeatable")
      ->allow_extra_args(false);
  verb->add_option("--activate", arguments->activate, "a size of an elastic bundle, which clients load from then on");
  verb->add_option("--threads", arguments->threads, "of the smoke run; 0: all cores")->capture_default_str();
  verb->add_flag("--force", arguments->force, "replace an existing output");
  verb->add_option("--progress", arguments->progress, "auto, bar, plain, json or none")->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON document");
  verb->footer(
      "Examples:\n  taskpress repack gemma.task -o gemma.litertlm\n"
      "  taskpress repack gemma.litertlm -o small.litertlm --drop vision_encoder --replace tokenizer=tokenizer.model");
  return {verb, [arguments] { return Repack(*arguments); }};
}

}  // namespace taskpress
