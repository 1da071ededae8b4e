#include "tests/testing/checkpoint_generator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <cmath>
#include <numeric>

#include "converter/checkpoint.h"
#include "schema/base/half.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/synthetic_tokenizer.h"

namespace taskpress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json TinyConfig() {
  return {{"model_type", "gemma3n"},
          {"text_config",
           {{"num_hidden_layers", 2},
            {"hidden_size", 32},
            {"vocab_size", 520},
            {"vocab_size_per_layer_input", 512},
            {"hidden_size_per_layer_input", 4},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"head_dim", 8},
            {"laurel_rank", 4},
            {"altup_num_inputs", 4},
            {"intermediate_size", {48, 64}}}}};
}

TextDimensions TinyDimensions() { return ReadTextDimensions(TinyConfig()).value(); }

int64_t Parameters(const TextDimensions& dimensions) {
  int64_t parameters = 0;
  for (const SafetensorsEntry& tensor : MakeTextTensors(dimensions, 1, 1)) parameters += NumElements(tensor.shape).value_or(0);
  return parameters;
}

std::vector<uint16_t> Values(const SafetensorsEntry& tensor) {
  std::vector<uint16_t> values(tensor.bytes->size() / 2);
  EXPECT_TRUE(tensor.bytes->Read(0, std::as_writable_bytes(std::span(values))).has_value());
  return values;
}

const SafetensorsEntry& Find(const std::vector<SafetensorsEntry>& tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, "model.language_model." + std::string(name), &SafetensorsEntry::name);
  EXPECT_NE(found, tensors.end()) << name;
  return *found;
}

TEST(CheckpointGeneratorTest, PresetsHaveThePublishedParameterAndTensorCounts) {
  struct Expected {
    std::string_view preset;
    int64_t parameters;
    size_t tensors;
  };
  // Published text parameters of E2B and E4B; micro-e4b's are counted from its file.
  for (const Expected& expected :
       {Expected{"e2b", 4'456'156'768, 731}, Expected{"e4b", 6'866'696'688, 851}, Expected{"micro", 4'750'080, 371}}) {
    const Result<OrderedJson> config = PresetConfig(expected.preset);
    ASSERT_TRUE(config.has_value());
    const Result<TextDimensions> dimensions = ReadTextDimensions(Json(*config));
    ASSERT_TRUE(dimensions.has_value()) << dimensions.error().message;
    EXPECT_EQ(Parameters(*dimensions), expected.parameters) << expected.preset;
    EXPECT_EQ(MakeTextTensors(*dimensions, 1, 1).size(), expected.tensors) << expected.preset;
  }
  EXPECT_FALSE(PresetConfig("e3b").has_value());
}

TEST(CheckpointGeneratorTest, NamesAndShapesAreThoseOfTheMicroCheckpoint) {
  const Result<Json> config = ReadJsonFile(TASKPRESS_TEST_DATA "/micro-e4b/config.json");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  const Result<std::unique_ptr<Checkpoint>> micro = OpenSafetensorsCheckpoint(TASKPRESS_TEST_DATA "/micro-e4b");
  ASSERT_TRUE(micro.has_value()) << micro.error().message;
  const std::vector<SafetensorsEntry> tensors = MakeTextTensors(ReadTextDimensions(*config).value(), 1, 1);
  for (const SafetensorsEntry& tensor : tensors) {
    const CheckpointTensor* real = (*micro)->Find(tensor.name);
    ASSERT_NE(real, nullptr) << tensor.name;
    EXPECT_EQ(tensor.shape, real->shape) << tensor.name;
  }
  const auto text_tensors = std::ranges::count_if(
      (*micro)->tensors(), [](const CheckpointTensor& tensor) { return tensor.name.starts_with("model.language_model."); });
  EXPECT_EQ(std::ssize(tensors), text_tensors);
}

TEST(CheckpointGeneratorTest, ConfigsWithoutUsableDimensionsAreRefused) {
  Json config = TinyConfig();
  config["text_config"]["intermediate_size"] = Json::array({48});
  EXPECT_THAT(ReadTextDimensions(config).error().message, HasSubstr("1 entries for 2 layers"));
  config["text_config"]["intermediate_size"] = 48.5;
  EXPECT_THAT(ReadTextDimensions(config).error().message, HasSubstr("intermediate_size"));
  config["text_config"].erase("hidden_size");
  EXPECT_THAT(ReadTextDimensions(config).error().message, HasSubstr("hidden_size"));
  EXPECT_FALSE(ReadTextDimensions(Json::array()).has_value());
}

