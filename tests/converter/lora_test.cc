#include "converter/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "converter/prepare.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kConfig =
    R"({"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q_proj"],"bias":"none","init_lora_weights":true})";
constexpr const char* kModule = "model.language_model.layers.0.self_attn.q_proj";

std::vector<float> Values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(static_cast<double>(random()) / 4294967296.0 - 0.5);
  return values;
}

RawTensor Floats(std::string name, std::vector<int64_t> shape, uint32_t seed) {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return {
      .name = std::move(name), .dtype = "F32", .shape = std::move(shape), .bytes = RawBytes(std::span<const float>(Values(count, seed)))};
}

std::vector<RawTensor> Pair(const std::string& module, int64_t out, int64_t in, int64_t rank = 2) {
  const std::string prefix = "base_model.model." + module;
  return {Floats(prefix + ".lora_A.weight", {rank, in}, 5), Floats(prefix + ".lora_B.weight", {out, rank}, 6)};
}

struct Adapter {
  std::string config{kConfig};
  std::vector<RawTensor> tensors = Pair(kModule, 6, 4);
};

// A base of q_proj [6, 4] and a vector.
Result<MergedCheckpoint> Merge(const TempFolder& folder, const Adapter& adapter) {
  const fs::path base = folder.Write("base.safetensors", HonestSafetensors(std::vector{Floats(std::string(kModule) + ".weight", {6, 4}, 1),
                                                                                       Floats("model.norm.weight", {4}, 2)}));
  folder.Write("adapter/adapter_config.json", adapter.config);
  folder.Write("adapter/adapter_model.safetensors", HonestSafetensors(adapter.tensors));
  return MergeLora(OpenSafetensorsCheckpoint(base).value(), folder.path() / "adapter");
}

// Every element is the definition's, in double, whatever block it is read in.
void ExpectMerged(const MergedCheckpoint& merged, double scale, int64_t rank) {
  const CheckpointTensor* tensor = merged.checkpoint->Find(std::string(kModule) + ".weight");
  ASSERT_NE(tensor, nullptr);
  const std::vector<float> base = Values(24, 1);
  const std::vector<float> down = Values(rank * 4, 5);
  const std::vector<float> up = Values(6 * rank, 6);
  for (const RowBlock block : {RowBlock{.first_row = 0, .num_rows = 6, .first_column = 0, .num_columns = 4},
                               RowBlock{.first_row = 2, .num_rows = 3, .first_column = 1, .num_columns = 2}}) {
    std::vector<float> values(static_cast<size_t>(block.num_rows * block.num_columns));
    ASSERT_TRUE(merged.checkpoint->ReadRows(*tensor, block, values).has_value());
    for (size_t i = 0; i < values.size(); ++i) {
      const auto row = static_cast<size_t>(block.first_row) + i / static_cast<size_t>(block.num_columns);
      const auto column = static_cast<size_t>(block.first_column) + i % static_cast<size_t>(block.num_columns);
      double expected = static_cast<double>(base[row * 4 + column]);
      for (size_t k = 0; k < static_cast<size_t>(rank); ++k) {
        expected += scale * static_cast<double>(up[row * static_cast<size_t>(rank) + k]) * static_cast<double>(down[k * 4 + column]);
      }
      EXPECT_NEAR(static_cast<double>(values[i]), expected, 1e-6) << row << ", " << column;
    }
  }
}

TEST(LoraTest, AddsTheScaledProductToItsTargetOnly) {
  const TempFolder folder;
  const MergedCheckpoint merged = Merge(folder, {}).value();
  EXPECT_THAT(merged.changed, ElementsAre(std::string(kModule) + ".weight"));
  EXPECT_TRUE(merged.notes.empty());
  ExpectMerged(merged, 2.0, 2);
  std::vector<float> norm(4);
  ASSERT_TRUE(merged.checkpoint
                  ->ReadRows(*merged.checkpoint->Find("model.norm.weight"),
                             {.first_row = 0, .num_rows = 1, .first_column = 0, .num_columns = 4}, norm)
                  .has_value());
  EXPECT_EQ(norm, Values(4, 2));
}

TEST(LoraTest, RankStabilisedScaleDividesByTheRoot) {
  const TempFolder folder;
  ExpectMerged(Merge(folder, {.config = R"({"r":2,"lora_alpha":4,"use_rslora":true})"}).value(), 4.0 / std::sqrt(2.0), 2);
}

TEST(LoraTest, PatternsGiveAModuleItsOwnRankAndAlpha) {
  const TempFolder folder;
  Adapter adapter{.config =
                      R"({"r":8,"lora_alpha":4,"rank_pattern":{"q_proj":3},"alpha_pattern":{"layers.0.self_attn.q_proj":9,"k_proj":1}})"};
  adapter.tensors = Pair(kModule, 6, 4, 3);
  ExpectMerged(Merge(folder, adapter).value(), 3.0, 3);
}

