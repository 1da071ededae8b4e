#include "schema/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "schema/graph_text.h"
#include "tests/testing/graph_samples.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::EveryOpGraph;
using ::testing::HasSubstr;
using testing::LookupGraph;
using testing::PatternRows;
using testing::RandomFloats;
using testing::SmallGraph;

// Tensors of SmallGraph.
constexpr size_t kX = 0;
constexpr size_t kWeights = 1;
constexpr size_t kProduct = 2;
constexpr size_t kOffsets = 3;
constexpr TensorId kY = 4;

TEST(GraphTest, TheTablesOfOperatorsAndTypesFollowTheirEnums) {
  for (size_t i = 0; i < AllOps().size(); ++i) EXPECT_EQ(static_cast<size_t>(AllOps()[i].kind), i);
  for (size_t i = 0; i < AllDTypes().size(); ++i) EXPECT_EQ(static_cast<size_t>(AllDTypes()[i].type), i);
  EXPECT_EQ(AllOps().size(), 26U);
  EXPECT_EQ(AllOps().back().kind, OpKind::kDequantize);
}

TEST(GraphTest, BuiltinCodesAreThePublicSchemas) {
  const std::map<std::string_view, int> published = {{"ADD", 0},
                                                     {"CONCATENATION", 2},
                                                     {"DEQUANTIZE", 6},
                                                     {"EMBEDDING_LOOKUP", 7},
                                                     {"FULLY_CONNECTED", 9},
                                                     {"MUL", 18},
                                                     {"RELU", 19},
                                                     {"RESHAPE", 22},
                                                     {"SOFTMAX", 25},
                                                     {"TANH", 28},
                                                     {"GATHER", 36},
                                                     {"TRANSPOSE", 39},
                                                     {"MEAN", 40},
                                                     {"SUB", 41},
                                                     {"CAST", 53},
                                                     {"MAXIMUM", 55},
                                                     {"MINIMUM", 57},
                                                     {"SLICE", 65},
                                                     {"SIN", 66},
                                                     {"SQRT", 75},
                                                     {"RSQRT", 76},
                                                     {"SQUARE", 92},
                                                     {"COS", 108},
                                                     {"BATCH_MATMUL", 126},
                                                     {"GELU", 150},
                                                     {"DYNAMIC_UPDATE_SLICE", 151}};
  ASSERT_EQ(published.size(), AllOps().size());
  for (const OpInfo& info : AllOps()) {
    EXPECT_EQ(published.at(info.name), info.builtin) << info.name;
    EXPECT_EQ(OpKindFromBuiltin(info.builtin), info.kind);
    EXPECT_EQ(&InfoOf(info.kind), &info);
  }
  EXPECT_EQ(OpKindFromBuiltin(32), std::nullopt) << "CUSTOM";
  EXPECT_EQ(OpKindFromBuiltin(-1), std::nullopt);
}

TEST(GraphTest, HonestGraphsAreValid) {
  for (const Graph& graph : {Graph(), SmallGraph(), EveryOpGraph()}) {
    const Status status = ValidateGraph(graph);
    EXPECT_TRUE(status.has_value()) << status.error().message;
  }
}

struct Lie {
  std::string name;
  std::function<void(Graph&)> tell;
  ErrorCode code;
  std::string message;
};

void PrintTo(const Lie& lie, std::ostream* out) { *out << lie.name; }
std::string NameOfLie(const ::testing::TestParamInfo<Lie>& lie) { return lie.param.name; }

class GraphLieTest : public ::testing::TestWithParam<Lie> {};

TEST_P(GraphLieTest, IsRefused) {
  Graph graph = SmallGraph();
  GetParam().tell(graph);
  const Status status = ValidateGraph(graph);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, GetParam().code) << status.error().message;
  EXPECT_THAT(status.error().message, HasSubstr(GetParam().message));
}

