// Recipes, sizes and sweeps as a person and a script meet them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/command_line.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class CliRecipesTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string Mine(const std::string& name) const { return (folder_.path() / name).string(); }
  [[nodiscard]] std::vector<std::string> Convert(const std::string& output, std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"convert",   Micro(), "-o",        Mine(output), "--context", "64",
                                          "--prefill", "8",     "--no-lock", "--threads",  "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  TempFolder folder_;
};

constexpr std::string_view kMixed = R"(base = "dynamic_int4"
method = "clip"

[[rule]]
class = ["head", "embedding"]
type = "int8"

[[rule]]
weights = 'layers\.0\.mlp'
type = "int4_block32"
method = "absmax"
)";

std::string TypeOf(const nlohmann::json& document, const std::string& weight) {
  for (const nlohmann::json& row : document["weights"]) {
    if (row["name"] == weight) return row["type"].get<std::string>() + " " + row["method"].get<std::string>();
  }
  return "no such weight";
}

TEST_F(CliRecipesTest, ARecipeFileDecidesAndItsTableIsPrintedAndKept) {
  const std::string recipe = folder_.Write("mixed.toml", kMixed).string();
  const Finished finished = Taskpress(Convert("a.litertlm", {"--quant", recipe}));
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("int8          clip   head                   1  lm_head.weight"));
  EXPECT_THAT(finished.err, HasSubstr("int4_block32  absmax feed_forward           3"));
  const nlohmann::json inspected = TaskpressJson({"inspect", Mine("a.litertlm")});
  EXPECT_EQ(TypeOf(inspected, "lm_head.weight"), "int8 clip");
  EXPECT_EQ(TypeOf(inspected, "layers.0.mlp.down_proj.weight"), "int4_block32 absmax");
  EXPECT_EQ(TypeOf(inspected, "layers.1.mlp.down_proj.weight"), "int4 clip");
  EXPECT_THAT(Taskpress({"inspect", Mine("a.litertlm")}).out, HasSubstr("int4_block32  absmax feed_forward           3"));
  const nlohmann::json planned = TaskpressJson({"plan", Micro(), "--context", "64", "--quant", recipe});
  EXPECT_EQ(planned["weights"], inspected["weights"]);
  EXPECT_THAT(Taskpress({"plan", Micro(), "--context", "64", "--quant", recipe}).out, HasSubstr("int8          clip   head"));
}

TEST_F(CliRecipesTest, TheMethodOfTheCommandLineTakesThePlaceOfTheFilesButNotOfARules) {
  const std::string recipe = folder_.Write("mixed.toml", kMixed).string();
  const nlohmann::json planned = TaskpressJson({"plan", Micro(), "--context", "64", "--quant", recipe, "--method", "absmax"});
  EXPECT_EQ(TypeOf(planned, "lm_head.weight"), "int8 absmax");
  const std::string swapped =
      folder_.Write("swapped.toml", "base = 'int4'\n[[rule]]\nclass = 'head'\ntype = 'int8'\nmethod = 'clip'\n").string();
  const nlohmann::json own = TaskpressJson({"plan", Micro(), "--context", "64", "--quant", swapped, "--method", "absmax"});
  EXPECT_EQ(TypeOf(own, "lm_head.weight"), "int8 clip");
}

TEST_F(CliRecipesTest, MistakesInAFileAreTold) {
  struct Lie {
    std::string_view text;
    std::string_view message;
  };
  for (const Lie& lie :
       {Lie{"base = 'int4'\ncolour = 'red'\n", "lie.toml:2: unknown key \"colour\""},
        Lie{"base = 'int4'\n[[rule]]\nclass = 'laurels'\ntype = 'int8'\n", "lie.toml:3: unknown class \"laurels\""},
        Lie{"base = 'int4'\n[[rule]]\nweights = 'dwon'\ntype = 'int8'\n", "lie.toml:2: pattern \"dwon\" (int8) matches none"},
        Lie{"base = 'int4'\n[[rule]]\nclass = 'ple'\ntype = 'int4_block32'\n", "tables are looked up by row"},
        Lie{"base = 'int4'\nmethod = 'gptq'\n", "with --calibrate"},
        Lie{"base = 'int4'\n[[rule]]\nclass = 'head'\ntype = 'int4'\nmethod = 'gptq'\n", "with --calibrate"},
        Lie{"base = ", "lie.toml:1: "}}) {
    const std::string recipe = folder_.Write("lie.toml", lie.text).string();
    const Finished finished = Taskpress({"plan", Micro(), "--context", "64", "--quant", recipe});
    EXPECT_NE(finished.status, 0) << lie.text;
    EXPECT_THAT(finished.err, HasSubstr(lie.message)) << lie.text;
  }
  EXPECT_EQ(Taskpress({"plan", Micro(), "--quant", Mine("none.toml")}).status, 2);
}

