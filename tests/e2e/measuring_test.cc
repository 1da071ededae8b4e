// The verbs that measure, as a person meets them: eval against the scores of transformers, compare with and without a teacher file, and
// where an error comes from when somebody has put it there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>

#include "tests/e2e/command_line.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string Data(const std::string& name) { return TASKPRESS_TEST_DATA "/eval/" + name; }

std::vector<json> ReadLines(const std::string& path) {
  std::vector<json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

class MeasuringTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempFolder;
    TaskpressJson({"convert", Micro(), "-o", F32(), "--quant", "f32", "--context", "320", "--prefill", "8,32,128", "--score-signature"});
    TaskpressJson({"convert", Micro(), "-o", Int4(), "--context", "320", "--prefill", "8,32,128", "--score-signature"});
    std::ofstream(Text()) << ReadFileBytes(TASKPRESS_TEST_DATA "/kjv-sample.txt").substr(0, 3000);
  }
  static void TearDownTestSuite() { delete shared_; }
  static std::string Shared(const std::string& name) { return (shared_->path() / name).string(); }
  static std::string F32() { return Shared("f32.task"); }
  static std::string Int4() { return Shared("int4.task"); }
  static std::string Text() { return Shared("text.txt"); }
  [[nodiscard]] std::string Mine(const std::string& name) const { return (folder_.path() / name).string(); }

  static TempFolder* shared_;
  TempFolder folder_;
};
TempFolder* MeasuringTest::shared_ = nullptr;

struct TaskCase {
  std::string set;
  bool chat;
  size_t choices;
};

size_t Best(const std::vector<double>& values) { return static_cast<size_t>(std::ranges::max_element(values) - values.begin()); }

// Bytes of a choice as it is scored.
double Bytes(const json& question, const std::string& set, size_t choice) {
  if (set == "yesno") return choice == 0 ? 2.0 : 3.0;  // No, Yes
  const json& text = set == "continuation4" ? question["endings"][choice] : question[choice == 0 ? "sol1" : "sol2"];
  return static_cast<double>(text.get<std::string>().size() + 1);
}

// Both compute in float32. The scores sum over 2304 rows of the head, of which 256 repeat row 0, <pad>, so that a token's log-probability
// there is lower by log(1 + 256 p(<pad>)); they are rounded to four decimals. Over the whole sets, of 900 questions, the difference is from
// -4.7e-5 to 0.0091.
constexpr double kRounding = 1e-4;
constexpr double kPads = 0.01;

TEST_F(MeasuringTest, LogLikelihoodsAndAnswersAreThoseOfTransformers) {
  std::map<std::string, std::vector<json>> scores;
  for (const json& score : ReadLines(Data("scores.jsonl"))) scores[score["set"]].push_back(score);
  for (const TaskCase& task : {TaskCase{"continuation4", false, 4}, TaskCase{"continuation2", false, 2}, TaskCase{"yesno", true, 2}}) {
    const std::string out = Mine(task.set + ".json");
    std::vector<std::string> command = {"eval", F32(), "--task", Data(task.set + ".jsonl"), "-o", out};
    if (task.chat) command.emplace_back("--chat");
    const json summary = TaskpressJson(command);
    EXPECT_EQ(summary["schema"], "taskpress/eval/1");
    EXPECT_EQ(summary["n"], 60);
    const json result = json::parse(ReadFileBytes(out));
    const std::vector<json> questions = ReadLines(Data(task.set + ".jsonl"));
    const std::vector<json>& expected = scores[task.set];
    ASSERT_EQ(result["items"].size(), 60U);
    ASSERT_EQ(expected.size(), 60U);
    int right = 0;
    int right_norm = 0;
    for (size_t i = 0; i < 60; ++i) {
      const auto ours = result["items"][i]["loglikelihoods"].get<std::vector<double>>();
      const auto theirs = expected[i]["loglikelihood"].get<std::vector<double>>();
      ASSERT_EQ(ours.size(), task.choices);
      for (size_t c = 0; c < task.choices; ++c) {
        EXPECT_GE(ours[c] - theirs[c], -kRounding) << task.set << " " << i;
        EXPECT_LE(ours[c] - theirs[c], kPads) << task.set << " " << i;
      }
      std::vector<double> norm = theirs;
      for (size_t c = 0; c < task.choices; ++c) norm[c] /= Bytes(questions[i], task.set, c);
      const size_t label = expected[i]["label"];
      right += Best(theirs) == label ? 1 : 0;
      right_norm += Best(norm) == label ? 1 : 0;
      EXPECT_EQ(result["items"][i]["acc"], Best(theirs) == label) << task.set << " " << i;
      EXPECT_EQ(result["items"][i]["acc_norm"], Best(norm) == label) << task.set << " " << i;
    }
    EXPECT_DOUBLE_EQ(summary["acc"].get<double>(), right / 60.0);
    EXPECT_DOUBLE_EQ(summary["acc_norm"].get<double>(), right_norm / 60.0);
    EXPECT_LT(summary["acc_interval95"][0], summary["acc"]);
    EXPECT_GT(summary["acc_interval95"][1], summary["acc"]);
  }
}

