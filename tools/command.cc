#include "tools/command.h"

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "schema/base/output_file.h"

namespace taskpress {
namespace {

std::atomic<bool> stop_requested{false};

extern "C" void HandleStop(int /*signal*/) {
  if (stop_requested.exchange(true)) {
    DiscardOpenOutputsFromSignalHandler();
    _Exit(static_cast<int>(ExitStatus::kInterrupted));
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
}

int ReportError(const Error& error, bool json) {
  const ErrorInfo& info = InfoOf(error.code);
  std::cerr << std::format("taskpress: error {} ({}): {}\n  {}\n", CodeName(error.code), info.title, error.message, info.advice);
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
  OrderedJson whole{{"schema", std::format("taskpress/{}/1", verb)}};
  whole.update(document);
  std::cout << whole.dump(2, ' ', false, OrderedJson::error_handler_t::replace) << "\n";
}

Result<std::vector<int32_t>> ParseTokens(const std::string& text) {
  std::vector<int32_t> tokens;
  if (text.starts_with("@")) {
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
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0 || (next != end && *next != ',')) {
      return Fail(ErrorCode::kUsage, "--tokens {}: ids separated by commas are needed, or @file.json", text);
    }
    tokens.push_back(id);
    at = next == end ? end : next + 1;
  }
  return tokens;
}

Result<uint64_t> ParseBytes(const std::string& text) {
  uint64_t value = 0;
  const auto [next, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(next, text.data() + text.size());
  int shift = -1;
  if (unit.empty()) shift = 0;
  if (unit == "K" || unit == "KiB") shift = 10;
  if (unit == "M" || unit == "MiB") shift = 20;
  if (unit == "G" || unit == "GiB") shift = 30;
  if (error != std::errc() || shift < 0 || value > (UINT64_MAX >> shift))
    return Fail(ErrorCode::kUsage, "\"{}\" is not a size; write 1G, 256M or bytes", text);
  return value << shift;
}

}  // namespace taskpress
