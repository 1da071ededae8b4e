#include "runtime/eval_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

EvalItem Only(std::string_view line, bool chat = false) {
  const Result<std::vector<EvalItem>> items = ParseEvalTask(line, {.chat = chat});
  EXPECT_TRUE(items.has_value()) << items.error().message;
  EXPECT_EQ(items->size(), 1U);
  return items->front();
}

TEST(EvalTaskTest, EveryFormIsToldByItsKeys) {
  const EvalItem continuation = Only(R"({"ind": 3, "ctx": "A b", "endings": ["c", "d e"], "label": "1", "source_id": "x"})");
  EXPECT_EQ(continuation.form, EvalForm::kContinuation);
  EXPECT_EQ(continuation.context, "A b");
  EXPECT_THAT(continuation.choices, ElementsAre(" c", " d e"));
  EXPECT_EQ(continuation.label, 1U);

  const EvalItem goal = Only(R"({"goal": "g", "sol1": "one", "sol2": "two", "label": 0})");
  EXPECT_EQ(goal.form, EvalForm::kGoal);
  EXPECT_THAT(goal.choices, ElementsAre(" one", " two"));

  const EvalItem yesno = Only(R"({"passage": "p", "question": "is it so", "answer": true})");
  EXPECT_EQ(yesno.form, EvalForm::kYesNo);
  EXPECT_EQ(yesno.context, "p\nQuestion: is it so?\nAnswer:");
  EXPECT_THAT(yesno.choices, ElementsAre(" no", " yes"));
  EXPECT_EQ(yesno.label, 1U);

  const EvalItem choices = Only(R"({"prompt": "2 + 2 =", "choices": ["3", "4", "5"], "answer": 1})");
  EXPECT_EQ(choices.form, EvalForm::kChoices);
  EXPECT_THAT(choices.choices, ElementsAre(" 3", " 4", " 5"));

  const EvalItem exact = Only(R"({"prompt": "2 + 2 =", "answer": "4"})");
  EXPECT_EQ(exact.form, EvalForm::kExact);
  EXPECT_EQ(exact.expected, "4");
  EXPECT_TRUE(exact.choices.empty());
  EXPECT_THAT(exact.stop, ElementsAre("\n"));
  EXPECT_EQ(exact.max_tokens, 0);
}

TEST(EvalTaskTest, AnAnswerOfSeveralLinesDoesNotEndAtTheFirst) {
  EXPECT_TRUE(Only(R"({"prompt": "p", "answer": "a\nb"})").stop.empty());
  EXPECT_THAT(Only(R"({"prompt": "p", "answer": "a", "stop": ";", "max_tokens": 7})").stop, ElementsAre(";"));
  EXPECT_THAT(Only(R"({"prompt": "p", "answer": "a", "stop": [";", "end"]})").stop, ElementsAre(";", "end"));
  EXPECT_EQ(Only(R"({"prompt": "p", "answer": "a", "max_tokens": 7})").max_tokens, 7);
}

TEST(EvalTaskTest, InAChatNoSpaceComesBetween) {
  EXPECT_THAT(Only(R"({"ctx": "A", "endings": ["c", "d"], "label": 1})", true).choices, ElementsAre("c", "d"));
  const EvalItem yesno = Only(R"({"passage": "p", "question": "Is it?", "answer": false})", true);
  EXPECT_EQ(yesno.context, "p\nIs it?");
  EXPECT_THAT(yesno.choices, ElementsAre("No", "Yes"));
  EXPECT_EQ(yesno.label, 0U);
}

TEST(EvalTaskTest, LinesAreCountedEmptyOnesPassedOverAndTheLimitKept) {
  const std::string text =
      "{\"prompt\": \"a\", \"answer\": \"1\"}\n\n  \r\n{\"prompt\": \"b\", \"answer\": \"2\"}\n{\"prompt\": \"c\", \"answer\": \"3\"}";
  const Result<std::vector<EvalItem>> all = ParseEvalTask(text);
  ASSERT_TRUE(all.has_value());
  ASSERT_EQ(all->size(), 3U);
  EXPECT_EQ((*all)[1].line, 4);
  EXPECT_EQ((*all)[2].line, 5);
  EXPECT_EQ(ParseEvalTask(text, {.limit = 2})->size(), 2U);
  EXPECT_EQ(ParseEvalTask(text, {.limit = 9})->size(), 3U);
}

