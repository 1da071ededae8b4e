// A model's answers to questions: log-likelihoods of choices, or its own words.
#ifndef TASKPRESS_RUNTIME_EVALUATE_H_
#define TASKPRESS_RUNTIME_EVALUATE_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/eval_task.h"
#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/metadata.h"
#include "schema/tokenizer.h"

namespace taskpress {

struct EvalAnswer {
  int64_t line = 0;
  EvalForm form = EvalForm::kContinuation;
  // Of each choice: the sum over its tokens of the log-probability given all before it, in nats.
  std::vector<double> log_likelihoods;
  std::string text;         // of kExact: what the model said, without white space around it
  bool right = false;       // the likeliest choice is the label (the first of equals), or the text is the expected one
  bool right_norm = false;  // the same with likelihoods divided by the choice's bytes; of kExact as `right`
};

struct EvalOptions {
  bool chat = false;            // as the task was parsed with
  int64_t max_new_tokens = 64;  // of kExact, where the line does not say
  const std::atomic<bool>* stop = nullptr;
};

class Evaluator {
 public:
  // All three must outlive it.
  Evaluator(Session& session, const Tokenizer& tokenizer, const BundleMetadata& metadata, const EvalOptions& options)
      : session_(session), tokenizer_(tokenizer), metadata_(metadata), options_(options) {}

  // Errors name the line: kContextFull when a context and one of its choices do not fit, kNotFinite, kInterrupted, those of the tokenizer.
  Result<EvalAnswer> Answer(const EvalItem& item);

 private:
  Result<std::vector<int32_t>> Encode(std::string_view text) const;
  Result<std::vector<double>> LogLikelihoods(const EvalItem& item);
  Result<double> Continue(std::span<const int32_t> tokens, size_t shared, size_t first);
  Result<std::string> Generate(const EvalItem& item);

  Session& session_;
  const Tokenizer& tokenizer_;
  const BundleMetadata& metadata_;
  EvalOptions options_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_EVALUATE_H_