TEST(LoraTest, FindsItsTargetUnderAnotherTextPrefix) {
  for (const char* module : {"model.layers.0.self_attn.q_proj", "language_model.model.layers.0.self_attn.q_proj"}) {
    const TempFolder folder;
    ExpectMerged(Merge(folder, {.tensors = Pair(module, 6, 4)}).value(), 2.0, 2);
  }
}

TEST(LoraTest, NotesFieldsItDoesNotKnow) {
  const TempFolder folder;
  EXPECT_THAT(Merge(folder, {.config = R"({"r":2,"lora_alpha":4,"novelty":1})"}).value().notes, Contains(HasSubstr("novelty")));
}

struct Lie {
  const char* name;
  ErrorCode code;
  const char* message;
  void (*tell)(Adapter& adapter);
};

void PrintTo(const Lie& lie, std::ostream* out) { *out << lie.name; }

class LoraLieTest : public ::testing::TestWithParam<Lie> {};

TEST_P(LoraLieTest, IsRefused) {
  const TempFolder folder;
  Adapter adapter;
  GetParam().tell(adapter);
  const Result<MergedCheckpoint> merged = Merge(folder, adapter);
  ASSERT_FALSE(merged.has_value());
  EXPECT_EQ(InfoOf(merged.error().code).name, InfoOf(GetParam().code).name) << merged.error().message;
  EXPECT_THAT(merged.error().message, HasSubstr(GetParam().message));
}

template <size_t kIndex>
void DropTensor(Adapter& adapter) {
  adapter.tensors.erase(adapter.tensors.begin() + kIndex);
}

INSTANTIATE_TEST_SUITE_P(
    Rules, LoraLieTest,
    ::testing::Values(
        Lie{"A1NoJson", ErrorCode::kBadJson, "adapter_config.json", [](Adapter& a) { a.config = "{"; }},
        Lie{"A1NoObject", ErrorCode::kLoraAdapter, "object", [](Adapter& a) { a.config = "[]"; }},
        Lie{"A1NoRank", ErrorCode::kLoraAdapter, ".r: missing", [](Adapter& a) { a.config = R"({"lora_alpha":4})"; }},
        Lie{"A1RankZero", ErrorCode::kLoraAdapter, ".r:", [](Adapter& a) { a.config = R"({"r":0,"lora_alpha":4})"; }},
        Lie{"A1AlphaText", ErrorCode::kLoraAdapter, "lora_alpha", [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":"4"})"; }},
        Lie{"A1BadPattern", ErrorCode::kLoraAdapter, "rank_pattern",
            [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"rank_pattern":{"(":2}})"; }},
        Lie{"A1PatternsDisagree", ErrorCode::kLoraAdapter, "patterns that give",
            [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"alpha_pattern":{"q_proj":2,".*_proj":3}})"; }},
        Lie{"A2OtherMethod", ErrorCode::kLoraUnsupported, "peft_type",
            [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"peft_type":"LOHA"})"; }},
        Lie{"A2Dora", ErrorCode::kLoraUnsupported, "use_dora", [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"use_dora":true})"; }},
        Lie{"A2Bias", ErrorCode::kLoraUnsupported, "bias", [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"bias":"all"})"; }},
        Lie{"A2ModulesToSave", ErrorCode::kLoraUnsupported, "modules_to_save",
            [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"modules_to_save":["lm_head"]})"; }},
        Lie{"A3Pissa", ErrorCode::kLoraUnsupported, "init_lora_weights",
            [](Adapter& a) { a.config = R"({"r":2,"lora_alpha":4,"init_lora_weights":"pissa"})"; }},
        Lie{"A4EmbeddingMatrices", ErrorCode::kLoraUnsupported, "lora_embedding_A",
            [](Adapter& a) { a.tensors.push_back(Floats("base_model.model.model.embed_tokens.lora_embedding_A", {2, 8}, 7)); }},
        Lie{"A4ForeignPrefix", ErrorCode::kLoraUnsupported, "other.q_proj",
            [](Adapter& a) { a.tensors.push_back(Floats("other.q_proj.lora_A.weight", {2, 8}, 7)); }},
        Lie{"A5NoSuchWeight", ErrorCode::kLoraAdapter, "no such weight",
            [](Adapter& a) { a.tensors = Pair("model.language_model.layers.9.self_attn.q_proj", 6, 4); }},
        Lie{"A5TwoNamesForOne", ErrorCode::kLoraAdapter, "two pairs",
            [](Adapter& a) { std::ranges::copy(Pair("model.layers.0.self_attn.q_proj", 6, 4), std::back_inserter(a.tensors)); }},
        Lie{"A6OnlyA", ErrorCode::kLoraAdapter, "lora_B is missing", DropTensor<1>},
        Lie{"A6OnlyB", ErrorCode::kLoraAdapter, "lora_A is missing", DropTensor<0>},
        Lie{"A6OtherRank", ErrorCode::kLoraAdapter, "at rank 2", [](Adapter& a) { a.tensors = Pair(kModule, 6, 4, 3); }},
        Lie{"A6OtherWidth", ErrorCode::kLoraAdapter, "do not fit", [](Adapter& a) { a.tensors = Pair(kModule, 6, 5); }},
        Lie{"A6NoMatrix", ErrorCode::kLoraAdapter, "do not fit", [](Adapter& a) { a.tensors = Pair("model.norm", 4, 4); }}),
    [](const auto& lie) { return std::string(lie.param.name); });