Subgraph& Main(Graph& graph) { return graph.subgraphs[0]; }
Tensor& At(Graph& graph, size_t id) { return Main(graph).tensors[id]; }

INSTANTIATE_TEST_SUITE_P(
    Tensors, GraphLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"NegativeDimension", [](Graph& g) { At(g, kProduct).shape = {1, -2, 3}; }, ErrorCode::kGraphShape, "[1,-2,3]"},
        {"ZeroDimension", [](Graph& g) { At(g, kProduct).shape = {1, 0, 3}; }, ErrorCode::kGraphShape, "[1,0,3]"},
        {"DimensionBeyondTheFormat", [](Graph& g) { At(g, kProduct).shape = {1LL << 31}; }, ErrorCode::kGraphShape, "2147483648"},
        {"ProductOverflows", [](Graph& g) { At(g, kX).shape = {1 << 30, 1 << 30, 1 << 30}; }, ErrorCode::kGraphShape, "not a valid shape"},
        {"BufferTooLarge", [](Graph& g) { At(g, kOffsets).buffer = 9; }, ErrorCode::kTfliteReference, "buffer 9 does not exist"},
        {"BufferNegative", [](Graph& g) { At(g, kOffsets).buffer = -2; }, ErrorCode::kTfliteReference, "buffer -2"},
        {"ConstantTooShort", [](Graph& g) { At(g, kOffsets).shape = {4}; }, ErrorCode::kTfliteReference, "needs 16 bytes"},
        {"ConstantTooLong", [](Graph& g) { At(g, kOffsets).shape = {2}; }, ErrorCode::kTfliteReference, "needs 8 bytes"},
        {"ConstantWithoutBytes", [](Graph& g) { g.buffers[1].bytes = nullptr; }, ErrorCode::kTfliteReference, "holds 0"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Quantizations, GraphLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"WeightsWithoutScales", [](Graph& g) { At(g, kWeights).quantization = kNone; }, ErrorCode::kTfliteQuantization, "without scales"},
        {"QuantizationDoesNotExist", [](Graph& g) { At(g, kWeights).quantization = 1; }, ErrorCode::kTfliteReference, "quantization 1"},
        {"FloatWithScales", [](Graph& g) { At(g, kOffsets).quantization = 0; }, ErrorCode::kTfliteQuantization, "3 scales"},
        {"TooFewScales", [](Graph& g) { g.quantizations[0].num_scales = 2; }, ErrorCode::kTfliteQuantization, "2 scales"},
        {"NoScales", [](Graph& g) { g.quantizations.push_back({.axis = 0, .num_scales = 0, .scales = nullptr}); },
         ErrorCode::kTfliteQuantization, "quantization 1 has 0 scales"},
        {"AxisOutside", [](Graph& g) { g.quantizations[0].axis = 2; }, ErrorCode::kTfliteQuantization, "dimension 2"},
        {"AxisNegative", [](Graph& g) { g.quantizations[0].axis = -1; }, ErrorCode::kTfliteQuantization, "dimension -1"},
        {"AxisOfOtherLength", [](Graph& g) { g.quantizations[0].axis = 1; }, ErrorCode::kTfliteQuantization, "dimension 1"},
        {"ScaleBytesMissing", [](Graph& g) { g.quantizations[0].scales = MakeMemorySource(ByteView()); }, ErrorCode::kTfliteQuantization,
         "0 bytes of scales"},
        {"ScalesUnknownAndNobodyBringsThem", [](Graph& g) { g.quantizations[0].scales = nullptr; }, ErrorCode::kTfliteQuantization,
         "nothing brings its scales"},
        {"RowsBringTooFewScales",
         [](Graph& g) {
           g.quantizations[0].scales = nullptr;
           g.buffers[0].bytes = std::make_shared<PatternRows>(2, 6);
         },
         ErrorCode::kTfliteQuantization, "rows bring 2 scales"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Operators, GraphLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"TooFewInputs", [](Graph& g) { Main(g).ops[1].inputs = {2}; }, ErrorCode::kTfliteReference, "ADD: 1 inputs"},
        {"TooManyInputs", [](Graph& g) { Main(g).ops[1].inputs = {2, 3, 3}; }, ErrorCode::kTfliteReference, "ADD: 3 inputs"},
        {"NoOutput", [](Graph& g) { Main(g).ops[1].outputs = {}; }, ErrorCode::kTfliteReference, "0 outputs"},
        {"InputDoesNotExist", [](Graph& g) { Main(g).ops[1].inputs = {2, 99}; }, ErrorCode::kTfliteReference, "reads tensor 99"},
        {"RequiredInputAbsent", [](Graph& g) { Main(g).ops[0].inputs = {0, kNone}; }, ErrorCode::kTfliteReference, "reads tensor -1"},
        {"OptionalInputBelowMinusOne", [](Graph& g) { Main(g).ops[0].inputs = {0, 1, -2}; }, ErrorCode::kTfliteReference,
         "reads tensor -2"},
        {"ReadBeforeWritten", [](Graph& g) { std::swap(Main(g).ops[0], Main(g).ops[1]); }, ErrorCode::kTfliteReference, "no value yet"},
        {"OutputDoesNotExist", [](Graph& g) { Main(g).ops[1].outputs = {5}; }, ErrorCode::kTfliteReference, "writes tensor 5"},
        {"OutputAbsent", [](Graph& g) { Main(g).ops[1].outputs = {kNone}; }, ErrorCode::kTfliteReference, "writes tensor -1"},
        {"WrittenTwice", [](Graph& g) { Main(g).ops[1].outputs = {2}; }, ErrorCode::kTfliteReference, "has a value already"},
        {"ConstantWritten", [](Graph& g) { Main(g).ops[1].outputs = {3}; }, ErrorCode::kTfliteReference, "has a value already"},
        {"InputWritten", [](Graph& g) { Main(g).ops[1].outputs = {0}; }, ErrorCode::kTfliteReference, "has a value already"},
        {"AttributesOfAnotherOperator", [](Graph& g) { Main(g).ops[0].attributes = SoftmaxAttributes{}; }, ErrorCode::kGraphShape,
         "attributes of another operator"},
        {"AttributesWhereNoneBelong", [](Graph& g) { Main(g).ops[1].attributes = MeanAttributes{}; }, ErrorCode::kGraphShape,
         "attributes of another operator"},
        {"AttributesMissing", [](Graph& g) { Main(g).ops[0].attributes = NoAttributes{}; }, ErrorCode::kGraphShape,
         "attributes of another operator"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    SubgraphsAndSignatures, GraphLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"SubgraphInputDoesNotExist", [](Graph& g) { Main(g).inputs = {7}; }, ErrorCode::kTfliteReference, "input tensor 7"},
        {"SubgraphInputTwice", [](Graph& g) { Main(g).inputs = {0, 0}; }, ErrorCode::kTfliteReference, "input tensor 0"},
        {"SubgraphInputIsConstant", [](Graph& g) { Main(g).inputs = {0, 3}; }, ErrorCode::kTfliteReference, "input tensor 3"},
        {"SubgraphOutputDoesNotExist", [](Graph& g) { Main(g).outputs = {-1}; }, ErrorCode::kTfliteReference, "output tensor -1"},
        {"SubgraphOutputHasNoValue", [](Graph& g) { Main(g).ops.pop_back(); }, ErrorCode::kTfliteReference, "output tensor 4"},
        {"KeyEmpty", [](Graph& g) { g.signatures[0].key = ""; }, ErrorCode::kTfliteReference, "key \"\""},
        {"KeyTwice", [](Graph& g) { g.signatures.push_back(g.signatures[0]); }, ErrorCode::kTfliteReference, "used twice"},
        {"SubgraphDoesNotExist", [](Graph& g) { g.signatures[0].subgraph = 1; }, ErrorCode::kTfliteReference, "subgraph 1 does not exist"},
        {"InputNameEmpty", [](Graph& g) { g.signatures[0].inputs[0].first = ""; }, ErrorCode::kTfliteReference, "input name \"\""},
        {"OutputNameTwice",
         [](Graph& g) {
           Main(g).outputs = {kY, kY};
           g.signatures[0].outputs = {{"y", kY}, {"y", kY}};
         },
         ErrorCode::kTfliteReference, "output name \"y\""},
        {"InputsAreNotTheSubgraphs", [](Graph& g) { g.signatures[0].inputs.clear(); }, ErrorCode::kTfliteReference, "inputs are not"},
        {"OutputsAreNotTheSubgraphs", [](Graph& g) { g.signatures[0].outputs[0].second = 2; }, ErrorCode::kTfliteReference,
         "outputs are not"},
    }),
    NameOfLie);

