#include <algorithm>
#include <initializer_list>
#include <utility>

#include "converter/jinja_lexer.h"
#include "converter/jinja_program.h"

namespace taskpress {
namespace {

using Kind = JinjaNodeKind;
using TokenKind = JinjaTokenKind;

// One function per precedence level, in the order of jinja2's own parser.
class Parser {
 public:
  explicit Parser(std::vector<JinjaToken> tokens) : tokens_(std::move(tokens)) {}

  Result<JinjaProgram> Run() {
    program_.root = TRY(ParseBody({}));
    if (Now().kind != TokenKind::kEnd) return Wrong("unexpected statement");
    return std::move(program_);
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  [[nodiscard]] const JinjaToken& Now() const { return tokens_[position_]; }
  [[nodiscard]] const JinjaToken& Next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  void Skip() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }
  [[nodiscard]] bool IsOperator(std::string_view text) const { return Now().kind == TokenKind::kOperator && Now().text == text; }
  [[nodiscard]] bool IsName(std::string_view text) const { return Now().kind == TokenKind::kName && Now().text == text; }
  bool TakeOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Skip();
    return true;
  }
  bool TakeName(std::string_view text) {
    if (!IsName(text)) return false;
    Skip();
    return true;
  }
  [[nodiscard]] std::unexpected<Error> Wrong(std::string_view what) const {
    return Fail(ErrorCode::kChatTemplate, "line {}: {}{}", Now().line, what,
                Now().text.empty() ? "" : Format(" (at \"{}\")", Now().text.substr(0, 40)));
  }
  Status Expect(std::string_view text) {
    if (!TakeOperator(text)) return Wrong(Format("expected '{}'", text));
    return {};
  }
  Status ExpectBlockEnd() {
    if (Now().kind != TokenKind::kBlockEnd) return Wrong("expected %}");
    Skip();
    return {};
  }

  // Appends a node; its depth is one more than its deepest child's.
  Result<int> Make(JinjaNode node) {
    node.depth = 1;
    const auto grow = [&](int child) {
      if (child >= 0) node.depth = std::max(node.depth, program_.at(child).depth + 1);
    };
    for (const int child : {node.a, node.b, node.c}) grow(child);
    for (const int child : node.list) grow(child);
    if (node.depth > kMaxJinjaDepth) return Wrong(Format("nested deeper than {}", kMaxJinjaDepth));
    if (node.line == 0) node.line = Now().line;
    program_.nodes.push_back(std::move(node));
    return static_cast<int>(program_.nodes.size()) - 1;
  }

  // Counts the recursion of the parser itself, which comes before there are nodes.
  class DepthGuard {
   public:
    explicit DepthGuard(int& depth) : depth_(depth) { ++depth_; }
    ~DepthGuard() { --depth_; }
    DepthGuard(const DepthGuard&) = delete;
    DepthGuard& operator=(const DepthGuard&) = delete;

   private:
    int& depth_;
  };
  Status CheckDepth() const {
    if (recursion_ > kMaxJinjaDepth) return Wrong(Format("nested deeper than {}", kMaxJinjaDepth));
    return {};
  }

  // ---- statements ----

  // Up to a statement whose name is in `ends`; stands before that name afterwards.
  Result<int> ParseBody(Names ends) {
    const DepthGuard guard(recursion_);
    TRY(CheckDepth());
    JinjaNode body{.kind = Kind::kBody, .line = Now().line};
    while (Now().kind != TokenKind::kEnd) {
      if (Now().kind == TokenKind::kText) {
        body.list.push_back(TRY(Make({.kind = Kind::kText, .line = Now().line, .text = Now().text})));
        Skip();
      } else if (Now().kind == TokenKind::kOutputBegin) {
        body.list.push_back(TRY(ParseOutput()));
      } else {
        Skip();  // {%
        if (Now().kind != TokenKind::kName) return Wrong("expected the name of a statement");
        if (std::ranges::find(ends, Now().text) != ends.end()) return Make(std::move(body));
        body.list.push_back(TRY(ParseStatement()));
      }
    }
    if (ends.size() > 0) return Wrong(Format("expected {{% {} %}} before the end of the template", *(ends.end() - 1)));
    return Make(std::move(body));
  }

  Result<int> ParseOutput() {
    const int line = Now().line;
    Skip();
    const int value = TRY(ParseExpression());
    if (Now().kind != TokenKind::kOutputEnd) return Wrong("expected }}");
    Skip();
    return Make({.kind = Kind::kOutput, .line = line, .a = value});
  }