TEST(CheckpointGeneratorTest, TheSameSeedGivesTheSameFilesForOneAndTwoThreads) {
  const TempFolder one;
  const TempFolder two;
  const TempFolder other;
  ASSERT_TRUE(WriteWeights(one.path(), MakeTextTensors(TinyDimensions(), 7, 1), 0, false).has_value());
  ASSERT_TRUE(WriteWeights(two.path(), MakeTextTensors(TinyDimensions(), 7, 2), 0, false).has_value());
  ASSERT_TRUE(WriteWeights(other.path(), MakeTextTensors(TinyDimensions(), 8, 2), 0, false).has_value());
  const std::string bytes = ReadFileBytes(one.path() / "model.safetensors");
  EXPECT_TRUE(bytes == ReadFileBytes(two.path() / "model.safetensors"));
  EXPECT_FALSE(bytes == ReadFileBytes(other.path() / "model.safetensors"));
}

TEST(CheckpointGeneratorTest, AnyRangeHoldsTheBytesOfTheWhole) {
  const std::vector<SafetensorsEntry> tensors = MakeTextTensors(TinyDimensions(), 3, 2);
  const SafetensorsEntry& tensor = Find(tensors, "embed_tokens.weight");  // 33,280 bytes: three blocks, the last with repeated rows
  std::vector<std::byte> whole(tensor.bytes->size());
  ASSERT_TRUE(tensor.bytes->Read(0, whole).has_value());
  for (const auto& [offset, size] : std::vector<std::pair<size_t, size_t>>{
           {0, 1}, {1, 1}, {1, 33'279}, {16'383, 2}, {16'384, 16'384}, {20'001, 13'001}, {33'279, 1}, {5, 0}}) {
    std::vector<std::byte> part(size);
    ASSERT_TRUE(tensor.bytes->Read(offset, part).has_value());
    EXPECT_TRUE(std::ranges::equal(part, std::span(whole).subspan(offset, size))) << offset << " " << size;
  }
}

TEST(CheckpointGeneratorTest, ValuesHaveTheirSpreadAndDoNotRepeat) {
  const std::vector<SafetensorsEntry> tensors = MakeTextTensors(TinyDimensions(), 3, 1);
  const std::vector<uint16_t> values = Values(Find(tensors, "embed_tokens.weight"));
  double sum = 0;
  double squares = 0;
  double neighbours = 0;
  constexpr size_t kDistinct = 512 * 32;
  for (size_t i = 0; i < kDistinct; ++i) {
    const double value = static_cast<double>(Bf16ToFloat(values[i])) * std::sqrt(32.0);
    sum += value;
    squares += value * value;
    if (i > 0) neighbours += value * static_cast<double>(Bf16ToFloat(values[i - 1])) * std::sqrt(32.0);
  }
  // Standard errors of 16,384 unit normals: mean and correlation 0.0078, variance 0.011 or less; bars at five of them.
  EXPECT_NEAR(sum / kDistinct, 0, 0.04);
  EXPECT_NEAR(squares / kDistinct, 1, 0.055);
  EXPECT_NEAR(neighbours / kDistinct, 0, 0.04);
  EXPECT_TRUE(std::equal(values.begin(), values.begin() + 32, values.end() - 32)) << "rows beyond the text vocabulary copy row 0";
  EXPECT_NE(Values(Find(tensors, "layers.0.self_attn.k_proj.weight")), Values(Find(tensors, "layers.1.self_attn.k_proj.weight")));
  for (const uint16_t norm : Values(Find(tensors, "layers.0.input_layernorm.weight"))) EXPECT_NEAR(Bf16ToFloat(norm), 1, 0.36);
}

TEST(CheckpointGeneratorTest, ShardedAndSingleCheckpointsOpenWithEqualValues) {
  const TempFolder single;
  const TempFolder sharded;
  const std::vector<SafetensorsEntry> tensors = MakeTextTensors(TinyDimensions(), 7, 2);
  ASSERT_TRUE(WriteWeights(single.path(), tensors, 0, false).has_value());
  ASSERT_TRUE(WriteWeights(sharded.path(), tensors, 20'000, false).has_value());
  EXPECT_TRUE(std::filesystem::exists(sharded.path() / "model-00002-of-00005.safetensors"));
  const Result<std::unique_ptr<Checkpoint>> a = OpenSafetensorsCheckpoint(single.path());
  const Result<std::unique_ptr<Checkpoint>> b = OpenSafetensorsCheckpoint(sharded.path());
  ASSERT_TRUE(a.has_value()) << a.error().message;
  ASSERT_TRUE(b.has_value()) << b.error().message;
  ASSERT_EQ((*a)->tensors().size(), 11U + 24 * 2);
  ASSERT_EQ((*b)->tensors().size(), (*a)->tensors().size());
  for (const CheckpointTensor& tensor : (*a)->tensors()) {
    const RowBlock all = {
        .first_row = 0, .num_rows = MatrixRows(tensor.shape), .first_column = 0, .num_columns = MatrixColumns(tensor.shape)};
    std::vector<float> from_a(static_cast<size_t>(all.num_rows * all.num_columns));
    std::vector<float> from_b(from_a.size());
    ASSERT_TRUE((*a)->ReadRows(tensor, all, from_a).has_value());
    ASSERT_TRUE((*b)->ReadRows(*(*b)->Find(tensor.name), all, from_b).has_value());
    EXPECT_EQ(from_a, from_b) << tensor.name;
  }
}

class SyntheticTokenizerTest : public testing::TestWithParam<int> {};

TEST_P(SyntheticTokenizerTest, LoadsInSentencePieceWithGemmasIds) {
  const Result<std::string> model = SyntheticTokenizerModel(GetParam());
  ASSERT_TRUE(model.has_value()) << model.error().message;
  sentencepiece::SentencePieceProcessor processor;
  const auto status = processor.LoadFromSerializedProto(*model);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(processor.GetPieceSize(), GetParam());
  EXPECT_EQ(processor.pad_id(), 0);
  EXPECT_EQ(processor.eos_id(), 1);
  EXPECT_EQ(processor.bos_id(), 2);
  EXPECT_EQ(processor.unk_id(), 3);
  EXPECT_EQ(processor.PieceToId("<start_of_turn>"), 105);
  EXPECT_EQ(processor.PieceToId("<end_of_turn>"), 106);
  EXPECT_TRUE(processor.IsByte(processor.PieceToId("<0x00>")));
  EXPECT_TRUE(processor.IsByte(processor.PieceToId("<0xFF>")));
}

TEST_P(SyntheticTokenizerTest, AnyTextSurvivesEncodingAndDecoding) {
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto(SyntheticTokenizerModel(GetParam()).value()).ok());
  for (const std::string text :
       {"Hello, world!", "  two spaces\n\tand a tab ", "na\xc3\xafve \xe2\x82\xac\xf0\x9f\x98\x80", "the quick brown fox"}) {
    std::vector<int> ids;
    ASSERT_TRUE(processor.Encode(text, &ids).ok());
    std::string decoded;
    ASSERT_TRUE(processor.Decode(ids, &decoded).ok());
    EXPECT_EQ(decoded, text);
    EXPECT_THAT(ids, testing::Not(testing::Contains(3))) << "bytes stand in for unknown characters";
  }
  std::vector<int> turn;
  ASSERT_TRUE(processor.Encode("<start_of_turn>a", &turn).ok());
  EXPECT_THAT(turn, ElementsAre(105, processor.PieceToId("a")));
}

INSTANTIATE_TEST_SUITE_P(Sizes, SyntheticTokenizerTest, testing::Values(512, 2048, 30'000));

TEST(SyntheticTokenizerTest, MergesAreReachedAndEveryPieceIsItsOwn) {
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto(SyntheticTokenizerModel(30'000).value()).ok());
  std::set<std::string> pieces;
  for (int id = 0; id < processor.GetPieceSize(); ++id)
    EXPECT_TRUE(pieces.insert(processor.IdToPiece(id)).second) << processor.IdToPiece(id);
  std::vector<std::string> parts;
  ASSERT_TRUE(processor.Encode("abc", &parts).ok());
  EXPECT_THAT(parts, ElementsAre("abc"));
}

TEST(SyntheticTokenizerTest, SizesOutsideItsBoundsAreRefused) {
  EXPECT_EQ(SyntheticTokenizerModel(511).error().code, ErrorCode::kTokenizerModel);
  EXPECT_EQ(SyntheticTokenizerModel(500'001).error().code, ErrorCode::kTokenizerModel);
  EXPECT_TRUE(SyntheticTokenizerModel(500'000).has_value());
}

}  // namespace
}  // namespace taskpress
