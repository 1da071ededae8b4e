// Text from files: is it UTF-8, and how to show it in a message without trusting it.
#ifndef TASKPRESS_SCHEMA_BASE_TEXT_H_
#define TASKPRESS_SCHEMA_BASE_TEXT_H_

#include <span>
#include <string>
#include <string_view>

namespace taskpress {

// Strict: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool IsUtf8(std::string_view text);

// `text` in printable ASCII: every other byte becomes \xNN, so that a name in a hostile file cannot steer a terminal or a log. Long texts
// are cut.
[[nodiscard]] std::string Printable(std::string_view text);

// Each line on a line of its own, indented, for messages that list everything at once; the first 40, then how many more there are.
[[nodiscard]] std::string ListLines(std::span<const std::string> lines);

// ASCII letters only; locale-independent.
[[nodiscard]] std::string ToLowerAscii(std::string_view text);
[[nodiscard]] std::string ToUpperAscii(std::string_view text);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_TEXT_H_
