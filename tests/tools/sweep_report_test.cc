#include "tools/sweep_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/sweep.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

SweepRow Row(const std::string& recipe, uint64_t bytes, double kl) {
  return {.recipe = recipe, .bytes = bytes, .bits_per_weight = 4.5, .kl_mean = kl, .top1_agreement = 0.9, .perplexity_ratio = 1.01};
}

Sweep Example() {
  return {.checkpoint = "micro",
          .text = "text.txt",
          .calibration = "",
          .positions = 100,
          .rows = {Row("int8", 6'000'000, 0.001),
                   Row("int4", 3'000'000, 0.2),
                   Row("worse", 3'500'000, 0.3),
                   Row("int4:clip", 3'000'000, 0.1),
                   {.recipe = "broken.toml", .error = "a | b\nc"}}};
}

TEST(SweepReportTest, TheFrontIsWhatNothingBeatsInBothWays) {
  EXPECT_THAT(ParetoFront(Example().rows), ElementsAre(true, false, false, true, false));
  EXPECT_THAT(ParetoFront({Row("a", 1, 0.5), Row("b", 1, 0.5)}), ElementsAre(true, true)) << "equal ones do not beat each other";
  EXPECT_THAT(ParetoFront({{.recipe = "failed", .error = "e"}, Row("a", 9, 9)}), ElementsAre(false, true)) << "no figures, no front";
  EXPECT_TRUE(ParetoFront({}).empty());
}

TEST(SweepReportTest, TheTableGoesBySizeWithTheFrontInBold) {
  EXPECT_EQ(SweepMarkdown(Example()),
            "micro, 100 positions of text.txt. Against the checkpoint's floats; the front of size and divergence is in bold.\n\n"
            "| recipe | bytes | bits per weight | KL mean (nats) | KL 99 % | top-1 | perplexity ratio |\n"
            "|---|---:|---:|---:|---:|---:|---:|\n"
            "| **int4:clip** | 3000000 | 4.500 | 0.100000 | 0.000000 | 0.9000 | 1.01000 |\n"
            "| int4 | 3000000 | 4.500 | 0.200000 | 0.000000 | 0.9000 | 1.01000 |\n"
            "| worse | 3500000 | 4.500 | 0.300000 | 0.000000 | 0.9000 | 1.01000 |\n"
            "| **int8** | 6000000 | 4.500 | 0.001000 | 0.000000 | 0.9000 | 1.01000 |\n"
            "| broken.toml | a \\| b c |\n");
}

TEST(SweepReportTest, SpeedIsAColumnWhereItWasMeasured) {
  Sweep sweep = Example();
  sweep.rows[0].decode_tokens_per_s = 12.34;
  EXPECT_THAT(SweepMarkdown(sweep), HasSubstr("| prefill tok/s | decode tok/s |"));
  EXPECT_THAT(SweepMarkdown(sweep), HasSubstr("| - | 12.3 |"));
  EXPECT_EQ(SweepJson(sweep)["rows"][0]["decode_tokens_per_s"], 12.34);
  EXPECT_FALSE(SweepJson(sweep)["rows"][1].contains("decode_tokens_per_s"));
}

TEST(SweepReportTest, JsonHasTheRowsAsTheyWereAskedFor) {
  const OrderedJson json = SweepJson(Example());
  EXPECT_EQ(json["rows"][3]["recipe"], "int4:clip");
  EXPECT_EQ(json["rows"][3]["pareto"], true);
  EXPECT_EQ(json["rows"][1]["pareto"], false);
  EXPECT_EQ(json["rows"][4]["error"], "a | b\nc");
  EXPECT_FALSE(json["rows"][4].contains("bytes"));
}

TEST(SweepReportTest, ThePageNeedsNothingElseAndEscapesNames) {
  Sweep sweep = Example();
  sweep.checkpoint = "<script>alert(1)</script>";
  sweep.rows[1].recipe = "a\"><b>&";
  const std::string html = SweepHtml(sweep);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("a&quot;&gt;&lt;b&gt;&amp;"));
  for (const std::string_view outside : {"http:", "https:", "src=", "href=", "@import", "url("}) EXPECT_THAT(html, Not(HasSubstr(outside)));
  size_t circles = 0;
  for (size_t at = html.find("<circle"); at != std::string::npos; at = html.find("<circle", at + 1)) ++circles;
  EXPECT_EQ(circles, 4U) << "one for each row with figures";
  EXPECT_THAT(html, HasSubstr("<td colspan=\"6\">a | b\nc</td>"));
}

TEST(SweepReportTest, FiguresAtTheEdgesDrawAPlot) {
  for (const std::vector<SweepRow>& rows : {std::vector<SweepRow>{},
                                            {Row("one", 1000, 0.1)},
                                            {Row("exact", 1000, 0)},
                                            {Row("a", 1000, 0.1), Row("b", 1000, 0.1)},
                                            {{.recipe = "failed", .error = "e"}}}) {
    const std::string html = SweepHtml({.checkpoint = "m", .text = "t", .calibration = "", .rows = rows});
    EXPECT_THAT(html, Not(HasSubstr("nan")));
    EXPECT_THAT(html, Not(HasSubstr("inf")));
  }
}

TEST(SweepRecipesTest, ANameAFileOrASizeWithAMethodOrWithout) {
  const ConvertArguments base;
  EXPECT_EQ(ArgumentsOfRecipe(base, "dynamic_int8")->quant, "dynamic_int8");
  EXPECT_EQ(ArgumentsOfRecipe(base, "dynamic_int8")->method, "");
  EXPECT_EQ(ArgumentsOfRecipe(base, "a/b.toml:clip")->quant, "a/b.toml");
  EXPECT_EQ(ArgumentsOfRecipe(base, "a/b.toml:clip")->method, "clip");
  EXPECT_EQ(ArgumentsOfRecipe(base, "2.2G:gptq")->target_size, "2.2G");
  EXPECT_EQ(ArgumentsOfRecipe(base, "2.2G:gptq")->method, "gptq");
  EXPECT_EQ(ArgumentsOfRecipe(base, "4.6bpw")->target_bpw, 4.6);
  for (const std::string recipe : {"", ":clip", "int4:", "4.6xbpw"}) {
    EXPECT_EQ(ArgumentsOfRecipe(base, recipe).error().code, ErrorCode::kUsage) << recipe;
  }
}

}  // namespace
}  // namespace taskpress
