// What the verbs of the command line share: flags, errors and their exit status, JSON documents, interruption.
#ifndef TASKPRESS_TOOLS_COMMAND_H_
#define TASKPRESS_TOOLS_COMMAND_H_

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

// A verb's work: what it prints goes to stdout, its talk to stderr. The exit status, or an error to be reported.
using VerbBody = std::function<Result<ExitStatus>()>;

struct Verb {
  CLI::App* app = nullptr;
  VerbBody body;
};

// Each adds its subcommand and flags; the body runs after parsing.
Verb AddConvert(CLI::App& app);
Verb AddCalibrate(CLI::App& app);
Verb AddInspect(CLI::App& app);
Verb AddPlan(CLI::App& app);
Verb AddQuantize(CLI::App& app);
Verb AddSlice(CLI::App& app);
Verb AddVerify(CLI::App& app);
Verb AddRun(CLI::App& app);
Verb AddScore(CLI::App& app);
Verb AddEval(CLI::App& app);
Verb AddCompare(CLI::App& app);
Verb AddBench(CLI::App& app);
Verb AddRepack(CLI::App& app);
Verb AddExplain(CLI::App& app);

// Prints "taskpress: error TP-1001 (input file not found): ..." and the advice to stderr; with json an error document to stdout.
int ReportError(const Error& error, bool json);
// The document with its "schema": "taskpress/<verb>/1" first, indented, to stdout.
void PrintJson(std::string_view verb, OrderedJson document);

// Set by SIGINT and SIGTERM. Output parts are removed and the process ends with status 130; a second signal ends it at once. SIGXFSZ is
// ignored: writing beyond a limit is then an error like a full disk.
const std::atomic<bool>& StopRequested();
void InstallSignalHandlers();

// "2,5,9" or "@file.json" (a JSON list of ids, or an object with "ids"). kUsage.
Result<std::vector<int32_t>> ParseTokens(const std::string& text);
// "8,32,128", the value of `option`. kUsage.
Result<std::vector<int64_t>> ParseLengths(std::string_view option, const std::string& text);
// 0 means all cores. kUsage for a negative number or more threads than any machine is good for.
Status CheckThreads(int threads);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_COMMAND_H_
