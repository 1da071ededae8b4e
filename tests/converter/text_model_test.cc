#include "converter/text_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "converter/model_family.h"
#include "schema/base/error.h"
#include "schema/graph_text.h"
#include "schema/text_contract.h"
#include "schema/tflite.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/memory_checkpoint.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MakeMemoryCheckpoint;
using ::testing::Not;
using testing::TinyConfigJson;

TextConfig Preset(std::string_view name) { return ParseTextConfig(Json::parse(PresetConfig(name).value().dump())).value(); }
TextConfig Tiny() { return ParseTextConfig(TinyConfigJson()).value(); }

TextWeights Weights(const TextConfig& config, std::string_view recipe = "dynamic_int8") {
  TextWeights weights = TextWeights::Bind(MakeMemoryCheckpoint(config), config).value();
  const Status status = weights.ApplyRecipe(RecipeFromName(recipe).value());
  EXPECT_TRUE(status.has_value()) << status.error().message;
  return weights;
}

struct Built {
  Graph embedder;
  Graph per_layer_embedder;
  Graph main;
};

Built Build(const TextConfig& config, const TextModelOptions& options, std::string_view recipe = "dynamic_int8") {
  TextWeights weights = Weights(config, recipe);
  const auto must = [](Result<Graph> graph) {
    if (graph) return *std::move(graph);
    ADD_FAILURE() << graph.error().message;
    return Graph();
  };
  return {.embedder = must(BuildEmbedder(config, weights)),
          .per_layer_embedder = must(BuildPerLayerEmbedder(config, weights)),
          .main = must(BuildPrefillDecode(config, weights, options))};
}

const Subgraph& Named(const Graph& graph, std::string_view key) {
  return graph.subgraphs[static_cast<size_t>(graph.FindSignature(key)->subgraph)];
}

std::map<OpKind, int> CountOps(const Subgraph& subgraph) {
  std::map<OpKind, int> count;
  for (const Op& op : subgraph.ops) ++count[op.kind];
  return count;
}

std::set<std::string> Constants(const Subgraph& subgraph) {
  std::set<std::string> names;
  for (const Tensor& tensor : subgraph.tensors) {
    if (tensor.is_constant()) names.insert(tensor.name);
  }
  return names;
}

Shape ShapeOf(const Graph& graph, std::string_view key, std::string_view input) {
  const TensorId id = FindTensor(graph.FindSignature(key)->inputs, input);
  return id == kNone ? Shape() : Named(graph, key).tensors[static_cast<size_t>(id)].shape;
}

// The golden file is written anew by: TASKPRESS_WRITE_GOLDENS=1 text_model_test. Look at the difference before committing it.
TEST(TextModelTest, TheTinyModelIsTheOneOnFile) {
  const Built built = Build(Tiny(), {.context = 16, .prefill_lengths = {4}, .score_length = std::nullopt, .window = WindowForm::kGather});
  const std::string text = GraphText(built.embedder) + GraphText(built.per_layer_embedder) + GraphText(built.main);
  const std::filesystem::path path = std::filesystem::path(TASKPRESS_TEST_DATA) / "golden" / "tiny_text_model.txt";
  if (std::getenv("TASKPRESS_WRITE_GOLDENS") != nullptr) std::ofstream(path) << text;
  std::ostringstream golden;
  golden << std::ifstream(path).rdbuf();
  EXPECT_EQ(text, golden.str());
}

TEST(TextModelTest, BuildingTwiceGivesTheSameBytes) {
  const TextModelOptions options{.context = 16, .prefill_lengths = {4}, .score_length = 8, .window = WindowForm::kGather};
  const Built a = Build(Tiny(), options);
  const Built b = Build(Tiny(), options);
  EXPECT_EQ(SerializeTflite(a.main).value(), SerializeTflite(b.main).value());
  EXPECT_TRUE(GraphsEqual(a.per_layer_embedder, b.per_layer_embedder).value());
}

TEST(TextModelTest, ClientsFindWhatTheyExpect) {
  for (const WindowForm window : {WindowForm::kGather, WindowForm::kMask}) {
    for (const int64_t context : {40, 512}) {
      const Built built = Build(Preset("micro"), {.context = context, .prefill_lengths = {32, 8}, .score_length = 16, .window = window});
      const Result<TextContract> contract = CheckTextContract(built.embedder, &built.per_layer_embedder, built.main);
      ASSERT_TRUE(contract.has_value()) << contract.error().message;
      EXPECT_EQ(contract->context, context);
      EXPECT_EQ(contract->vocab_size, 2048);
      EXPECT_EQ(contract->hidden_size, 128);
      EXPECT_EQ(contract->num_layers, 15);
      EXPECT_EQ(contract->per_layer_size, 16);
      EXPECT_EQ(contract->num_caches, 10) << "layers that share keep no cache";
      EXPECT_THAT(contract->prefill_lengths, ElementsAre(8, 32));
      EXPECT_EQ(contract->score_length, 16);
    }
  }
}