  Result<int> ParseStatement() {
    if (TakeName("if")) return ParseIf();
    if (TakeName("for")) return ParseFor();
    if (TakeName("set")) return ParseSet();
    return Wrong("statement not supported");
  }

  Result<int> ParseIf() {
    JinjaNode node{.kind = Kind::kIf, .line = Now().line};
    while (true) {
      node.list.push_back(TRY(ParseTuple(false)));
      TRY(ExpectBlockEnd());
      node.list.push_back(TRY(ParseBody({"elif", "else", "endif"})));
      if (!TakeName("elif")) break;
    }
    if (TakeName("else")) {
      TRY(ExpectBlockEnd());
      node.c = TRY(ParseBody({"endif"}));
    }
    Skip();  // endif
    TRY(ExpectBlockEnd());
    return Make(std::move(node));
  }

  Result<std::string> ParseTarget() {
    if (Now().kind != TokenKind::kName) return Wrong("expected a name");
    for (const std::string_view reserved :
         {"true", "false", "none", "True", "False", "None", "loop", "and", "or", "not", "if", "else", "in", "is"}) {
      if (Now().text == reserved) return Wrong("this name cannot be assigned");
    }
    std::string name = Now().text;
    Skip();
    return name;
  }

  Result<std::vector<std::string>> ParseTargets() {
    std::vector<std::string> names;
    do {
      names.push_back(TRY(ParseTarget()));
    } while (TakeOperator(","));
    return names;
  }

  Result<int> ParseFor() {
    JinjaNode node{.kind = Kind::kFor, .line = Now().line, .names = TRY(ParseTargets())};
    if (!TakeName("in")) return Wrong("expected 'in'");
    // A conditional expression here would swallow the loop's own "if".
    node.a = TRY(ParseTuple(false));
    if (TakeName("if")) node.b = TRY(ParseExpression());
    TRY(ExpectBlockEnd());
    node.list.push_back(TRY(ParseBody({"else", "endfor"})));
    if (TakeName("else")) {
      TRY(ExpectBlockEnd());
      node.c = TRY(ParseBody({"endfor"}));
    }
    Skip();  // endfor
    TRY(ExpectBlockEnd());
    return Make(std::move(node));
  }

  Result<int> ParseSet() {
    JinjaNode node{.kind = Kind::kSet, .line = Now().line, .names = TRY(ParseTargets())};
    if (node.names.size() == 1 && TakeOperator(".")) {
      node.kind = Kind::kSetAttribute;
      if (Now().kind != TokenKind::kName) return Wrong("expected the name of an attribute");
      node.text = Now().text;
      Skip();
    }
    if (!TakeOperator("=")) return Wrong("expected '=' (block assignments are not supported)");
    node.a = TRY(ParseTuple(true));
    TRY(ExpectBlockEnd());
    return Make(std::move(node));
  }

  // ---- expressions ----

  Result<int> ParseExpression() {
    const DepthGuard guard(recursion_);
    TRY(CheckDepth());
    int value = TRY(ParseOr());
    while (TakeName("if")) {
      JinjaNode node{.kind = Kind::kConditional, .line = Now().line, .a = value};
      node.b = TRY(ParseOr());
      if (TakeName("else")) node.c = TRY(ParseExpression());
      value = TRY(Make(std::move(node)));
    }
    return value;
  }

  // One expression, or several with commas between them.
  Result<int> ParseTuple(bool with_conditionals) {
    const auto item = [&] { return with_conditionals ? ParseExpression() : ParseOr(); };
    const int first = TRY(item());
    if (!IsOperator(",")) return first;
    JinjaNode tuple{.kind = Kind::kTuple, .line = Now().line, .list = {first}};
    while (TakeOperator(",")) {
      if (IsOperator(")") || Now().kind == TokenKind::kBlockEnd) break;
      tuple.list.push_back(TRY(item()));
    }
    return Make(std::move(tuple));
  }

  Result<int> ParseOr() {
    int left = TRY(ParseAnd());
    while (TakeName("or")) {
      const int right = TRY(ParseAnd());
      left = TRY(Make({.kind = Kind::kOr, .a = left, .b = right}));
    }
    return left;
  }

  Result<int> ParseAnd() {
    int left = TRY(ParseNot());
    while (TakeName("and")) {
      const int right = TRY(ParseNot());
      left = TRY(Make({.kind = Kind::kAnd, .a = left, .b = right}));
    }
    return left;
  }

  Result<int> ParseNot() {
    const DepthGuard guard(recursion_);
    TRY(CheckDepth());
    if (TakeName("not")) return Make({.kind = Kind::kNot, .a = TRY(ParseNot())});
    return ParseComparison();
  }

