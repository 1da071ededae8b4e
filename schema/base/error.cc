#include "schema/base/error.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>

namespace taskpress {
namespace {

constexpr auto kInfos = std::to_array<ErrorInfo>({
#define TASKPRESS_ERROR(number, name, status, title, advice) {ErrorCode::name, #name, ExitStatus::status, title, advice},
#include "schema/base/error_codes.def"
#undef TASKPRESS_ERROR
});

}  // namespace

std::span<const ErrorInfo> AllErrorInfos() { return kInfos; }

const ErrorInfo& InfoOf(ErrorCode code) {
  for (const ErrorInfo& info : kInfos) {
    if (info.code == code) return info;
  }
  std::abort();  // every enumerator comes from the table
}

std::string FormatArguments(std::string_view format, std::format_args arguments) { return std::vformat(format, arguments); }

std::string CodeName(ErrorCode code) { return Format("TP-{}", std::to_underlying(code)); }

std::optional<ErrorInfo> FindErrorInfo(std::string_view text) {
  if (text.size() > 3 && std::toupper(text[0]) == 'T' && std::toupper(text[1]) == 'P' && text[2] == '-') {
    text.remove_prefix(3);
  }
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  for (const ErrorInfo& info : kInfos) {
    if (std::to_underlying(info.code) == number) return info;
  }
  return std::nullopt;
}

Error WithContext(Error error, std::string_view where) {
  error.message = Format("{}: {}", where, error.message);
  return error;
}

}  // namespace taskpress