TEST(TextModelTest, CachesOfBothWindowForms) {
  const TextConfig config = Preset("micro");
  const Shape rows{1, 2, 512, 32};
  const Shape columns{1, 2, 32, 512};
  const Built gather = Build(config, {.context = 512, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather});
  const Built mask = Build(config, {.context = 512, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kMask});
  for (const char* key : {"prefill_8", "decode"}) {
    for (int64_t layer = 0; layer < 10; ++layer) {
      const bool full = (layer + 1) % 5 == 0;
      EXPECT_EQ(ShapeOf(gather.main, key, Format("kv_cache_k_{}", layer)), rows);
      EXPECT_EQ(ShapeOf(gather.main, key, Format("kv_cache_v_{}", layer)), full ? columns : rows);
      EXPECT_EQ(ShapeOf(mask.main, key, Format("kv_cache_k_{}", layer)), rows);
      EXPECT_EQ(ShapeOf(mask.main, key, Format("kv_cache_v_{}", layer)), columns);
    }
    EXPECT_EQ(ShapeOf(gather.main, key, "kv_cache_k_10"), Shape());
    EXPECT_EQ(CountOps(Named(mask.main, key))[OpKind::kGather], 0);
  }
  // Decode: the mask's columns once, and keys and values of the 12 sliding layers.
  EXPECT_EQ(CountOps(Named(gather.main, "decode"))[OpKind::kGather], 1 + 2 * 12);
}

// window + tokens - 1 >= context: gathering would fetch the whole cache.
TEST(TextModelTest, AWindowAsLongAsTheContextIsNotGathered) {
  const Built built = Build(Preset("micro"), {.context = 32, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather});
  EXPECT_EQ(CountOps(Named(built.main, "decode"))[OpKind::kGather], 0);
  EXPECT_EQ(ShapeOf(built.main, "decode", "kv_cache_v_0"), (Shape{1, 2, 32, 32}));
  const Built longer = Build(Preset("micro"), {.context = 39, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather});
  EXPECT_EQ(CountOps(Named(longer.main, "prefill_8"))[OpKind::kGather], 0);
  EXPECT_GT(CountOps(Named(longer.main, "decode"))[OpKind::kGather], 0);
}

TEST(TextModelTest, DecodeHasTheOperatorsOfTheArchitecture) {
  const Built built = Build(Preset("micro"), {.context = 512, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kMask});
  std::map<OpKind, int> ops = CountOps(Named(built.main, "decode"));
  constexpr int kLayers = 15;
  constexpr int kOwners = 10;
  constexpr int kSparse = 5;
  // Per layer: query and output, router twice, its coefficients twice, LAuReL 2, FFN 3, per-layer input 2. Once: AltUp in and out,
  // per-layer projection, head.
  EXPECT_EQ(ops[OpKind::kFullyConnected], kLayers * 13 + kOwners * 2 + 3 + 3 + 1 + 1);
  EXPECT_EQ(ops[OpKind::kBatchMatMul], 2 * kLayers);
  EXPECT_EQ(ops[OpKind::kSoftmax], kLayers);
  EXPECT_EQ(ops[OpKind::kDynamicUpdateSlice], 2 * kOwners);
  EXPECT_EQ(ops[OpKind::kGelu], 2 * kLayers);
  EXPECT_EQ(ops[OpKind::kTanh], 2 * kLayers + 1) << "routers and the soft-cap";
  EXPECT_EQ(ops[OpKind::kRelu], kSparse);
  EXPECT_EQ(ops[OpKind::kCos], 2);
  EXPECT_EQ(ops[OpKind::kSin], 2);
  // Norms: input, post-attention, pre- and post-FFN, LAuReL, router twice, query, per-layer input: 9 a layer; key and value of owners; the
  // per-layer projection's and the final one. AltUp's magnitudes: 3 in, 3 out.
  EXPECT_EQ(ops[OpKind::kRsqrt], kLayers * 9 + kOwners * 2 + 2 + 6);
  EXPECT_EQ(ops[OpKind::kSqrt], kSparse + 2) << "deviations of the sparse layers, magnitudes before and after";
  EXPECT_EQ(ops[OpKind::kTranspose], 0) << "one token: moving its heads moves no data";
}

