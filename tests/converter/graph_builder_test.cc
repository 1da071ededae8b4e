#include "converter/graph_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>

#include "converter/blocks/feed_forward.h"
#include "schema/base/error.h"
#include "schema/graph_text.h"
#include "tests/testing/graph_samples.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::PatternRows;

using Outputs = std::vector<std::pair<std::string, Value>>;

Weight Matrix(std::string name, DType type, Shape shape) {
  const int64_t columns = shape[1];
  auto rows = std::make_shared<PatternRows>(shape[0], NumBytes(type, {columns}).value(), type == DType::kI8 || type == DType::kI4 ? 1 : 0);
  return {.name = std::move(name), .type = type, .shape = std::move(shape), .bytes = std::move(rows)};
}

TEST(GraphBuilderTest, WritesAGraphWithItsSignature) {
  GraphBuilder b;
  b.SetDescription("mean of a product");
  b.AddMetadata("note", "x");
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {1, 2, 4});
  const Value y = b.FullyConnected(x, b.Constant(Matrix("w", DType::kI8, {3, 4})));
  b.EndSubgraph("run", Outputs{{"mean", b.MeanOfLast(b.Mul(y, b.Float(0.5F)))}});
  EXPECT_EQ(GraphText(b.Finish().value()),
            "graph \"mean of a product\": 3 buffers, 1 quantizations\n"
            "metadata \"note\": 1 bytes\n"
            "signature \"run\" of subgraph 0\n"
            "  in  x=%0:f32[1,2,4]\n"
            "  out mean=%6:f32[1,2,1]\n"
            "subgraph \"main\"\n"
            "  const %1 i8[3,4] buffer=0 quantization=0 \"w\"\n"
            "  const %3 f32[1] buffer=1 quantization=-1 \"const.0.5[1]\"\n"
            "  const %5 i32[1] buffer=2 quantization=-1 \"const.i32.2\"\n"
            "  %2:f32[1,2,3] = FULLY_CONNECTED(%0, %1) keep_num_dims\n"
            "  %4:f32[1,2,3] = MUL(%2, %3)\n"
            "  %6:f32[1,2,1] = MEAN(%4, %5) keep_dims\n");
}

TEST(GraphBuilderTest, AMatrixInBlocksBringsItsScalesAndLeavesWithThem) {
  const auto rows = std::make_shared<testing::PatternRows>(3, 64, 4);
  const Weight used{.name = "w", .type = DType::kI4, .shape = {3, 128}, .bytes = rows, .block_scales = MakeBlockScales(rows)};
  Weight unused = used;
  unused.name = "v";
  GraphBuilder b;
  for (const char* key : {"one", "two"}) {
    b.BeginSubgraph(key);
    const Value x = b.Input("x", DType::kF32, {1, 128});
    b.FullyConnected(x, b.Constant(unused));
    b.EndSubgraph(key, Outputs{{"y", b.FullyConnected(x, b.Constant(used))}});
  }
  const Graph graph = b.Finish().value();
  EXPECT_EQ(graph.buffers.size(), 2U);
  EXPECT_EQ(graph.quantizations.size(), 0U);
  for (const Subgraph& subgraph : graph.subgraphs) {
    ASSERT_EQ(subgraph.tensors.size(), 4U);
    EXPECT_EQ(subgraph.tensors[1].name, "w.scales");
    EXPECT_EQ(subgraph.tensors[2].block_scales, 1);
    EXPECT_EQ(BlockSizeOf(subgraph, subgraph.tensors[2]), 32);
  }
  EXPECT_THAT(GraphText(graph), HasSubstr("const %2 i4[3,128] buffer=0 blocks of 32, scales=%1 \"w\""));
}

