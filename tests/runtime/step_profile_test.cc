// Which steps a profile is told of, and how it adds them up.
#include "runtime/step_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/executor.h"
#include "runtime/roofline.h"
#include "runtime/session.h"
#include "schema/json.h"
#include "tests/testing/toy_graph.h"
#include "tests/testing/toy_text_model.h"

namespace taskpress {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using testing::MakeToyTextModel;

// norm, layers.0, glue, layers.1, head
Subgraph Layers() {
  Subgraph subgraph;
  subgraph.name = "decode";
  const auto constant = [&](const std::string& name) {
    subgraph.tensors.push_back({.name = name, .shape = {4, 4}, .buffer = 1});
    return static_cast<TensorId>(subgraph.tensors.size() - 1);
  };
  subgraph.tensors.push_back({.name = "x", .shape = {1, 4}});
  const TensorId first = constant("model.layers.0.mlp.up_proj.weight");
  const TensorId second = constant("layers.17.input_layernorm.weight");
  const TensorId head = constant("lm_head.weight");
  subgraph.ops = {{.kind = OpKind::kMul, .inputs = {0, 0}},
                  {.kind = OpKind::kFullyConnected, .inputs = {0, first}},
                  {.kind = OpKind::kAdd, .inputs = {0, 0}},
                  {.kind = OpKind::kMul, .inputs = {0, second}},
                  {.kind = OpKind::kFullyConnected, .inputs = {0, head}}};
  return subgraph;
}

std::vector<StepInfo> StepsOf(const Subgraph& subgraph) {
  std::vector<StepInfo> steps;
  for (size_t i = 0; i < subgraph.ops.size(); ++i) {
    steps.push_back({.op = static_cast<int32_t>(i), .name = NameOf(subgraph.ops[i].kind), .kernel = KernelKind::kNative});
  }
  return steps;
}

TEST(StepProfile, KnowsLayersByTheirConstants) {
  StepProfile profile;
  const Subgraph subgraph = Layers();
  const size_t number = profile.Register(subgraph, StepsOf(subgraph));
  const StepProfile::Time start;
  for (size_t i = 0; i < 5; ++i) {
    const auto at = start + milliseconds(10 * i);
    profile.Add(number, i, at, at + milliseconds(i + 1));
  }
  const std::vector<StepProfile::Row> layers = profile.ByLayer();
  ASSERT_EQ(layers.size(), 3U);
  EXPECT_EQ(layers[0].name, "outside the layers");
  EXPECT_EQ(layers[0].calls, 2);
  EXPECT_NEAR(layers[0].seconds, 0.006, 1e-9);  // the first and the head
  EXPECT_EQ(layers[1].name, "layer 0");
  EXPECT_NEAR(layers[1].seconds, 0.005, 1e-9);  // its matrix and the glue behind it
  EXPECT_EQ(layers[2].name, "layer 17");
  const std::vector<StepProfile::Row> kinds = profile.ByKind();
  ASSERT_EQ(kinds.size(), 3U);
  EXPECT_EQ(kinds[0].name, "FULLY_CONNECTED (native)");
  EXPECT_EQ(kinds[0].calls, 2);
  EXPECT_NEAR(kinds[0].seconds, 0.007, 1e-9);
  EXPECT_THAT(profile.Table(), HasSubstr("layer 17"));
}

TEST(StepProfile, TheTraceIsWhatChromeReads) {
  StepProfile profile;
  EXPECT_EQ(Json::parse(profile.ChromeTrace())["traceEvents"].size(), 0U);
  const Subgraph subgraph = Layers();
  const size_t number = profile.Register(subgraph, StepsOf(subgraph));
  const StepProfile::Time start;
  profile.Add(number, 1, start + milliseconds(5), start + milliseconds(7));
  profile.Add(number, 4, start + milliseconds(8), start + milliseconds(9));
  const Json events = Json::parse(profile.ChromeTrace())["traceEvents"];
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0]["ph"], "X");
  EXPECT_EQ(events[0]["name"], "FULLY_CONNECTED");
  EXPECT_EQ(events[0]["cat"], "decode");
  EXPECT_EQ(events[0]["args"]["layer"], 0);
  EXPECT_NEAR(events[1]["ts"].get<double>(), 3000, 1e-6);
  EXPECT_NEAR(events[1]["dur"].get<double>(), 1000, 1e-6);
  EXPECT_FALSE(events[1]["args"].contains("layer"));
  profile.Clear();
  EXPECT_TRUE(profile.ByKind().empty());
}

TEST(StepProfile, IsToldOfEveryStepOfASession) {
  StepProfile profile;
  Session session = Session::Create(MakeToyTextModel({}), {.threads = 1, .profile = &profile}).value();
  profile.Clear();
  const auto calls = [&] {
    int64_t sum = 0;
    for (const StepProfile::Row& row : profile.ByKind()) sum += row.calls;
    return sum;
  };
  ASSERT_TRUE(session.Decode(1));
  const int64_t once = calls();
  EXPECT_GT(once, 5);
  ASSERT_TRUE(session.Decode(2));
  EXPECT_EQ(calls(), 2 * once);
}

TEST(SessionPosition, CanBePretendedForMeasurements) {
  Session session = Session::Create(MakeToyTextModel({}), {.threads = 1}).value();
  ASSERT_TRUE(session.PretendPosition(testing::kToyContext - 1));
  ASSERT_TRUE(session.Decode(1));
  EXPECT_EQ(session.position(), testing::kToyContext);
  EXPECT_EQ(session.PretendPosition(testing::kToyContext).error().code, ErrorCode::kContextFull);
  EXPECT_EQ(session.PretendPosition(-1).error().code, ErrorCode::kContextFull);
}

TEST(Roofline, CountsTheMatricesThatRun) {
  testing::ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 3, 8});
  const TensorId w = toy.Quantized(DType::kI4, {6, 8}, std::vector<float>(48, 0.5F));
  const TensorId unused = toy.Quantized(DType::kI8, {16, 8}, std::vector<float>(128, 0.5F));
  const TensorId y = toy.Op(OpKind::kFullyConnected, {x, w}, {1, 3, 6}, FullyConnectedAttributes{});
  toy.Op(OpKind::kFullyConnected, {x, unused}, {1, 3, 16}, FullyConnectedAttributes{});
  toy.Output("y", y);
  const MatrixWork work = MatrixWorkOf(toy.Take(), 0).value();
  EXPECT_EQ(work.products, 3U * 6 * 8);
  EXPECT_EQ(work.weight_bytes, 24U);
  EXPECT_EQ(work.largest.type, DType::kI4);
  EXPECT_EQ(work.largest.in, 8);
  EXPECT_EQ(work.largest.out, 6);
}

TEST(Roofline, MeasuresSomething) {
  for (const DType type : {DType::kI4, DType::kI8, DType::kF32}) {
    EXPECT_GT(MeasureMatrixPeak({.type = type, .in = 64, .out = 96}, 4, Kernels::kXnnpack, 1).value(), 1e6) << NameOf(type);
  }
  EXPECT_GT(MeasureReadBandwidth(ThreadPool::Create(1).value()).value(), 1e8);
}

}  // namespace
}  // namespace taskpress