TEST_F(MeasuringTest, TwoModelsAreComparedQuestionByQuestion) {
  const std::string task = Data("continuation4.jsonl");
  TaskpressJson({"eval", F32(), "--task", task, "--limit", "20", "-o", Mine("f32.json")});
  const json same = TaskpressJson({"eval", F32(), "--task", task, "--limit", "20", "--against", Mine("f32.json")});
  EXPECT_EQ(same["against"]["acc"]["only_this"], 0);
  EXPECT_EQ(same["against"]["acc"]["mcnemar_p"], 1.0);
  const json other =
      TaskpressJson({"eval", Int4(), "--task", task, "--limit", "20", "--against", Mine("f32.json"), "-o", Mine("int4.json")});
  const json pairs = other["against"]["acc_norm"];
  EXPECT_NEAR(pairs["difference"].get<double>(), (pairs["only_this"].get<double>() - pairs["only_other"].get<double>()) / 20, 1e-12);
  const Finished text = Taskpress({"eval", Int4(), "--task", task, "--limit", "20", "--against", Mine("f32.json")});
  EXPECT_THAT(text.out, HasSubstr("McNemar p"));
  EXPECT_THAT(text.out, HasSubstr("95 % interval"));
  const Finished fewer = Taskpress({"eval", F32(), "--task", task, "--limit", "10", "--against", Mine("f32.json")});
  EXPECT_EQ(fewer.status, 2);
  EXPECT_THAT(fewer.err, HasSubstr("TP-2203"));
  const Finished exists = Taskpress({"eval", F32(), "--task", task, "--limit", "1", "-o", Mine("f32.json")});
  EXPECT_EQ(exists.status, 8);
  const Finished no_result = Taskpress({"eval", F32(), "--task", task, "--limit", "1", "--against", task});
  EXPECT_EQ(no_result.status, 5);
  EXPECT_THAT(no_result.err, HasSubstr("TP-2202"));
}

// What run says is the expected answer, and then it is not.
TEST_F(MeasuringTest, ExactAnswersAreTheModelsOwnWords) {
  const json said = TaskpressJson({"run", F32(), "-p", "And God said, Let", "-n", "6"});
  std::string text = said["text"];
  text = text.substr(text.find_first_not_of(' '));
  text = text.substr(0, text.find('\n'));
  const json right{{"prompt", "And God said, Let"}, {"answer", " " + text + " "}, {"max_tokens", 6}};
  const json wrong{{"prompt", "And God said, Let"}, {"answer", text + "x"}, {"max_tokens", 6}};
  const json stopped{{"prompt", "And God said, Let"}, {"answer", text.substr(0, text.find(' '))}, {"max_tokens", 6}, {"stop", " "}};
  folder_.Write("exact.jsonl", right.dump() + "\n" + wrong.dump() + "\n" + stopped.dump() + "\n");
  TaskpressJson({"eval", F32(), "--task", Mine("exact.jsonl"), "-o", Mine("exact.json")});
  const json result = json::parse(ReadFileBytes(Mine("exact.json")));
  EXPECT_EQ(result["forms"]["exact"], 3);
  EXPECT_EQ(result["items"][0]["acc"], true) << result["items"][0] << text;
  EXPECT_EQ(result["items"][1]["acc"], false);
  EXPECT_EQ(result["items"][2]["acc"], true) << result["items"][2];
}