TEST(GraphBuilderTest, TwoTermsAreTwoRowsOfOneProductAndMadeOnceForAllThatReadThem) {
  Weight v = Matrix("v", DType::kI8, {3, 4});
  Weight w = Matrix("w", DType::kI8, {5, 4});
  v.two_terms = true;
  w.two_terms = true;
  GraphBuilder b;
  for (const char* key : {"one", "two"}) {
    b.BeginSubgraph(key);
    const Value x = b.Input("x", DType::kF32, {1, 2, 4});
    const Value y = b.FullyConnected(x, b.Constant(v));
    EXPECT_EQ(b.shape(y), (Shape{1, 2, 3}));
    b.EndSubgraph(key,
                  Outputs{{"y", y}, {"z", b.FullyConnected(x, b.Constant(w), b.Floats(std::array{1.0F, 2.0F, 3.0F, 4.0F, 5.0F}, {5}))}});
  }
  const Graph graph = b.Finish().value();
  for (const Subgraph& subgraph : graph.subgraphs) {
    std::vector<OpKind> kinds;
    std::vector<TensorId> inputs;
    for (const Op& op : subgraph.ops) {
      kinds.push_back(op.kind);
      if (op.kind != OpKind::kFullyConnected) continue;
      EXPECT_EQ(op.inputs.size(), 2U) << "a bias would count twice";
      EXPECT_EQ(subgraph.tensors[static_cast<size_t>(op.inputs[0])].shape, (Shape{1, 4, 4}));
      inputs.push_back(op.inputs[0]);
    }
    using enum OpKind;
    EXPECT_THAT(kinds, ElementsAre(kSquare, kMean, kSqrt, kMul, kMul, kMinimum, kMaximum, kSub, kConcatenation, kReshape, kFullyConnected,
                                   kReshape, kSlice, kSlice, kAdd, kFullyConnected, kReshape, kSlice, kSlice, kAdd, kAdd));
    ASSERT_EQ(inputs.size(), 2U);
    EXPECT_EQ(inputs[0], inputs[1]);
  }
}

TEST(GraphBuilderTest, TwoTermsOfAVectorAreRefused) {
  Weight w = Matrix("w", DType::kI8, {3, 4});
  w.two_terms = true;
  GraphBuilder b;
  b.BeginSubgraph("main");
  b.EndSubgraph("run", Outputs{{"y", b.FullyConnected(b.Input("x", DType::kF32, {4}), b.Constant(w))}});
  const Result<Graph> graph = b.Finish();
  ASSERT_FALSE(graph.has_value());
  EXPECT_EQ(graph.error().code, ErrorCode::kGraphShape);
}

TEST(GraphBuilderTest, InfersEveryShape) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {1, 2, 3, 8});
  const Value ids = b.Input("ids", DType::kI32, {5});
  const Value row = b.Input("row", DType::kF32, {8});
  const Value at = b.Input("at", DType::kI32, {4});
  const std::vector<std::pair<Value, Shape>> expected = {
      {b.Add(x, row), {1, 2, 3, 8}},
      {b.Sub(row, x), {1, 2, 3, 8}},
      {b.Mul(x, b.MeanOfLast(x)), {1, 2, 3, 8}},
      {b.Maximum(b.Reshape(x, {2, 1, 3, 8}), b.Reshape(x, {1, 2, 3, 8})), {2, 2, 3, 8}},
      {b.Minimum(ids, ids), {5}},
      {b.Square(x), {1, 2, 3, 8}},
      {b.IntegersToFloats(ids), {5}},
      {b.SliceOfLast(x, 2, 4), {1, 2, 3, 4}},
      {b.Transpose(x, std::array{0, 2, 3, 1}), {1, 3, 8, 2}},
      {b.Concatenation(std::array{x, x, x}, 2), {1, 2, 9, 8}},
      {b.Gather(x, ids, 3), {1, 2, 3, 5}},
      {b.BatchMatMul(x, x, true), {1, 2, 3, 3}},
      {b.BatchMatMul(x, b.Transpose(x, std::array{0, 1, 3, 2}), false), {1, 2, 3, 3}},
      {b.DynamicUpdateSlice(x, b.SliceOfLast(x, 0, 1), at), {1, 2, 3, 8}},
      {b.EmbeddingLookup(ids, b.Constant(Matrix("table", DType::kI4, {6, 8}))), {5, 8}},
      {b.FullyConnected(x, b.Constant(Matrix("w", DType::kI4, {7, 8})), b.Floats(std::vector<float>(7, 1.0F), {7})), {1, 2, 3, 7}},
      {b.Softmax(x), {1, 2, 3, 8}},
  };
  Outputs outputs;
  for (const auto& [value, shape] : expected) {
    EXPECT_EQ(b.shape(value), shape);
    outputs.emplace_back(Format("out{}", outputs.size()), value);
  }
  EXPECT_EQ(b.dim(x, -1), 8);
  EXPECT_EQ(b.dim(x, 1), 2);
  EXPECT_EQ(b.dim(x, 4), 0);
  b.EndSubgraph("run", outputs);
  const Result<Graph> graph = b.Finish();
  ASSERT_TRUE(graph.has_value()) << graph.error().message;
}

