// Errors as values: a stable code that scripts and `taskpress explain` know, and a message for the person reading it.
//
// A message says where, what, what was expected, what was found and what to do:
//   model-2.safetensors: tensor "a.b": data_offsets [0, 400) hold 400 bytes, F32 [5,5] needs 100; the file is damaged, download it again
// Codes are listed once, in error_codes.def, and never reused.
#ifndef TASKPRESS_SCHEMA_BASE_ERROR_H_
#define TASKPRESS_SCHEMA_BASE_ERROR_H_

#include <cstdint>
#include <expected>
#include <format>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace taskpress {

// Process exit status of the command line, by the kind of trouble. Documented and never reused.
enum class ExitStatus : int {
  kOk = 0,
  kGateFailed = 1,
  kUsage = 2,
  kInconclusive = 3,
  kCouldNotCheck = 4,
  kMalformed = 5,
  kUnsupported = 6,
  kNoResources = 7,
  kOutputExists = 8,
  kInterrupted = 130,
};

enum class ErrorCode : uint16_t {
#define TASKPRESS_ERROR(number, name, status, title, advice) name = number,
#include "schema/base/error_codes.def"
#undef TASKPRESS_ERROR
};

struct [[nodiscard]] Error {
  ErrorCode code;
  std::string message;
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

// One row of the code table: what `taskpress explain` prints.
struct ErrorInfo {
  ErrorCode code;
  std::string_view name;
  ExitStatus status;
  std::string_view title;
  std::string_view advice;
};

std::span<const ErrorInfo> AllErrorInfos();
const ErrorInfo& InfoOf(ErrorCode code);
// "TP-1042", "tp-1042" or "1042" -> its row; nothing for an unknown code.
std::optional<ErrorInfo> FindErrorInfo(std::string_view text);
// "TP-1042"
std::string CodeName(ErrorCode code);

// std::format with its machinery compiled once, in error.cc, instead of in every file that makes a message.
std::string FormatArguments(std::string_view format, std::format_args arguments);
template <typename... Args>
[[nodiscard]] std::string Format(std::format_string<const Args&...> format, const Args&... args) {
  return FormatArguments(format.get(), std::make_format_args(args...));
}

// Fail(code, "{}: tensor {}: ...", ...) makes the value that a function returns on error.
template <typename... Args>
std::unexpected<Error> Fail(ErrorCode code, std::format_string<const Args&...> format, const Args&... args) {
  return std::unexpected(Error{code, Format<Args...>(format, args...)});
}

// Puts "where: " in front of the message, as an error travels up through rooms that know more.
Error WithContext(Error error, std::string_view where);

// TRY(expression of type Result<T>) is the T, or returns the error from the enclosing function. May be nested.
// Not in an initializer list or an operand whose earlier parts own memory: GCC does not destroy those when a statement expression returns.
#define TRY(...) TASKPRESS_TRY(TASKPRESS_CONCAT(taskpress_try_, __COUNTER__), __VA_ARGS__)
#define TASKPRESS_CONCAT(a, b) TASKPRESS_CONCAT_EXPANDED(a, b)
#define TASKPRESS_CONCAT_EXPANDED(a, b) a##b
#define TASKPRESS_TRY(result, ...)                                  \
  __extension__({                                                   \
    auto&& result = (__VA_ARGS__);                                  \
    if (!result) return std::unexpected(std::move(result).error()); \
    *std::move(result);                                             \
  })

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_ERROR_H_
