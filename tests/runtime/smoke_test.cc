#include "runtime/smoke.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/toy_graph.h"
#include "tests/testing/toy_text_model.h"

namespace taskpress::testing {
namespace {

using ::testing::HasSubstr;

BundleMetadata Metadata() {
  BundleMetadata metadata;
  metadata.start_token = TokenText{.id = 2, .text = "<bos>"};
  return metadata;
}

TensorId AddConstant(Graph& graph, Subgraph& subgraph, std::string name, std::span<const float> values) {
  graph.buffers.push_back({MakeMemorySource(values)});
  subgraph.tensors.push_back({.name = std::move(name),
                              .type = DType::kF32,
                              .shape = {static_cast<int64_t>(values.size())},
                              .buffer = static_cast<int32_t>(graph.buffers.size()) - 1});
  return static_cast<TensorId>(subgraph.tensors.size()) - 1;
}

// The toy model whose logits become scale * logits + bias.
TextModel WithLogits(float scale, const std::vector<float>& bias) {
  TextModel model = MakeToyTextModel({});
  Graph& graph = model.prefill_decode;
  for (Signature& signature : graph.signatures) {
    if (signature.key != "decode") continue;
    Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(signature.subgraph)];
    const TensorId old = FindTensor(signature.outputs, "logits");
    const std::array operands{std::pair{OpKind::kMul, AddConstant(graph, subgraph, "scale", std::span(&scale, 1))},
                              std::pair{OpKind::kAdd, AddConstant(graph, subgraph, "bias", bias)}};
    TensorId last = old;
    for (const auto& [kind, operand] : operands) {
      Tensor result = subgraph.tensors[static_cast<size_t>(old)];
      result.name += "'";
      subgraph.tensors.push_back(result);
      const auto id = static_cast<TensorId>(subgraph.tensors.size()) - 1;
      subgraph.ops.push_back({.kind = kind, .inputs = {last, operand}, .outputs = {id}});
      last = id;
    }
    for (TensorId& output : subgraph.outputs) output = output == old ? last : output;
    for (auto& [name, id] : signature.outputs) id = id == old ? last : id;
  }
  return model;
}

std::vector<float> Bias(size_t favourite, float value) {
  std::vector<float> bias(kToyVocab, 0.0F);
  bias[favourite] = value;
  return bias;
}

void ExpectRefused(const TextModel& model, ErrorCode code, const std::string& word) {
  const Status status = SmokeRun(model, Metadata(), 1);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, code);
  EXPECT_THAT(status.error().message, HasSubstr(word));
}

TEST(SmokeTest, AModelThatSpeaksPasses) {
  const Status status = SmokeRun(WithLogits(1, Bias(0, 0)), Metadata(), 1);
  EXPECT_TRUE(status.has_value()) << status.error().message;
  // Without a start token as well, and always saying the same word is no crime.
  EXPECT_TRUE(SmokeRun(WithLogits(1, Bias(3, 100)), BundleMetadata{}, 1).has_value());
}

TEST(SmokeTest, LogitsThatAreAllEqualAreRefused) { ExpectRefused(WithLogits(0, Bias(0, 0)), ErrorCode::kSmokeFailed, "equal"); }

TEST(SmokeTest, NothingButPaddingIsRefused) { ExpectRefused(WithLogits(1, Bias(0, 100)), ErrorCode::kSmokeFailed, "<pad>"); }

TEST(SmokeTest, ALogitThatIsNotFiniteIsRefused) {
  ExpectRefused(WithLogits(1, Bias(4, NAN)), ErrorCode::kNotFinite, "token 4");
  ExpectRefused(WithLogits(1, Bias(5, -HUGE_VALF)), ErrorCode::kNotFinite, "token 5");
}

TEST(SmokeTest, APrefillThatDisagreesWithDecodeIsRefused) {
  TextModel model = MakeToyTextModel({});
  Graph& graph = model.prefill_decode;
  for (const Signature& signature : graph.signatures) {
    if (!signature.key.starts_with("prefill")) continue;
    for (const Tensor& tensor : graph.subgraphs[static_cast<size_t>(signature.subgraph)].tensors) {
      const bool position_scale = tensor.is_constant() && tensor.type == DType::kF32 && tensor.shape == Shape{1};
      if (position_scale) graph.buffers[static_cast<size_t>(tensor.buffer)].bytes = MakeMemorySource(std::span<const float>({-4.0F}));
    }
  }
  ExpectRefused(model, ErrorCode::kSmokeFailed, "disagree");
}

// A model without memory: logits are the token's row times a column.
TextModel Forgetful(int64_t context) {
  ToyGraph embedder;
  embedder.Begin("embedder");
  const TensorId ids = embedder.Op(OpKind::kReshape, {embedder.Input("token_ids", DType::kI32, {1, 1})}, {1}, {}, DType::kI32);
  const TensorId row = embedder.Op(OpKind::kEmbeddingLookup, {ids, embedder.Floats({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8})}, {1, 2});
  embedder.Output("embeddings", embedder.Op(OpKind::kReshape, {row}, {1, 1, 2}));
  ToyGraph decode;
  decode.Begin("decode");
  const TensorId x = decode.Input("embeddings", DType::kF32, {1, 1, 2});
  decode.Input("input_pos", DType::kI32, {1});
  decode.Input("mask", DType::kF32, {1, 1, 1, context});
  const TensorId head = decode.Floats({4, 2}, {0, 1, 1, 0, 1, 1, 2, 1});
  decode.Output("logits", decode.Op(OpKind::kFullyConnected, {x, head}, {1, 1, 4}, FullyConnectedAttributes{}));
  return {.embedder = embedder.Take(), .per_layer_embedder = std::nullopt, .prefill_decode = decode.Take()};
}

TEST(SmokeTest, AContextTooShortToSpeakIsRefusedInsteadOfOverrun) {
  for (const int64_t context : {1, 2}) {
    ExpectRefused(Forgetful(context), ErrorCode::kSmokeFailed, "too short");
    EXPECT_FALSE(SmokeRun(Forgetful(context), BundleMetadata{}, 1).has_value());
  }
  for (const int64_t context : {3, 4, 5, 6, 100}) {
    for (const BundleMetadata& metadata : {Metadata(), BundleMetadata{}}) {
      const Status status = SmokeRun(Forgetful(context), metadata, 1);
      EXPECT_TRUE(status.has_value()) << context << ": " << status.error().message;
    }
  }
}

}  // namespace
}  // namespace taskpress::testing