TEST(LoraTest, RefusesPickleAndFilesCutAtAnyByte) {
  const TempFolder folder;
  ASSERT_TRUE(Merge(folder, {}).has_value());
  const auto base = [&] { return OpenSafetensorsCheckpoint(folder.path() / "base.safetensors").value(); };
  const std::string weights = ReadFileBytes(folder.path() / "adapter/adapter_model.safetensors");
  for (size_t size = 0; size < weights.size(); ++size) {
    folder.Write("adapter/adapter_model.safetensors", std::string_view(weights).substr(0, size));
    EXPECT_FALSE(MergeLora(base(), folder.path() / "adapter").has_value()) << size;
  }
  for (size_t size = 0; size < kConfig.size(); ++size) {
    folder.Write("adapter/adapter_config.json", kConfig.substr(0, size));
    EXPECT_FALSE(MergeLora(base(), folder.path() / "adapter").has_value()) << size;
  }
  folder.Write("adapter/adapter_config.json", kConfig);
  fs::remove(folder.path() / "adapter/adapter_model.safetensors");
  folder.Write("adapter/adapter_model.bin", "pickle");
  EXPECT_EQ(MergeLora(base(), folder.path() / "adapter").error().code, ErrorCode::kPickleRefused);
}

Result<PreparedModel> PrepareMicroWith(const fs::path& adapter) {
  PrepareOptions options;
  options.recipe = RecipeFromName("f32").value();
  options.model.context = 64;
  options.model.prefill_lengths = {8};
  options.lora = adapter;
  return PrepareModel(fs::path(TASKPRESS_TEST_DATA) / "micro-e4b", options);
}

// The micro checkpoint: q_proj of layer 0 is read; k_proj of layer 14 is KV-shared and never read.
Result<PreparedModel> PrepareMicro(const TempFolder& folder, const std::vector<RawTensor>& tensors) {
  folder.Write("adapter_config.json", kConfig);
  folder.Write("adapter_model.safetensors", HonestSafetensors(tensors));
  return PrepareMicroWith(folder.path());
}

std::vector<RawTensor> MicroPair(const std::string& module) {
  const auto base = OpenSafetensorsCheckpoint(fs::path(TASKPRESS_TEST_DATA) / "micro-e4b").value();
  const Shape shape = base->Find(module + ".weight")->shape;
  return Pair(module, shape[0], shape[1]);
}

TEST(LoraTest, ReachesTheBundleAndSaysWhatHasNoEffect) {
  const std::string unread = "model.language_model.layers.14.self_attn.k_proj";
  std::vector<RawTensor> tensors = MicroPair(kModule);
  std::ranges::copy(MicroPair(unread), std::back_inserter(tensors));
  const TempFolder folder;
  const PreparedModel model = PrepareMicro(folder, tensors).value();
  EXPECT_THAT(model.notes, Contains(HasSubstr("1 matrices merged")));
  EXPECT_THAT(model.notes, Contains(HasSubstr(unread + ".weight has no effect")));

  const PreparedModel plain = PrepareMicroWith({}).value();
  ASSERT_EQ(model.weights.size(), plain.weights.size());
  for (size_t i = 0; i < model.weights.size(); ++i) {
    std::vector<float> merged(static_cast<size_t>(model.weights[i].columns));
    std::vector<float> base(merged.size());
    ASSERT_TRUE(model.weights[i].rows->ReadFloats(0, 1, merged).has_value());
    ASSERT_TRUE(plain.weights[i].rows->ReadFloats(0, 1, base).has_value());
    EXPECT_EQ(merged != base, model.weights[i].name == "layers.0.self_attn.q_proj.weight") << model.weights[i].name;
  }
}

TEST(LoraTest, AnAdapterWithoutAnyEffectIsRefused) {
  const TempFolder folder;
  const Result<PreparedModel> model = PrepareMicro(folder, MicroPair("model.language_model.layers.14.self_attn.k_proj"));
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::kLoraAdapter);
}

}  // namespace
}  // namespace taskpress
