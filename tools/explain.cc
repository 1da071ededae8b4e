#include <iostream>
#include <memory>

#include "tools/command.h"

namespace taskpress {
namespace {

void Explain(const ErrorInfo& info) {
  std::cout << Format("{} {}: {}\n  {}\n  Exit status {}.\n", CodeName(info.code), info.name.substr(1), info.title, info.advice,
                      static_cast<int>(info.status));
}

OrderedJson InfoJson(const ErrorInfo& info) {
  return {{"code", CodeName(info.code)}, {"title", info.title}, {"advice", info.advice}, {"exit_status", static_cast<int>(info.status)}};
}

}  // namespace

Verb AddExplain(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("explain", "What an error code means and what to do about it; all codes when none is given");
  const auto code = std::make_shared<std::string>();
  const auto json = std::make_shared<bool>(false);
  verb->add_option("code", *code, "TP-1103");
  verb->add_flag("--json", *json, "one JSON document");
  verb->footer("Example:\n  taskpress explain TP-1103");
  return {verb, [code, json]() -> Result<ExitStatus> {
            OrderedJson rows = OrderedJson::array();
            if (!code->empty()) {
              const std::optional<ErrorInfo> info = FindErrorInfo(*code);
              if (!info) return Fail(ErrorCode::kUsage, "\"{}\" is not an error code; codes look like TP-1103", *code);
              rows.push_back(InfoJson(*info));
              if (!*json) Explain(*info);
            } else {
              for (const ErrorInfo& info : AllErrorInfos()) {
                rows.push_back(InfoJson(info));
                if (!*json) Explain(info);
              }
            }
            if (*json) PrintJson("explain", {{"codes", rows}});
            return ExitStatus::kOk;
          }};
}

}  // namespace taskpress