struct Lie {
  std::string line;
  std::string_view message;
};

TEST(EvalTaskTest, MessagesNameTheLineAndWhatIsMissing) {
  const std::vector<Lie> lies = {
      {"{", "line 2"},
      {"[1]", "is array, expected an object"},
      {"7", "is number, expected an object"},
      {"{}", "none of the keys"},
      {R"({"ctx": "a"})", "none of the keys"},
      {R"({"endings": ["a", "b"], "label": 0})", "form continuation (it has \"endings\"): \"ctx\" is missing"},
      {R"({"ctx": "a", "endings": ["a", "b"]})", "\"label\" is missing"},
      {R"({"ctx": 1, "endings": ["a", "b"], "label": 0})", "\"ctx\" is number"},
      {R"({"ctx": "", "endings": ["a", "b"], "label": 0})", "before the answer is empty"},
      {R"({"ctx": "a", "endings": "b", "label": 0})", "\"endings\" is string"},
      {R"({"ctx": "a", "endings": ["b"], "label": 0})", "a list of 1, expected a list of 2"},
      {R"({"ctx": "a", "endings": ["b", 3], "label": 0})", "holds number"},
      {R"({"ctx": "a", "endings": ["b", ""], "label": 0})", "a choice is empty"},
      {R"({"ctx": "a", "endings": ["b", "c"], "label": 2})", "index of one of 2 choices"},
      {R"({"ctx": "a", "endings": ["b", "c"], "label": -1})", "index of one of 2 choices"},
      {R"({"ctx": "a", "endings": ["b", "c"], "label": ""})", "index of one of 2 choices"},
      {R"({"ctx": "a", "endings": ["b", "c"], "label": "1x"})", "index of one of 2 choices"},
      {R"({"ctx": "a", "endings": ["b", "c"], "label": 1.0})", "index of one of 2 choices"},
      {R"({"goal": "a", "sol1": "b", "label": 0})", "form goal (it has \"goal\"): \"sol2\" is missing"},
      {R"({"passage": "a", "answer": true})", "\"question\" is missing"},
      {R"({"passage": "a", "question": "b", "answer": 1})", "\"answer\" is number, expected true or false"},
      {R"({"prompt": "a", "choices": ["b", "c"]})", "\"answer\" is missing"},
      {R"({"prompt": "a", "choices": ["b", "c"], "answer": "b"})", "index of one of 2 choices"},
      {R"({"prompt": "a"})", "\"answer\" is missing"},
      {R"({"prompt": "a", "answer": 4})", "\"answer\" is number, expected a text"},
      {R"({"prompt": "a", "answer": "b", "stop": [""]})", "empty text"},
      {R"({"prompt": "a", "answer": "b", "stop": 1})", "\"stop\" is number"},
      {R"({"prompt": "a", "answer": "b", "max_tokens": 0})", "\"max_tokens\" is 0"},
      {R"({"prompt": "a", "answer": "b", "answer": "c"})", "duplicate"},
      {"{\"prompt\": \"a\xff\", \"answer\": \"b\"}", "line 2"},
  };
  for (const Lie& lie : lies) {
    const Result<std::vector<EvalItem>> items = ParseEvalTask("{\"prompt\": \"a\", \"answer\": \"1\"}\n" + lie.line + "\n");
    ASSERT_FALSE(items.has_value()) << lie.line;
    EXPECT_EQ(items.error().code, ErrorCode::kEvalTask) << lie.line;
    EXPECT_THAT(items.error().message, HasSubstr("line 2: ")) << lie.line;
    EXPECT_THAT(items.error().message, HasSubstr(lie.message)) << lie.line;
  }
  for (const std::string_view empty : {"", "\n\n", " "}) EXPECT_EQ(ParseEvalTask(empty).error().code, ErrorCode::kEvalTask);
}

}  // namespace
}  // namespace taskpress
