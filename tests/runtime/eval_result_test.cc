#include "runtime/eval_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

EvalResult Sample(std::vector<bool> right) {
  EvalResult result{.model = "x.task", .task_sha256 = "ab", .chat = false, .answers = {}};
  for (size_t i = 0; i < right.size(); ++i) {
    result.answers.push_back({.line = static_cast<int64_t>(i) + 1, .log_likelihoods = {-1.5, -2}, .right = right[i], .right_norm = i == 0});
  }
  return result;
}

TEST(EvalResultTest, TheDocumentHasSharesWithTheirErrorsAndIsReadBack) {
  const TempFolder folder;
  const EvalResult result = Sample({true, false, true, true});
  const OrderedJson json = EvalResultJson(result, true);
  EXPECT_EQ(json["schema"], "taskpress/eval/1");
  EXPECT_EQ(json["n"], 4);
  EXPECT_EQ(json["acc"], 0.75);
  EXPECT_EQ(json["acc_norm"], 0.25);
  EXPECT_EQ(json["acc_standard_error"], ShareStandardError(3, 4));
  EXPECT_EQ(json["acc_interval95"][0], WilsonInterval(3, 4).low);
  EXPECT_EQ(json["acc_norm_interval95"][1], WilsonInterval(1, 4).high);
  EXPECT_EQ(json["forms"]["continuation"], 4);
  EXPECT_EQ(json["items"][1]["loglikelihoods"][0], -1.5);
  EXPECT_FALSE(EvalResultJson(result, false).contains("items"));

  const Result<EvalResult> again = ReadEvalResult(folder.Write("r.json", json.dump()));
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->model, "x.task");
  ASSERT_EQ(again->answers.size(), 4U);
  EXPECT_TRUE(again->answers[0].right && !again->answers[1].right && again->answers[0].right_norm);
  EXPECT_EQ(again->answers[3].line, 4);
}

TEST(EvalResultTest, WhatIsNoResultIsRefused) {
  const TempFolder folder;
  const std::string good = EvalResultJson(Sample({true}), true).dump();
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  const std::vector<std::pair<std::string, std::string_view>> lies = {
      {"", "r.json"},
      {"[]", "schema"},
      {"{}", "schema"},
      {with("eval/1", "eval/2"), "schema"},
      {with("\"model\"", "\"m\""), "\"model\""},
      {with("\"ab\"", "3"), "\"task_sha256\""},
      {with("\"chat\":false", "\"chat\":0"), "\"chat\""},
      {EvalResultJson(Sample({true}), false).dump(), "-o writes the items"},
      {with("\"line\":1", "\"line\":-1"), "an item is not"},
      {with("\"line\":1", "\"line\":18446744073709551615"), "an item is not"},
      {with("\"acc\":true", "\"acc\":1"), "an item is not"},
      {with("\"form\"", "\"from\""), "an item is not"},
  };
  for (const auto& [text, message] : lies) {
    const Result<EvalResult> result = ReadEvalResult(folder.Write("r.json", text));
    ASSERT_FALSE(result.has_value()) << text;
    EXPECT_EQ(result.error().code, ErrorCode::kEvalResult) << text;
    EXPECT_THAT(result.error().message, HasSubstr(message)) << text;
    EXPECT_THAT(result.error().message, HasSubstr("r.json")) << text;
  }
  EXPECT_EQ(ReadEvalResult(folder.path() / "none").error().code, ErrorCode::kFileNotFound);
}

TEST(EvalResultTest, PairsAreComparedQuestionByQuestion) {
  const Result<EvalComparison> comparison =
      CompareEvalResults(Sample({true, true, true, false, false}), Sample({true, false, false, true, false}));
  ASSERT_TRUE(comparison.has_value());
  EXPECT_EQ(comparison->acc.only_a, 2);
  EXPECT_EQ(comparison->acc.only_b, 1);
  EXPECT_DOUBLE_EQ(comparison->acc.difference(), 0.2);
  EXPECT_EQ(comparison->acc.p_value(), 1.0);
  EXPECT_EQ(comparison->acc_norm.only_a, 0);
}

TEST(EvalResultTest, ResultsOfOtherQuestionsAreNotCompared) {
  const EvalResult result = Sample({true, false});
  EvalResult other = result;
  other.task_sha256 = "cd";
  EXPECT_EQ(CompareEvalResults(result, other).error().code, ErrorCode::kEvalMismatch);
  other = result;
  other.chat = true;
  EXPECT_EQ(CompareEvalResults(result, other).error().code, ErrorCode::kEvalMismatch);
  EXPECT_EQ(CompareEvalResults(result, Sample({true})).error().code, ErrorCode::kEvalMismatch);
  other = result;
  other.answers[1].line = 5;
  EXPECT_EQ(CompareEvalResults(result, other).error().code, ErrorCode::kEvalMismatch);
}

}  // namespace
}  // namespace taskpress