TEST_F(MeasuringTest, BadTasksNameFileLineAndReason) {
  folder_.Write("bad.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"]}\n");
  const Finished bad = Taskpress({"eval", F32(), "--task", Mine("bad.jsonl")});
  EXPECT_EQ(bad.status, 5);
  EXPECT_THAT(bad.err, HasSubstr("TP-2201"));
  EXPECT_THAT(bad.err, HasSubstr("bad.jsonl: line 2: of the form continuation (it has \"endings\"): \"label\" is missing"));
  std::string longer;
  for (int i = 0; i < 400; ++i) longer += "and so on ";
  folder_.Write("long.jsonl", json{{"ctx", longer}, {"endings", {"a", "b"}}, {"label", 0}}.dump());
  const Finished too_long = Taskpress({"eval", F32(), "--task", Mine("long.jsonl")});
  EXPECT_EQ(too_long.status, 2);
  EXPECT_THAT(too_long.err, HasSubstr("TP-2001"));
  EXPECT_THAT(too_long.err, HasSubstr("long.jsonl: line 1"));
  EXPECT_EQ(Taskpress({"eval", F32(), "--task", Mine("none.jsonl")}).status, 2);
  EXPECT_EQ(Taskpress({"eval", F32()}).status, 2);
  EXPECT_EQ(Taskpress({"eval", F32(), "--task", Data("yesno.jsonl"), "--limit", "-1"}).status, 2);
}

TEST_F(MeasuringTest, ATextLongerThanTheContextIsCutIntoWindows) {
  const json compared = TaskpressJson({"compare", Int4(), F32(), "--text", Text(), "--window", "100000"});
  EXPECT_GT(compared["windows"], 1);
  EXPECT_EQ(compared["window_tokens"], 320);
  EXPECT_EQ(compared["kl_is"], "exact");
  EXPECT_GT(compared["kl_mean"], compared["kl_median"]);
  EXPECT_GT(compared["kl_max"], compared["kl_p99"]);
  EXPECT_GT(compared["kl_standard_error"], 0);
  EXPECT_GT(compared["kl_window_standard_error"], 0);
  EXPECT_GT(compared["top5_overlap"], 0.3);
  EXPECT_GT(compared["perplexity_ratio"], 1);
  EXPECT_GT(compared["perplexity_ratio_standard_error"], 0);
  EXPECT_GT(compared["rms_delta_p"], 0);
  const Finished text = Taskpress({"compare", Int4(), F32(), "--text", Text(), "--window", "100000"});
  EXPECT_THAT(text.out, HasSubstr("windows of up to 320 tokens, each read from an empty context"));
}

void ExpectNear(const json& a, const json& b, std::initializer_list<const char*> keys, double relative) {
  for (const char* key : keys) {
    EXPECT_NEAR(a[key].get<double>(), b[key].get<double>(), relative * std::abs(b[key].get<double>()) + 1e-9) << key;
  }
}

