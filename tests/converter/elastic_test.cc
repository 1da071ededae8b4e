// Which slices go into one bundle (E12), what their graphs share, and what a second size costs at E4B's dimensions.
#include "converter/elastic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "schema/member_image.h"
#include "schema/text_contract.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/memory_checkpoint.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeMemoryCheckpoint;

TextConfig E4b() { return ParseTextConfig(Json::parse(PresetConfig("e4b").value().dump())).value(); }
TextConfig Micro() { return ReadTextConfig(std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b" / "config.json").value(); }

Result<std::vector<NestedSize>> Nest(const TextConfig& config, const std::string& slice, const std::vector<std::string>& elastic) {
  return NestSizes(config, ResolveSlice(slice, config).value(), slice, elastic);
}

TEST(NestSizesTest, FindsTheLayersOfASizeInTheBigOneAndEveryWidth) {
  const std::vector<NestedSize> sizes = Nest(E4b(), "e4b", {"e2b", "E2.98B (layer-level)"}).value();
  ASSERT_EQ(sizes.size(), 3U);
  EXPECT_EQ(sizes[0].name, "e4b");
  EXPECT_EQ(sizes[0].place.stored_layers.size(), 35U);
  EXPECT_EQ(sizes[1].name, "e2b");
  EXPECT_EQ(sizes[1].config.num_hidden_layers, 30);
  EXPECT_EQ(sizes[1].place.stored_layers[19], 19);
  EXPECT_EQ(sizes[1].place.stored_layers[20], 25);
  for (const NestedSize& size : sizes) {
    ASSERT_EQ(size.place.ffn_cuts.size(), 35U);
    EXPECT_THAT(size.place.ffn_cuts[0], ElementsAre(8192, 16384));
  }
  EXPECT_THAT(sizes[0].place.ffn_cuts[22], ElementsAre(16384)) << "a layer that only the big one has";
}

// A big size without layers 20 to 24: a layer's number in it and in the checkpoint are two things.
TEST(NestSizesTest, TheBigSizeMayLeaveOutLayers) {
  const TempFolder folder;
  const std::string small = folder.Write("small.json", R"({"ffn": 8192, "skip": [20, 21, 22, 23, 24, 30]})").string();
  const std::vector<NestedSize> sizes = Nest(E4b(), "e2b", {small}).value();
  EXPECT_EQ(sizes[1].name, "small");
  EXPECT_EQ(sizes[1].place.stored_layers.size(), 29U);
  EXPECT_EQ(sizes[1].place.stored_layers[24], 24);  // layer 29 of the checkpoint
  EXPECT_EQ(sizes[1].place.stored_layers[25], 26);  // layer 31
}

TEST(NestSizesTest, WhatIsNotInsideIsRefused) {
  const TempFolder folder;
  const TextConfig micro = Micro();  // 15 layers of 512; from 10 on they share
  struct Lie {
    const char* big;
    const char* small;
    const char* message;
  };
  for (const Lie& lie : {
           Lie{R"({"ffn": 256, "skip": [11]})", R"({"ffn": 256, "skip": [12]})", "keeps layer 11"},
           Lie{R"({"ffn": 256})", R"({"ffn": 258})", "layer 0 of the checkpoint has width 258, in the bundle's own slice 256"},
           Lie{R"({"ffn": 512})", R"({"ffn": 256, "skip": [3]})", "leaves out layer 3 of the checkpoint, which has keys and values"},
           Lie{R"({"ffn": 256, "skip": [11]})", R"({"ffn": 256, "skip": [11]})", "are the same model"},
       }) {
    const std::string big = folder.Write("big.json", lie.big).string();
    const std::string small = folder.Write("small.json", lie.small).string();
    const Result<std::vector<NestedSize>> sizes = Nest(micro, big, {small});
    ASSERT_FALSE(sizes.has_value()) << lie.message;
    EXPECT_EQ(sizes.error().code, ErrorCode::kSlice);
    EXPECT_THAT(sizes.error().message, HasSubstr(lie.message));
    EXPECT_THAT(sizes.error().message, HasSubstr("E12"));
  }
  const std::string small = folder.Write("E4B.json", R"({"ffn": 256})").string();
  EXPECT_THAT(Nest(micro, "e4b", {small}).error().message, HasSubstr("two sizes are called \"E4B\""));
  EXPECT_EQ(Nest(micro, "e4b", {"e3b"}).error().code, ErrorCode::kSlice);
}

TextWeights Weights(const TextConfig& config) {
  TextWeights weights = TextWeights::Bind(MakeMemoryCheckpoint(config), config).value();
  EXPECT_TRUE(weights.ApplyRecipe(RecipeFromName("dynamic_int4").value()).has_value());
  return weights;
}

// Graphs over weights that are computed when somebody asks; nobody does.
PreparedModel Prepare(const TextConfig& config, const std::vector<std::string>& elastic, const TextModelOptions& text) {
  PreparedModel model;
  model.config = config;
  TextWeights weights = Weights(config);
  model.graphs.embedder = BuildEmbedder(config, weights).value();
  model.graphs.per_layer_embedder = BuildPerLayerEmbedder(config, weights).value();
  const Status built = BuildSizes(config, ResolveSlice("e4b", config).value(), {.slice = "e4b", .elastic = elastic}, text, weights, model);
  EXPECT_TRUE(built.has_value()) << built.error().message;
  return model;
}

std::map<std::string, const Tensor*> ConstantsOf(const Graph& graph) {
  std::map<std::string, const Tensor*> constants;
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      if (tensor.is_constant()) constants[tensor.name] = &tensor;
    }
  }
  return constants;
}

