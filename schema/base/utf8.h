// UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef TASKPRESS_SCHEMA_BASE_UTF8_H_
#define TASKPRESS_SCHEMA_BASE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace taskpress {

enum class Utf8State : uint8_t { kComplete, kIncomplete, kInvalid };

// The character at the front of a text.
struct Utf8Char {
  Utf8State state = Utf8State::kInvalid;  // kIncomplete: the text ends inside a character that is valid so far
  uint32_t code_point = 0;                // when complete
  size_t length = 0;                      // bytes, when complete
};

// `text` must not be empty.
[[nodiscard]] Utf8Char FirstUtf8Char(std::string_view text);
// The number of bytes before the first byte that is not UTF-8; text.size() when all is well.
[[nodiscard]] size_t ValidUtf8Prefix(std::string_view text);
[[nodiscard]] inline bool IsValidUtf8(std::string_view text) { return ValidUtf8Prefix(text) == text.size(); }
// `code_point` must be a Unicode scalar value.
void AppendUtf8(uint32_t code_point, std::string& text);

// White space in the sense of Python's str.isspace(), which is what chat templates trim.
[[nodiscard]] bool IsUnicodeSpace(uint32_t code_point);
[[nodiscard]] std::string_view TrimLeft(std::string_view text);
[[nodiscard]] std::string_view TrimRight(std::string_view text);
[[nodiscard]] inline std::string_view Trim(std::string_view text) { return TrimLeft(TrimRight(text)); }

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_UTF8_H_
