#include "converter/weight_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "converter/checkpoint.h"
#include "converter/model_family.h"
#include "converter/text_weights.h"
#include "schema/base/error.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/memory_checkpoint.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeMemoryCheckpoint;
using testing::MemoryCheckpoint;
using testing::TinyConfigJson;

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b";

TextConfig Preset(std::string_view name) { return ParseTextConfig(Json::parse(PresetConfig(name).value().dump())).value(); }
TextConfig Tiny() { return ParseTextConfig(TinyConfigJson()).value(); }

int64_t CountTensors(const TextConfig& config) {
  int64_t count = 0;
  for (const WeightRow& row : FamilyNamed("gemma3n")->weights) count += WeightCount(row, config);
  return count;
}

TEST(WeightTableTest, CountsTheParametersOfThePublishedModels) {
  const ParameterCount e2b = CountParameters(Preset("e2b"));
  EXPECT_EQ(e2b.text, 4'456'156'768);
  EXPECT_EQ(e2b.effective, 1'905'495'648);
  const ParameterCount e4b = CountParameters(Preset("e4b"));
  EXPECT_EQ(e4b.text, 6'866'696'688);
  EXPECT_EQ(e4b.effective, 3'980'491'248);
}

TEST(WeightTableTest, CountsTheTensorsOfThePublishedModels) {
  EXPECT_EQ(CountTensors(Preset("e2b")), 731);
  EXPECT_EQ(CountTensors(Preset("e4b")), 851);
}

// Sums over the published table of E2B's text tensors, by what they are for.
TEST(WeightTableTest, ShapesGiveThePublishedBudgetOfE2b) {
  const TextConfig config = Preset("e2b");
  std::map<QuantClass, int64_t> budget;
  int64_t dead = 0;
  for (const WeightRow& row : FamilyNamed("gemma3n")->weights) {
    for (int64_t i = 0; i < WeightCount(row, config); ++i) {
      const int64_t elements = NumElements(row.shape(config, i)).value();
      budget[row.quant_class] += elements;
      if (IsUnused(row, config, i)) dead += elements;
    }
  }
  EXPECT_EQ(budget[QuantClass::kEmbedding], 537'395'200);
  EXPECT_EQ(budget[QuantClass::kPerLayerEmbedding], 2'013'265'920);
  EXPECT_EQ(budget[QuantClass::kAltup], 25'165'824);
  EXPECT_EQ(budget[QuantClass::kAttention], 251'658'240 + 41'943'040 + 20'971'520);
  EXPECT_EQ(budget[QuantClass::kFeedForward], 1'509'949'440);
  EXPECT_EQ(budget[QuantClass::kLaurel], 7'864'320);
  EXPECT_EQ(budget[QuantClass::kPerLayer], 31'457'280 + 15'728'640);
  EXPECT_EQ(budget[QuantClass::kSmall], 757'344);
  EXPECT_EQ(dead, 20'974'080) << "keys, values and key norms of the shared layers";
}

TEST(WeightTableTest, NamesFillTheIndexIn) {
  std::set<std::string> names;
  const TextConfig config = Tiny();
  for (const WeightRow& row : FamilyNamed("gemma3n")->weights) {
    for (int64_t i = 0; i < WeightCount(row, config); ++i) {
      EXPECT_TRUE(names.insert(WeightName(row, i)).second) << WeightName(row, i);
    }
  }
  EXPECT_TRUE(names.contains("layers.1.mlp.gate_proj.weight"));
  EXPECT_TRUE(names.contains("altup_projections.0.weight"));
  EXPECT_TRUE(names.contains("layers.0.altup.correct_output_scale"));
  EXPECT_FALSE(names.contains("altup_projections.1.weight")) << "one less than there are streams";
}

TEST(WeightTableTest, EveryTextTensorOfTheMicroCheckpointIsAccountedFor) {
  const TextConfig config = ReadTextConfig(kMicro / "config.json").value();
  const std::shared_ptr<const Checkpoint> checkpoint = OpenSafetensorsCheckpoint(kMicro).value();
  std::map<std::string, Shape> expected;
  for (const WeightRow& row : FamilyNamed("gemma3n")->weights) {
    for (int64_t i = 0; i < WeightCount(row, config); ++i) {
      expected["model.language_model." + WeightName(row, i)] = row.shape(config, i);
    }
  }
  std::map<std::string, Shape> stored;
  for (const CheckpointTensor& tensor : checkpoint->tensors()) {
    if (tensor.name.starts_with("model.language_model.")) stored[tensor.name] = tensor.shape;
  }
  EXPECT_EQ(expected, stored);
  const Result<TextWeights> weights = TextWeights::Bind(checkpoint, config);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  EXPECT_EQ(weights->notes().size(), static_cast<size_t>(checkpoint->tensors().size() > stored.size()));
}

TEST(WeightTableTest, TheSlicerKnowsEachDimensionThatDependsOnLayersOrWidth) {
  const TextConfig whole = Tiny();
  TextConfig narrow = whole;
  narrow.intermediate_size = {8, 4};
  TextConfig shallow = whole;
  shallow.num_hidden_layers = 1;
  for (const WeightRow& row : FamilyNamed("gemma3n")->weights) {
    const Shape full = row.shape(whole, 0);
    Shape cut = full;
    if (row.axis == MatFormerAxis::kFfnRows) cut[0] /= 2;
    if (row.axis == MatFormerAxis::kFfnColumns) cut[1] /= 2;
    EXPECT_EQ(row.shape(narrow, 0), cut) << row.name;
    cut = full;
    if (row.axis == MatFormerAxis::kLayerRows) cut[0] /= 2;
    if (row.axis == MatFormerAxis::kLayerColumns) cut[1] /= 2;
    EXPECT_EQ(row.shape(shallow, 0), cut) << row.name;
  }
}

// ------------------------------------------------------------------------------------------------------------------------- TextWeights

TEST(TextWeightsTest, BindsUnderEveryPrefixThatToolsUse) {
  for (const std::string_view prefix : {"model.language_model.", "language_model.model.", "model."}) {
    const Result<TextWeights> weights = TextWeights::Bind(MakeMemoryCheckpoint(Tiny(), prefix), Tiny());
    EXPECT_TRUE(weights.has_value()) << prefix << ": " << weights.error().message;
  }
  const Result<TextWeights> other = TextWeights::Bind(MakeMemoryCheckpoint(Tiny(), "transformer."), Tiny());
  EXPECT_EQ(other.error().code, ErrorCode::kWeightsMismatch);
  EXPECT_THAT(other.error().message, HasSubstr("not a Gemma 3n checkpoint"));
}

TEST(TextWeightsTest, ListsEverythingMissingMisshapenAndUnknownAtOnce) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  checkpoint->Remove("model.language_model.norm.weight");
  checkpoint->Remove("model.language_model.layers.1.laurel.linear_left.weight");
  checkpoint->Remove("model.language_model.layers.0.mlp.up_proj.weight");
  checkpoint->Add("model.language_model.layers.0.mlp.up_proj.weight", {8, 16});
  checkpoint->Add("model.language_model.layers.2.mlp.up_proj.weight", {8, 8});
  checkpoint->Add("model.language_model.layers.0.self_attn.q_proj.bias", {8});
  const Result<TextWeights> weights = TextWeights::Bind(checkpoint, Tiny());
  ASSERT_FALSE(weights.has_value());
  EXPECT_EQ(weights.error().code, ErrorCode::kWeightsMismatch);
  EXPECT_EQ(weights.error().message,
            "memory: the weights do not fit config.json\n"
            "  missing (2):\n"
            "    model.language_model.norm.weight [8]\n"
            "    model.language_model.layers.1.laurel.linear_left.weight [2,8]\n"
            "  wrong shape (1):\n"
            "    model.language_model.layers.0.mlp.up_proj.weight: [8,16], expected [16,8]\n"
            "  unknown (2):\n"
            "    model.language_model.layers.0.self_attn.q_proj.bias [8]\n"
            "    model.language_model.layers.2.mlp.up_proj.weight [8,8]");
}

TEST(TextWeightsTest, LongListsAreCut) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  for (int i = 0; i < 100; ++i) checkpoint->Add(Format("extra.{}", i), {1});
  EXPECT_THAT(TextWeights::Bind(checkpoint, Tiny()).error().message, HasSubstr("... and 60 more"));
}

TEST(TextWeightsTest, KeysAndValuesOfSharedLayersMayBeThereOrNot) {
  Json json = TinyConfigJson();
  json["layer_types"] = {"full_attention", "full_attention"};
  json["num_kv_shared_layers"] = 1;
  const TextConfig config = ParseTextConfig(json).value();
  std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(config);
  EXPECT_TRUE(TextWeights::Bind(checkpoint, config).has_value());
  for (const char* name : {"k_proj", "v_proj", "k_norm"}) {
    checkpoint->Remove(Format("model.language_model.layers.1.self_attn.{}.weight", name));
  }
  EXPECT_TRUE(TextWeights::Bind(checkpoint, config).has_value());
  checkpoint->Add("model.language_model.layers.1.self_attn.k_proj.weight", {3, 3});
  EXPECT_THAT(TextWeights::Bind(checkpoint, config).error().message, HasSubstr("wrong shape (1)"));
}

TEST(TextWeightsTest, VisionAndAudioTensorsAreNotedNotRefused) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  checkpoint->Add("model.vision_tower.timm_model.conv_stem.conv.weight", {1});
  checkpoint->Add("model.embed_audio.embedding.weight", {1});
  EXPECT_THAT(TextWeights::Bind(checkpoint, Tiny()).value().notes(), ElementsAre(HasSubstr("2 vision and audio tensors not asked for")));
}

TEST(TextWeightsTest, AHeadThatEqualsTheTableIsAccepted) {
  for (const char* name : {"lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight"}) {
    const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
    std::vector<float> table(12 * 8);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i);
    checkpoint->Remove("model.language_model.embed_tokens.weight");
    checkpoint->Add("model.language_model.embed_tokens.weight", {12, 8}, table);
    checkpoint->Add(name, {12, 8}, table);
    EXPECT_TRUE(TextWeights::Bind(checkpoint, Tiny()).has_value());
    checkpoint->Set(name, 95, -1.0F);
    const Result<TextWeights> weights = TextWeights::Bind(checkpoint, Tiny());
    ASSERT_FALSE(weights.has_value()) << "the last element differs";
    EXPECT_EQ(weights.error().code, ErrorCode::kTiedHeadDiffers);
    EXPECT_THAT(weights.error().message, HasSubstr(name));
  }
}

TEST(TextWeightsTest, AHeadOfOtherShapeDiffers) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  checkpoint->Add("lm_head.weight", {10, 8});
  EXPECT_EQ(TextWeights::Bind(checkpoint, Tiny()).error().code, ErrorCode::kTiedHeadDiffers);
}

TEST(TextWeightsTest, BindingReadsNoWeights) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  TextWeights weights = TextWeights::Bind(checkpoint, Tiny()).value();
  ASSERT_TRUE(weights.ApplyRecipe(RecipeFromName("dynamic_int4").value()).has_value());
  const Weight matrix = weights.Matrix("layers.0.mlp.gate_proj.weight").value();
  EXPECT_EQ(matrix.bytes->size(), 16U * 8U / 2U);
  EXPECT_EQ(checkpoint->elements_read(), 0);
}

TEST(TextWeightsTest, ABlockRecipeSaysWhatClientsNeedAndWhatItCannotDo) {
  TextWeights weights = TextWeights::Bind(MakeMemoryCheckpoint(Tiny()), Tiny()).value();  // rows of 8 and 16
  ASSERT_TRUE(weights.ApplyRecipe(RecipeFromName("dynamic_int4_block32").value()).has_value());
  ASSERT_EQ(weights.notes().size(), 1U);
  EXPECT_THAT(weights.notes()[0], HasSubstr("LiteRT of 2025-04"));
  EXPECT_THAT(weights.notes()[0], Not(HasSubstr("; 0 weights")));
  EXPECT_THAT(weights.resolved_recipe(), HasSubstr("are not whole blocks of 32"));
  const Weight matrix = weights.Matrix("layers.0.mlp.gate_proj.weight").value();
  EXPECT_EQ(matrix.block_scales, nullptr);
}

TEST(TextWeightsTest, WithoutARecipeNoMatrixIsHandedOut) {
  TextWeights weights = TextWeights::Bind(MakeMemoryCheckpoint(Tiny()), Tiny()).value();
  EXPECT_EQ(weights.Matrix("layers.0.mlp.gate_proj.weight").error().code, ErrorCode::kRecipeUnmatched);
  EXPECT_EQ(weights.Matrix("layers.0.mlp.other.weight").error().code, ErrorCode::kWeightsMismatch);
}

TEST(TextWeightsTest, TablesAreTheTextRowsTimesTheirScale) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  TextWeights weights = TextWeights::Bind(checkpoint, Tiny()).value();
  ASSERT_TRUE(weights.ApplyRecipe(RecipeFromName("f32").value()).has_value());
  const auto floats = [](const Weight& weight) {
    std::vector<float> values(weight.bytes->size() / sizeof(float));
    EXPECT_TRUE(weight.bytes->Read(0, std::as_writable_bytes(std::span(values))).has_value());
    return values;
  };
  const auto source = [&](std::string_view name, int64_t columns, int64_t first_column, int64_t taken) {
    std::vector<float> values(static_cast<size_t>(10 * taken));
    const CheckpointTensor* tensor = checkpoint->Find("model.language_model." + std::string(name));
    EXPECT_EQ(tensor->shape[1], columns);
    EXPECT_TRUE(checkpoint->ReadRows(*tensor, {.first_row = 0, .num_rows = 10, .first_column = first_column, .num_columns = taken}, values)
                    .has_value());
    return values;
  };
  const std::vector<float> table = source("embed_tokens.weight", 8, 0, 8);
  const Weight head = weights.Head().value();
  EXPECT_EQ(head.shape, (Shape{10, 8})) << "rows past the text vocabulary are copies that no client may emit";
  EXPECT_EQ(floats(head), table) << "the head is not scaled";
  const std::vector<float> embedding = floats(weights.EmbeddingTable().value());
  for (size_t i = 0; i < table.size(); ++i) EXPECT_EQ(embedding[i], table[i] * std::sqrt(8.0F));
  const std::vector<float> second_layer = source("embed_tokens_per_layer.weight", 8, 4, 4);
  const Weight per_layer = weights.PerLayerTable(1).value();
  EXPECT_EQ(per_layer.name, "embed_tokens_per_layer.weight.layers.1");
  const std::vector<float> rows = floats(per_layer);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], second_layer[i] * 2.0F);
}

