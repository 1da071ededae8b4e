#include "converter/jinja.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "converter/jinja_builtins.h"
#include "converter/jinja_program.h"
#include "converter/jinja_value.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

using Kind = JinjaNodeKind;

// Walks the tree once for a set of variables. Recursion is bounded by kMaxJinjaDepth, time by the work limit, memory by both.
class Renderer {
 public:
  Renderer(const JinjaProgram& program, const JinjaLimits& limits) : program_(program), limits_(limits), work_left_(limits.max_work) {}

  Result<std::string> Run(const OrderedJson& variables) {
    scopes_.emplace_back();
    for (const auto& [name, value] : variables.items()) Assign(name, TRY(JinjaValue::FromJson(value)));
    TRY(Execute(program_.root));
    return std::move(output_);
  }

 private:
  using Scope = std::vector<std::pair<std::string, JinjaValue>>;

  // ---- limits and names ----

  Status Spend(int64_t work) {
    work_left_ -= work;
    if (work_left_ < 0) return Fail(ErrorCode::kChatTemplate, "the template needs more than {} steps", limits_.max_work);
    return {};
  }
  Status SpendOnText(size_t bytes) { return Spend(1 + static_cast<int64_t>(bytes / 64)); }
  Status SpendOnItems(size_t items) { return Spend(1 + static_cast<int64_t>(items)); }

  // A text produced on the way.
  Result<JinjaValue> Text(std::string text) {
    if (text.size() > limits_.max_output_bytes) return Fail(ErrorCode::kChatTemplate, "a text exceeds {} bytes", limits_.max_output_bytes);
    TRY(SpendOnText(text.size()));
    return JinjaValue(std::move(text));
  }
  Status Print(std::string_view text) {
    TRY(SpendOnText(text.size()));
    if (text.size() > limits_.max_output_bytes - output_.size()) {
      return Fail(ErrorCode::kChatTemplate, "the output exceeds {} bytes", limits_.max_output_bytes);
    }
    output_ += text;
    return {};
  }

