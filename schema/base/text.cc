#include "schema/base/text.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <format>
#include <optional>

#include "schema/base/error.h"

namespace taskpress {
namespace {

// Bytes of the sequence that `lead` starts, and the smallest code point that may be written with so many.
struct Utf8Form {
  size_t length;
  uint32_t first_bits;
  uint32_t smallest;
};

std::optional<Utf8Form> FormOf(uint8_t lead) {
  if (lead < 0x80) return Utf8Form{1, lead, 0};
  if (lead >= 0xC0 && lead < 0xE0) return Utf8Form{2, lead & 0x1FU, 0x80};
  if (lead >= 0xE0 && lead < 0xF0) return Utf8Form{3, lead & 0x0FU, 0x800};
  if (lead >= 0xF0 && lead < 0xF8) return Utf8Form{4, lead & 0x07U, 0x10000};
  return std::nullopt;
}

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
char UpperAscii(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

}  // namespace

bool IsUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const std::optional<Utf8Form> form = FormOf(static_cast<uint8_t>(text[i]));
    if (!form || form->length > text.size() - i) return false;
    uint32_t code = form->first_bits;
    for (size_t k = 1; k < form->length; ++k) {
      const auto next = static_cast<uint8_t>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      code = code << 6 | (next & 0x3FU);
    }
    if (code < form->smallest || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    i += form->length;
  }
  return true;
}

std::string Printable(std::string_view text) {
  constexpr size_t kLongest = 120;
  std::string out;
  for (const char c : text.substr(0, kLongest)) {
    if (c >= 0x20 && c < 0x7F) {
      out += c;
    } else {
      out += Format("\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  if (text.size() > kLongest) out += Format("... ({} bytes)", text.size());
  return out;
}

std::string ListLines(std::span<const std::string> lines) {
  constexpr size_t kShown = 40;
  std::string text;
  for (const std::string& line : lines.first(std::min(lines.size(), kShown))) text += "\n    " + line;
  if (lines.size() > kShown) text += Format("\n    ... and {} more", lines.size() - kShown);
  return text;
}

std::string ToLowerAscii(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), LowerAscii);
  return out;
}

std::string ToUpperAscii(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), UpperAscii);
  return out;
}

}  // namespace taskpress