TEST(GraphTest, TwoConstantsMayNotTakeTheirScalesFromOneTableThatIsYetToBeFilled) {
  Graph graph = LookupGraph(DType::kI8, {4, 8}, std::make_shared<PatternRows>(4, 8));
  EXPECT_TRUE(ValidateGraph(graph).has_value());
  // A second table with the same quantization: whose scales would it be?
  graph.buffers.push_back({std::make_shared<PatternRows>(4, 8)});
  Tensor second = graph.subgraphs[0].tensors[1];
  second.buffer = 1;
  graph.subgraphs[0].tensors.push_back(second);
  EXPECT_EQ(ValidateGraph(graph).error().code, ErrorCode::kTfliteQuantization);
  // A second quantization over the same rows: only one of them would be filled.
  graph.quantizations.push_back(graph.quantizations[0]);
  graph.subgraphs[0].tensors.back().buffer = 0;
  graph.subgraphs[0].tensors.back().quantization = 1;
  EXPECT_EQ(ValidateGraph(graph).error().code, ErrorCode::kTfliteQuantization);
}

TEST(GraphTest, OneScaleForTheWholeTensorIsValid) {
  Graph graph = SmallGraph();
  const float scale = 0.25F;
  graph.quantizations[0] = {.axis = 0, .num_scales = 1, .scales = MakeMemorySource(std::span(&scale, 1))};
  EXPECT_TRUE(ValidateGraph(graph).has_value());
}

