// What a model's answers amount to, as a file that another model's answers are compared with.
#ifndef TASKPRESS_RUNTIME_EVAL_RESULT_H_
#define TASKPRESS_RUNTIME_EVAL_RESULT_H_

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "runtime/evaluate.h"
#include "runtime/intervals.h"
#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

// Answers of one model to one task.
struct EvalResult {
  std::string model;        // as the command line named it
  std::string task_sha256;  // of the task file
  bool chat = false;
  std::vector<EvalAnswer> answers;
};

// {"schema": "taskpress/eval/1", "model", "task_sha256", "chat", "n", "acc", "acc_standard_error", "acc_interval95", the same of
// "acc_norm", "forms"}. With `items` also what was answered, line by line.
[[nodiscard]] OrderedJson EvalResultJson(const EvalResult& result, bool items);
// What EvalResultJson with items says, but for the log-likelihoods and texts. kEvalResult.
Result<EvalResult> ParseEvalResult(const Json& json);
// The file's name is in every message. kEvalResult, also for what is no JSON.
Result<EvalResult> ReadEvalResult(const std::filesystem::path& path);

// Two models on the same questions.
struct PairedShare {
  int64_t count = 0;
  int64_t only_a = 0;  // right in a, wrong in b
  int64_t only_b = 0;
  [[nodiscard]] double difference() const;  // share of a - share of b
  [[nodiscard]] double standard_error() const { return PairedStandardError(only_a, only_b, count); }
  [[nodiscard]] double p_value() const { return McNemarPValue(only_a, only_b); }
};
struct EvalComparison {
  PairedShare acc;
  PairedShare acc_norm;
};
// kEvalMismatch unless both are of the same task file, the same lines of it and asked in the same way.
Result<EvalComparison> CompareEvalResults(const EvalResult& a, const EvalResult& b);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_EVAL_RESULT_H_