TEST_F(MeasuringTest, ATeacherFileStandsForTheReference) {
  const std::string top = Mine("top.teacher");
  const std::string all = Mine("all.teacher");
  const json direct = TaskpressJson({"compare", Int4(), F32(), "--text", Text()});
  // Made alone and in passing: the same bytes.
  const json saved = TaskpressJson({"compare", F32(), "--text", Text(), "--save-teacher", top, "--teacher-top", "64"});
  EXPECT_EQ(saved["teacher"]["top"], 64);
  EXPECT_EQ(saved["tokens"], direct["tokens"]);
  const json passing =
      TaskpressJson({"compare", Int4(), F32(), "--text", Text(), "--save-teacher", Mine("passing"), "--teacher-top", "64"});
  EXPECT_EQ(passing["kl_mean"], direct["kl_mean"]);
  EXPECT_EQ(ReadFileBytes(Mine("passing")), ReadFileBytes(top));
  TaskpressJson({"compare", F32(), "--text", Text(), "--save-teacher", all, "--teacher-top", "all"});

  const json bound = TaskpressJson({"compare", Int4(), "--teacher", top});
  EXPECT_EQ(bound["kl_is"], "lower_bound");
  EXPECT_LT(bound["kl_mean"], direct["kl_mean"]);
  EXPECT_GT(bound["kl_mean"], 0.7 * direct["kl_mean"].get<double>());
  const json half = TaskpressJson({"compare", Int4(), "--teacher", all});
  EXPECT_EQ(half["kl_is"], "float16");
  ExpectNear(half, direct, {"kl_mean", "kl_p99"}, 2e-3);
  for (const json& file : {bound, half}) {
    ExpectNear(file, direct,
               {"perplexity_a", "perplexity_b", "perplexity_ratio", "perplexity_ratio_standard_error", "rms_delta_p", "top1_agreement",
                "top5_overlap"},
               1e-6);
    EXPECT_EQ(file["tokens"], direct["tokens"]);
    EXPECT_EQ(file["windows"], direct["windows"]);
    EXPECT_TRUE(file["max_abs_difference"].is_null());
  }
  // Of itself, nothing is left but rounding.
  EXPECT_LT(TaskpressJson({"compare", F32(), "--teacher", top})["kl_mean"], 1e-6);
  EXPECT_LT(TaskpressJson({"compare", F32(), "--teacher", all})["kl_mean"], 1e-5);
  EXPECT_THAT(Taskpress({"compare", Int4(), "--teacher", top}).out, HasSubstr("a lower bound: the file names the 64 likeliest tokens"));
}

TEST_F(MeasuringTest, ATeacherFileThatDoesNotFitIsRefused) {
  const std::string teacher = Mine("x.teacher");
  TaskpressJson({"compare", F32(), "--text", Text(), "--save-teacher", teacher});
  const auto refused = [&](std::vector<std::string> arguments, int status, std::string_view code, std::string_view message) {
    const Finished finished = Taskpress(std::move(arguments));
    EXPECT_EQ(finished.status, status) << message << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(code));
    EXPECT_THAT(finished.err, HasSubstr(message));
  };
  EXPECT_EQ(Taskpress({"compare", Int4(), F32(), "--teacher", teacher, "--text", Text()}).status, 0);
  refused({"compare", Int4(), Int4(), "--teacher", teacher}, 2, "TP-2205", "is of sha256:");
  refused({"compare", Int4(), "--teacher", teacher, "--text", TASKPRESS_TEST_DATA "/kjv-sample.txt"}, 2, "TP-2205", "another text");
  refused({"compare", Int4(), "--teacher", teacher, "--tokens", "2,5,9"}, 2, "TP-2205", "another text");
  const std::string small = Mine("small.task");
  TaskpressJson({"convert", Micro(), "-o", small, "--context", "64", "--prefill", "8"});
  refused({"compare", small, "--teacher", teacher}, 2, "TP-2205", "windows of 256 tokens");
  std::string damaged = ReadFileBytes(teacher);
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  folder_.Write("damaged", damaged);
  refused({"compare", Int4(), "--teacher", Mine("damaged")}, 5, "TP-2204", "CRC-32");
  refused({"compare", Int4(), "--teacher", Text()}, 5, "TP-2204", "no teacher file");
  refused({"compare", F32(), "--text", Text(), "--save-teacher", teacher}, 8, "TP-", "exists already");
  refused({"compare", F32(), "--text", Text(), "--save-teacher", Mine("y"), "--teacher-top", "4"}, 2, "TP-2101", "--teacher-top 4");
  refused({"compare", F32(), "--text", Text(), "--save-teacher", Mine("y"), "--teacher-top", "many"}, 2, "TP-2101", "--teacher-top many");
  refused({"compare", F32(), "--text", Text()}, 2, "TP-2101", "no reference");
  refused({"compare", F32(), "--teacher", teacher, "--layers"}, 2, "TP-2101", "--layers");
  EXPECT_FALSE(std::filesystem::exists(Mine("y")));
}

struct LayerError {
  double relative = 0;
  double cosine = 1;
};

