#include "tools/command.h"

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <iostream>

#include "schema/base/output_file.h"
#include "tools/progress.h"

namespace taskpress {
namespace {

std::atomic<bool> stop_requested{false};

extern "C" void HandleStop(int /*signal*/) {
  if (stop_requested.exchange(true)) {
    LeaveBarFromSignalHandler();
    DiscardOpenOutputsFromSignalHandler();
    _Exit(static_cast<int>(ExitStatus::kInterrupted));
  }
}

// Numbers from 0 separated by commas; an empty text has none.
Result<std::vector<int32_t>> ParseList(std::string_view option, const std::string& text) {
  std::vector<int32_t> numbers;
  if (text.empty()) return numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    int32_t number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc() || number < 0 || (next != end && *next != ',')) {
      return Fail(ErrorCode::kUsage, "{} {}: whole numbers separated by commas are needed, 2,5,9", option, text);
    }
    numbers.push_back(number);
    if (next == end) return numbers;
    at = next + 1;
  }
}

}  // namespace

const std::atomic<bool>& StopRequested() { return stop_requested; }

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = HandleStop;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &action, nullptr);
}

int ReportError(const Error& error, bool json) {
  const ErrorInfo& info = InfoOf(error.code);
  std::cerr << Format("taskpress: error {} ({}): {}\n  {}\n", CodeName(error.code), info.title, error.message, info.advice);
  if (json) {
    PrintJson("error", {{"code", CodeName(error.code)},
                        {"title", info.title},
                        {"message", error.message},
                        {"advice", info.advice},
                        {"exit_status", static_cast<int>(info.status)}});
  }
  return static_cast<int>(info.status);
}

void PrintJson(std::string_view verb, OrderedJson document) {
  OrderedJson whole{{"schema", Format("taskpress/{}/1", verb)}};
  whole.update(document);
  std::cout << whole.dump(2, ' ', false, OrderedJson::error_handler_t::replace) << "\n";
}

Result<std::vector<int32_t>> ParseTokens(const std::string& text) {
  if (text.starts_with("@")) {
    std::vector<int32_t> tokens;
    const Json list = TRY(ReadJsonFile(text.substr(1)));
    const Json& ids = list.is_object() && list.contains("ids") ? list["ids"] : list;
    if (!ids.is_array()) return Fail(ErrorCode::kUsage, "{}: a JSON list of token ids is needed", text.substr(1));
    for (const Json& id : ids) {
      if (!id.is_number_integer() || id < 0 || id > INT32_MAX)
        return Fail(ErrorCode::kUsage, "{}: {} is not a token id", text.substr(1), id.dump());
      tokens.push_back(id.get<int32_t>());
    }
    return tokens;
  }
  return ParseList("--tokens", text);
}

Result<std::vector<int64_t>> ParseLengths(std::string_view option, const std::string& text) {
  const std::vector<int32_t> numbers = TRY(ParseList(option, text));
  return std::vector<int64_t>(numbers.begin(), numbers.end());
}

Status CheckThreads(int threads) {
  constexpr int kMostThreads = 1024;
  if (threads >= 0 && threads <= kMostThreads) return {};
  return Fail(ErrorCode::kUsage, "--threads {}: from 0 (all cores) to {} is possible", threads, kMostThreads);
}

}  // namespace taskpress