  // The operator here, "" for none; "in" and "not in" are operators.
  std::string TakeComparisonOperator() {
    for (const std::string_view text : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (TakeOperator(text)) return std::string(text);
    }
    if (TakeName("in")) return "in";
    if (IsName("not") && Next().kind == TokenKind::kName && Next().text == "in") {
      Skip();
      Skip();
      return "not in";
    }
    return "";
  }

  Result<int> ParseComparison() {
    const int left = TRY(ParseSum());
    JinjaNode node{.kind = Kind::kComparison, .line = Now().line, .a = left};
    for (std::string name = TakeComparisonOperator(); !name.empty(); name = TakeComparisonOperator()) {
      node.names.push_back(std::move(name));
      node.list.push_back(TRY(ParseSum()));
    }
    if (node.list.empty()) return left;
    return Make(std::move(node));
  }

  // Left-associative operators of one precedence.
  template <typename Operand>
  Result<int> ParseArithmetic(Names operators, Operand operand) {
    int left = TRY(operand());
    while (Now().kind == TokenKind::kOperator && std::ranges::find(operators, Now().text) != operators.end()) {
      JinjaNode node{.kind = Kind::kArithmetic, .line = Now().line, .a = left, .text = Now().text};
      Skip();
      node.b = TRY(operand());
      left = TRY(Make(std::move(node)));
    }
    return left;
  }
  Result<int> ParseSum() {
    return ParseArithmetic({"+", "-"}, [this] { return ParseConcatenation(); });
  }
  Result<int> ParseConcatenation() {
    return ParseArithmetic({"~"}, [this] { return ParseProduct(); });
  }
  Result<int> ParseProduct() {
    return ParseArithmetic({"*", "//", "%"}, [this] { return ParseUnary(true); });
  }

  Result<int> ParseUnary(bool with_filters) {
    const DepthGuard guard(recursion_);
    TRY(CheckDepth());
    int value = -1;
    if (IsOperator("-") || IsOperator("+")) {
      JinjaNode sign{.kind = IsOperator("-") ? Kind::kNegate : Kind::kPlus, .line = Now().line};
      Skip();
      sign.a = TRY(ParseUnary(false));
      value = TRY(Make(std::move(sign)));
    } else {
      value = TRY(ParsePrimary());
    }
    value = TRY(ParsePostfix(value));
    if (with_filters) value = TRY(ParseFilters(value));
    if (IsOperator("/") || IsOperator("**")) return Wrong("operator not supported");
    return value;
  }

  Result<int> ParsePrimary() {
    const JinjaToken& token = Now();
    if (token.kind == TokenKind::kName) return ParseName();
    if (token.kind == TokenKind::kInteger) {
      Skip();
      return Make({.kind = Kind::kInteger, .integer = token.integer});
    }
    if (token.kind == TokenKind::kString) {
      JinjaNode node{.kind = Kind::kString, .line = token.line};
      for (; Now().kind == TokenKind::kString; Skip()) node.text += Now().text;  // 'a' 'b' is 'ab'
      return Make(std::move(node));
    }
    if (TakeOperator("(")) return ParseParentheses();
    if (TakeOperator("[")) return ParseItems(Kind::kList, "]");
    if (TakeOperator("{")) return ParseItems(Kind::kDictionary, "}");
    return Wrong("expected a value");
  }

  Result<int> ParseName() {
    const std::string name = Now().text;
    for (const std::string_view reserved : {"and", "or", "not", "if", "else", "in", "is"}) {
      if (name == reserved) return Wrong("expected a value");
    }
    Skip();
    if (name == "true" || name == "True") return Make({.kind = Kind::kBoolean, .integer = 1});
    if (name == "false" || name == "False") return Make({.kind = Kind::kBoolean, .integer = 0});
    if (name == "none" || name == "None") return Make({.kind = Kind::kNone});
    return Make({.kind = Kind::kName, .text = name});
  }

  Result<int> ParseParentheses() {
    if (TakeOperator(")")) return Make({.kind = Kind::kTuple});
    const int value = TRY(ParseTuple(true));
    TRY(Expect(")"));
    return value;
  }

  Result<int> ParseItems(Kind kind, std::string_view end) {
    JinjaNode node{.kind = kind, .line = Now().line};
    while (!IsOperator(end)) {
      node.list.push_back(TRY(ParseExpression()));
      if (kind == Kind::kDictionary) {
        TRY(Expect(":"));
        node.list.push_back(TRY(ParseExpression()));
      }
      if (!TakeOperator(",")) break;
    }
    TRY(Expect(end));
    return Make(std::move(node));
  }

