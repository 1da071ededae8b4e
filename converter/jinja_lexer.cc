#include "converter/jinja_lexer.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "schema/base/utf8.h"

namespace taskpress {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }

// jinja2 reads every line break as \n and drops one at the very end (keep_trailing_newline is off).
std::string NormalizeLineBreaks(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text.push_back(source[i]);
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<JinjaToken>> Run() {
    while (position_ < source_.size()) {
      const size_t tag = FindTag();
      TRY(TakeText(tag));
      if (tag == std::string::npos) break;
      const char kind = source_[position_ + 1];
      position_ += 2;
      if (Peek() == '-' || Peek() == '+') ++position_;
      if (kind == '#') {
        TRY(SkipComment());
      } else {
        Add(kind == '{' ? JinjaTokenKind::kOutputBegin : JinjaTokenKind::kBlockBegin, "");
        TRY(TakeTag(kind == '{'));
      }
    }
    Add(JinjaTokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] char Peek(size_t ahead = 0) const { return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0'; }
  [[nodiscard]] std::string_view Rest() const { return std::string_view(source_).substr(position_); }
  [[nodiscard]] bool At(std::string_view text) const { return Rest().starts_with(text); }
  void Add(JinjaTokenKind kind, std::string text, int64_t integer = 0) { tokens_.push_back({kind, line_, std::move(text), integer}); }
  // Moves on and counts lines.
  void Advance(size_t bytes) {
    line_ += static_cast<int>(std::ranges::count(Rest().substr(0, bytes), '\n'));
    position_ += bytes;
  }
  [[nodiscard]] std::unexpected<Error> Wrong(std::string_view what) const {
    return Fail(ErrorCode::kChatTemplate, "line {}: {}", line_, what);
  }

  [[nodiscard]] size_t FindTag() const {
    size_t brace = source_.find('{', position_);
    while (brace != std::string::npos &&
           (brace + 1 >= source_.size() || std::string_view("{%#").find(source_[brace + 1]) == std::string_view::npos)) {
      brace = source_.find('{', brace + 1);
    }
    return brace;
  }

  // The text up to the tag at `tag`. "{%-" takes all white space before it away; otherwise a statement or comment that is alone at the
  // beginning of its line takes that line's indentation away (lstrip_blocks), unless it begins "{%+".
  Status TakeText(size_t tag) {
    std::string_view text = Rest().substr(0, tag == std::string::npos ? std::string::npos : tag - position_);
    const size_t length = text.size();
    const int line = line_;
    if (tag != std::string::npos) {
      const char kind = source_[tag + 1];
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      if (sign == '-') {
        text = TrimRight(text);
      } else if (sign != '+' && kind != '{') {
        const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
        if ((line_begin > 0 || at_line_begin_) && TrimLeft(text.substr(line_begin)).empty()) text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) tokens_.push_back({JinjaTokenKind::kText, line, std::string(text), 0});
    Advance(length);
    return {};
  }

  // What the end of a tag takes of the text behind it: "-%}" all white space, "%}" one line break (trim_blocks), "+%}" and "}}" nothing.
  void EndTag(char sign, bool takes_line_break) {
    const size_t begin = position_;
    if (sign == '-') {
      Advance(Rest().size() - TrimLeft(Rest()).size());
    } else if (sign != '+' && takes_line_break && Peek() == '\n') {
      Advance(1);
    }
    at_line_begin_ = position_ > begin && source_[position_ - 1] == '\n';
  }

  Status SkipComment() {
    const size_t end = Rest().find("#}");
    if (end == std::string_view::npos) return Wrong("comment without #}");
    const char sign = end > 0 ? Rest()[end - 1] : '\0';
    Advance(end + 2);
    EndTag(sign, true);
    return {};
  }

  // The end of a tag is only looked for outside brackets: {{ {'a': {}} }}.
  [[nodiscard]] bool AtTagEnd(std::string_view end) const {
    if (!brackets_.empty()) return false;
    return At(end) || ((Peek() == '-' || (Peek() == '+' && end == "%}")) && Rest().substr(1).starts_with(end));
  }

  Status TakeTag(bool is_output) {
    const std::string_view end = is_output ? "}}" : "%}";
    while (true) {
      Advance(Rest().size() - TrimLeft(Rest()).size());
      if (position_ >= source_.size()) return Wrong(is_output ? "{{ without }}" : "{% without %}");
      if (AtTagEnd(end)) {
        const char sign = At(end) ? '\0' : Peek();
        Add(is_output ? JinjaTokenKind::kOutputEnd : JinjaTokenKind::kBlockEnd, "");
        Advance(sign == '\0' ? 2 : 3);
        EndTag(sign, !is_output);
        return {};
      }
      TRY(TakeToken());
    }
  }

  Status TakeToken() {
    const char c = Peek();
    if (IsNameStart(c)) {
      size_t length = 1;
      while (IsNamePart(Peek(length))) ++length;
      Add(JinjaTokenKind::kName, std::string(Rest().substr(0, length)));
      Advance(length);
      return {};
    }
    if (IsDigit(c)) return TakeInteger();
    if (c == '\'' || c == '"') return TakeString();
    return TakeOperator();
  }

  Status TakeInteger() {
    int64_t value = 0;
    const std::string_view rest = Rest();
    const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    const auto length = static_cast<size_t>(end - rest.data());
    if (problem != std::errc()) return Wrong("integer does not fit 64 bits");
    const char next = Peek(length);
    if (IsNamePart(next) || (next == '.' && IsDigit(Peek(length + 1)))) return Wrong("only decimal integers are supported");
    Add(JinjaTokenKind::kInteger, "", value);
    Advance(length);
    return {};
  }

  Status TakeOperator() {
    static constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "(",
                                                      ")",  "[",  "]",  "{",  "}",  ",",  ":", ".", "|", "=", "<", ">"};
    const auto found = std::ranges::find_if(kOperators, [this](std::string_view text) { return At(text); });
    if (found == std::end(kOperators)) return Wrong(Format("unexpected character 0x{:02X}", static_cast<unsigned char>(Peek())));
    const char c = Peek();
    if (c == '(' || c == '[' || c == '{') brackets_.push_back(c == '(' ? ')' : static_cast<char>(c + 2));
    if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty() || brackets_.back() != c) return Wrong(Format("unexpected '{}'", c));
      brackets_.pop_back();
    }
    Add(JinjaTokenKind::kOperator, std::string(*found));
    Advance(found->size());
    return {};
  }

  Status TakeString() {
    const char quote = Peek();
    const int line = line_;
    std::string value;
    Advance(1);
    while (true) {
      if (position_ >= source_.size()) return Fail(ErrorCode::kChatTemplate, "line {}: string without end", line);
      const char c = Peek();
      if (c == quote) break;
      if (c == '\\') {
        TRY(TakeEscape(value));
      } else {
        value.push_back(c);
        Advance(1);
      }
    }
    Advance(1);
    tokens_.push_back({JinjaTokenKind::kString, line, std::move(value), 0});
    return {};
  }

  // Python's "unicode-escape"; an unknown escape stands for itself, backslash included.
  Status TakeEscape(std::string& value) {
    static constexpr std::pair<char, char> kSimple[] = {{'n', '\n'}, {'t', '\t'}, {'r', '\r'}, {'\\', '\\'}, {'\'', '\''},
                                                        {'"', '"'},  {'a', '\a'}, {'b', '\b'}, {'f', '\f'},  {'v', '\v'}};
    const char c = Peek(1);
    for (const auto& [letter, meaning] : kSimple) {
      if (c != letter) continue;
      value.push_back(meaning);
      Advance(2);
      return {};
    }
    if (c == '\n') {
      Advance(2);
      return {};
    }
    if (c == 'x' || c == 'u' || c == 'U') return TakeHexEscape(c == 'x' ? 2 : c == 'u' ? 4 : 8, value);
    if (IsDigit(c) || c == 'N') return Wrong("octal and named escapes are not supported");
    value.push_back('\\');
    Advance(1);
    return {};
  }

  Status TakeHexEscape(size_t num_digits, std::string& value) {
    const std::string_view digits = Rest().substr(std::min<size_t>(2, Rest().size())).substr(0, num_digits);
    uint32_t code_point = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), code_point, 16);
    const bool is_scalar = code_point <= 0x10FFFF && (code_point < 0xD800 || code_point > 0xDFFF);
    if (digits.size() != num_digits || problem != std::errc() || end != digits.data() + num_digits || !is_scalar) {
      return Wrong("bad \\x, \\u or \\U escape");
    }
    AppendUtf8(code_point, value);
    Advance(2 + num_digits);
    return {};
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_begin_ = true;
  std::string brackets_;  // those still to be closed
  std::vector<JinjaToken> tokens_;
};

}  // namespace

Result<std::vector<JinjaToken>> LexJinja(std::string_view source) {
  if (!IsValidUtf8(source)) return Fail(ErrorCode::kChatTemplate, "the template is not UTF-8");
  return Lexer(NormalizeLineBreaks(source)).Run();
}

}  // namespace taskpress