TEST(TextModelTest, PrefillComputesNothingAboveTheLastCache) {
  const Built built = Build(Preset("micro"), {.context = 512, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather});
  EXPECT_EQ(FindTensor(built.main.FindSignature("prefill_8")->outputs, "logits"), kNone);
  const std::set<std::string> prefill = Constants(Named(built.main, "prefill_8"));
  const std::set<std::string> decode = Constants(Named(built.main, "decode"));
  for (const std::string& name : prefill) {
    EXPECT_THAT(name, Not(HasSubstr("altup_unembed")));
    EXPECT_NE(name, "lm_head.weight");
    EXPECT_NE(name, "norm.weight");
    for (int layer = 10; layer < 15; ++layer) EXPECT_FALSE(name.starts_with(Format("layers.{}.", layer))) << name;
  }
  // Layer 9 is the last that owns a cache: only what its keys and values need.
  EXPECT_TRUE(prefill.contains("layers.9.self_attn.k_proj.weight"));
  EXPECT_TRUE(prefill.contains("layers.9.self_attn.v_proj.weight"));
  for (const char* name : {"self_attn.q_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight", "laurel.linear_left.weight",
                           "per_layer_projection.weight"}) {
    EXPECT_FALSE(prefill.contains(Format("layers.9.{}", name))) << name;
    EXPECT_TRUE(prefill.contains(Format("layers.8.{}", name))) << name;
    EXPECT_TRUE(decode.contains(Format("layers.9.{}", name))) << name;
  }
  std::map<OpKind, int> ops = CountOps(Named(built.main, "prefill_8"));
  EXPECT_EQ(ops[OpKind::kSoftmax], 9);
  EXPECT_EQ(ops[OpKind::kDynamicUpdateSlice], 20);
}

TEST(TextModelTest, KeysAndValuesOfALayerAreUpdatedSideBySide) {
  const Built built = Build(Preset("micro"), {.context = 512, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather});
  for (const Subgraph& subgraph : built.main.subgraphs) {
    for (size_t i = 0; i < subgraph.ops.size(); ++i) {
      if (subgraph.ops[i].kind != OpKind::kDynamicUpdateSlice) continue;
      ASSERT_LT(i + 1, subgraph.ops.size());
      EXPECT_EQ(subgraph.ops[i + 1].kind, OpKind::kDynamicUpdateSlice);
      ++i;
    }
  }
}

// Clients bind one buffer as a cache's input and output, so nothing may read the input but the operator that updates it.
TEST(TextModelTest, OldCachesAreReadByTheirUpdateOnly) {
  const Built built = Build(Preset("micro"), {.context = 512, .prefill_lengths = {8}, .score_length = 8, .window = WindowForm::kGather});
  for (const Signature& signature : built.main.signatures) {
    const Subgraph& subgraph = Named(built.main, signature.key);
    for (const auto& [name, id] : signature.inputs) {
      if (!name.starts_with("kv_cache")) continue;
      int readers = 0;
      for (const Op& op : subgraph.ops) {
        const auto uses = std::ranges::count(op.inputs, id);
        readers += static_cast<int>(uses);
        if (uses > 0) {
          EXPECT_EQ(op.kind, OpKind::kDynamicUpdateSlice);
          EXPECT_EQ(op.outputs[0], FindTensor(signature.outputs, name));
        }
      }
      EXPECT_EQ(readers, 1) << signature.key << " " << name;
    }
  }
}

TEST(TextModelTest, WhereTheModelHasNoSuchPartThereIsNoSuchOperator) {
  Json json = TinyConfigJson();
  json["final_logit_softcapping"] = nullptr;
  json["altup_correct_scale"] = false;
  json["activation_sparsity_pattern"] = 0.0;
  const TextConfig config = ParseTextConfig(json).value();
  const Built built = Build(config, {.context = 16, .prefill_lengths = {4}, .score_length = {}, .window = WindowForm::kMask});
  const Subgraph& decode = Named(built.main, "decode");
  EXPECT_EQ(CountOps(decode)[OpKind::kTanh], 4) << "routers only";
  EXPECT_EQ(CountOps(decode)[OpKind::kRelu], 0);
  for (const std::string& name : Constants(decode)) EXPECT_THAT(name, Not(HasSubstr("correct_output_scale")));
}

