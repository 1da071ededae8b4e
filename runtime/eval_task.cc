#include "runtime/eval_task.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "schema/json.h"

namespace taskpress {
namespace {

constexpr size_t kMaxChoices = 1000;
constexpr JsonLimits kLineLimits{.max_bytes = 16 << 20, .max_depth = 16};

struct FormRow {
  EvalForm form;
  std::string_view name;
  std::string_view told_by;  // a line of the form has this key
  std::array<std::string_view, 4> keys;
};

// In the order they are tried: a prompt with choices is no exact match.
constexpr std::array<FormRow, 5> kForms = {{
    {EvalForm::kContinuation, "continuation", "endings", {"ctx", "endings", "label"}},
    {EvalForm::kGoal, "goal", "goal", {"goal", "sol1", "sol2", "label"}},
    {EvalForm::kYesNo, "yesno", "passage", {"passage", "question", "answer"}},
    {EvalForm::kChoices, "choices", "choices", {"prompt", "choices", "answer"}},
    {EvalForm::kExact, "exact", "prompt", {"prompt", "answer"}},
}};

std::string_view TypeOf(const Json& value) { return value.type_name(); }

Result<std::string> TextAt(const Json& json, const char* key) {
  const Json& value = json[key];
  if (!value.is_string()) return Fail(ErrorCode::kEvalTask, "\"{}\" is {}, expected a text", key, TypeOf(value));
  return value.get<std::string>();
}

Result<std::vector<std::string>> TextsAt(const Json& json, const char* key, size_t least) {
  const Json& list = json[key];
  if (!list.is_array() || list.size() < least || list.size() > kMaxChoices) {
    return Fail(ErrorCode::kEvalTask, "\"{}\" is {}, expected a list of {} to {} texts", key,
                list.is_array() ? Format("a list of {}", list.size()) : std::string(TypeOf(list)), least, kMaxChoices);
  }
  std::vector<std::string> texts;
  for (const Json& text : list) {
    if (!text.is_string()) return Fail(ErrorCode::kEvalTask, "\"{}\" holds {}, expected texts", key, TypeOf(text));
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

// The published files spell it 2, "2", or leave it empty where the answer is secret.
Result<size_t> LabelAt(const Json& json, const char* key, size_t choices) {
  const Json& value = json[key];
  uint64_t label = UINT64_MAX;
  if (value.is_number_unsigned()) label = value.get<uint64_t>();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), label);
    if (error != std::errc() || end != text.data() + text.size()) label = UINT64_MAX;
  }
  if (label < choices) return static_cast<size_t>(label);
  return Fail(ErrorCode::kEvalTask, "\"{}\" is {}, expected the index of one of {} choices, 0 to {}", key,
              value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 100), choices, choices - 1);
}

Status ReadExact(const Json& json, EvalItem& item) {
  item.context = TRY(TextAt(json, "prompt"));
  item.expected = TRY(TextAt(json, "answer"));
  if (json.contains("stop")) {
    item.stop = json["stop"].is_string() ? std::vector{json["stop"].get<std::string>()} : TRY(TextsAt(json, "stop", 1));
    if (std::ranges::contains(item.stop, std::string())) return Fail(ErrorCode::kEvalTask, "\"stop\" holds an empty text");
  } else if (!item.expected.contains('\n')) {
    item.stop = {"\n"};
  }
  if (json.contains("max_tokens")) {
    const Json& most = json["max_tokens"];
    constexpr int64_t kMost = 1 << 20;
    if (!most.is_number_unsigned() || most < 1 || most > kMost) {
      return Fail(ErrorCode::kEvalTask, "\"max_tokens\" is {}, expected an integer from 1 to {}", most.dump().substr(0, 100), kMost);
    }
    item.max_tokens = most.get<int64_t>();
  }
  return {};
}

Status ReadYesNo(const Json& json, bool chat, EvalItem& item) {
  const std::string passage = TRY(TextAt(json, "passage"));
  const std::string question = TRY(TextAt(json, "question"));
  if (!json["answer"].is_boolean()) {
    return Fail(ErrorCode::kEvalTask, "\"answer\" is {}, expected true or false", TypeOf(json["answer"]));
  }
  item.label = json["answer"].get<bool>() ? 1 : 0;
  item.context = chat ? Format("{}\n{}", passage, question)
                      : Format("{}\nQuestion: {}{}\nAnswer:", passage, question, question.ends_with('?') ? "" : "?");
  item.choices = chat ? std::vector<std::string>{"No", "Yes"} : std::vector<std::string>{" no", " yes"};
  return {};
}

Status ReadChoices(const Json& json, bool chat, EvalItem& item) {
  std::vector<std::string> choices;
  const char* label = "label";
  if (item.form == EvalForm::kContinuation) {
    item.context = TRY(TextAt(json, "ctx"));
    choices = TRY(TextsAt(json, "endings", 2));
  } else if (item.form == EvalForm::kGoal) {
    item.context = TRY(TextAt(json, "goal"));
    choices.push_back(TRY(TextAt(json, "sol1")));
    choices.push_back(TRY(TextAt(json, "sol2")));
  } else {
    item.context = TRY(TextAt(json, "prompt"));
    choices = TRY(TextsAt(json, "choices", 2));
    label = "answer";
  }
  item.label = TRY(LabelAt(json, label, choices.size()));
  if (std::ranges::contains(choices, std::string())) return Fail(ErrorCode::kEvalTask, "a choice is empty");
  for (std::string& choice : choices) item.choices.push_back(chat ? std::move(choice) : " " + choice);
  return {};
}

Result<EvalItem> ParseLine(std::string_view line, bool chat) {
  const Result<Json> json = ParseJson(AsBytes(line), kLineLimits);
  if (!json) return Fail(ErrorCode::kEvalTask, "{}", json.error().message);
  if (!json->is_object()) return Fail(ErrorCode::kEvalTask, "is {}, expected an object", TypeOf(*json));
  const auto row = std::ranges::find_if(kForms, [&](const FormRow& form) { return json->contains(form.told_by); });
  if (row == kForms.end()) {
    return Fail(ErrorCode::kEvalTask, "has none of the keys that tell its form: endings, goal, passage, choices, prompt");
  }
  for (const std::string_view key : row->keys) {
    if (!key.empty() && !json->contains(key)) {
      return Fail(ErrorCode::kEvalTask, "of the form {} (it has \"{}\"): \"{}\" is missing", row->name, row->told_by, key);
    }
  }
  EvalItem item{.form = row->form};
  if (item.form == EvalForm::kExact) {
    TRY(ReadExact(*json, item));
  } else if (item.form == EvalForm::kYesNo) {
    TRY(ReadYesNo(*json, chat, item));
  } else {
    TRY(ReadChoices(*json, chat, item));
  }
  if (item.context.empty()) return Fail(ErrorCode::kEvalTask, "the text before the answer is empty");
  return item;
}

}  // namespace

std::string_view NameOf(EvalForm form) { return std::ranges::find(kForms, form, &FormRow::form)->name; }

Result<std::vector<EvalItem>> ParseEvalTask(std::string_view text, const EvalTaskOptions& options) {
  std::vector<EvalItem> items;
  int64_t number = 0;
  while (!text.empty() && (options.limit == 0 || std::cmp_less(items.size(), options.limit))) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Result<EvalItem> item = ParseLine(line, options.chat);
    if (!item) return std::unexpected(WithContext(std::move(item).error(), Format("line {}", number)));
    item->line = number;
    items.push_back(*std::move(item));
  }
  if (items.empty()) return Fail(ErrorCode::kEvalTask, "no line has a question");
  return items;
}

}  // namespace taskpress