TEST_F(CliRecipesTest, ABareNameIsSaidToBeWhatItIs) {
  const Finished finished = Taskpress(Convert("a.task", {"--quant", "int4"}));
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("note: int4 is dynamic_int4: int4, one scale per row of each matrix and table"));
}

TEST_F(CliRecipesTest, TheRecipeOfABundleMakesTheSameBundle) {
  ASSERT_EQ(Taskpress(Convert("a.task", {"--method", "clip", "--tensor-type", "mlp=int8"})).status, 0);
  const Finished recipe = Taskpress({"inspect", Mine("a.task"), "--recipe"});
  ASSERT_EQ(recipe.status, 0) << recipe.err;
  const std::string file = folder_.Write("again.toml", recipe.out).string();
  const Finished again = Taskpress(Convert("b.task", {"--quant", file}));
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(ReadFileBytes(Mine("b.task")), ReadFileBytes(Mine("a.task")));
}

TEST_F(CliRecipesTest, ASizeIsKeptAndPlannedExactly) {
  const std::vector<std::string> size = {"--target-size", "4.3M", "--method", "clip"};
  std::vector<std::string> arguments = Convert("a.litertlm", size);
  const nlohmann::json converted = TaskpressJson(arguments);
  const uint64_t bytes = fs::file_size(Mine("a.litertlm"));
  EXPECT_LE(bytes, 4508876U);
  EXPECT_EQ(converted["budget"]["bytes"], bytes);
  EXPECT_EQ(converted["budget"]["target_bytes"], 4508876U);  // 4.3 * 2^20 = 4508876.8
  EXPECT_LE(converted["budget"]["bound"].get<double>(), converted["budget"]["cost"].get<double>() * (1 + 1e-9));
  std::set<std::string> types;
  for (const nlohmann::json& weight : converted["budget"]["weights"]) types.insert(weight["type"]);
  EXPECT_GE(types.size(), 2U);
  arguments.front() = "plan";
  std::erase(arguments, "--no-lock");
  EXPECT_EQ(TaskpressJson(arguments)["outputs"][0]["bytes"], bytes);
  EXPECT_EQ(Taskpress({"verify", Mine("a.litertlm"), "--against", Micro()}).status, 0);
}

TEST_F(CliRecipesTest, SizesThatCannotBeAndOptionsThatContradictAreRefused) {
  struct Lie {
    std::vector<std::string> options;
    std::string_view message;
  };
  for (const Lie& lie :
       {Lie{{"--target-size", "1M"}, "the smallest types of all weights the file has"},
        Lie{{"--target-size", "4M", "--target-bpw", "5"}, "one of them"},
        Lie{{"--target-size", "4M", "--quant", "dynamic_int4"}, "a size chooses the types itself"},
        Lie{{"--target-size", "four"}, "a number of bytes"}, Lie{{"--target-size", "0"}, "nothing fits"},
        Lie{{"--target-bpw", "-1"}, "bits for each parameter"},
        Lie{{"--target-size", "4M", "--target-types", "int5"}, "unknown type \"int5\""},
        Lie{{"--target-size", "4M", "--sensitivity", "guess"}, "auto, weights, outputs or kl"},
        Lie{{"--target-size", "4M", "--sensitivity", "outputs"}, "so that the inputs of the matrices are known"},
        Lie{{"--target-size", "4M", "--sensitivity", "kl"}, "--sensitivity-text"}, Lie{{"--sensitivity", "kl"}, "go with --target-size"}}) {
    const Finished finished = Taskpress(Convert("a.task", lie.options));
    EXPECT_EQ(finished.status, 2) << lie.message;
    EXPECT_THAT(finished.err, HasSubstr(lie.message));
  }
}

TEST_F(CliRecipesTest, QuantizeIsConvertWithEveryTensorsError) {
  const nlohmann::json document = TaskpressJson(
      {"quantize", Micro(), "-o", Mine("a.task"), "--context", "64", "--prefill", "8", "--quant", "dynamic_int8", "--threads", "1"});
  EXPECT_EQ(document["schema"], "taskpress/quantize/1");
  EXPECT_GT(document["errors"].size(), 50U);
  EXPECT_TRUE(fs::exists(Mine("a.task")));
  EXPECT_EQ(Taskpress(Convert("b.task", {"--quant", "dynamic_int8"})).status, 0);
  EXPECT_EQ(ReadFileBytes(Mine("a.task")), ReadFileBytes(Mine("b.task")));
}

