// Questions with known answers, one JSON object a line, and what a model is asked.
//
// A line's form is told by its keys; keys that its form does not use are passed over.
//   continuation   ctx, endings [text..], label             HellaSwag: the ending that goes on
//   goal           goal, sol1, sol2, label                  PIQA: the solution that goes on
//   yesno          passage, question, answer (bool)         BoolQ
//   choices        prompt, choices [text..], answer         anything else with choices; answer is an index from 0
//   exact          prompt, answer (text), stop, max_tokens  the model's own words; stop (a text or several) and max_tokens may be absent
// A label is an index from 0, a number or a text of digits.
#ifndef TASKPRESS_RUNTIME_EVAL_TASK_H_
#define TASKPRESS_RUNTIME_EVAL_TASK_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

enum class EvalForm : uint8_t { kContinuation, kGoal, kYesNo, kChoices, kExact };
[[nodiscard]] std::string_view NameOf(EvalForm form);

struct EvalItem {
  EvalForm form = EvalForm::kContinuation;
  int64_t line = 0;  // from 1
  std::string context;
  // What may follow the context, to the byte: with the space in front that separates words. Of kExact: empty.
  std::vector<std::string> choices;
  size_t label = 0;
  std::string expected;           // of kExact, as the others below
  std::vector<std::string> stop;  // texts at which the answer ends
  int64_t max_tokens = 0;         // 0: the caller's
};

struct EvalTaskOptions {
  int64_t limit = 0;  // questions read, 0: all
  // The context is a user's turn and the choice the model's, so that no space comes between. A yesno context is then passage and question,
  // a line each, and the choices are No and Yes; else it ends in "Question: ...?" and "Answer:", and they are " no" and " yes".
  bool chat = false;
};

// Empty lines are passed over. kEvalTask naming the line and what is missing or wrong; also for a file without questions.
Result<std::vector<EvalItem>> ParseEvalTask(std::string_view text, const EvalTaskOptions& options = {});

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_EVAL_TASK_H_