TEST(GraphBuilderTest, ReshapingToTheSameShapeIsNothing) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {1, 2});
  EXPECT_EQ(b.Reshape(x, {1, 2}).id, x.id);
  EXPECT_EQ(b.Concatenation(std::array{x}, 0).id, x.id);
}

TEST(GraphBuilderTest, HalfPrecisionMatricesAreDequantizedBeforeUse) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {1, 8});
  b.EndSubgraph("run", Outputs{{"y", b.FullyConnected(x, b.Constant(Matrix("w", DType::kF16, {4, 8})))}});
  EXPECT_THAT(GraphText(b.Finish().value()), HasSubstr("%2:f32[4,8] = DEQUANTIZE(%1)\n  %3:f32[1,4] = FULLY_CONNECTED(%0, %2)"));
}

// EMBEDDING_LOOKUP with an f16 table and an f32 result is accepted by ai-edge-litert 2.3.0, and gives zeros.
TEST(GraphBuilderTest, HalfPrecisionTablesAreGatheredAndThenDequantized) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value ids = b.Input("ids", DType::kI32, {1});
  b.EndSubgraph("run", Outputs{{"row", b.EmbeddingLookup(ids, b.Constant(Matrix("table", DType::kF16, {6, 8})))}});
  const std::string text = GraphText(b.Finish().value());
  EXPECT_THAT(text, HasSubstr("%2:f16[1,8] = GATHER(%1, %0) axis=0 batch_dims=0\n  %3:f32[1,8] = DEQUANTIZE(%2)\n"));
  EXPECT_THAT(text, Not(HasSubstr("EMBEDDING_LOOKUP")));
}

TEST(GraphBuilderTest, EqualConstantsAreStoredOnceForAllSubgraphs) {
  GraphBuilder b;
  const Weight weight = Matrix("w", DType::kI8, {3, 4});
  for (const char* key : {"prefill", "decode"}) {
    b.BeginSubgraph(key);
    const Value x = b.Input("x", DType::kF32, {1, 4});
    const Value twice = b.Mul(b.Mul(x, b.Float(2.0F)), b.Float(2.0F));
    b.EndSubgraph(key, Outputs{{"y", b.FullyConnected(twice, b.Constant(weight))}});
  }
  const Graph graph = b.Finish().value();
  EXPECT_EQ(graph.buffers.size(), 2U);
  EXPECT_EQ(graph.quantizations.size(), 1U);
  EXPECT_EQ(graph.subgraphs[0].tensors, graph.subgraphs[1].tensors);
}

TEST(GraphBuilderTest, DifferentConstantsNeverShareAName) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {16});
  std::vector<float> many(16, 1.0F);
  Outputs outputs = {{"a", b.Add(x, b.Float(1.0F))},
                     {"b", b.Add(x, b.Floats(std::array{1.0F}, {1, 1}))},
                     {"c", b.Add(x, b.Float(std::nextafter(1.0F, 2.0F)))},
                     {"d", b.Add(x, b.Float(0.0F))},
                     {"e", b.Add(x, b.Float(-0.0F))},
                     {"f", b.Add(x, b.Floats(many, {16}))}};
  many.back() = 2.0F;
  outputs.emplace_back("g", b.Add(x, b.Floats(many, {16})));
  b.EndSubgraph("run", outputs);
  EXPECT_EQ(b.Finish().value().buffers.size(), 7U);
}

TEST(GraphBuilderTest, WhatNobodyNeedsIsLeftOut) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {1, 4});
  b.Input("unused", DType::kF32, {7});
  const Value dead = b.FullyConnected(x, b.Constant(Matrix("dead", DType::kI8, {4, 4})));
  b.Tanh(b.Mul(dead, b.Float(3.0F)));
  b.EndSubgraph("run", Outputs{{"y", b.FullyConnected(x, b.Constant(Matrix("used", DType::kI8, {2, 4})))}});
  const Graph graph = b.Finish().value();
  EXPECT_EQ(graph.subgraphs[0].ops.size(), 1U);
  EXPECT_EQ(graph.subgraphs[0].tensors.size(), 4U) << "inputs stay: they belong to the signature";
  ASSERT_EQ(graph.buffers.size(), 1U) << "constants of dead operators would be dead weight in the file";
  EXPECT_EQ(graph.buffers[0].bytes->size(), 8U);
  EXPECT_EQ(graph.quantizations.size(), 1U);
  EXPECT_EQ(graph.quantizations[0].num_scales, 2);
}