// The worst stream behind every layer.
std::map<int, LayerError> ByLayer(const json& layers) {
  std::map<int, LayerError> worst;
  for (const json& row : layers["layers"]) {
    LayerError& layer = worst[row["layer"].get<int>()];
    layer.relative = std::max(layer.relative, row["relative_error"].get<double>());
    layer.cosine = std::min(layer.cosine, row["cosine"].get<double>());
  }
  return worst;
}

// One matrix of layer 7 in four bits: everything is as good as float before it, and nothing after it.
TEST_F(MeasuringTest, AnErrorIsFoundInTheLayerAndTheMatrixThatMakeIt) {
  const std::string damaged = Mine("damaged.task");
  TaskpressJson({"convert", Micro(), "-o", damaged, "--quant", "f32", "--tensor-type", "layers\\.7\\.mlp\\.down_proj=int4", "--context",
                 "320", "--prefill", "8"});
  for (const std::string& reference : {F32(), Micro()}) {
    const json compared = TaskpressJson({"compare", damaged, reference, "--text", Text(), "--layers", "--layer-tokens", "40"});
    const json& layers = compared["layers"];
    EXPECT_EQ(layers["positions"], 40);
    EXPECT_EQ(layers["layers"].size(), 16U * 4) << "four streams before the first and behind each of 15 layers";
    EXPECT_EQ(layers["not_compared"].size(), 0U) << layers["not_compared"];
    ASSERT_EQ(layers["matrices"].size(), 1U);
    EXPECT_THAT(layers["matrices"][0]["name"].get<std::string>(), HasSubstr("layers.7.mlp.down_proj"));
    EXPECT_EQ(layers["matrices"][0]["type"], "int4");
    EXPECT_GT(layers["matrices"][0]["share_at_ends"], 0);
    const std::map<int, LayerError> worst = ByLayer(layers);
    ASSERT_EQ(worst.size(), 16U);
    for (const auto& [layer, error] : worst) {
      if (layer < 7) {
        EXPECT_LT(error.relative, 1e-4) << layer;
      } else {
        EXPECT_GT(error.relative, 1e-3) << layer;
        EXPECT_LT(error.cosine, 1) << layer;
      }
    }
  }
  const Finished text = Taskpress({"compare", damaged, F32(), "--text", Text(), "--layers", "--layer-tokens", "4"});
  EXPECT_THAT(text.out, HasSubstr("residual stream over 4 positions"));
  EXPECT_THAT(text.out, HasSubstr("embedding"));
  EXPECT_THAT(text.out, HasSubstr("at ends"));
}

// Folds rescale channels of weights, and the reference is rescaled alike: what is left is rounding, not the scales.
TEST_F(MeasuringTest, RescaledChannelsAreNoErrors) {
  const std::string folded = Mine("folded.task");
  TaskpressJson({"convert", Micro(), "-o", folded, "--quant", "dynamic_int8", "--folds", "auto", "--context", "320", "--prefill", "8"});
  const json layers = TaskpressJson({"compare", folded, Micro(), "--text", Text(), "--layers", "--layer-tokens", "16"})["layers"];
  EXPECT_GT(layers["matrices"].size(), 100U);
  for (const json& matrix : layers["matrices"]) EXPECT_GT(matrix["snr_db"], 25) << matrix;
  for (const auto& [layer, error] : ByLayer(layers)) EXPECT_LT(error.relative, 0.2) << layer;
}

// Another family has one stream, and its layers are found by the same names.
TEST_F(MeasuringTest, LayersOfGemma3HaveOneStream) {
  const std::string gemma3 = TASKPRESS_TEST_DATA "/micro-gemma3";
  TaskpressJson({"convert", gemma3, "-o", Mine("g3.task"), "--context", "64", "--prefill", "8"});
  const json layers = TaskpressJson({"compare", Mine("g3.task"), gemma3, "--tokens", "2,5,9,100,7,8,9,10", "--layers"})["layers"];
  EXPECT_EQ(layers["positions"], 8);
  EXPECT_EQ(layers["layers"].size(), 8U);
  for (const json& layer : layers["layers"]) EXPECT_GT(layer["relative_error"], 0);
}

}  // namespace
}  // namespace taskpress::testing