TEST(GraphTest, AMessageNamesSubgraphTensorAndWhatWasFound) {
  Graph graph = SmallGraph();
  graph.subgraphs[0].tensors[kOffsets].shape = {5};
  EXPECT_EQ(ValidateGraph(graph).error().message, "subgraph \"main\", tensor 3 \"t3\": f32 [5] needs 20 bytes, buffer 1 holds 12");
}

TEST(GraphTest, MessagesShowHostileNamesInPrintableForm) {
  Graph graph = SmallGraph();
  graph.subgraphs[0].name = "\x1b[31m";
  graph.subgraphs[0].tensors[kOffsets].name = "a\nb";
  graph.subgraphs[0].tensors[kOffsets].shape = {5};
  EXPECT_THAT(ValidateGraph(graph).error().message, HasSubstr("subgraph \"\\x1b[31m\", tensor 3 \"a\\x0ab\""));
}

TEST(GraphTest, EqualityLooksAtStructureAndAtEveryConstantByte) {
  const Graph graph = EveryOpGraph();
  EXPECT_TRUE(GraphsEqual(graph, graph).value());
  EXPECT_TRUE(GraphsEqual(graph, EveryOpGraph()).value()) << "equal bytes in different places";
  const std::vector<std::function<void(Graph&)>> changes = {
      [](Graph& g) { g.description += "!"; },
      [](Graph& g) { g.metadata[0].second = "other"; },
      [](Graph& g) { g.subgraphs[0].ops[0].kind = OpKind::kSub; },
      [](Graph& g) { g.subgraphs[0].tensors[0].shape = {4, 1, 2, 8}; },
      [](Graph& g) { g.subgraphs[1].name = "third"; },
      [](Graph& g) { g.signatures[0].key = "other"; },
      [](Graph& g) { g.quantizations[0].axis = 1; },
      [](Graph& g) { g.quantizations[0].scales = nullptr; },
      [](Graph& g) { g.buffers.pop_back(); },
      [](Graph& g) { g.quantizations.pop_back(); },
      [](Graph& g) {
        std::vector<std::byte> bytes(g.buffers.back().bytes->size());
        ASSERT_TRUE(g.buffers.back().bytes->Read(0, bytes).has_value());
        bytes.back() ^= std::byte{1};
        g.buffers.back().bytes = MakeMemorySource(ByteView(bytes));
      },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    Graph changed = EveryOpGraph();
    changes[i](changed);
    EXPECT_FALSE(GraphsEqual(graph, changed).value()) << "change " << i;
  }
}

