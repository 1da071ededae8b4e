#include "runtime/eval_result.h"

#include <algorithm>
#include <array>
#include <map>

namespace taskpress {
namespace {

constexpr std::string_view kSchema = "taskpress/eval/1";
// A likelihood per choice and a text per answer, for tasks of a hundred thousand questions.
constexpr JsonLimits kLimits{.max_bytes = 1 << 30, .max_depth = 8};

void AddShare(OrderedJson& json, const std::string& name, std::span<const EvalAnswer> answers, bool EvalAnswer::* right) {
  const int64_t count = std::ssize(answers);
  const int64_t successes = std::ranges::count(answers, true, right);
  const Interval interval = WilsonInterval(successes, count);
  json[name] = count == 0 ? 0.0 : static_cast<double>(successes) / static_cast<double>(count);
  json[name + "_standard_error"] = ShareStandardError(successes, count);
  json[name + "_interval95"] = {interval.low, interval.high};
}

OrderedJson ItemJson(const EvalAnswer& answer) {
  OrderedJson item{{"line", answer.line}, {"form", NameOf(answer.form)}, {"acc", answer.right}, {"acc_norm", answer.right_norm}};
  if (answer.form == EvalForm::kExact) {
    item["text"] = answer.text;
  } else {
    item["loglikelihoods"] = answer.log_likelihoods;
  }
  return item;
}

Result<EvalAnswer> ParseItem(const Json& json) {
  constexpr std::array<const char*, 4> kKeys = {"line", "form", "acc", "acc_norm"};
  const bool all = json.is_object() && std::ranges::all_of(kKeys, [&](const char* key) { return json.contains(key); });
  if (!all || !json["line"].is_number_unsigned() || json["line"].get<uint64_t>() > INT64_MAX || !json["acc"].is_boolean() ||
      !json["acc_norm"].is_boolean()) {
    return Fail(ErrorCode::kEvalResult, "an item is not an object with line, form, acc and acc_norm");
  }
  return EvalAnswer{.line = json["line"].get<int64_t>(), .right = json["acc"].get<bool>(), .right_norm = json["acc_norm"].get<bool>()};
}

PairedShare Compare(const EvalResult& a, const EvalResult& b, bool EvalAnswer::* right) {
  PairedShare share{.count = std::ssize(a.answers)};
  for (size_t i = 0; i < a.answers.size(); ++i) {
    const bool of_a = a.answers[i].*right;
    const bool of_b = b.answers[i].*right;
    if (of_a && !of_b) ++share.only_a;
    if (of_b && !of_a) ++share.only_b;
  }
  return share;
}

}  // namespace

OrderedJson EvalResultJson(const EvalResult& result, bool items) {
  OrderedJson json{{"schema", kSchema},
                   {"model", result.model},
                   {"task_sha256", result.task_sha256},
                   {"chat", result.chat},
                   {"n", result.answers.size()}};
  AddShare(json, "acc", result.answers, &EvalAnswer::right);
  AddShare(json, "acc_norm", result.answers, &EvalAnswer::right_norm);
  std::map<std::string_view, int64_t> forms;
  for (const EvalAnswer& answer : result.answers) ++forms[NameOf(answer.form)];
  json["forms"] = OrderedJson::object();
  for (const auto& [name, count] : forms) json["forms"][std::string(name)] = count;
  if (!items) return json;
  json["items"] = OrderedJson::array();
  for (const EvalAnswer& answer : result.answers) json["items"].push_back(ItemJson(answer));
  return json;
}

Result<EvalResult> ParseEvalResult(const Json& json) {
  if (!json.is_object() || !json.contains("schema") || json["schema"] != kSchema) {
    return Fail(ErrorCode::kEvalResult, "\"schema\" is not \"{}\"", kSchema);
  }
  for (const char* key : {"model", "task_sha256", "chat"}) {
    const bool is_chat = std::string_view(key) == "chat";
    if (!json.contains(key) || !(is_chat ? json[key].is_boolean() : json[key].is_string())) {
      return Fail(ErrorCode::kEvalResult, "\"{}\" is missing or of another type", key);
    }
  }
  if (!json.contains("items") || !json["items"].is_array()) {
    return Fail(ErrorCode::kEvalResult, "there is no list \"items\": this is the summary that --json prints; -o writes the items as well");
  }
  EvalResult result{.model = json["model"].get<std::string>(),
                    .task_sha256 = json["task_sha256"].get<std::string>(),
                    .chat = json["chat"].get<bool>(),
                    .answers = {}};
  for (const Json& item : json["items"]) result.answers.push_back(TRY(ParseItem(item)));
  return result;
}

Result<EvalResult> ReadEvalResult(const std::filesystem::path& path) {
  const Result<Json> json = ReadJsonFile(path, kLimits);
  if (!json && json.error().code == ErrorCode::kBadJson) return Fail(ErrorCode::kEvalResult, "{}", json.error().message);
  if (!json) return std::unexpected(json.error());
  Result<EvalResult> result = ParseEvalResult(*json);
  if (!result) return std::unexpected(WithContext(std::move(result).error(), path.string()));
  return result;
}

double PairedShare::difference() const { return count == 0 ? 0.0 : static_cast<double>(only_a - only_b) / static_cast<double>(count); }

Result<EvalComparison> CompareEvalResults(const EvalResult& a, const EvalResult& b) {
  if (a.task_sha256 != b.task_sha256) {
    return Fail(ErrorCode::kEvalMismatch, "the task file of {} has sha256 {}, that of {} {}", a.model, a.task_sha256, b.model,
                b.task_sha256);
  }
  if (a.chat != b.chat) return Fail(ErrorCode::kEvalMismatch, "{} was asked {}--chat", b.model, b.chat ? "with " : "without ");
  if (!std::ranges::equal(a.answers, b.answers, {}, &EvalAnswer::line, &EvalAnswer::line)) {
    return Fail(ErrorCode::kEvalMismatch, "{} answered {} questions of the task, {} {}", a.model, a.answers.size(), b.model,
                b.answers.size());
  }
  return EvalComparison{.acc = Compare(a, b, &EvalAnswer::right), .acc_norm = Compare(a, b, &EvalAnswer::right_norm)};
}

}  // namespace taskpress