TEST(GraphBuilderTest, AnOutputMayBeAConstantOrAnInput) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value x = b.Input("x", DType::kF32, {2});
  b.EndSubgraph("run", Outputs{{"same", x}, {"one", b.Float(1.0F)}});
  const Result<Graph> graph = b.Finish();
  ASSERT_TRUE(graph.has_value()) << graph.error().message;
  EXPECT_THAT(graph->signatures[0].inputs, ElementsAre(NamedTensor{"x", 0}));
  EXPECT_THAT(graph->subgraphs[0].outputs, ElementsAre(0, 1));
}

struct Mistake {
  std::string name;
  std::function<void(GraphBuilder&)> make;
  std::string message;
};
std::string NameOfMistake(const ::testing::TestParamInfo<Mistake>& mistake) { return mistake.param.name; }
void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.name; }

class BuilderMistakeTest : public ::testing::TestWithParam<Mistake> {};

TEST_P(BuilderMistakeTest, IsRememberedAndReturnedAtTheEnd) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  const Value fine = b.Square(b.Input("fine", DType::kF32, {4}));
  GetParam().make(b);
  // The first mistake counts, and later calls do nothing.
  b.Reshape(fine, {5});
  b.EndSubgraph("run", Outputs{{"y", fine}});
  const Result<Graph> graph = b.Finish();
  ASSERT_FALSE(graph.has_value());
  EXPECT_EQ(graph.error().code, ErrorCode::kGraphShape);
  EXPECT_THAT(graph.error().message, HasSubstr(GetParam().message));
}

Value F32(GraphBuilder& b, Shape shape) { return b.Input("f", DType::kF32, std::move(shape)); }
Value I32(GraphBuilder& b, Shape shape) { return b.Input("i", DType::kI32, std::move(shape)); }