TEST(GraphTest, EqualityReadsRowsAndReportsReadErrors) {
  const Graph a = LookupGraph(DType::kI8, {4, 8}, std::make_shared<PatternRows>(4, 8));
  const Graph b = LookupGraph(DType::kI8, {4, 8}, std::make_shared<PatternRows>(4, 8));
  EXPECT_TRUE(GraphsEqual(a, b).value());
  const Graph broken = LookupGraph(DType::kI8, {4, 8}, std::make_shared<testing::SizeOnly>(32));
  EXPECT_EQ(GraphsEqual(a, broken).error().code, ErrorCode::kReadFailed);
}

TEST(GraphTest, FindsSignaturesAndTheirTensorsByName) {
  const Graph graph = SmallGraph();
  ASSERT_NE(graph.FindSignature("main"), nullptr);
  EXPECT_EQ(graph.FindSignature("decode"), nullptr);
  EXPECT_EQ(FindTensor(graph.signatures[0].outputs, "y"), kY);
  EXPECT_EQ(FindTensor(graph.signatures[0].outputs, "x"), kNone);
}

TEST(GraphTextTest, ShowsASmallGraph) {
  EXPECT_EQ(GraphText(SmallGraph()),
            "graph \"a small graph\": 2 buffers, 1 quantizations\n"
            "metadata \"note\": 9 bytes\n"
            "signature \"main\" of subgraph 0\n"
            "  in  x=%0:f32[1,2,4]\n"
            "  out y=%4:f32[1,2,3]\n"
            "subgraph \"main\"\n"
            "  const %1 i8[3,4] buffer=0 quantization=0 \"t1\"\n"
            "  const %3 f32[3] buffer=1 quantization=-1 \"t3\"\n"
            "  %2:f32[1,2,3] = FULLY_CONNECTED(%0, %1) keep_num_dims\n"
            "  %4:f32[1,2,3] = ADD(%2, %3)\n");
}

TEST(GraphTextTest, ShowsEveryAttribute) {
  const std::string text = GraphText(EveryOpGraph());
  for (const char* line : {"= SOFTMAX(%0) beta=0.75\n", "keep_dims\n", "= CONCATENATION(%0, %0, %0) axis=2\n", " axis=1 batch_dims=1\n",
                           " i32->f32\n", " adj_x adj_y\n", "= GELU(%0) approximate\n", "= GELU(%0)\n", ", none) keep_num_dims\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(GraphTextTest, NamesFromFilesCannotForgeLines) {
  Graph graph = SmallGraph();
  graph.description = "x\"\nsignature \"forged";
  graph.signatures[0].key = "a\x1b[2J";
  const std::string text = GraphText(graph);
  EXPECT_THAT(text, ::testing::Not(HasSubstr("\nsignature \"forged")));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace taskpress