  void Assign(std::string_view name, JinjaValue value) {
    Scope& scope = scopes_.back();
    const auto found = std::ranges::find(scope, name, &Scope::value_type::first);
    if (found != scope.end()) {
      found->second = std::move(value);
    } else {
      scope.emplace_back(name, std::move(value));
    }
  }
  [[nodiscard]] JinjaValue Lookup(std::string_view name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = std::ranges::find(scopes_[i], name, &Scope::value_type::first);
      if (found != scopes_[i].end()) return found->second;
    }
    return {};
  }

  // ---- statements ----

  // Errors get the line of the innermost statement or expression that knows one.
  Status Execute(int index) {
    const JinjaNode& node = program_.at(index);
    TRY(Spend(1));
    switch (node.kind) {
      case Kind::kBody:
        for (const int statement : node.list) TRY(Execute(statement));
        return {};
      case Kind::kText:
        return Print(node.text);
      case Kind::kOutput:
        return ExecuteOutput(node);
      case Kind::kIf:
        return ExecuteIf(node);
      case Kind::kFor:
        return ExecuteFor(node);
      case Kind::kSet:
        return Unpack(node, TRY(Evaluate(node.a)));
      case Kind::kSetAttribute:
        return SetAttribute(node);
      case Kind::kString:
      case Kind::kInteger:
      case Kind::kBoolean:
      case Kind::kNone:
      case Kind::kName:
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kDictionary:
      case Kind::kNot:
      case Kind::kNegate:
      case Kind::kPlus:
      case Kind::kAnd:
      case Kind::kOr:
      case Kind::kArithmetic:
      case Kind::kComparison:
      case Kind::kConditional:
      case Kind::kAttribute:
      case Kind::kSubscript:
      case Kind::kSlice:
      case Kind::kCall:
      case Kind::kFilter:
      case Kind::kTest:
        break;
    }
    return Wrong(node, "not a statement");
  }

  [[nodiscard]] static std::unexpected<Error> Wrong(const JinjaNode& node, std::string_view what) {
    return Fail(ErrorCode::kChatTemplate, "line {}: {}", node.line, what);
  }
  template <typename T>
  static Result<T> AtLine(const JinjaNode& node, Result<T> result) {
    if (!result) return std::unexpected(WithContext(std::move(result).error(), Format("line {}", node.line)));
    return result;
  }

  Status ExecuteOutput(const JinjaNode& node) {
    const JinjaValue value = TRY(Evaluate(node.a));
    TRY(SpendOnPrinting(value));
    return Print(TRY(AtLine(node, value.ToText())));
  }

  Status ExecuteIf(const JinjaNode& node) {
    for (size_t i = 0; i + 1 < node.list.size(); i += 2) {
      if (TRY(Evaluate(node.list[i])).IsTrue()) return Execute(node.list[i + 1]);
    }
    return node.c < 0 ? Status() : Execute(node.c);
  }

  Status Unpack(const JinjaNode& node, const JinjaValue& value) {
    if (node.names.size() == 1) {
      Assign(node.names[0], value);
      return {};
    }
    const JinjaList* list = value.AsList();
    if (list == nullptr || list->items.size() != node.names.size()) {
      return Wrong(node, Format("{} names for a value of type {}", node.names.size(), value.TypeName()));
    }
    for (size_t i = 0; i < node.names.size(); ++i) Assign(node.names[i], list->items[i]);
    return {};
  }

  Status SetAttribute(const JinjaNode& node) {
    const JinjaValue target = Lookup(node.names[0]);
    if (target.AsNamespace() == nullptr) return Wrong(node, "only attributes of a namespace can be set");
    JinjaValue value = TRY(Evaluate(node.a));
    Scope& space = namespaces_[target.AsNamespace()->index];
    const auto found = std::ranges::find(space, node.text, &Scope::value_type::first);
    if (found != space.end()) {
      found->second = std::move(value);
    } else {
      space.emplace_back(node.text, std::move(value));
    }
    return {};
  }

  Status ExecuteFor(const JinjaNode& node) {
    const JinjaValue iterated = TRY(Evaluate(node.a));
    std::vector<JinjaValue> items = TRY(AtLine(node, JinjaItems(iterated)));
    TRY(SpendOnItems(items.size()));
    if (node.b >= 0) items = TRY(Filtered(node, items));
    scopes_.emplace_back();
    const Status status = items.empty() ? (node.c < 0 ? Status() : Execute(node.c)) : RunLoop(node, items);
    scopes_.pop_back();
    return status;
  }

  Result<std::vector<JinjaValue>> Filtered(const JinjaNode& node, const std::vector<JinjaValue>& items) {
    std::vector<JinjaValue> kept;
    for (const JinjaValue& item : items) {
      scopes_.emplace_back();
      const Status unpacked = Unpack(node, item);
      const Result<JinjaValue> condition = unpacked ? Evaluate(node.b) : Result<JinjaValue>(std::unexpected(unpacked.error()));
      scopes_.pop_back();
      if (!condition) return std::unexpected(condition.error());
      if (condition->IsTrue()) kept.push_back(item);
    }
    return kept;
  }

  // Each turn starts with names of its own: what a turn sets is gone in the next.
  Status RunLoop(const JinjaNode& node, const std::vector<JinjaValue>& items) {
    const auto size = static_cast<int64_t>(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
      TRY(Spend(8));
      const auto index = static_cast<int64_t>(i);
      JinjaMap loop{.opaque = true, .depth = 1, .items = {}};
      loop.items = {{"index", JinjaValue(index + 1)},
                    {"index0", JinjaValue(index)},
                    {"revindex", JinjaValue(size - index)},
                    {"revindex0", JinjaValue(size - index - 1)},
                    {"first", JinjaValue(i == 0)},
                    {"last", JinjaValue(i + 1 == items.size())},
                    {"length", JinjaValue(size)},
                    {"previtem", i > 0 ? items[i - 1] : JinjaValue()},
                    {"nextitem", i + 1 < items.size() ? items[i + 1] : JinjaValue()}};
      for (const auto& [name, value] : loop.items) loop.depth = std::max(loop.depth, value.depth() + 1);
      scopes_.back().clear();
      Assign("loop", JinjaValue(std::move(loop)));
      TRY(Unpack(node, items[i]));
      TRY(Execute(node.list[0]));
    }
    return {};
  }

  // ---- expressions ----

  Result<JinjaValue> Evaluate(int index) {
    const JinjaNode& node = program_.at(index);
    TRY(Spend(1));
    switch (node.kind) {
      case Kind::kString:
        return Text(node.text);
      case Kind::kInteger:
        return JinjaValue(node.integer);
      case Kind::kBoolean:
        return JinjaValue(node.integer != 0);
      case Kind::kNone:
        return JinjaValue(JinjaNone{});
      case Kind::kName:
        return Lookup(node.text);
      case Kind::kList:
        return AtLine(node, JinjaValue::MakeList(TRY(EvaluateAll(node.list)), JinjaListKind::kList));
      case Kind::kTuple:
        return AtLine(node, JinjaValue::MakeList(TRY(EvaluateAll(node.list)), JinjaListKind::kTuple));
      case Kind::kDictionary:
        return EvaluateDictionary(node);
      case Kind::kNot:
        return JinjaValue(!TRY(Evaluate(node.a)).IsTrue());
      case Kind::kNegate:
      case Kind::kPlus:
        return EvaluateSign(node);
      case Kind::kAnd:
      case Kind::kOr: {
        JinjaValue left = TRY(Evaluate(node.a));
        return left.IsTrue() == (node.kind == Kind::kOr) ? Result<JinjaValue>(std::move(left)) : Evaluate(node.b);
      }
      case Kind::kArithmetic:
        return EvaluateArithmetic(node);
      case Kind::kComparison:
        return EvaluateComparison(node);
      case Kind::kConditional:
        if (TRY(Evaluate(node.b)).IsTrue()) return Evaluate(node.a);
        return node.c < 0 ? Result<JinjaValue>(JinjaValue()) : Evaluate(node.c);
      case Kind::kAttribute:
        return GetAttribute(node, TRY(Evaluate(node.a)));
      case Kind::kSubscript:
        return EvaluateSubscript(node);
      case Kind::kSlice:
        return EvaluateSlice(node);
      case Kind::kCall:
        return EvaluateCall(node);
      case Kind::kFilter:
        return EvaluateFilter(node);
      case Kind::kTest: {
        const JinjaValue value = TRY(Evaluate(node.a));
        const JinjaArguments arguments = TRY(EvaluateArguments(node));
        return JinjaValue(TRY(AtLine(node, ApplyJinjaTest(node.text, value, arguments))) != (node.integer != 0));
      }
      case Kind::kBody:
      case Kind::kText:
      case Kind::kOutput:
      case Kind::kIf:
      case Kind::kFor:
      case Kind::kSet:
      case Kind::kSetAttribute:
        break;
    }
    return Wrong(node, "not an expression");
  }

  Result<std::vector<JinjaValue>> EvaluateAll(const std::vector<int>& nodes) {
    std::vector<JinjaValue> values;
    for (const int node : nodes) values.push_back(TRY(Evaluate(node)));
    return values;
  }

  Result<JinjaArguments> EvaluateArguments(const JinjaNode& node) {
    JinjaArguments arguments;
    for (size_t i = 0; i < node.list.size(); ++i) {
      JinjaValue value = TRY(Evaluate(node.list[i]));
      if (node.names[i].empty()) {
        arguments.positional.push_back(std::move(value));
      } else {
        arguments.named.emplace_back(node.names[i], std::move(value));
      }
    }
    return arguments;
  }

  Result<JinjaValue> EvaluateDictionary(const JinjaNode& node) {
    std::vector<std::pair<std::string, JinjaValue>> items;
    for (size_t i = 0; i + 1 < node.list.size(); i += 2) {
      const JinjaValue key = TRY(Evaluate(node.list[i]));
      if (key.AsString() == nullptr) return Wrong(node, "only strings are supported as keys");
      JinjaValue value = TRY(Evaluate(node.list[i + 1]));
      TRY(SpendOnItems(items.size()));
      const auto found = std::ranges::find(items, *key.AsString(), &std::pair<std::string, JinjaValue>::first);
      if (found != items.end()) {
        found->second = std::move(value);
      } else {
        items.emplace_back(*key.AsString(), std::move(value));
      }
    }
    return AtLine(node, JinjaValue::MakeMap(std::move(items)));
  }

  Result<JinjaValue> EvaluateSign(const JinjaNode& node) {
    const JinjaValue value = TRY(Evaluate(node.a));
    const std::optional<int64_t> integer = value.AsInteger();
    if (!integer || *integer == std::numeric_limits<int64_t>::min())
      return Wrong(node, Format("sign of a value of type {}", value.TypeName()));
    return JinjaValue(node.kind == Kind::kNegate ? -*integer : *integer);
  }

  // Printing a container walks through it, however often its parts are shared.
  Status SpendOnPrinting(const JinjaValue& value) {
    TRY(Spend(1));
    if (const JinjaList* list = value.AsList()) {
      for (const JinjaValue& item : list->items) TRY(SpendOnPrinting(item));
    }
    if (const JinjaMap* map = value.AsMap()) {
      for (const auto& [key, item] : map->items) TRY(SpendOnPrinting(item));
    }
    if (const std::string* text = value.AsString()) TRY(SpendOnText(text->size()));
    return {};
  }

  Result<JinjaValue> EvaluateArithmetic(const JinjaNode& node) {
    const JinjaValue left = TRY(Evaluate(node.a));
    const JinjaValue right = TRY(Evaluate(node.b));
    if (node.text == "~") {
      TRY(SpendOnPrinting(left));
      TRY(SpendOnPrinting(right));
      std::string text = TRY(AtLine(node, left.ToText()));
      text += TRY(AtLine(node, right.ToText()));
      return AtLine(node, Text(std::move(text)));
    }
    if (left.AsInteger() && right.AsInteger()) return IntegerArithmetic(node, *left.AsInteger(), *right.AsInteger());
    if (node.text == "+" && left.AsString() != nullptr && right.AsString() != nullptr) {
      return AtLine(node, Text(*left.AsString() + *right.AsString()));
    }
    if (node.text == "*" && left.AsString() != nullptr && right.AsInteger()) return Repeat(node, *left.AsString(), *right.AsInteger());
    const JinjaList* first = left.AsList();
    const JinjaList* second = right.AsList();
    if (node.text == "+" && first != nullptr && second != nullptr && first->kind == second->kind && first->kind != JinjaListKind::kView) {
      TRY(SpendOnItems(first->items.size() + second->items.size()));
      std::vector<JinjaValue> items = first->items;
      items.insert(items.end(), second->items.begin(), second->items.end());
      return JinjaValue::MakeList(std::move(items), first->kind);
    }
    return Wrong(node, Format("{} {} {}", left.TypeName(), node.text, right.TypeName()));
  }

  Result<JinjaValue> Repeat(const JinjaNode& node, const std::string& text, int64_t count) {
    if (count <= 0 || text.empty()) return JinjaValue(std::string());
    if (static_cast<uint64_t>(count) > limits_.max_output_bytes / text.size()) {
      return Wrong(node, Format("a text exceeds {} bytes", limits_.max_output_bytes));
    }
    std::string repeated;
    for (int64_t i = 0; i < count; ++i) repeated += text;
    return Text(std::move(repeated));
  }

  // Python's integers have no limit; ours end at 64 bits, noticed.
  static Result<JinjaValue> IntegerArithmetic(const JinjaNode& node, int64_t left, int64_t right) {
    std::optional<int64_t> result;
    if (node.text == "+") {
      result = CheckedAdd(left, right);
    } else if (node.text == "-") {
      int64_t difference = 0;
      if (!__builtin_sub_overflow(left, right, &difference)) result = difference;
    } else if (node.text == "*") {
      result = CheckedMul(left, right);
    } else if (right != 0 && !(left == std::numeric_limits<int64_t>::min() && right == -1)) {
      // Python rounds the quotient down; the remainder has the divisor's sign.
      const bool round_down = left % right != 0 && (left < 0) != (right < 0);
      result = node.text == "//" ? left / right - (round_down ? 1 : 0) : left % right + (round_down ? right : 0);
    }
    if (!result) return Wrong(node, Format("{} {} {} has no result in 64 bits", left, node.text, right));
    return JinjaValue(*result);
  }

  Result<JinjaValue> EvaluateComparison(const JinjaNode& node) {
    JinjaValue left = TRY(Evaluate(node.a));
    for (size_t i = 0; i < node.list.size(); ++i) {
      JinjaValue right = TRY(Evaluate(node.list[i]));
      if (!TRY(Compare(node, node.names[i], left, right))) return JinjaValue(false);
      left = std::move(right);
    }
    return JinjaValue(true);
  }

  Result<bool> Compare(const JinjaNode& node, std::string_view name, const JinjaValue& left, const JinjaValue& right) {
    TRY(SpendOnPrinting(left));
    TRY(SpendOnPrinting(right));
    if (name == "==") return left.Equals(right);
    if (name == "!=") return !left.Equals(right);
    if (name == "in") return AtLine(node, JinjaContains(right, left));
    if (name == "not in") return !TRY(AtLine(node, JinjaContains(right, left)));
    int order = 0;
    if (left.AsInteger() && right.AsInteger()) {
      order = *left.AsInteger() < *right.AsInteger() ? -1 : *left.AsInteger() > *right.AsInteger() ? 1 : 0;
    } else if (left.AsString() != nullptr && right.AsString() != nullptr) {
      order = left.AsString()->compare(*right.AsString());  // UTF-8 sorts as its characters do
    } else {
      return Wrong(node, Format("{} {} {}", left.TypeName(), name, right.TypeName()));
    }
    if (name == "<") return order < 0;
    if (name == "<=") return order <= 0;
    if (name == ">") return order > 0;
    return order >= 0;
  }

  Result<JinjaValue> GetAttribute(const JinjaNode& node, const JinjaValue& object) {
    if (object.IsUndefined()) return Wrong(node, Format("attribute \"{}\" of an undefined value", node.text));
    if (IsJinjaMethod(object, node.text)) return Wrong(node, Format("method \"{}\" is not called", node.text));
    if (const JinjaNamespace* space = object.AsNamespace()) {
      const Scope& attributes = namespaces_[space->index];
      const auto found = std::ranges::find(attributes, node.text, &Scope::value_type::first);
      return found == attributes.end() ? JinjaValue() : found->second;
    }
    const JinjaMap* map = object.AsObject();
    if (map == nullptr) return JinjaValue();
    const JinjaValue* found = map->Find(node.text);
    if (found == nullptr && map->opaque) return Wrong(node, Format("loop.{} is not supported", node.text));
    return found == nullptr ? JinjaValue() : *found;
  }

  Result<JinjaValue> EvaluateSubscript(const JinjaNode& node) {
    const JinjaValue object = TRY(Evaluate(node.a));
    const JinjaValue key = TRY(Evaluate(node.b));
    if (const JinjaMap* map = object.AsMap(); map != nullptr && key.AsString() != nullptr) {
      const JinjaValue* found = map->Find(*key.AsString());
      if (found != nullptr) return *found;
      // jinja2 tries attributes next, so d['items'] is a method when there is no such key.
      if (IsJinjaMethod(object, *key.AsString())) return Wrong(node, Format("method \"{}\" is not called", *key.AsString()));
      return JinjaValue();
    }
    const JinjaList* list = object.AsList();
    const std::optional<int64_t> index = key.AsInteger();
    if (index && list != nullptr && list->kind != JinjaListKind::kView) return At(list->items, *index);
    if (index && object.AsString() != nullptr) {
      TRY(SpendOnItems(object.AsString()->size()));
      const std::vector<std::string_view> characters = JinjaCharacters(*object.AsString());
      const int64_t size = static_cast<int64_t>(characters.size());
      const int64_t position = *index < 0 ? *index + size : *index;
      if (position < 0 || position >= size) return JinjaValue();
      return Text(std::string(characters[static_cast<size_t>(position)]));
    }
    return Wrong(node, Format("{}[{}]", object.TypeName(), key.TypeName()));
  }

  static JinjaValue At(const std::vector<JinjaValue>& items, int64_t index) {
    const auto size = static_cast<int64_t>(items.size());
    const int64_t position = index < 0 ? index + size : index;
    return position < 0 || position >= size ? JinjaValue() : items[static_cast<size_t>(position)];
  }

  // The positions that Python's start:stop:step selects of `size` items.
  Result<std::vector<size_t>> SlicePositions(const JinjaNode& node, int64_t size) {
    const auto part = [&](int index) -> Result<std::optional<int64_t>> {
      if (index < 0) return std::nullopt;
      const JinjaValue value = TRY(Evaluate(index));
      if (value.IsNone()) return std::nullopt;
      if (!value.AsInteger()) return Wrong(node, Format("a slice needs integers, found {}", value.TypeName()));
      // Beyond the text there is nothing to select; the clamp keeps the sums below from overflowing.
      return std::clamp<int64_t>(*value.AsInteger(), -size - 1, size + 1);
    };
    const std::optional<int64_t> start = TRY(part(node.a));
    const std::optional<int64_t> stop = TRY(part(node.b));
    const int64_t step = TRY(part(node.c)).value_or(1);
    if (step == 0) return Wrong(node, "slice step of zero");
    const auto bound = [&](std::optional<int64_t> value, int64_t fallback) {
      if (!value) return fallback;
      const int64_t position = *value < 0 ? *value + size : *value;
      return step > 0 ? std::clamp<int64_t>(position, 0, size) : std::clamp<int64_t>(position, -1, size - 1);
    };
    const int64_t first = bound(start, step > 0 ? 0 : size - 1);
    const int64_t last = bound(stop, step > 0 ? size : -1);
    std::vector<size_t> positions;
    for (int64_t i = first; step > 0 ? i < last : i > last; i += step) positions.push_back(static_cast<size_t>(i));
    return positions;
  }

  Result<JinjaValue> EvaluateSlice(const JinjaNode& node) {
    const JinjaValue object = TRY(Evaluate(node.list[0]));
    if (const std::string* text = object.AsString()) {
      TRY(SpendOnItems(text->size()));
      const std::vector<std::string_view> characters = JinjaCharacters(*text);
      std::string selected;
      for (const size_t position : TRY(SlicePositions(node, static_cast<int64_t>(characters.size())))) selected += characters[position];
      return Text(std::move(selected));
    }
    const JinjaList* list = object.AsList();
    if (list == nullptr || list->kind == JinjaListKind::kView) return Wrong(node, Format("slice of a value of type {}", object.TypeName()));
    TRY(SpendOnItems(list->items.size()));
    std::vector<JinjaValue> selected;
    for (const size_t position : TRY(SlicePositions(node, static_cast<int64_t>(list->items.size()))))
      selected.push_back(list->items[position]);
    return JinjaValue::MakeList(std::move(selected), list->kind);
  }

  Result<JinjaValue> EvaluateFilter(const JinjaNode& node) {
    const JinjaValue value = TRY(Evaluate(node.a));
    const JinjaArguments arguments = TRY(EvaluateArguments(node));
    return SpendOnResult(node, value, arguments, [&] { return ApplyJinjaFilter(node.text, value, arguments, limits_.max_output_bytes); });
  }

  // Filters and methods walk through what they are given and what they make.
  template <typename Function>
  Result<JinjaValue> SpendOnResult(const JinjaNode& node, const JinjaValue& object, const JinjaArguments& arguments, Function function) {
    TRY(SpendOnPrinting(object));
    if (object.AsString() != nullptr) TRY(SpendOnItems(object.AsString()->size() / 8));
    for (const JinjaValue& argument : arguments.positional) TRY(SpendOnPrinting(argument));
    JinjaValue result = TRY(AtLine(node, function()));
    TRY(SpendOnPrinting(result));
    return result;
  }

  Result<JinjaValue> EvaluateCall(const JinjaNode& node) {
    const JinjaNode& callee = program_.at(node.a);
    if (callee.kind == Kind::kAttribute) {
      const JinjaValue object = TRY(Evaluate(callee.a));
      const JinjaArguments arguments = TRY(EvaluateArguments(node));
      return SpendOnResult(node, object, arguments,
                           [&] { return CallJinjaMethod(object, callee.text, arguments, limits_.max_output_bytes); });
    }
    if (callee.kind == Kind::kName && Lookup(callee.text).IsUndefined()) {
      const JinjaArguments arguments = TRY(EvaluateArguments(node));
      if (callee.text == "raise_exception") return RaiseException(node, arguments);
      if (callee.text == "namespace") return MakeNamespace(node, arguments);
      if (callee.text == "range") return MakeRange(node, arguments);
      return Wrong(node, Format("function \"{}\" is not supported", callee.text));
    }
    return Wrong(node, "this value cannot be called");
  }

  Result<JinjaValue> RaiseException(const JinjaNode& node, const JinjaArguments& arguments) {
    const std::string* message = arguments.positional.size() == 1 ? arguments.positional[0].AsString() : nullptr;
    return Wrong(node, Format("the template says: {}", message == nullptr ? "" : message->substr(0, 300)));
  }

  Result<JinjaValue> MakeNamespace(const JinjaNode& node, const JinjaArguments& arguments) {
    if (!arguments.positional.empty()) return Wrong(node, "namespace() takes named arguments only");
    namespaces_.push_back(arguments.named);
    return JinjaValue(JinjaNamespace{namespaces_.size() - 1});
  }

  Result<JinjaValue> MakeRange(const JinjaNode& node, const JinjaArguments& arguments) {
    std::vector<int64_t> numbers;
    for (const JinjaValue& argument : arguments.positional) {
      if (!argument.AsInteger()) return Wrong(node, "range() takes integers");
      // The same bound as the work limit, and small enough not to overflow below.
      const int64_t number = *argument.AsInteger();
      if (number > limits_.max_work || number < -limits_.max_work) return Wrong(node, "range() is too long");
      numbers.push_back(number);
    }
    if (numbers.empty() || numbers.size() > 3 || !arguments.named.empty()) return Wrong(node, "range() takes one to three integers");
    const int64_t begin = numbers.size() > 1 ? numbers[0] : 0;
    const int64_t end = numbers.size() > 1 ? numbers[1] : numbers[0];
    const int64_t step = numbers.size() > 2 ? numbers[2] : 1;
    if (step == 0) return Wrong(node, "range() with a step of zero");
    std::vector<JinjaValue> items;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      TRY(Spend(1));
      items.emplace_back(i);
    }
    return JinjaValue::MakeList(std::move(items), JinjaListKind::kView);
  }

  const JinjaProgram& program_;
  const JinjaLimits& limits_;
  int64_t work_left_;
  std::vector<Scope> scopes_;
  std::vector<Scope> namespaces_;
  std::string output_;
};

}  // namespace

Result<JinjaTemplate> JinjaTemplate::Parse(std::string_view source, JinjaLimits limits) {
  if (source.size() > limits.max_template_bytes) {
    return Fail(ErrorCode::kChatTemplate, "the template has {} bytes, at most {} are read", source.size(), limits.max_template_bytes);
  }
  return JinjaTemplate(std::make_shared<const JinjaProgram>(TRY(ParseJinja(source))), limits);
}

Result<std::string> JinjaTemplate::Render(const OrderedJson& variables) const {
  if (!variables.is_object()) return Fail(ErrorCode::kChatTemplate, "the variables of a template must be an object");
  return Renderer(*program_, limits_).Run(variables);
}

}  // namespace taskpress