INSTANTIATE_TEST_SUITE_P(
    Shapes, BuilderMistakeTest,
    ::testing::ValuesIn(std::vector<Mistake>{
        {"Broadcast", [](GraphBuilder& b) { b.Add(F32(b, {2, 3}), F32(b, {4})); },
         "subgraph \"main\", operator 1 ADD: f32 [2,3] and f32 [4]"},
        {"SliceOutside", [](GraphBuilder& b) { b.SliceOfLast(F32(b, {4}), 2, 3); }, "[2, +3) of dimension 0 of [4]"},
        {"SliceEmpty", [](GraphBuilder& b) { b.SliceOfLast(F32(b, {4}), 2, 0); }, "[2, +0)"},
        {"SliceNegative", [](GraphBuilder& b) { b.SliceOfLast(F32(b, {4}), -1, 2); }, "[-1, +2)"},
        {"SliceSumWraps", [](GraphBuilder& b) { b.SliceOfLast(F32(b, {4}), INT32_MAX, INT32_MAX); }, "[2147483647, +2147483647)"},
        {"SliceRank", [](GraphBuilder& b) { b.Slice(F32(b, {4}), std::array{0, 0}, std::array{1, 1}); }, "rank of [4]"},
        {"SliceOfScalar", [](GraphBuilder& b) { b.SliceOfLast(F32(b, {}), 0, 1); }, "a scalar has no last dimension"},
        {"MeanOfScalar", [](GraphBuilder& b) { b.MeanOfLast(F32(b, {})); }, "a scalar has no last dimension"},
        {"Reshape", [](GraphBuilder& b) { b.Reshape(F32(b, {4}), {3}); }, "[4] to [3]"},
        {"Transpose", [](GraphBuilder& b) { b.Transpose(F32(b, {4, 5}), std::array{0, 0}); }, "not a permutation of [4,5]"},
        {"TransposeRank", [](GraphBuilder& b) { b.Transpose(F32(b, {4, 5}), std::array{0}); }, "not a permutation of [4,5]"},
        {"JoinNothing", [](GraphBuilder& b) { b.Concatenation({}, 0); }, "nothing to join"},
        {"JoinOtherRank", [](GraphBuilder& b) { b.Concatenation(std::array{F32(b, {4}), F32(b, {4, 1})}, 0); }, "f32 [4] and f32 [4,1]"},
        {"JoinOtherShape", [](GraphBuilder& b) { b.Concatenation(std::array{F32(b, {2, 4}), F32(b, {2, 5})}, 0); }, "[2,4] with [2,5]"},
        {"JoinAlongNothing", [](GraphBuilder& b) { b.Concatenation(std::array{F32(b, {4}), F32(b, {4})}, 1); }, "along dimension 1"},
        {"JoinAlongNegative", [](GraphBuilder& b) { b.Concatenation(std::array{F32(b, {4}), F32(b, {4})}, -1); }, "along dimension -1"},
        {"GatherAxis", [](GraphBuilder& b) { b.Gather(F32(b, {4}), I32(b, {1}), 1); }, "along dimension 1 of [4]"},
        {"GatherIndices", [](GraphBuilder& b) { b.Gather(F32(b, {4}), I32(b, {1, 2}), 0); }, "indices [1,2]"},
        {"MatrixWidth", [](GraphBuilder& b) { b.FullyConnected(F32(b, {1, 5}), b.Constant(Matrix("w", DType::kI8, {3, 4}))); },
         "[1,5] with weights \"w\" i8 [3,4]"},
        {"MatrixOfScalar", [](GraphBuilder& b) { b.FullyConnected(F32(b, {}), b.Constant(Matrix("w", DType::kI8, {3, 4}))); },
         "[] with weights"},
        {"MatrixRank", [](GraphBuilder& b) { b.FullyConnected(F32(b, {4}), F32(b, {4})); }, "[4] with weights \"f\" f32 [4]"},
        {"BiasLength", [](GraphBuilder& b) { b.FullyConnected(F32(b, {4}), F32(b, {3, 4}), F32(b, {4})); }, "and bias [4]"},
        {"ProductBatch", [](GraphBuilder& b) { b.BatchMatMul(F32(b, {2, 3, 4}), F32(b, {1, 4, 5}), false); }, "[2,3,4] and [1,4,5]"},
        {"ProductInner", [](GraphBuilder& b) { b.BatchMatMul(F32(b, {2, 3, 4}), F32(b, {2, 4, 5}), true); }, "[2,4,5] transposed"},
        {"ProductRank", [](GraphBuilder& b) { b.BatchMatMul(F32(b, {4}), F32(b, {4}), false); }, "[4] and [4]"},
        {"UpdateTooLarge", [](GraphBuilder& b) { b.DynamicUpdateSlice(F32(b, {2, 3}), F32(b, {2, 4}), I32(b, {2})); }, "[2,4] into [2,3]"},
        {"UpdateRank", [](GraphBuilder& b) { b.DynamicUpdateSlice(F32(b, {2, 3}), F32(b, {3}), I32(b, {2})); }, "[3] into [2,3]"},
        {"UpdateStart", [](GraphBuilder& b) { b.DynamicUpdateSlice(F32(b, {2, 3}), F32(b, {2, 3}), I32(b, {3})); }, "at [3]"},
        {"LookupIds", [](GraphBuilder& b) { b.EmbeddingLookup(I32(b, {1, 1}), F32(b, {3, 4})); }, "ids [1,1]"},
        {"LookupTable", [](GraphBuilder& b) { b.EmbeddingLookup(I32(b, {1}), F32(b, {3})); }, "a table [3]"},
    }),
    NameOfMistake);