TEST_F(CliRecipesTest, ASweepMeasuresEachRecipeAndWritesItsReports) {
  const std::string text =
      folder_.Write("text.txt", "In the beginning God created the heaven and the earth. And the earth was without form.").string();
  const std::string recipe = folder_.Write("mixed.toml", kMixed).string();
  const std::vector<std::string> sweep = {
      "quantize",  Micro(), "--threads", "1", "--sweep", "--recipes", "dynamic_int8,dynamic_int4," + recipe + ",4.3M:clip", "--text", text,
      "--context", "64",    "--prefill", "8", "-o",      Mine("out")};
  const nlohmann::json document = TaskpressJson(sweep);
  ASSERT_EQ(document["rows"].size(), 4U);
  EXPECT_EQ(document["schema"], "taskpress/quantize/1");
  const nlohmann::json& int8 = document["rows"][0];
  const nlohmann::json& int4 = document["rows"][1];
  EXPECT_LT(int8["kl_mean"].get<double>(), int4["kl_mean"].get<double>());
  EXPECT_GT(int8["bytes"].get<uint64_t>(), int4["bytes"].get<uint64_t>());
  EXPECT_GT(int8["top1_agreement"].get<double>(), 0.8);
  EXPECT_NEAR(int8["perplexity_ratio"].get<double>(), 1, 0.1);
  EXPECT_LE(document["rows"][3]["bytes"].get<uint64_t>(), 4508876U);
  EXPECT_EQ(int8["pareto"], true);
  EXPECT_THAT(NamesIn(Mine("out")), ElementsAre("sweep.html", "sweep.json", "sweep.md")) << "bundles are removed";
  EXPECT_EQ(nlohmann::json::parse(ReadFileBytes(Mine("out/sweep.json"))), document);
  EXPECT_EQ(Taskpress(sweep).status, 8) << "reports are not overwritten unasked";
}

TEST_F(CliRecipesTest, ARecipeThatFailsIsARowAndTheError) {
  const std::string text = folder_.Write("text.txt", "In the beginning God created the heaven and the earth.").string();
  const Finished finished =
      Taskpress({"quantize", Micro(), "--threads", "1", "--sweep", "--recipes", "dynamic_int8,1M,dynamic_int8:clip", "--text", text,
                 "--context", "64", "--prefill", "8", "-o", Mine("out"), "--keep", "--speed", "--no-lock"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr("1M: "));
  EXPECT_THAT(NamesIn(Mine("out")),
              ElementsAre("dynamic_int8-clip.litertlm", "dynamic_int8.litertlm", "sweep.html", "sweep.json", "sweep.md"));
  const nlohmann::json document = nlohmann::json::parse(ReadFileBytes(Mine("out/sweep.json")));
  EXPECT_THAT(document["rows"][1]["error"].get<std::string>(), HasSubstr("1048576 bytes; with the smallest types"));
  EXPECT_GT(document["rows"][2]["decode_tokens_per_s"].get<double>(), 0);
}

TEST_F(CliRecipesTest, SweepsThatMakeNoSenseAreRefusedBeforeTheyStart) {
  struct Lie {
    std::vector<std::string> options;
    std::string_view message;
  };
  for (const Lie& lie :
       {Lie{{"--sweep"}, "give a text"}, Lie{{"--sweep", "--text", "t", "--quant", "int4"}, "listed with --recipes"},
        Lie{{"--sweep", "--text", "t", "--recipes", "int4:"}, "--recipes int4:"},
        Lie{{"--sweep", "--text", "t", "--eval-window", "1"}, "--eval-window 1"}, Lie{{"--recipes", "int4"}, "requires --sweep"}}) {
    std::vector<std::string> arguments = {"quantize", Micro(), "-o", Mine("out")};
    arguments.insert(arguments.end(), lie.options.begin(), lie.options.end());
    const Finished finished = Taskpress(arguments);
    EXPECT_EQ(finished.status, 2) << lie.message;
    EXPECT_THAT(finished.err + finished.out, HasSubstr(lie.message));
    EXPECT_FALSE(fs::exists(Mine("out")));
  }
}

}  // namespace
}  // namespace taskpress::testing