const ByteSource& BytesOf(const Graph& graph, const Tensor* tensor) { return *graph.buffers[static_cast<size_t>(tensor->buffer)].bytes; }

TEST(BuildSizesTest, EveryMatrixOfASmallerSizeIsTheBigOnesOrItsFirstRows) {
  const TempFolder folder;
  const TextModelOptions text{.context = 64, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather};
  const std::string spec = folder.Write("small.json", R"({"ffn": 256, "skip": [10, 11]})").string();
  const PreparedModel model = Prepare(Micro(), {spec}, text);
  ASSERT_EQ(model.smaller.size(), 1U);
  const Graph& small = model.smaller[0].prefill_decode;
  const auto stored = ConstantsOf(model.graphs.prefill_decode);
  size_t matrices = 0;
  for (const auto& [name, tensor] : ConstantsOf(small)) {
    if (BytesOf(small, tensor).rows() == nullptr) continue;
    ++matrices;
    ASSERT_TRUE(stored.contains(name)) << name;
    const ByteSource& whole = BytesOf(model.graphs.prefill_decode, stored.at(name));
    EXPECT_EQ(&BytesOf(small, tensor).storage(), &whole) << name;
    const bool is_cut = name.ends_with("gate_proj.weight") || name.ends_with("up_proj.weight");
    EXPECT_EQ(tensor->shape[0], is_cut ? stored.at(name)->shape[0] / 2 : stored.at(name)->shape[0]) << name;
    EXPECT_EQ(tensor->shape[1], stored.at(name)->shape[1]) << name;
  }
  EXPECT_GT(matrices, 100U);
  EXPECT_TRUE(stored.contains("layers.3.mlp.down_proj.weight[:,0:256]"));
  EXPECT_TRUE(stored.contains("layers.3.mlp.down_proj.weight[:,256:512]"));
  EXPECT_TRUE(stored.contains("layers.10.mlp.down_proj.weight")) << "not cut: only the big size has the layer";
  EXPECT_TRUE(CheckTextContract(model.graphs.embedder, &*model.graphs.per_layer_embedder, small).has_value());
}

// FORMATS promises little; here is how little it is for the published model with the default signatures.
// A piece of down_proj has scales of its own, so a border inside a block would leave a piece that no block fits.
TEST(BuildSizesTest, ABorderInsideABlockIsRefused) {
  const TempFolder folder;
  const TextConfig config = Micro();
  const TextModelOptions text{.context = 64, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather};
  for (const auto& [width, fits] : {std::pair(256, true), std::pair(272, false)}) {
    const std::string spec = folder.Write("small.json", R"({"ffn": )" + std::to_string(width) + "}").string();
    TextWeights weights = TextWeights::Bind(MakeMemoryCheckpoint(config), config).value();
    ASSERT_TRUE(weights.ApplyRecipe(RecipeFromName("dynamic_int4_block32").value()).has_value());
    PreparedModel model;
    model.config = config;
    const Status built = BuildSizes(config, ResolveSlice("e4b", config).value(), {.slice = "e4b", .elastic = {spec}}, text, weights, model);
    EXPECT_EQ(built.has_value(), fits) << width;
    if (fits) continue;
    EXPECT_EQ(built.error().code, ErrorCode::kQuantShape);
    EXPECT_THAT(built.error().message, HasSubstr("rows of 272 columns cannot be int4_block32"));
  }
}

TEST(BuildSizesTest, AnElasticE4bCostsLessThanAPercent) {
  const TextConfig config = E4b();
  const TextModelOptions text;
  const auto bytes = [&](const std::vector<std::string>& elastic) {
    const PreparedModel model = Prepare(config, elastic, text);
    std::vector<const Graph*> graphs{&model.graphs.prefill_decode};
    for (const PreparedSize& size : model.smaller) graphs.push_back(&size.prefill_decode);
    return BuildMemberImage(graphs).value().size + BuildTfliteImage(model.graphs.embedder).value().size +
           BuildTfliteImage(*model.graphs.per_layer_embedder).value().size;
  };
  const auto plain = static_cast<double>(bytes({}));
  const double with_e2b = static_cast<double>(bytes({"e2b"})) / plain - 1;
  const double with_two = static_cast<double>(bytes({"e2b", "E2.98B (layer-level)"})) / plain - 1;
  std::cout << "E4B dynamic_int4 " << plain / 1e6 << " MB; with e2b +" << with_e2b * 100 << " %, with e2b and E2.98B +" << with_two * 100
            << " %\n";
  EXPECT_GT(with_e2b, 0.0);
  EXPECT_LE(with_e2b, 0.01);
  EXPECT_LE(with_two, 0.01);
}

}  // namespace
}  // namespace taskpress
