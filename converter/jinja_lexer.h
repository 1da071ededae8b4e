// Cuts a Jinja template into tokens, with the white space rules of trim_blocks and lstrip_blocks already applied to the text between tags.
#ifndef TASKPRESS_CONVERTER_JINJA_LEXER_H_
#define TASKPRESS_CONVERTER_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

enum class JinjaTokenKind : uint8_t { kText, kOutputBegin, kOutputEnd, kBlockBegin, kBlockEnd, kName, kString, kInteger, kOperator, kEnd };

struct JinjaToken {
  JinjaTokenKind kind = JinjaTokenKind::kEnd;
  int line = 1;
  std::string text;  // of text, names, operators; the value of a string
  int64_t integer = 0;
};

// The last token is kEnd. kChatTemplate.
Result<std::vector<JinjaToken>> LexJinja(std::string_view source);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_JINJA_LEXER_H_
