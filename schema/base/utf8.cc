#include "schema/base/utf8.h"

#include <algorithm>

namespace taskpress {
namespace {

// Unicode 15, table 3-7: how many bytes follow a first byte, and the range of the second byte (later ones are 80..BF).
struct LeadByte {
  size_t length;  // 0: no character starts with this byte
  uint8_t second_low;
  uint8_t second_high;
};

LeadByte DescribeLeadByte(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char FirstUtf8Char(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  const LeadByte rule = DescribeLeadByte(lead);
  if (rule.length == 0) return {};
  if (rule.length == 1) return {Utf8State::kComplete, lead, 1};
  uint32_t code_point = lead & (0x7Fu >> rule.length);
  for (size_t i = 1; i < rule.length; ++i) {
    if (i == text.size()) return {Utf8State::kIncomplete, 0, 0};
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? rule.second_low : uint8_t{0x80};
    const uint8_t high = i == 1 ? rule.second_high : uint8_t{0xBF};
    if (byte < low || byte > high) return {};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {Utf8State::kComplete, code_point, rule.length};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const Utf8Char next = FirstUtf8Char(text.substr(position));
    if (next.state != Utf8State::kComplete) return position;
    position += next.length;
  }
  return position;
}

void AppendUtf8(uint32_t code_point, std::string& text) {
  const auto push = [&text](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0u | (code_point >> 6));
    push(0x80u | (code_point & 0x3Fu));
  } else if (code_point < 0x10000) {
    push(0xE0u | (code_point >> 12));
    push(0x80u | ((code_point >> 6) & 0x3Fu));
    push(0x80u | (code_point & 0x3Fu));
  } else {
    push(0xF0u | (code_point >> 18));
    push(0x80u | ((code_point >> 12) & 0x3Fu));
    push(0x80u | ((code_point >> 6) & 0x3Fu));
    push(0x80u | (code_point & 0x3Fu));
  }
}

bool IsUnicodeSpace(uint32_t code_point) {
  return (code_point >= 0x09 && code_point <= 0x0D) || (code_point >= 0x1C && code_point <= 0x20) || code_point == 0x85 ||
         code_point == 0xA0 || code_point == 0x1680 || (code_point >= 0x2000 && code_point <= 0x200A) || code_point == 0x2028 ||
         code_point == 0x2029 || code_point == 0x202F || code_point == 0x205F || code_point == 0x3000;
}

std::string_view TrimLeft(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char first = FirstUtf8Char(text);
    if (first.state != Utf8State::kComplete || !IsUnicodeSpace(first.code_point)) break;
    text.remove_prefix(first.length);
  }
  return text;
}

std::string_view TrimRight(std::string_view text) {
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0u) == 0x80u) --start;
    const Utf8Char last = FirstUtf8Char(text.substr(start));
    const bool is_space = last.state == Utf8State::kComplete && start + last.length == text.size() && IsUnicodeSpace(last.code_point);
    if (!is_space) break;
    text = text.substr(0, start);
  }
  return text;
}

}  // namespace taskpress
