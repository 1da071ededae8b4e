// taskpress: verb first, positional input, -o output. Data on stdout, talk on stderr.
#include <CLI/CLI.hpp>
#include <array>
#include <exception>
#include <iostream>
#include <new>

#include "schema/base/sigbus_guard.h"
#include "schema/base/version.h"
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

// What a verb returned, after a last look at what it stood on: input that stayed as it was, and output that arrived.
Result<ExitStatus> Conclude(const Result<ExitStatus>& result) {
  if (AnyPagesLost() && (result || result.error().code != ErrorCode::kFileChanged)) {
    return Fail(ErrorCode::kFileChanged, "a part of a file could not be read any more{}{}",
                result ? "" : "; with zeros in its place: ", result ? "" : result.error().message);
  }
  std::cout.flush();
  if (result && !std::cout) return Fail(ErrorCode::kWriteFailed, "standard output: not all of it could be written");
  return result;
}

int Main(int argc, char** argv) {
  CLI::App app("Makes, inspects, runs and checks on-device Gemma 3n bundles (.task, .litertlm)", "taskpress");
  app.set_version_flag("--version", Format("taskpress {}", Version()));
  app.footer(std::string(kFooter));
  app.require_subcommand(1);
  const std::array verbs{AddConvert(app), AddCalibrate(app), AddPlan(app),   AddQuantize(app), AddSlice(app),
                         AddInspect(app), AddVerify(app),    AddRun(app),    AddScore(app),    AddEval(app),
                         AddCompare(app), AddBench(app),     AddRepack(app), AddExplain(app)};
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
    const Result<ExitStatus> result = verb.body();
    const bool error_document = !result && json != nullptr && json->count() > 0;  // stdout holds one document, not two
    const Result<ExitStatus> status = Conclude(result);
    return status ? static_cast<int>(*status) : ReportError(status.error(), error_document);
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
