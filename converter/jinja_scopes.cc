#include <initializer_list>
#include <set>
#include <string>

#include "converter/jinja_program.h"

namespace taskpress {
namespace {

using Names = std::set<std::string, std::less<>>;

// One scope of jinja2's compiler: the template, or the body of a loop.
struct ScopeNames {
  Names known;            // read or assigned here so far: the scope has decided what they mean
  Names read_by_loops;    // read in loops below, when this scope had not decided yet
  Names read_from_above;  // read here or below before being assigned here
};

class ScopeWalk {
 public:
  explicit ScopeWalk(const JinjaProgram& program) : program_(program) {}

  Status Walk(int index, ScopeNames& scope) {
    if (index < 0) return {};
    const JinjaNode& node = program_.at(index);
    switch (node.kind) {
      case JinjaNodeKind::kName:
        Read(node.text, scope);
        return {};
      case JinjaNodeKind::kFor:
        return WalkLoop(node, scope);
      case JinjaNodeKind::kSet:
        TRY(Walk(node.a, scope));
        for (const std::string& name : node.names) TRY(Assign(node, name, scope));
        return {};
      case JinjaNodeKind::kSetAttribute:
        Read(node.names[0], scope);
        return Walk(node.a, scope);
      case JinjaNodeKind::kBody:
      case JinjaNodeKind::kText:
      case JinjaNodeKind::kOutput:
      case JinjaNodeKind::kIf:
      case JinjaNodeKind::kString:
      case JinjaNodeKind::kInteger:
      case JinjaNodeKind::kBoolean:
      case JinjaNodeKind::kNone:
      case JinjaNodeKind::kList:
      case JinjaNodeKind::kTuple:
      case JinjaNodeKind::kDictionary:
      case JinjaNodeKind::kNot:
      case JinjaNodeKind::kNegate:
      case JinjaNodeKind::kPlus:
      case JinjaNodeKind::kAnd:
      case JinjaNodeKind::kOr:
      case JinjaNodeKind::kArithmetic:
      case JinjaNodeKind::kComparison:
      case JinjaNodeKind::kConditional:
      case JinjaNodeKind::kAttribute:
      case JinjaNodeKind::kSubscript:
      case JinjaNodeKind::kSlice:
      case JinjaNodeKind::kCall:
      case JinjaNodeKind::kFilter:
      case JinjaNodeKind::kTest:
        break;
    }
    for (const int child : {node.a, node.b}) TRY(Walk(child, scope));
    for (const int child : node.list) TRY(Walk(child, scope));
    return Walk(node.c, scope);
  }

 private:
  static void Read(const std::string& name, ScopeNames& scope) {
    if (scope.known.insert(name).second) scope.read_from_above.insert(name);
  }

  static Status Assign(const JinjaNode& node, const std::string& name, ScopeNames& scope) {
    if (scope.read_by_loops.contains(name)) {
      return Fail(ErrorCode::kChatTemplate, "line {}: \"{}\" is assigned after a loop that reads it; that is not supported", node.line,
                  name);
    }
    scope.known.insert(name);
    return {};
  }

  Status WalkLoop(const JinjaNode& node, ScopeNames& scope) {
    TRY(Walk(node.a, scope));
    for (const int part : {node.b, node.list[0], node.c}) {
      ScopeNames below;
      // The names of the loop itself; in the else part they mean nothing, and reading them there is reading from above.
      if (part != node.c) {
        below.known.insert("loop");
        below.known.insert(node.names.begin(), node.names.end());
      }
      TRY(Walk(part, below));
      for (const std::string& name : below.read_from_above) NoteLoopRead(name, scope);
      for (const std::string& name : below.read_by_loops) NoteLoopRead(name, scope);
    }
    return {};
  }

  static void NoteLoopRead(const std::string& name, ScopeNames& scope) {
    if (!scope.known.contains(name)) scope.read_by_loops.insert(name);
  }

  const JinjaProgram& program_;
};

}  // namespace

Status CheckJinjaScopes(const JinjaProgram& program) {
  ScopeNames scope;
  return ScopeWalk(program).Walk(program.root, scope);
}

}  // namespace taskpress