TEST(TextWeightsTest, AltupCoefficientsAreClippedAndNothingElseIs) {
  const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
  for (const char* name : {"layers.0.altup.prediction_coefs.weight", "layers.0.altup.correction_coefs.weight", "norm.weight"}) {
    checkpoint->Set(Format("model.language_model.{}", name), 0, 500.0F);
    checkpoint->Set(Format("model.language_model.{}", name), 1, -500.0F);
  }
  const TextWeights weights = TextWeights::Bind(checkpoint, Tiny()).value();
  for (const char* name : {"layers.0.altup.prediction_coefs.weight", "layers.0.altup.correction_coefs.weight"}) {
    EXPECT_EQ(weights.Floats(name).value()[0], 120.0F);
    EXPECT_EQ(weights.Floats(name).value()[1], -120.0F);
  }
  EXPECT_EQ(weights.Floats("norm.weight").value()[0], 500.0F);
  TextConfig unclipped = Tiny();
  unclipped.altup_coef_clip = 0;
  EXPECT_EQ(TextWeights::Bind(checkpoint, unclipped).value().Floats("layers.0.altup.prediction_coefs.weight").value()[0], 500.0F);
}

TEST(TextWeightsTest, ValuesThatAreNotFiniteAreNamed) {
  for (const float value : {NAN, INFINITY}) {
    const std::shared_ptr<MemoryCheckpoint> checkpoint = MakeMemoryCheckpoint(Tiny());
    checkpoint->Set("model.language_model.norm.weight", 3, value);
    const Result<std::vector<float>> values = TextWeights::Bind(checkpoint, Tiny()).value().Floats("norm.weight");
    ASSERT_FALSE(values.has_value());
    EXPECT_EQ(values.error().code, ErrorCode::kWeightValue);
    EXPECT_THAT(values.error().message, HasSubstr("model.language_model.norm.weight"));
  }
}

TEST(TextWeightsTest, EachWeightIsHandedOutOnceInOrderOfUse) {
  TextWeights weights = TextWeights::Bind(MakeMemoryCheckpoint(Tiny()), Tiny()).value();
  ASSERT_TRUE(weights.ApplyRecipe(RecipeFromName("dynamic_int8").value()).has_value());
  const Weight first = weights.Matrix("layers.1.mlp.gate_proj.weight").value();
  ASSERT_TRUE(weights.Head().has_value());
  const Weight again = weights.Matrix("layers.1.mlp.gate_proj.weight").value();
  EXPECT_EQ(first.bytes, again.bytes);
  ASSERT_EQ(weights.handed_out().size(), 2U);
  EXPECT_EQ(weights.handed_out()[0].name, "layers.1.mlp.gate_proj.weight");
  EXPECT_EQ(weights.handed_out()[1].name, "lm_head.weight");
  EXPECT_EQ(weights.handed_out()[1].quant_class, QuantClass::kHead);
  EXPECT_THAT(weights.resolved_recipe(), HasSubstr("lm_head.weight"));
}

}  // namespace
}  // namespace taskpress
