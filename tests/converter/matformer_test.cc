#include "converter/matformer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "converter/model_family.h"
#include "converter/slice_folder.h"
#include "schema/base/hash.h"
#include "schema/safetensors.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/memory_checkpoint.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kData = TASKPRESS_TEST_DATA;
const fs::path kMicro = kData / "micro-e4b";

TextConfig Preset(std::string_view name) { return ParseTextConfig(Json::parse(PresetConfig(name).value().dump())).value(); }

Json GoldenSlice(const std::string& name) {
  std::ifstream file(kData / "goldens" / "slices.json");
  return Json::parse(file).at(name);
}

fs::path WriteSpec(const TempFolder& folder, const std::string& name) {
  const Json golden = GoldenSlice(name);
  return folder.Write(name + ".json", Json{{"ffn", golden.at("ffn")}, {"skip", golden.at("drop")}}.dump());
}

TEST(PublishedSlicesTest, HaveThePublishedParameterCountsExactly) {
  const TextConfig e4b = Preset("e4b");
  for (const PublishedSlice& published : PublishedSlices()) {
    const Result<MatformerSlice> slice = ResolveSlice(std::string(published.name), e4b);
    ASSERT_TRUE(slice.has_value()) << slice.error().message;
    EXPECT_EQ(CountParameters(SliceConfig(e4b, *slice)).effective, published.effective_parameters) << published.name;
  }
  EXPECT_EQ(PublishedSlices().size(), 16U);
}

