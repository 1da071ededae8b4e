#include "converter/folds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "converter/channel_strength.h"
#include "converter/model_family.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

TextConfig MicroConfig() { return ReadTextConfig(TASKPRESS_TEST_DATA "/micro-e4b/config.json").value(); }

Fold FoldOf(const TextConfig& config, std::string_view row_name, int64_t index) {
  const auto row = std::ranges::find(config.family->folds, row_name, &FoldRow::name);
  Fold fold{.name = FoldName(*row, index), .steps = {}};
  for (int64_t j = 0; j < FoldChannels(*row, index, config); ++j) fold.steps.push_back(static_cast<int8_t>(j % 41 - 20));
  return fold;
}

TEST(FoldsTest, TextRoundTrips) {
  const TextConfig config = MicroConfig();
  const std::vector<Fold> folds{FoldOf(config, "ffn_norm", 3), FoldOf(config, "final_norm", 0)};
  std::vector<Fold> read = DecodeFolds(EncodeFolds(folds)).value();
  std::ranges::sort(read, {}, &Fold::name);
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(read[0].name, "ffn_norm.3");  // sorted
  EXPECT_EQ(read[1].name, "final_norm");
  EXPECT_EQ(read[0].steps, folds[0].steps);
  EXPECT_EQ(read[1].steps, folds[1].steps);
}

TEST(FoldsTest, LiesAreRefusedByTheirRule) {
  const auto decode = [](std::string_view text) {
    const Result<std::vector<Fold>> folds = DecodeFolds(text);
    return folds ? std::string("accepted") : std::string(InfoOf(folds.error().code).name) + " " + folds.error().message;
  };
  EXPECT_THAT(decode("[]"), HasSubstr("D1"));
  EXPECT_THAT(decode(R"({"ffn_norm.0": 3})"), HasSubstr("D1"));
  EXPECT_THAT(decode(R"({"ffn_norm.0": [128]})"), HasSubstr("D2"));
  EXPECT_THAT(decode(R"({"ffn_norm.0": [-128]})"), HasSubstr("D2"));
  EXPECT_THAT(decode(R"({"ffn_norm.0": [18446744073709551615]})"), HasSubstr("D2"));
  EXPECT_THAT(decode(R"({"ffn_norm.0": [1.5]})"), HasSubstr("D2"));
  EXPECT_THAT(decode(R"({"ffn_norm.0": [)"), HasSubstr("BadJson"));
  const TextConfig config = MicroConfig();
  const auto scale = [&](std::vector<Fold> folds) {
    const Result<WeightScalings> scalings = ScalingsOf(folds, config);
    return scalings ? std::string("accepted") : scalings.error().message;
  };
  const Fold good = FoldOf(config, "up_to_down", 2);
  EXPECT_EQ(scale({good}), "accepted");
  EXPECT_THAT(scale({good, good}), HasSubstr("D3"));
  for (const char* name : {"up_to_down", "up_to_down.15", "up_to_down.-1", "up_to_down.02", "input_norm.0", ""}) {
    EXPECT_THAT(scale({{.name = name, .steps = good.steps}}), HasSubstr("D3")) << name;
  }
  Fold shorter = good;
  shorter.steps.pop_back();
  EXPECT_THAT(scale({shorter}), HasSubstr("D4"));
}

// Of each channel, what comes before times what reads it stays what it was.
TEST(FoldsTest, EveryFactorIsUndoneByItsReaders) {
  for (const char* file : {"/micro-e4b/config.json", "/micro-gemma3/config.json"}) {
    const TextConfig config = ReadTextConfig(std::string(TASKPRESS_TEST_DATA) + file).value();
    for (const FoldRow& row : config.family->folds) {
      const Fold fold = FoldOf(config, row.name, 0);
      const WeightScalings scalings = ScalingsOf(std::vector{fold}, config).value();
      size_t read = 0;
      for (const FoldPart& part : row.parts) {
        for (const std::string& name : NamesOf(row, part, 0, config)) {
          const WeightScaling& scaling = scalings.at(name);
          const std::vector<float>& factors = part.side == FoldSide::kRows ? scaling.rows : scaling.columns;
          const bool reads = part.side == FoldSide::kColumns || part.side == FoldSide::kQueryHeadColumns;
          read += reads ? 1 : 0;
          ASSERT_EQ(factors.size() % fold.steps.size(), 0U) << name;
          for (size_t i = 0; i < factors.size(); ++i) {
            const size_t channel = part.side == FoldSide::kQueryHeadColumns ? ChannelOfQueryColumn(i, config) : i % fold.steps.size();
            const float s = std::exp2(static_cast<float>(fold.steps[channel]) / kFoldStepsPerOctave);
            EXPECT_FLOAT_EQ(factors[i], reads ? s : 1 / s) << name << " " << i;
          }
        }
      }
      EXPECT_GT(read, 0U) << row.name;
    }
  }
}

TEST(FoldsTest, QueryHeadsOfAGroupReadTheSameValues) {
  TextConfig config = MicroConfig();
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 3;
  std::vector<size_t> channels;
  for (size_t c = 0; c < 12; ++c) channels.push_back(ChannelOfQueryColumn(c, config));
  EXPECT_THAT(channels, ::testing::ElementsAre(0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5));
}

TEST(ChannelStrengthTest, GeluOfANormalValueIsHalfOfItWhenSmallAndHalfOfItsPowerWhenLarge) {
  EXPECT_NEAR(GeluStrength(1e-3) / 1e-3, 0.5, 1e-3);
  EXPECT_NEAR(GeluStrength(100) / 100, std::sqrt(0.5), 1e-2);
  EXPECT_EQ(GeluStrength(0), 0);
}

}  // namespace
}  // namespace taskpress