  Result<int> ParsePostfix(int value) {
    while (true) {
      if (TakeOperator(".")) {
        value = TRY(ParseDot(value));
      } else if (TakeOperator("[")) {
        value = TRY(ParseBrackets(value));
      } else if (IsOperator("(")) {
        JinjaNode node{.kind = Kind::kCall, .line = Now().line, .a = value};
        TRY(ParseArguments(node));
        value = TRY(Make(std::move(node)));
      } else {
        return value;
      }
    }
  }

  Result<int> ParseDot(int value) {
    if (Now().kind == TokenKind::kInteger) {
      const int index = TRY(Make({.kind = Kind::kInteger, .integer = Now().integer}));
      Skip();
      return Make({.kind = Kind::kSubscript, .a = value, .b = index});
    }
    if (Now().kind != TokenKind::kName) return Wrong("expected the name of an attribute");
    JinjaNode node{.kind = Kind::kAttribute, .line = Now().line, .a = value, .text = Now().text};
    Skip();
    return Make(std::move(node));
  }

  Result<int> ParseBrackets(int value) {
    JinjaNode slice{.kind = Kind::kSlice, .line = Now().line, .list = {value}};
    int* const parts[] = {&slice.a, &slice.b, &slice.c};
    size_t colons = 0;
    while (!IsOperator("]")) {
      if (TakeOperator(":")) {
        if (++colons > 2) return Wrong("too many ':'");
      } else if (*parts[colons] == -1) {
        *parts[colons] = TRY(ParseExpression());
      } else {
        return Wrong("expected ']'");
      }
    }
    Skip();
    if (colons > 0) return Make(std::move(slice));
    if (slice.a == -1) return Wrong("expected a subscript");
    return Make({.kind = Kind::kSubscript, .a = value, .b = slice.a});
  }

  // ( value, name=value, ... )
  Status ParseArguments(JinjaNode& node) {
    TRY(Expect("("));
    while (!IsOperator(")")) {
      std::string name;
      if (Now().kind == TokenKind::kName && Next().kind == TokenKind::kOperator && Next().text == "=") {
        name = Now().text;
        Skip();
        Skip();
      } else if (!node.names.empty() && !node.names.back().empty()) {
        return Wrong("positional argument after a named one");
      }
      node.names.push_back(std::move(name));
      node.list.push_back(TRY(ParseExpression()));
      if (!TakeOperator(",")) break;
    }
    return Expect(")");
  }

  Result<int> ParseFilters(int value) {
    while (true) {
      if (TakeOperator("|")) {
        if (Now().kind != TokenKind::kName) return Wrong("expected the name of a filter");
        JinjaNode node{.kind = Kind::kFilter, .line = Now().line, .a = value, .text = Now().text};
        Skip();
        if (IsOperator("(")) TRY(ParseArguments(node));
        value = TRY(Make(std::move(node)));
      } else if (TakeName("is")) {
        value = TRY(ParseTest(value));
      } else {
        return value;
      }
    }
  }

  Result<int> ParseTest(int value) {
    JinjaNode node{.kind = Kind::kTest, .line = Now().line, .a = value};
    if (TakeName("not")) node.integer = 1;
    if (Now().kind != TokenKind::kName) return Wrong("expected the name of a test");
    node.text = Now().text;
    Skip();
    if (IsOperator("(")) {
      TRY(ParseArguments(node));
    } else if (Now().kind == TokenKind::kString || Now().kind == TokenKind::kInteger) {
      // x is equalto 1
      node.names.emplace_back();
      const int argument = TRY(ParsePrimary());
      node.list.push_back(TRY(ParsePostfix(argument)));
    }
    // jinja2 takes any name but these for an argument, and allows one test only.
    if (Now().kind == TokenKind::kName && Now().text != "else" && Now().text != "or" && Now().text != "and") {
      return Wrong("unexpected name after a test");
    }
    return Make(std::move(node));
  }

  std::vector<JinjaToken> tokens_;
  size_t position_ = 0;
  int recursion_ = 0;
  JinjaProgram program_;
};

}  // namespace

Result<JinjaProgram> ParseJinja(std::string_view source) {
  std::vector<JinjaToken> tokens = TRY(LexJinja(source));
  JinjaProgram program = TRY(Parser(std::move(tokens)).Run());
  TRY(CheckJinjaScopes(program));
  return program;
}

}  // namespace taskpress