TEST(PublishedSlicesTest, E2bIsTheOfficialOne) {
  const TextConfig e4b = Preset("e4b");
  for (const char* spec : {"e2b", "E2B", "E1.91B", "1.91b", "Config for official E2B Model"}) {
    const Result<MatformerSlice> slice = ResolveSlice(spec, e4b);
    ASSERT_TRUE(slice.has_value()) << slice.error().message;
    const TextConfig ours = SliceConfig(e4b, *slice);
    const TextConfig official = Preset("e2b");
    EXPECT_EQ(ours.num_hidden_layers, official.num_hidden_layers);
    EXPECT_EQ(ours.intermediate_size, official.intermediate_size);
    EXPECT_EQ(ours.layer_types, official.layer_types);
    EXPECT_EQ(ours.num_kv_shared_layers, official.num_kv_shared_layers);
    EXPECT_EQ(ours.activation_sparsity_pattern, official.activation_sparsity_pattern);
    EXPECT_EQ(CountParameters(ours).text, 4'456'156'768);
  }
}

TEST(PublishedSlicesTest, E4bIsTheCheckpointItself) {
  const auto config = ParseTextConfig(testing::TinyConfigJson()).value();
  const std::shared_ptr<const Checkpoint> base = testing::MakeMemoryCheckpoint(config);
  const MatformerSlice slice = ResolveSlice("e4b", config).value();
  EXPECT_EQ(SliceCheckpoint(base, config, slice).value(), base);
}

struct Lie {
  const char* spec;  // a name, or JSON
  const char* message;
};

// The micro checkpoint: 15 layers of 512, from 10 on they share the keys and values of 8 and 9.
TEST(SliceSpecTest, NonsenseIsRefusedWithTheRule) {
  const TextConfig micro = ReadTextConfig(kMicro / "config.json").value();
  const TempFolder folder;
  for (const Lie& lie : {
           Lie{"e3b", "neither a JSON file nor a published slice"},
           Lie{"2.98b", "is the size of 2 slices"},
           Lie{"e2b", "is a slice of E4B"},
           Lie{R"([1])", "an object"},
           Lie{R"({"fnn": 256})", "unknown key \"fnn\""},
           Lie{R"({"skip": 3})", "\"skip\" is a list of layers"},
           Lie{R"({"skip": [15]})", "names layer 15"},
           Lie{R"({"skip": [-1]})", "names layer -1"},
           Lie{R"({"ffn": "256"})", "\"ffn\" is a width"},
           Lie{R"({"ffn": [256, 256]})", "2 widths for the 15 layers"},
           Lie{R"({"ffn": 1024})", "layer 0: width 1024"},
           Lie{R"({"ffn": 0})", "layer 0: width 0"},
           Lie{R"({"ffn": 255})", "layer 0: width 255"},
           Lie{R"({"ffn": 256, "skip": [8]})", "layer 8 cannot be left out"},
           Lie{R"({"ffn": 256, "skip": [9]})", "layer 9 cannot be left out"},
           Lie{R"({"skip": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14]})", "no layer is left"},
       }) {
    std::string spec = lie.spec;
    if (spec.starts_with('{') || spec.starts_with('[')) spec = folder.Write("spec.json", spec).string();
    const Result<MatformerSlice> slice = ResolveSlice(spec, micro);
    ASSERT_FALSE(slice.has_value()) << lie.spec;
    EXPECT_EQ(InfoOf(slice.error().code).name, InfoOf(ErrorCode::kSlice).name) << slice.error().message;
    EXPECT_THAT(slice.error().message, HasSubstr(lie.message));
  }
}

TEST(SliceSpecTest, Gemma3HasNoSmallerModelsInside) {
  const TextConfig config = ReadTextConfig(kData / "micro-gemma3" / "config.json").value();
  EXPECT_TRUE(ResolveSlice("e4b", config).has_value());
  const Result<MatformerSlice> slice = ResolveSlice("e2b", config);
  ASSERT_FALSE(slice.has_value());
  EXPECT_EQ(slice.error().code, ErrorCode::kSlice);
  EXPECT_THAT(slice.error().message, HasSubstr("Gemma 3 is no MatFormer"));
}

class SliceFolderTest : public ::testing::TestWithParam<const char*> {};

// What transformers' own slicing makes of the micro checkpoint: names, shapes and a digest of each tensor's bytes.
TEST_P(SliceFolderTest, HoldsTheTensorsAndTheConfigOfTheGoldens) {
  const TempFolder folder;
  const Json golden = GoldenSlice(GetParam());
  const Result<SliceFolder> written =
      WriteSliceFolder(kMicro, folder.path() / "out", {.slice = WriteSpec(folder, GetParam()).string(), .shard_bytes = 2'000'000});
  ASSERT_TRUE(written.has_value()) << written.error().message;
  EXPECT_GT(written->shards, 1);
  std::map<std::string, std::string> found;
  for (const auto& entry : fs::directory_iterator(folder.path() / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file = SafetensorsFile::Open(entry.path()).value();
    for (const TensorView& view : file.tensors()) {
      const Json shape_and_digest{view.shape(), Sha256Hex(view.bytes()).substr(0, 16)};
      found[view.name()] = shape_and_digest.dump();
    }
  }
  for (const auto& [name, expected] : golden.at("tensors").items()) EXPECT_EQ(found[name], expected.dump()) << name;
  EXPECT_TRUE(found.contains("model.embed_vision.embedding.weight")) << "the other modalities are still there";

  const TextConfig ours = ReadTextConfig(folder.path() / "out" / "config.json").value();
  EXPECT_EQ(ours.num_hidden_layers, golden.at("config").at("num_hidden_layers").get<int64_t>());
  EXPECT_EQ(Json(ours.intermediate_size), golden.at("config").at("intermediate_size"));
  EXPECT_EQ(Json(ours.activation_sparsity_pattern), golden.at("config").at("activation_sparsity_pattern"));
  EXPECT_EQ(ours.num_kv_shared_layers, golden.at("config").at("num_kv_shared_layers").get<int64_t>());
  // The folder is a checkpoint: index, shards and tokenizer are where readers look for them.
  EXPECT_TRUE(OpenSafetensorsCheckpoint(folder.path() / "out").has_value());
  EXPECT_TRUE(fs::exists(folder.path() / "out" / "tokenizer.model"));
}

INSTANTIATE_TEST_SUITE_P(Goldens, SliceFolderTest, ::testing::Values("e2b", "mixed"),
                         [](const auto& test) { return std::string(test.param); });

TEST(SliceFolderTest, DoesNotReplaceWithoutBeingAsked) {
  const TempFolder folder;
  const std::string spec = WriteSpec(folder, "e2b").string();
  ASSERT_TRUE(WriteSliceFolder(kMicro, folder.path() / "out", {.slice = spec}).has_value());
  EXPECT_EQ(WriteSliceFolder(kMicro, folder.path() / "out", {.slice = spec}).error().code, ErrorCode::kOutputExists);
  EXPECT_TRUE(WriteSliceFolder(kMicro, folder.path() / "out", {.slice = spec, .replace = true}).has_value());
  EXPECT_EQ(WriteSliceFolder(kMicro, kMicro, {.slice = spec}).error().code, ErrorCode::kUsage);
  EXPECT_EQ(WriteSliceFolder(kMicro / "config.json", folder.path() / "b", {.slice = spec}).error().code, ErrorCode::kUsage);
}

// Rows and columns of blocks of layers, asked for across the gap that a skipped layer leaves.
TEST(SliceCheckpointTest, ReadsAcrossSkippedLayers) {
  Json json = testing::TinyConfigJson();
  json["num_hidden_layers"] = 3;
  json["intermediate_size"] = 8;
  json["layer_types"] = {"sliding_attention", "sliding_attention", "full_attention"};
  json["activation_sparsity_pattern"] = {0.95, 0.5, 0.0};
  const TextConfig config = ParseTextConfig(json).value();
  const std::shared_ptr<const Checkpoint> base = testing::MakeMemoryCheckpoint(config);
  const MatformerSlice slice{.kept_layers = {0, 2}, .ffn_widths = {8, 4}};
  const std::shared_ptr<const Checkpoint> sliced = SliceCheckpoint(base, config, slice).value();
  const TextConfig small = SliceConfig(config, slice);
  EXPECT_EQ(small.layer_types, (std::vector{LayerType::kSliding, LayerType::kFull}));
  EXPECT_THAT(small.activation_sparsity_pattern, ElementsAre(0.95, 0.0));

  const auto read = [](const Checkpoint& checkpoint, std::string_view name, const RowBlock& block) {
    std::vector<float> values(static_cast<size_t>(block.num_rows * block.num_columns));
    const Status status = checkpoint.ReadRows(*checkpoint.Find(name), block, values);
    EXPECT_TRUE(status.has_value());
    return values;
  };
  constexpr std::string_view kTable = "model.language_model.embed_tokens_per_layer.weight";  // [10, layers * 4]
  EXPECT_EQ(sliced->Find(kTable)->shape, (Shape{10, 8}));
  std::vector<float> expected;
  for (int64_t row = 3; row < 5; ++row) {
    for (const int64_t column : {2, 3, 8, 9, 10}) {
      expected.push_back(read(*base, kTable, {.first_row = row, .num_rows = 1, .first_column = column, .num_columns = 1})[0]);
    }
  }
  EXPECT_EQ(read(*sliced, kTable, {.first_row = 3, .num_rows = 2, .first_column = 2, .num_columns = 5}), expected);

  constexpr std::string_view kProjection = "model.language_model.per_layer_model_projection.weight";  // [layers * 4, 8]
  std::vector<float> rows = read(*base, kProjection, {.first_row = 3, .num_rows = 1, .first_column = 0, .num_columns = 8});
  const std::vector<float> more = read(*base, kProjection, {.first_row = 8, .num_rows = 2, .first_column = 0, .num_columns = 8});
  rows.insert(rows.end(), more.begin(), more.end());
  EXPECT_EQ(read(*sliced, kProjection, {.first_row = 3, .num_rows = 3, .first_column = 0, .num_columns = 8}), rows);

  EXPECT_EQ(read(*sliced, "model.language_model.layers.1.mlp.down_proj.weight",
                 {.first_row = 1, .num_rows = 1, .first_column = 0, .num_columns = 4}),
            read(*base, "model.language_model.layers.2.mlp.down_proj.weight",
                 {.first_row = 1, .num_rows = 1, .first_column = 0, .num_columns = 4}));
  EXPECT_EQ(sliced->Find("model.language_model.layers.2.mlp.down_proj.weight"), nullptr);
}

}  // namespace
}  // namespace taskpress
