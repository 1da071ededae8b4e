// taskpress: verb first, positional input, -o output. Data on stdout, talk on stderr.
#include <CLI/CLI.hpp>
#include <array>
#include <exception>
#include <iostream>
#include <new>

#include "tools/command.h"

namespace taskpress {
namespace {

constexpr std::string_view kFooter = R"(Examples:
  taskpress convert gemma-3n-E2B-it -o gemma.task -o gemma.litertlm
  taskpress run gemma.litertlm --chat -p "Why is the sky blue?"
  taskpress score gemma.task --text sample.txt --json
  taskpress compare gemma.task gemma-3n-E2B-it --text sample.txt
  taskpress explain TP-1103

Exit status: 0 ok, 1 gate failed, 2 usage, 3 inconclusive, 4 could not check, 5 input malformed or unsafe, 6 unsupported feature,
7 not enough memory or disk, 8 output exists, 130 interrupted.)";

int Main(int argc, char** argv) {
  CLI::App app("Makes, inspects, runs and checks on-device Gemma 3n bundles (.task, .litertlm)", "taskpress");
  app.set_version_flag("--version", "taskpress " TASKPRESS_VERSION);
  app.footer(std::string(kFooter));
  app.require_subcommand(1);
  const std::array verbs{AddConvert(app), AddInspect(app), AddVerify(app), AddRun(app),
                         AddScore(app),   AddCompare(app), AddBench(app),  AddExplain(app)};
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : static_cast<int>(ExitStatus::kUsage);
  }
  InstallSignalHandlers();
  for (const Verb& verb : verbs) {
    if (!verb.app->parsed()) continue;
    const CLI::Option* json = verb.app->get_option_no_throw("--json");
    const Result<ExitStatus> status = verb.body();
    if (status) return static_cast<int>(*status);
    return ReportError(status.error(), json != nullptr && json->count() > 0);
  }
  return static_cast<int>(ExitStatus::kUsage);
}

}  // namespace
}  // namespace taskpress

int main(int argc, char** argv) {
  using taskpress::ErrorCode;
  try {
    return taskpress::Main(argc, argv);
  } catch (const std::bad_alloc&) {
    return taskpress::ReportError({ErrorCode::kOutOfMemory, "an allocation failed"}, false);
  } catch (const std::exception& error) {
    std::cerr << "taskpress: internal error: " << error.what() << "\n";
    return static_cast<int>(taskpress::ExitStatus::kCouldNotCheck);
  }
}
