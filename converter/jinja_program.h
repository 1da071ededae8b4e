// A parsed Jinja template: nodes in one array that refer to each other by index.
#ifndef TASKPRESS_CONVERTER_JINJA_PROGRAM_H_
#define TASKPRESS_CONVERTER_JINJA_PROGRAM_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

enum class JinjaNodeKind : uint8_t {
  // Statements.
  kBody,          // list
  kText,          // text
  kOutput,        // a
  kIf,            // list: condition, body, condition, body, ...; c: else body
  kFor,           // names; a: what to go through; b: condition; list[0]: body; c: else body
  kSet,           // names; a: value
  kSetAttribute,  // names[0]: namespace; text: attribute; a: value
  // Expressions.
  kString,   // text
  kInteger,  // integer
  kBoolean,  // integer
  kNone,
  kName,         // text
  kList,         // list
  kTuple,        // list
  kDictionary,   // list: key, value, key, value, ...
  kNot,          // a
  kNegate,       // a
  kPlus,         // a
  kAnd,          // a, b
  kOr,           // a, b
  kArithmetic,   // a, b; text: operator
  kComparison,   // a; list: right sides; names: operators
  kConditional,  // a: value; b: condition; c: otherwise
  kAttribute,    // a; text
  kSubscript,    // a, b
  kSlice,        // a, b, c: start, stop, step of a[...]; list[0]: what is sliced
  kCall,         // a; list: arguments; names: keyword of each argument or ""
  kFilter,       // a; text: name; list, names as kCall
  kTest,         // a; text: name; list, names as kCall; integer: 1 when negated
};

struct JinjaNode {
  JinjaNodeKind kind = JinjaNodeKind::kBody;
  int line = 0;
  int depth = 1;  // of the tree below this node; bounds the recursion of whoever walks it
  int a = -1;     // -1: absent
  int b = -1;
  int c = -1;
  int64_t integer = 0;
  std::string text{};
  std::vector<int> list{};
  std::vector<std::string> names{};
};

inline constexpr int kMaxJinjaDepth = 100;

struct JinjaProgram {
  std::vector<JinjaNode> nodes;
  int root = -1;

  [[nodiscard]] const JinjaNode& at(int index) const { return nodes[static_cast<size_t>(index)]; }
};

// jinja2 decides at compile time which scope a name belongs to: a name that a loop reads and that its surroundings assign only after the
// loop is undefined in the loop, even when a variable of that name exists. Such templates are refused, since we look names up when they are
// read.
Status CheckJinjaScopes(const JinjaProgram& program);

// kChatTemplate with the line.
Result<JinjaProgram> ParseJinja(std::string_view source);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_JINJA_PROGRAM_H_