INSTANTIATE_TEST_SUITE_P(
    TypesAndNames, BuilderMistakeTest,
    ::testing::ValuesIn(std::vector<Mistake>{
        {"AddOfTwoTypes", [](GraphBuilder& b) { b.Add(F32(b, {2}), I32(b, {2})); }, "f32 [2] and i32 [2]"},
        {"AddOfBooleans", [](GraphBuilder& b) { b.Add(b.Input("b", DType::kBool, {2}), b.Input("c", DType::kBool, {2})); }, "bool [2]"},
        {"RootOfIntegers", [](GraphBuilder& b) { b.Sqrt(I32(b, {2})); }, "\"i\" is i32, f32 is needed"},
        {"GeluOfIntegers", [](GraphBuilder& b) { b.GeluTanh(I32(b, {2})); }, "f32 is needed"},
        {"MeanOfIntegers", [](GraphBuilder& b) { b.MeanOfLast(I32(b, {2})); }, "f32 is needed"},
        {"SoftmaxOfIntegers", [](GraphBuilder& b) { b.Softmax(I32(b, {2})); }, "f32 is needed"},
        {"CastOfFloats", [](GraphBuilder& b) { b.IntegersToFloats(F32(b, {2})); }, "i32 is needed"},
        {"JoinOfTwoTypes", [](GraphBuilder& b) { b.Concatenation(std::array{F32(b, {2}), I32(b, {2})}, 0); }, "f32 [2] and i32 [2]"},
        {"GatherByFloats", [](GraphBuilder& b) { b.Gather(F32(b, {2}), F32(b, {1}), 0); }, "i32 is needed"},
        {"LookupByFloats", [](GraphBuilder& b) { b.EmbeddingLookup(F32(b, {1}), F32(b, {3, 4})); }, "i32 is needed"},
        {"LookupInIntegers", [](GraphBuilder& b) { b.EmbeddingLookup(I32(b, {1}), I32(b, {3, 4})); }, "a table of i32"},
        {"MatrixOfIntegers", [](GraphBuilder& b) { b.FullyConnected(F32(b, {4}), I32(b, {3, 4})); }, "i32 [3,4]"},
        {"ProductOfIntegers", [](GraphBuilder& b) { b.BatchMatMul(I32(b, {3, 4}), I32(b, {4, 3}), false); }, "f32 is needed"},
        {"UpdateAtFloats", [](GraphBuilder& b) { b.DynamicUpdateSlice(F32(b, {2}), F32(b, {1}), F32(b, {1})); }, "i32 is needed"},
        {"OperandMissing", [](GraphBuilder& b) { b.Add(Value(), F32(b, {2})); }, "operator 1 ADD: an operand is missing"},
        {"OperandOfUnaryMissing", [](GraphBuilder& b) { b.Tanh(Value()); }, "an operand is missing"},
        {"OneNameTwoShapes",
         [](GraphBuilder& b) {
           b.Constant(Matrix("w", DType::kI8, {3, 4}));
           b.Constant(Matrix("w", DType::kI8, {4, 4}));
         },
         "constant \"w\": i8 [4,4] here, i8 [3,4] before"},
        {"OneNameTwoTypes",
         [](GraphBuilder& b) {
           b.Constant(Matrix("w", DType::kI8, {3, 4}));
           b.Constant(Matrix("w", DType::kI4, {3, 4}));
         },
         "constant \"w\": i4 [3,4] here, i8 [3,4] before"},
        {"OutputNeverComputed", [](GraphBuilder& b) { b.EndSubgraph("early", Outputs{{"nothing", Value()}}); },
         "output \"nothing\" was never computed"},
    }),
    NameOfMistake);

TEST(GraphBuilderTest, ReportedErrorsOfOthersComeBackAsTheyAre) {
  GraphBuilder b;
  b.Report({ErrorCode::kWeightValue, "first"});
  b.Report({ErrorCode::kQuantShape, "second"});
  EXPECT_EQ(b.Finish().error().message, "first");
  EXPECT_EQ(b.Finish().error().code, ErrorCode::kWeightValue);
}

TEST(GraphBuilderTest, EmptyDimensionsAreRefused) {
  GraphBuilder b;
  b.BeginSubgraph("main");
  b.EndSubgraph("run", Outputs{{"y", b.Square(b.Input("x", DType::kF32, {1, 0}))}});
  EXPECT_EQ(b.Finish().error().code, ErrorCode::kGraphShape);
}

TEST(GraphBuilderTest, TwoSignaturesOfOneNameAreRefused) {
  GraphBuilder b;
  for (int i = 0; i < 2; ++i) {
    b.BeginSubgraph("main");
    b.EndSubgraph("run", Outputs{{"y", b.Square(b.Input("x", DType::kF32, {1}))}});
  }
  EXPECT_EQ(b.Finish().error().code, ErrorCode::kTfliteReference);
}

TEST(NormalQuantileTest, InvertsTheDistributionFunctionInBothTails) {
  // p is known to 1.1e-16, so z to that over the density: 1.1e-15 at 0.95, 2e-15 at 0.975.
  EXPECT_NEAR(NormalQuantile(0.5), 0.0, 3e-16);
  EXPECT_NEAR(NormalQuantile(0.95), 1.6448536269514722, 1.1e-15);
  EXPECT_NEAR(NormalQuantile(0.975), 1.9599639845400542, 2e-15);
  EXPECT_NEAR(NormalQuantile(0.9999999), 5.199337582290661, 1e-8) << "0.9999999 itself is known to 1e-16 only";
  EXPECT_NEAR(NormalQuantile(1e-9), -5.997807015007687, 1e-13);
  EXPECT_NEAR(NormalQuantile(1e-300), -37.0471, 1e-4);
  for (const double p : {1e-300, 1e-100, 1e-20, 1e-5, 0.1, 0.3, 0.9}) {
    EXPECT_NEAR(0.5 * std::erfc(-NormalQuantile(p) / std::sqrt(2.0)) / p, 1.0, 1e-11) << p;
  }
}

}  // namespace
}  // namespace taskpress
