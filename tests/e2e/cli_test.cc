// The command line as a person and a script meet it: the real program, its exit status, what it prints where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/e2e/command_line.h"
#include "tests/reference/trusting_safetensors.h"

namespace taskpress::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

// Bundles all tests look at: f32 with a score signature, in both containers, and int4.
class CliTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempFolder;
    report_ = new nlohmann::json(TaskpressJson({"convert", Micro(), "-o", Task(), "-o", Litertlm(), "--quant", "f32", "--context", "320",
                                                "--prefill", "8,32,128", "--score-signature", "--progress", "json"}));
    TaskpressJson({"convert", Micro(), "-o", Int4(), "--context", "320"});
  }
  static void TearDownTestSuite() {
    delete shared_;
    delete report_;
  }
  static std::string Shared(const std::string& name) { return (shared_->path() / name).string(); }
  static std::string Task() { return Shared("f32.task"); }
  static std::string Litertlm() { return Shared("f32.litertlm"); }
  static std::string Int4() { return Shared("int4.task"); }

  [[nodiscard]] std::string Mine(const std::string& name) const { return (folder_.path() / name).string(); }

  static TempFolder* shared_;
  static nlohmann::json* report_;
  TempFolder folder_;
};
TempFolder* CliTest::shared_ = nullptr;
nlohmann::json* CliTest::report_ = nullptr;