TEST(TextModelTest, EveryWeightTheModelReadsIsHandedOutOnceAndNoOther) {
  const TextConfig config = Preset("micro");
  TextWeights weights = Weights(config);
  ASSERT_TRUE(BuildEmbedder(config, weights).has_value());
  ASSERT_TRUE(BuildPerLayerEmbedder(config, weights).has_value());
  const Graph graph =
      BuildPrefillDecode(config, weights, {.context = 64, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kMask}).value();
  std::set<std::string> expected = {"lm_head.weight", "embed_tokens.weight"};
  for (int layer = 0; layer < 15; ++layer) expected.insert(Format("embed_tokens_per_layer.weight.layers.{}", layer));
  std::set<std::string> small;
  for (const WeightRow& row : FamilyNamed("gemma3n")->weights) {
    for (int64_t i = 0; i < WeightCount(row, config); ++i) {
      if (IsUnused(row, config, i) || row.name.starts_with("embed_tokens")) continue;
      (row.quant_class == QuantClass::kSmall ? small : expected).insert(WeightName(row, i));
    }
  }
  std::set<std::string> handed_out;
  for (const BundleWeight& weight : weights.handed_out()) EXPECT_TRUE(handed_out.insert(weight.name).second) << weight.name;
  EXPECT_EQ(handed_out, expected);
  const std::set<std::string> constants = Constants(Named(graph, "decode"));
  for (const std::string& name : small) EXPECT_TRUE(constants.contains(name)) << name;
}

TEST(TextModelTest, PublishedSizesOfE2b) {
  const TextConfig config = Preset("e2b");
  const Built built =
      Build(config, {.context = 4096, .prefill_lengths = {8}, .score_length = {}, .window = WindowForm::kGather}, "dynamic_int4");
  // int4 rows, a float scale each; zero points (8 bytes) once per table length instead of once per table. Beside them only the graph.
  constexpr uint64_t kGraph = 16 << 10;
  const uint64_t rows = 262'144;
  const uint64_t embedder = BuildTfliteImage(built.embedder).value().size;
  EXPECT_GE(embedder, rows * (1024 + 4 + 8));
  EXPECT_LE(embedder, rows * (1024 + 4 + 8) + kGraph);
  const uint64_t per_layer = BuildTfliteImage(built.per_layer_embedder).value().size;
  EXPECT_GE(per_layer, 30 * rows * (128 + 4) + rows * 8);
  EXPECT_LE(per_layer, 30 * rows * (128 + 4) + rows * 8 + kGraph);
  const Result<TextContract> contract = CheckTextContract(built.embedder, &built.per_layer_embedder, built.main);
  ASSERT_TRUE(contract.has_value()) << contract.error().message;
  EXPECT_EQ(contract->vocab_size, 262'144);
  EXPECT_EQ(contract->num_caches, 20);
}

TEST(TextModelTest, ImpossibleContextsAndLengthsAreRefused) {
  const TextConfig config = Tiny();
  TextWeights weights = Weights(config);
  const auto code = [&](TextModelOptions options) { return BuildPrefillDecode(config, weights, options).error().code; };
  EXPECT_EQ(code({.context = 0, .prefill_lengths = {}, .score_length = {}, .window = {}}), ErrorCode::kUsage);
  EXPECT_EQ(code({.context = -5, .prefill_lengths = {}, .score_length = {}, .window = {}}), ErrorCode::kUsage);
  EXPECT_EQ(code({.context = (1 << 24) + 1, .prefill_lengths = {}, .score_length = {}, .window = {}}), ErrorCode::kUsage);
  EXPECT_EQ(code({.context = 16, .prefill_lengths = {4, 0}, .score_length = {}, .window = {}}), ErrorCode::kUsage);
  EXPECT_EQ(code({.context = 16, .prefill_lengths = {17}, .score_length = {}, .window = {}}), ErrorCode::kUsage);
  EXPECT_EQ(code({.context = 16, .prefill_lengths = {4}, .score_length = 17, .window = {}}), ErrorCode::kUsage);
  EXPECT_EQ(code({.context = 16, .prefill_lengths = {4, 4}, .score_length = {}, .window = {}}), ErrorCode::kTfliteReference)
      << "two signatures of one name";
}

TEST(TextModelTest, ADamagedWeightStopsTheBuildWithItsName) {
  const TextConfig config = Tiny();
  const auto checkpoint = MakeMemoryCheckpoint(config);
  checkpoint->Set("model.language_model.layers.1.altup.router_norm.weight", 2, NAN);
  TextWeights weights = TextWeights::Bind(checkpoint, config).value();
  ASSERT_TRUE(weights.ApplyRecipe(RecipeFromName("f32").value()).has_value());
  const Result<Graph> graph =
      BuildPrefillDecode(config, weights, {.context = 16, .prefill_lengths = {4}, .score_length = {}, .window = {}});
  ASSERT_FALSE(graph.has_value());
  EXPECT_EQ(graph.error().code, ErrorCode::kWeightValue);
  EXPECT_THAT(graph.error().message, HasSubstr("layers.1.altup.router_norm.weight"));
}

}  // namespace
}  // namespace taskpress
