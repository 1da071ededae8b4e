#include <filesystem>
#include <iostream>
#include <memory>

#include "runtime/eval_result.h"
#include "schema/base/hash.h"
#include "schema/base/output_file.h"
#include "tools/command.h"
#include "tools/model_source.h"

namespace taskpress {
namespace {

struct EvalArguments {
  std::string file;
  std::string task;
  std::string output;
  std::string against;
  int64_t limit = 0;
  int64_t max_new_tokens = 64;
  int64_t checkpoint_context = 4096;
  bool chat = false;
  bool force = false;
  bool json = false;
  RunFlags flags;
};

// What can be wrong is found before the work.
Status Check(const EvalArguments& arguments) {
  if (arguments.limit < 0) return Fail(ErrorCode::kUsage, "--limit {}: a number of questions, or 0 for all", arguments.limit);
  if (arguments.max_new_tokens < 1) return Fail(ErrorCode::kUsage, "-n {}: at least 1", arguments.max_new_tokens);
  std::error_code ignored;
  if (!arguments.output.empty() && !arguments.force && std::filesystem::exists(arguments.output, ignored)) {
    return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", arguments.output);
  }
  return {};
}

Result<std::vector<EvalItem>> ReadTask(const EvalArguments& arguments, const std::string& text) {
  Result<std::vector<EvalItem>> items = ParseEvalTask(text, {.limit = arguments.limit, .chat = arguments.chat});
  if (items) return items;
  return std::unexpected(WithContext(std::move(items).error(), arguments.task));
}

Result<EvalResult> AnswerAll(const EvalArguments& arguments, std::span<const EvalItem> items, std::string task_sha256) {
  OpenedModel model = TRY(OpenModel(arguments.file, arguments.flags, arguments.checkpoint_context));
  EvalResult result{.model = arguments.file, .task_sha256 = std::move(task_sha256), .chat = arguments.chat, .answers = {}};
  Evaluator evaluator(model.session, model.tokenizer, model.metadata,
                      {.chat = arguments.chat, .max_new_tokens = arguments.max_new_tokens, .stop = &StopRequested()});
  constexpr size_t kTalkEvery = 100;
  for (const EvalItem& item : items) {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "after {} questions", result.answers.size());
    Result<EvalAnswer> answer = evaluator.Answer(item);
    if (!answer) return std::unexpected(WithContext(std::move(answer).error(), arguments.task));
    result.answers.push_back(*std::move(answer));
    if (result.answers.size() % kTalkEvery == 0) std::cerr << Format("{} of {} questions\n", result.answers.size(), items.size());
  }
  return result;
}

OrderedJson ComparisonJson(const PairedShare& share) {
  return {{"difference", share.difference()},
          {"standard_error", share.standard_error()},
          {"only_this", share.only_a},
          {"only_other", share.only_b},
          {"mcnemar_p", share.p_value()}};
}

void PrintShare(const OrderedJson& document, const std::string& name) {
  std::cout << Format("{:<9} {:.4f}  standard error {:.4f}  95 % interval {:.4f} to {:.4f}\n", name, document[name].get<double>(),
                      document[name + "_standard_error"].get<double>(), document[name + "_interval95"][0].get<double>(),
                      document[name + "_interval95"][1].get<double>());
}

void PrintComparison(const std::string& name, const PairedShare& share) {
  std::cout << Format("{:<9} {:+.4f}  standard error {:.4f}  right here only {}, there only {}, McNemar p {:.4f}\n", name,
                      share.difference(), share.standard_error(), share.only_a, share.only_b, share.p_value());
}

Result<ExitStatus> Eval(const EvalArguments& arguments) {
  TRY(Check(arguments));
  const std::string text = TRY(ReadTextFile(arguments.task));
  const std::vector<EvalItem> items = TRY(ReadTask(arguments, text));
  std::optional<EvalResult> other;
  if (!arguments.against.empty()) other = TRY(ReadEvalResult(arguments.against));
  const EvalResult result = TRY(AnswerAll(arguments, items, Sha256Hex(AsBytes(text))));
  OrderedJson document = EvalResultJson(result, /*items=*/false);
  document["task"] = arguments.task;
  std::optional<EvalComparison> comparison;
  if (other) {
    comparison = TRY(CompareEvalResults(result, *other));
    document["against"] = {
        {"model", other->model}, {"acc", ComparisonJson(comparison->acc)}, {"acc_norm", ComparisonJson(comparison->acc_norm)}};
  }
  if (!arguments.output.empty()) {
    const std::string whole = EvalResultJson(result, /*items=*/true).dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
    TRY(WriteWholeFile(arguments.output, AsBytes(whole), {.replace = arguments.force}));
  }
  if (arguments.json) {
    PrintJson("eval", document);
    return ExitStatus::kOk;
  }
  std::cout << Format("{} questions of {}\n", result.answers.size(), arguments.task);
  PrintShare(document, "acc");
  PrintShare(document, "acc_norm");
  if (comparison) {
    std::cout << Format("against {}:\n", other->model);
    PrintComparison("acc", comparison->acc);
    PrintComparison("acc_norm", comparison->acc_norm);
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddEval(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("eval", "Questions with known answers: multiple choice and exact match, with confidence intervals");
  const auto arguments = std::make_shared<EvalArguments>();
  verb->add_option("file", arguments->file, "a bundle, or a checkpoint (run in float)")->required();
  verb->add_option("--task", arguments->task,
                   "JSON lines: ctx, endings, label; goal, sol1, sol2, label; passage, question, answer; prompt, choices, answer; or "
                   "prompt, answer")
      ->required();
  verb->add_option("--limit", arguments->limit, "the first questions only; 0: all")->capture_default_str();
  verb->add_flag("--chat", arguments->chat, "ask as a user's turn in the bundle's chat template");
  verb->add_option("-n,--max-new-tokens", arguments->max_new_tokens, "of an exact answer, where its line does not say")
      ->capture_default_str();
  verb->add_option("-o,--output", arguments->output, "write the answers to every question, for --against");
  verb->add_option("--against", arguments->against, "what -o wrote for another model: compare question by question");
  verb->add_option("--context", arguments->checkpoint_context, "KV cache length when FILE is a checkpoint")->capture_default_str();
  verb->add_flag("--force", arguments->force, "replace an existing -o file");
  verb->add_flag("--json", arguments->json, "one JSON document");
  AddRunFlags(*verb, arguments->flags);
  verb->footer(
      "Example:\n  taskpress eval gemma-3n-E2B-it --task hellaswag.jsonl -o float.json\n  taskpress eval gemma.task --task hellaswag.jsonl "
      "--against float.json");
  return {verb, [arguments] { return Eval(*arguments); }};
}

}  // namespace taskpress