std::vector<std::string> KeysOf(const nlohmann::json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST_F(CliTest, EveryVerbExplainsItselfWithAnExample) {
  for (const std::string verb :
       {"convert", "calibrate", "slice", "inspect", "verify", "run", "score", "eval", "compare", "bench", "repack", "explain"}) {
    const Finished help = Taskpress({verb, "--help"});
    EXPECT_EQ(help.status, 0) << verb;
    EXPECT_THAT(help.out, HasSubstr("Example")) << verb;
    EXPECT_THAT(help.out, HasSubstr("taskpress " + verb)) << verb;
    EXPECT_EQ(help.err, "") << verb;
  }
  const Finished all = Taskpress({"--help"});
  EXPECT_EQ(all.status, 0);
  EXPECT_THAT(all.out, HasSubstr("Exit status: 0 ok, 1 gate failed, 2 usage"));
}

TEST_F(CliTest, TheVersionIsOneLine) {
  const Finished version = Taskpress({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_THAT(version.out, ::testing::MatchesRegex("taskpress [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(CliTest, AWrongCommandLineIsStatus2) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"press"},
      {"convert"},
      {"convert", Micro()},
      {"convert", Micro(), "-o", Mine("a.task"), "--no-such-option"},
      {"convert", Micro(), "-o", Mine("a.zip")},
      {"convert", Micro(), "-o", Mine("a.zip"), "--dry-run"},
      {"convert", Micro(), "-o", Mine("a.task"), "--quant", "nonsense"},
      {"convert", Micro(), "-o", Mine("a.task"), "--tensor-type", "self_attn"},
      {"convert", Micro(), "-o", Mine("a.task"), "--tensor-type", "nothing_like_it=int8"},
      {"convert", Micro(), "-o", Mine("a.task"), "--window", "door"},
      {"convert", Micro(), "-o", Mine("a.task"), "--context", "15"},
      {"convert", Micro(), "-o", Mine("a.task"), "--context", "100000000000"},
      {"convert", Micro(), "-o", Mine("a.task"), "--prefill", "0"},
      {"convert", Micro(), "-o", Mine("a.task"), "--prefill", "8,"},
      {"convert", Micro(), "-o", Mine("a.task"), "--progress", "loud"},
      {"convert", Micro(), "-o", Mine("a.task"), "--threads", "-1"},
      {"convert", Micro(), "-o", Mine("a.task"), "--threads", "100000"},
      {"convert", Micro(), "-o", Mine("a.task"), "-o", Mine("a.task")},
      {"convert", Micro(), "-o", Mine("a.task"), "-o", folder_.path().string() + "/./a.task", "--force"},
      {"run", Task()},
      {"run", Task(), "-p", "a", "--tokens", "2"},
      {"run", Task(), "-p", ""},
      {"run", Task(), "-p", "\xff"},
      {"run", Task(), "--tokens", "2,x"},
      {"run", Task(), "--tokens", "2,"},
      {"run", Task(), "--tokens", "2,2048"},
      {"run", Task(), "--tokens", "2,-1"},
      {"run", Task(), "--tokens", "2", "-n", "0"},
      {"run", Task(), "--tokens", "2", "--kernels", "magic"},
      {"run", Task(), "--tokens", "2", "--disable-pass", "magic"},
      {"run", Task(), "--tokens", "2", "--threads", "100000"},
      {"run", Micro(), "--tokens", "2", "--context", "0"},
      {"run", Micro(), "--tokens", "2", "--context", "100000000000"},
      {"score", Task()},
      {"compare", Task(), Int4()},
      {"compare", Task(), Int4(), "--tokens", "2", "--window", "1"},
      {"bench", Task(), "-r", "0"},
      {"bench", Task(), "-p", "320", "-n", "1"},
      {"verify", Task(), "--threads", "100000"},
      {"explain", "TP-9999"},
  };
  for (const std::vector<std::string>& arguments : wrong) {
    const Finished finished = Taskpress(arguments);
    std::string line;
    for (const std::string& word : arguments) line += word + " ";
    EXPECT_EQ(finished.status, 2) << line << finished.err;
    EXPECT_EQ(finished.out, "") << line;
    EXPECT_NE(finished.err, "") << line;
  }
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

TEST_F(CliTest, AMessageNamesTheOptionThatIsWrong) {
  EXPECT_THAT(Taskpress({"convert", Micro(), "-o", Mine("a.task"), "--prefill", "8,x"}).err, HasSubstr("--prefill 8,x"));
  EXPECT_THAT(Taskpress({"run", Task(), "--tokens", "8,x"}).err, HasSubstr("--tokens 8,x"));
}

TEST_F(CliTest, AMissingInputIsStatus2AndNamed) {
  const std::string missing = Mine("none");
  const std::vector<std::vector<std::string>> commands = {
      {"convert", missing, "-o", Mine("a.task")},
      {"inspect", missing},
      {"verify", missing},
      {"verify", Task(), "--against", missing},
      {"run", missing, "-p", "a"},
      {"run", Task(), "--tokens", "@" + missing},
      {"score", missing, "--tokens", "2"},
      {"score", Task(), "--text", missing},
      {"compare", Task(), missing, "--tokens", "2"},
      {"bench", missing},
  };
  for (const std::vector<std::string>& arguments : commands) {
    const Finished finished = Taskpress(arguments);
    EXPECT_EQ(finished.status, 2) << arguments[0] << finished.err;
    EXPECT_THAT(finished.err, HasSubstr("TP-1001")) << arguments[0];
    EXPECT_THAT(finished.err, HasSubstr(missing + ":")) << arguments[0];
  }
  // A name no file system takes is a missing file, too, and no internal error.
  const Finished endless = Taskpress({"convert", std::string(5000, 'a'), "-o", Mine("a.task")});
  EXPECT_EQ(endless.status, 2) << endless.err;
}

TEST_F(CliTest, AnErrorIsADocumentForMachines) {
  const Finished finished = Taskpress({"inspect", Mine("none.task"), "--json"});
  EXPECT_EQ(finished.status, 2);
  const nlohmann::json document = nlohmann::json::parse(finished.out);
  EXPECT_EQ(document["schema"], "taskpress/error/1");
  EXPECT_EQ(document["code"], "TP-1001");
  EXPECT_EQ(document["exit_status"], 2);
  EXPECT_THAT(document["message"].get<std::string>(), HasSubstr("none.task"));
  EXPECT_NE(document["advice"], "");
}

TEST_F(CliTest, ATextCalibratesDirectlyOrByAFileAndTheBundleIsTheSame) {
  const TempFolder folder;
  const std::string text = TASKPRESS_TEST_DATA "/calibration.jsonl";
  const std::string file = (folder.path() / "micro.calib").string();
  const nlohmann::json made = TaskpressJson({"calibrate", Micro(), "--text", text, "-o", file, "--tokens", "2048", "--threads", "1"});
  EXPECT_EQ(made["schema"], "taskpress/calibrate/1");
  EXPECT_EQ(made["tokens"], 2048);
  std::vector<std::string> bundles;
  for (const std::string& given : {text, file}) {
    const std::string out = (folder.path() / ("by" + std::to_string(bundles.size()) + ".task")).string();
    TaskpressJson({"convert", Micro(), "-o", out, "--method", "best", "--calibrate", given, "--calibration-tokens", "2048", "--context",
                   "64", "--prefill", "8", "--threads", "1"});
    bundles.push_back(ReadFileBytes(out));
  }
  EXPECT_EQ(bundles[0], bundles[1]);
  const Finished verified = Taskpress({"verify", (folder.path() / "by0.task").string(), "--against", Micro()});
  EXPECT_EQ(verified.status, 0) << verified.out;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();

  const Finished merged = Taskpress({"calibrate", "--merge", file, file, "-o", (folder.path() / "twice.calib").string()});
  EXPECT_EQ(merged.status, 0) << merged.err;
  EXPECT_THAT(merged.out, HasSubstr("4096 tokens"));

  const Finished without = Taskpress({"convert", Micro(), "-o", (folder.path() / "x.task").string(), "--method", "gptq"});
  EXPECT_EQ(without.status, 2);
  EXPECT_THAT(without.err, HasSubstr("--calibrate"));
  const Finished unknown = Taskpress({"convert", Micro(), "-o", (folder.path() / "x.task").string(), "--folds", "sideways"});
  EXPECT_EQ(unknown.status, 2);
  EXPECT_THAT(unknown.err, HasSubstr("up_to_down"));
}

TEST_F(CliTest, SlicesAreCutOrRefusedWithTheirRule) {
  std::ofstream(Mine("slice.json")) << R"({"ffn": 256, "skip": [10, 11]})";
  const Finished cut = Taskpress({"slice", Micro(), "--slice", Mine("slice.json"), "-o", Mine("sliced"), "--json"});
  ASSERT_EQ(cut.status, 0) << cut.err;
  EXPECT_EQ(nlohmann::json::parse(cut.out)["schema"], "taskpress/slice/1");
  const Finished straight = Taskpress({"convert", Micro(), "--slice", Mine("slice.json"), "-o", Mine("slice.task"), "--context", "64"});
  ASSERT_EQ(straight.status, 0) << straight.err;
  EXPECT_EQ(Taskpress({"verify", Mine("slice.task"), "--against", Mine("sliced")}).status, 0);
  EXPECT_EQ(Taskpress({"verify", Mine("slice.task"), "--against", Micro(), "--slice", Mine("slice.json")}).status, 0);
  EXPECT_EQ(Taskpress({"verify", Mine("slice.task"), "--against", Micro()}).status, 1) << "another model";
  const Finished published = Taskpress({"convert", Micro(), "-o", Mine("a.task"), "--slice", "e2b"});
  EXPECT_EQ(published.status, 2);
  EXPECT_THAT(published.err, HasSubstr("TP-1208"));
}

TEST_F(CliTest, WhatThisVersionCannotDoIsStatus6) {
  EXPECT_EQ(Taskpress({"convert", Micro(), "-o", Mine("a.task"), "--modalities", "text,vision"}).status, 6);
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

TEST_F(CliTest, ExplainKnowsEveryCode) {
  EXPECT_THAT(Taskpress({"explain", "TP-1103"}).out, HasSubstr("TP-1103"));
  EXPECT_EQ(Taskpress({"explain", "tp-1103"}).status, 0);
  EXPECT_EQ(Taskpress({"explain", "1103"}).status, 0);
  const nlohmann::json all = TaskpressJson({"explain"});
  EXPECT_EQ(all["schema"], "taskpress/explain/1");
  EXPECT_GT(all["codes"].size(), 60U);
  for (const nlohmann::json& row : all["codes"]) EXPECT_THAT(KeysOf(row), IsSupersetOf({"code", "title", "advice", "exit_status"}));
}

TEST_F(CliTest, ConvertReportsWhatItWrote) {
  EXPECT_EQ((*report_)["schema"], "taskpress/convert/1");
  EXPECT_THAT(KeysOf(*report_), IsSupersetOf({"outputs", "seconds", "peak_anonymous_bytes", "parameters", "slice", "recipe"}));
  EXPECT_EQ((*report_)["parameters"], 4'750'080);
  ASSERT_EQ((*report_)["outputs"].size(), 2U);
  EXPECT_EQ((*report_)["outputs"][0]["path"], Task());
  EXPECT_EQ((*report_)["outputs"][1]["bytes"], std::filesystem::file_size(Litertlm()));
  EXPECT_EQ((*report_)["outputs"][0]["sha256"].get<std::string>().size(), 64U);
}

TEST_F(CliTest, ADryRunWritesNothingAndForecastsTheExactSize) {
  const std::vector<std::string> options = {"--context", "320", "--score-signature", "--quant", "f32", "--prefill", "8,32,128"};
  std::vector<std::string> arguments = {"convert", Micro(), "-o", Mine("a.task"), "-o", Mine("a.litertlm"), "--dry-run"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  const nlohmann::json plan = TaskpressJson(arguments);
  EXPECT_EQ(plan["outputs"][0]["bytes"], std::filesystem::file_size(Task()));
  EXPECT_EQ(plan["outputs"][1]["bytes"], std::filesystem::file_size(Litertlm()));
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
  const Finished text = Taskpress(arguments);
  EXPECT_THAT(text.out, HasSubstr(std::to_string(std::filesystem::file_size(Task())) + " bytes, not written"));
  EXPECT_THAT(text.out, HasSubstr("lm_head.weight"));
  EXPECT_TRUE(NamesIn(folder_.path()).empty());
}

TEST_F(CliTest, AFolderTakesBothContainersNamedAfterTheCheckpoint) {
  const std::filesystem::path copy = CopyMicro(folder_, "micro-v1.5");
  std::filesystem::create_directory(folder_.path() / "old");
  EXPECT_EQ(Taskpress({"convert", copy.string(), "-o", Mine("old"), "--context", "64", "--prefill", "8"}).status, 0);
  EXPECT_THAT(NamesIn(folder_.path() / "old"), IsSupersetOf({"micro-v1.5.litertlm", "micro-v1.5.task"}));
  const Finished made = Taskpress({"convert", copy.string() + "/", "-o", Mine("new") + "/", "--context", "64", "--prefill", "8"});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(NamesIn(folder_.path() / "new"), IsSupersetOf({"micro-v1.5.litertlm", "micro-v1.5.task"}));
}

TEST_F(CliTest, TheLockFileTellsTheBundleAndItsInputsFromOthers) {
  const std::filesystem::path copy = CopyMicro(folder_, "micro");
  ASSERT_EQ(Taskpress({"convert", copy.string(), "-o", Mine("a.task"), "--context", "64", "--prefill", "8"}).status, 0);
  const std::vector<std::string> verify = {"verify", Mine("a.task"), "--lock", Mine("a.task.lock.json"), "--against", copy.string()};
  const Finished right = Taskpress(verify);
  EXPECT_EQ(right.status, 0) << right.err;
  EXPECT_THAT(right.out, HasSubstr("sha256 of the bundle and"));
  std::ofstream(copy / "generation_config.json", std::ios::app) << " ";
  const Finished input = Taskpress(verify);
  EXPECT_EQ(input.status, 5);
  EXPECT_THAT(input.err, ::testing::AllOf(HasSubstr("TP-1013"), HasSubstr("generation_config.json")));
  ASSERT_EQ(Taskpress({"convert", copy.string(), "-o", Mine("b.task"), "--context", "128", "--prefill", "8"}).status, 0);
  const Finished other = Taskpress({"verify", Mine("b.task"), "--lock", Mine("a.task.lock.json")});
  EXPECT_EQ(other.status, 5);
  EXPECT_THAT(other.err, HasSubstr("b.task"));
}

TEST_F(CliTest, AnExistingOutputIsKeptUnlessForced) {
  const std::filesystem::path output = folder_.Write("a.task", "precious");
  const Finished refused = Taskpress({"convert", Micro(), "-o", output.string(), "--context", "64"});
  EXPECT_EQ(refused.status, 8);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(ReadFileBytes(output), "precious");
  EXPECT_EQ(Taskpress({"convert", Micro(), "-o", output.string(), "--context", "64", "--force"}).status, 0);
  EXPECT_GT(std::filesystem::file_size(output), 1'000'000U);
  EXPECT_THAT(NamesIn(folder_.path()), ElementsAre("SHA256SUMS", "a.task", "a.task.lock.json"));
}

TEST_F(CliTest, ProgressAsJsonIsOneEventALineAndReachesItsEnd) {
  const Finished finished = Taskpress({"convert", Micro(), "-o", Mine("a.task"), "--context", "64", "--progress", "json"});
  ASSERT_EQ(finished.status, 0);
  std::istringstream lines(finished.err);
  std::vector<std::string> stages;
  std::vector<std::string> split;  // seconds of each stage, at the end
  nlohmann::json last_write;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("{")) continue;
    const nlohmann::json event = nlohmann::json::parse(line);
    EXPECT_EQ(event["schema"], "taskpress/progress/1");
    if (event.contains("stages")) {
      for (const auto& stage : event["stages"]) split.push_back(stage["name"]);
      continue;
    }
    EXPECT_THAT(KeysOf(event), IsSupersetOf({"stage", "tensor", "bytes_done", "bytes_total", "seconds"}));
    const std::string stage = event["stage"];
    if (stages.empty() || stages.back() != stage) stages.push_back(stage);
    if (stage == "write") last_write = event;
  }
  EXPECT_THAT(stages, ElementsAre("write", "smoke", "verify", "flush", "digest"));
  EXPECT_EQ(split, stages);
  EXPECT_GT(last_write["bytes_total"], 0);
  EXPECT_EQ(last_write["bytes_done"], last_write["bytes_total"]);
  EXPECT_EQ(Taskpress({"convert", Micro(), "-o", Mine("b.task"), "--context", "64", "--progress", "none", "--json"}).err.find("{"),
            std::string::npos);
}

TEST_F(CliTest, OutputThatDoesNotArriveIsAnError) {
  EXPECT_EQ(Taskpress({"inspect", Task(), "--json"}, {.output = "/dev/full"}).status, 7);
  EXPECT_EQ(Taskpress({"run", Task(), "--tokens", "2", "-n", "2"}, {.output = "/dev/full"}).status, 7);
}

TEST_F(CliTest, InspectListsSectionsSignaturesAndWeights) {
  for (const std::string& path : {Task(), Litertlm()}) {
    const nlohmann::json document = TaskpressJson({"inspect", path, "--tensors", "--hash"});
    EXPECT_EQ(document["schema"], "taskpress/inspect/1");
    EXPECT_THAT(KeysOf(document), IsSupersetOf({"container", "sections", "signatures", "parameters", "metadata", "tensors", "loaders"}));
    EXPECT_EQ(document["container"], path == Task() ? "task" : "litertlm");
    std::set<std::string> sections;
    for (const nlohmann::json& section : document["sections"]) {
      EXPECT_THAT(KeysOf(section), IsSupersetOf({"kind", "name", "offset", "bytes", "sha256"}));
      sections.insert(section["name"]);
    }
    EXPECT_THAT(sections, ElementsAre("embedder", "metadata", "per_layer_embedder", "prefill_decode", "tokenizer"));
    std::set<std::string> keys;
    for (const nlohmann::json& signature : document["signatures"]) keys.insert(signature["key"]);
    EXPECT_THAT(keys, ElementsAre("decode", "embedder", "per_layer_embedder", "prefill_128", "prefill_32", "prefill_8", "score_128"));
    EXPECT_GT(document["tensors"].size(), 179U);
    EXPECT_EQ(document["metadata"]["max_num_tokens"], path == Task() ? 0 : 320);
  }
  const Finished text = Taskpress({"inspect", Task()});
  EXPECT_THAT(text.out, HasSubstr("prefill_decode"));
  EXPECT_THAT(text.out, HasSubstr("[score_128]"));
}

// Every attention of the model is found, and the feed-forward blocks of the sparse layers where the weights are integers.
TEST_F(CliTest, InspectShowsWhatTheFastKernelsMakeOfASignature) {
  const nlohmann::json document = TaskpressJson({"inspect", Int4(), "--plan"});
  for (const nlohmann::json& signature : document["signatures"]) {
    if (signature["key"] != "decode") continue;
    const nlohmann::json& plan = signature["plan"];
    EXPECT_EQ(plan["passes"]["attention"]["steps"], 15);
    EXPECT_EQ(plan["passes"]["sparse_ffn"]["steps"], 5);
    EXPECT_LT(plan["steps"].get<int>() * 5, signature["operators"].get<int>());
  }
  EXPECT_THAT(Taskpress({"inspect", Int4(), "--plan"}).out, HasSubstr("row_regions: "));
}

// Two prompts that are one: the start token and the pieces of the text.
TEST_F(CliTest, RunContinuesATextOrIds) {
  const nlohmann::json text = TaskpressJson({"run", Task(), "-p", "In the beginning God", "-n", "12"});
  EXPECT_EQ(text["schema"], "taskpress/run/1");
  EXPECT_THAT(KeysOf(text), IsSupersetOf({"tokens", "text", "prefill_tokens", "decode_tokens", "prefill_tokens_per_s",
                                          "decode_tokens_per_s", "time_to_first_token_s"}));
  EXPECT_EQ(text["tokens"].size(), 12U);
  EXPECT_EQ(text["prompt_tokens"][0], 2);
  std::string ids;
  for (const nlohmann::json& id : text["prompt_tokens"]) ids += (ids.empty() ? "" : ",") + id.dump();
  const nlohmann::json same = TaskpressJson({"run", Task(), "--tokens", ids, "-n", "12"});
  EXPECT_EQ(same["tokens"], text["tokens"]);
  EXPECT_EQ(same["text"], text["text"]);
  folder_.Write("ids.json", text["prompt_tokens"].dump());
  EXPECT_EQ(TaskpressJson({"run", Litertlm(), "--tokens", "@" + Mine("ids.json"), "-n", "12"})["tokens"], text["tokens"]);
  EXPECT_EQ(TaskpressJson({"run", Task(), "--tokens", ids, "-n", "12", "--kernels", "reference"})["tokens"], text["tokens"]);
  for (const std::string pass : {"attention", "row_regions", "sparse_ffn"}) {
    EXPECT_EQ(TaskpressJson({"run", Task(), "--tokens", ids, "-n", "12", "--disable-pass", pass})["tokens"], text["tokens"]) << pass;
  }
  // For people: the text alone on standard output.
  const Finished plain = Taskpress({"run", Task(), "-p", "In the beginning God", "-n", "12"});
  EXPECT_EQ(plain.out, text["text"].get<std::string>() + "\n");
  EXPECT_THAT(plain.err, HasSubstr("tok/s"));
}

TEST_F(CliTest, RunFollowsTheGoldens) {
  const std::vector<oracle::Tokens> prompts = oracle::GoldenPrompts();
  for (const size_t p : {size_t{0}, size_t{5}}) {
    const std::string file = folder_.Write("prompt.json", nlohmann::json(prompts[p]).dump()).string();
    const nlohmann::json reply = TaskpressJson({"run", Task(), "--tokens", "@" + file, "-n", "32"});
    EXPECT_EQ(reply["tokens"].get<oracle::Tokens>(), oracle::GoldenGreedy("e4b")[p]);
  }
}

TEST_F(CliTest, ACheckpointRunsLikeItsFloatBundle) {
  const nlohmann::json bundle = TaskpressJson({"run", Task(), "-p", "And the LORD", "-n", "8"});
  const nlohmann::json checkpoint = TaskpressJson({"run", Micro(), "-p", "And the LORD", "-n", "8", "--context", "320"});
  EXPECT_EQ(checkpoint["tokens"], bundle["tokens"]);
}

TEST_F(CliTest, AChatTurnIsWrappedInTheTemplateAndEndsAtAStopToken) {
  const nlohmann::json reply = TaskpressJson({"run", Task(), "--chat", "-p", "A black tone. What colour is the circle.", "-n", "64"});
  EXPECT_EQ(reply["prompt_tokens"][0], 2);
  EXPECT_EQ(reply["prompt_tokens"][1], 9);  // <start_of_turn>
  EXPECT_GT(reply["prompt_tokens"].size(), 12U);
  if (reply["stop_reason"] == "stop_token") {
    EXPECT_LT(reply["tokens"].size(), 64U);
    for (const nlohmann::json& id : reply["tokens"]) EXPECT_NE(id, 10);
  }
}

TEST_F(CliTest, SamplingIsReproducibleBySeed) {
  const auto sample = [](const std::string& seed) {
    return TaskpressJson({"run", Int4(), "-p", "The", "-n", "16", "--temperature", "1", "--seed", seed})["tokens"];
  };
  EXPECT_EQ(sample("1"), sample("1"));
  EXPECT_NE(sample("1"), sample("2"));
}

TEST_F(CliTest, APromptThatDoesNotFitIsRefusedAndAFullContextEndsTheReply) {
  std::string ids = "2";
  for (int i = 0; i < 319; ++i) ids += ",5";
  const Finished too_long = Taskpress({"run", Task(), "--tokens", ids + ",5,5"});
  EXPECT_EQ(too_long.status, 2);
  EXPECT_THAT(too_long.err, HasSubstr("context of 320"));
  const nlohmann::json full = TaskpressJson({"run", Task(), "--tokens", ids, "-n", "10"});
  EXPECT_EQ(full["stop_reason"], "context_full");
  EXPECT_EQ(full["tokens"].size(), 1U);
}

TEST_F(CliTest, ScoreGivesTheLogProbabilityOfEveryToken) {
  const oracle::Tokens tokens = oracle::GoldenPrompts()[3];  // 31 ids: every golden row is kept
  const std::string file = folder_.Write("ids.json", nlohmann::json(tokens).dump()).string();
  const nlohmann::json document = TaskpressJson({"score", Task(), "--tokens", "@" + file, "--logits", Mine("logits.safetensors")});
  EXPECT_EQ(document["schema"], "taskpress/score/1");
  EXPECT_THAT(KeysOf(document), IsSupersetOf({"tokens", "logprobs", "nll", "perplexity"}));
  EXPECT_EQ(document["tokens"].get<oracle::Tokens>(), tokens);
  ASSERT_EQ(document["logprobs"].size(), tokens.size());
  EXPECT_TRUE(document["logprobs"][0].is_null());

  const auto file_of_logits = oracle::TrustingSafetensors::Open(Mine("logits.safetensors"));
  const oracle::StoredTensor& logits = file_of_logits.Get("logits");
  EXPECT_EQ(logits.dtype, "F32");
  EXPECT_THAT(logits.shape, ElementsAre(static_cast<int64_t>(tokens.size()), 2048));
  double nll = 0;
  for (size_t i = 1; i < tokens.size(); ++i) {
    std::vector<float> row(2048);
    logits.ReadRow(static_cast<int64_t>(i) - 1, 0, row);
    double sum = 0;
    for (const float logit : row) sum += std::exp(static_cast<double>(logit));
    const double expected = static_cast<double>(row[static_cast<size_t>(tokens[i])]) - std::log(sum);
    EXPECT_NEAR(document["logprobs"][i].get<double>(), expected, 1e-9);
    nll -= expected;
  }
  EXPECT_NEAR(document["nll"].get<double>(), nll, 1e-8);
  EXPECT_NEAR(document["perplexity"].get<double>(), std::exp(nll / static_cast<double>(tokens.size() - 1)), 1e-8);

  const std::string before = ReadFileBytes(Mine("logits.safetensors"));
  EXPECT_EQ(Taskpress({"score", Task(), "--tokens", "2,5", "--logits", Mine("logits.safetensors")}).status, 8);
  EXPECT_EQ(ReadFileBytes(Mine("logits.safetensors")), before);
  EXPECT_EQ(Taskpress({"score", Task(), "--tokens", "2,5", "--logits", Mine("logits.safetensors"), "--force"}).status, 0);
}

TEST_F(CliTest, ScoreCutsATextIntoWindows) {
  const std::string text =
      folder_.Write("text.txt", "In the beginning God created the heaven and the earth.\nAnd the earth was without form.\n").string();
  const nlohmann::json document = TaskpressJson({"score", Task(), "--text", text, "--window", "8"});
  size_t starts = 0;
  for (size_t i = 0; i < document["tokens"].size(); ++i) {
    const bool start = document["tokens"][i] == 2;
    EXPECT_EQ(document["logprobs"][i].is_null(), start) << i;
    starts += start ? 1 : 0;
  }
  EXPECT_GT(starts, 1U);
  EXPECT_EQ(document["predicted_tokens"], document["tokens"].size() - starts);
}

TEST_F(CliTest, AModelComparedWithItselfIsTheSame) {
  const nlohmann::json document = TaskpressJson({"compare", Int4(), Int4(), "--tokens", "2,1657,282,1829,308,387,336"});
  EXPECT_EQ(document["schema"], "taskpress/compare/1");
  EXPECT_THAT(KeysOf(document),
              IsSupersetOf({"kl_mean", "kl_p99", "top1_agreement", "perplexity_a", "perplexity_b", "perplexity_ratio", "tokens"}));
  EXPECT_EQ(document["kl_mean"], 0.0);
  EXPECT_EQ(document["kl_p99"], 0.0);
  EXPECT_EQ(document["top1_agreement"], 1.0);
  EXPECT_EQ(document["perplexity_ratio"], 1.0);
  EXPECT_EQ(document["tokens"], 7);
}

TEST_F(CliTest, CompareMeasuresWhatQuantizationDid) {
  const std::string text = folder_.Write("text.txt", "In the beginning God created the heaven and the earth.\n").string();
  const nlohmann::json exact = TaskpressJson({"compare", Litertlm(), Micro(), "--text", text});
  EXPECT_LT(exact["kl_mean"], 1e-8);
  EXPECT_EQ(exact["top1_agreement"], 1.0);
  const nlohmann::json rounded = TaskpressJson({"compare", Int4(), Micro(), "--text", text});
  EXPECT_GT(rounded["kl_mean"], 1e-3);
  EXPECT_NEAR(rounded["perplexity_ratio"].get<double>(), rounded["perplexity_a"].get<double>() / rounded["perplexity_b"].get<double>(),
              1e-9);
}

TEST_F(CliTest, BenchMeasures) {
  const nlohmann::json document = TaskpressJson({"bench", Int4(), "-p", "40", "-n", "4", "-r", "2", "-t", "1"});
  EXPECT_EQ(document["schema"], "taskpress/bench/1");
  EXPECT_THAT(KeysOf(document),
              IsSupersetOf({"prefill", "decode", "time_to_first_token_s", "load_s", "model_bytes", "peak_rss_bytes", "threads", "cpu"}));
  EXPECT_EQ(document["prefill"]["tokens"], 40);
  EXPECT_EQ(document["decode"]["tokens"], 4);
  for (const char* phase : {"prefill", "decode"}) {
    const nlohmann::json& series = document[phase]["tokens_per_s"];
    ASSERT_EQ(series["runs"].size(), 2U);
    const double a = series["runs"][0];
    const double b = series["runs"][1];
    EXPECT_GT(a, 0);
    EXPECT_NEAR(series["mean"].get<double>(), (a + b) / 2, 1e-6 * a);
    EXPECT_NEAR(series["sd"].get<double>(), std::abs(a - b) / std::sqrt(2.0), 1e-6 * a);
  }
  EXPECT_EQ(document["model_bytes"], std::filesystem::file_size(Int4()));
  EXPECT_EQ(document["threads"], 1);
  EXPECT_GT(document["time_to_first_token_s"], 0);
}

TEST_F(CliTest, VerifyAcceptsWhatConvertWrote) {
  for (const std::string& path : {Task(), Litertlm(), Int4()}) {
    const nlohmann::json document = TaskpressJson({"verify", path});
    EXPECT_EQ(document["schema"], "taskpress/verify/1");
    EXPECT_EQ(document["ok"], true);
    const nlohmann::json against = TaskpressJson({"verify", path, "--against", Micro()});
    EXPECT_EQ(against["ok"], true);
    EXPECT_EQ(against["checks"].size(), document["checks"].size() + 3);
  }
  EXPECT_THAT(Taskpress({"verify", Task()}).out, HasSubstr("ok     smoke run"));
}

// Overwrites a few bf16 values of a tensor in a checkpoint's shard.
void ChangeTensor(const std::filesystem::path& checkpoint, const std::string& tensor, size_t first, const std::vector<uint16_t>& values) {
  const auto stored = oracle::TrustingSafetensors::Open(oracle::MicroCheckpoint());
  const std::string bytes(reinterpret_cast<const char*>(stored.Get(tensor).bytes.data()),
                          std::min<size_t>(64, stored.Get(tensor).bytes.size()));
  for (const std::string shard : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    std::string file = ReadFileBytes(checkpoint / shard);
    const size_t at = file.find(bytes);
    if (at == std::string::npos) continue;
    const std::string changed = RawBytes(std::span(values));
    file.replace(at + first * 2, changed.size(), changed);
    std::ofstream(checkpoint / shard, std::ios::binary) << file;
    return;
  }
  FAIL() << tensor;
}

TEST_F(CliTest, VerifyNamesTheWeightThatIsNotTheCheckpoints) {
  const std::vector<uint16_t> loud = {0x42C8, 0xC2C8, 0x42C8};  // 100, -100, 100
  const std::pair<const char*, const char*> cases[] = {
      {"model.language_model.layers.7.mlp.up_proj.weight", "layers.7.mlp.up_proj.weight"},          // a matrix
      {"model.language_model.layers.3.input_layernorm.weight", "layers.3.input_layernorm.weight"},  // a norm
      {"model.language_model.embed_tokens_per_layer.weight", "embed_tokens_per_layer.weight.layers."},
  };
  for (const auto& [tensor, name] : cases) {
    const TempFolder folder;
    const std::filesystem::path changed = CopyMicro(folder);
    ChangeTensor(changed, tensor, 5, loud);
    for (const std::string& path : {Task(), Int4()}) {
      const Finished finished = Taskpress({"verify", path, "--against", changed.string(), "--json"});
      EXPECT_EQ(finished.status, 1) << tensor << finished.err;
      EXPECT_THAT(finished.err, HasSubstr(name));
      EXPECT_THAT(finished.err, HasSubstr("TP-1605"));
      const nlohmann::json document = nlohmann::json::parse(finished.out);  // one document
      EXPECT_EQ(document["ok"], false);
      EXPECT_EQ(document["checks"].back()["ok"], false);
    }
  }
}

}  // namespace
}  // namespace taskpress::testing
