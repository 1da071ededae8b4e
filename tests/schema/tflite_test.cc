#include "schema/tflite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "schema/graph_text.h"
#include "schema/tflite_generated.h"
#include "tests/testing/graph_samples.h"
#include "tests/testing/raw_tflite.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::EveryOpGraph;
using ::testing::HasSubstr;
using testing::HonestModel;
using testing::LookupGraph;
using testing::PatternRows;
using testing::RandomFloats;
using testing::RawModel;
using testing::SizeOnly;
using testing::SmallGraph;
using testing::ToyGraph;
using testing::Unaddressable;

using Member = std::vector<std::byte>;

Member MustSerialize(const Graph& graph) {
  Result<Member> member = SerializeTflite(graph);
  if (member) return *std::move(member);
  ADD_FAILURE() << member.error().message;
  return {};
}

Graph MustRead(ByteView member) {
  Result<Graph> graph = ReadTflite(MakeMemorySource(member));
  if (graph) return *std::move(graph);
  ADD_FAILURE() << graph.error().message;
  return {};
}

const tflite::Model& RootOf(ByteView member) { return *tflite::GetModel(member.data()); }

TEST(TfliteTest, EveryOperatorAndConstantComesBackEqual) {
  const Graph graph = EveryOpGraph();
  const Member member = MustSerialize(graph);
  const Graph read = MustRead(member);
  EXPECT_EQ(GraphText(graph), GraphText(read));
  EXPECT_TRUE(GraphsEqual(graph, read).value());
  EXPECT_EQ(member, MustSerialize(read)) << "writing what was read gives the same bytes";
}

TEST(TfliteTest, EqualGraphsGiveEqualBytes) { EXPECT_EQ(MustSerialize(EveryOpGraph()), MustSerialize(EveryOpGraph())); }

TEST(TfliteTest, AnEmptyGraphIsAMember) { EXPECT_TRUE(GraphsEqual(Graph(), MustRead(MustSerialize(Graph()))).value()); }

TEST(TfliteTest, ReadsAModelOfOthers) {
  const Graph read = MustRead(AsBytes(HonestModel().Bytes()));
  EXPECT_EQ(GraphText(read),
            "graph \"by hand\": 2 buffers, 1 quantizations\n"
            "signature \"run\" of subgraph 0\n"
            "  in  x=%0:f32[1,2,4]\n"
            "  out y=%4:f32[1,2,3]\n"
            "subgraph \"main\"\n"
            "  const %1 i8[3,4] buffer=0 quantization=0 \"weights\"\n"
            "  const %3 f32[3] buffer=1 quantization=-1 \"offsets\"\n"
            "  %2:f32[1,2,3] = FULLY_CONNECTED(%0, %1) keep_num_dims\n"
            "  %4:f32[1,2,3] = ADD(%2, %3)\n");
  EXPECT_EQ(ScalesOf(read.quantizations[0])[1], 0.25F);
  EXPECT_EQ(read.buffers[0].bytes->view()[11], std::byte{5});
}

TEST(TfliteTest, MissingOptionTablesMeanTheFormatsDefaults) {
  RawModel model = HonestModel();
  for (auto& op : model.subgraphs[0].operators) {
    op.options = nullptr;
    op.options_type = tflite::BuiltinOptions::NONE;
  }
  const Graph read = MustRead(AsBytes(model.Bytes()));
  EXPECT_EQ(std::get<FullyConnectedAttributes>(read.subgraphs[0].ops[0].attributes).keep_num_dims, false);
}

// A model whose buffers are out of our order: constants between empty ones and metadata.
TEST(TfliteTest, BuffersOfOthersAreRenumberedOnceAndThenKeepTheirPlace) {
  RawModel model = HonestModel();
  auto& buffers = model.buffers;
  buffers = {buffers[2], {}, {.data = {'v', '1'}, .offset = 0, .size = 0}, buffers[1], {}};
  model.subgraphs[0].tensors[0].buffer = 1;
  model.subgraphs[0].tensors[1].buffer = 3;
  model.subgraphs[0].tensors[2].buffer = 4;
  model.subgraphs[0].tensors[3].buffer = 0;
  model.subgraphs[0].tensors[4].buffer = 1;
  model.metadata = {{"min_runtime_version", 2}, {"nothing", 1}};
  model.behind_root = std::string(8192, '\1');
  const Graph read = MustRead(AsBytes(model.Bytes()));
  EXPECT_EQ(read.buffers.size(), 2U) << "empty buffers and metadata are no constants";
  const std::vector<std::pair<std::string, std::string>> metadata = {{"min_runtime_version", "v1"}, {"nothing", ""}};
  EXPECT_EQ(read.metadata, metadata);
  const Member once = MustSerialize(read);
  const Graph again = MustRead(once);
  EXPECT_TRUE(GraphsEqual(read, again).value());
  EXPECT_EQ(once, MustSerialize(again));
}

TEST(TfliteTest, AConstantThatMetadataSharesStaysAConstant) {
  RawModel model = HonestModel();
  model.metadata = {{"copy", 2}};
  const Graph read = MustRead(AsBytes(model.Bytes()));
  EXPECT_EQ(read.buffers.size(), 2U);
  EXPECT_EQ(read.metadata[0].second.size(), 12U);
}

// ---------------------------------------------------------------------------------------------------------------- constants and layout

TEST(TfliteTest, SmallConstantsLieInTheRootAndLargeOnesBehindItAt64) {
  const Graph graph = EveryOpGraph();
  const TfliteImage image = BuildTfliteImage(graph).value();
  const Member member = MustSerialize(graph);
  ASSERT_EQ(member.size(), image.size);
  uint64_t end = image.root.size();
  std::set<int32_t> outside;
  for (const TfliteImage::Placement& placement : image.placements) {
    EXPECT_EQ(placement.offset % 64, 0U);
    EXPECT_GE(placement.offset, end);
    EXPECT_LT(placement.offset - end, 64U);
    EXPECT_TRUE(std::all_of(member.begin() + static_cast<ptrdiff_t>(end), member.begin() + static_cast<ptrdiff_t>(placement.offset),
                            [](std::byte b) { return b == std::byte{0}; }));
    end = placement.offset + placement.size;
    outside.insert(placement.buffer);
  }
  EXPECT_EQ(end, image.size);
  EXPECT_EQ(outside.size(), 4U);
  const tflite::Model& model = RootOf(member);
  EXPECT_EQ(model.buffers()->Get(0)->data(), nullptr) << "buffer 0 is the empty one";
  EXPECT_EQ(model.buffers()->Get(0)->offset(), 0U);
  for (size_t i = 0; i < graph.buffers.size(); ++i) {
    const tflite::Buffer& buffer = *model.buffers()->Get(static_cast<uint32_t>(i + 1));
    const uint64_t size = graph.buffers[i].bytes->size();
    EXPECT_EQ(outside.contains(static_cast<int32_t>(i)), size > kInlineBytes);
    if (size > kInlineBytes) {
      EXPECT_EQ(buffer.data(), nullptr);
      EXPECT_EQ(buffer.size(), size);
    } else {
      EXPECT_EQ(buffer.data()->size(), size);
      EXPECT_EQ(buffer.offset(), 0U);
      EXPECT_EQ((reinterpret_cast<const std::byte*>(buffer.data()->data()) - member.data()) % 16, 0);
    }
  }
}

TEST(TfliteTest, ScalesThatComeWithTheRowsAreStoredInTheRoot) {
  for (const int64_t rows : {3, 700}) {
    const Graph graph = LookupGraph(DType::kI8, {rows, 16}, std::make_shared<PatternRows>(rows, 16));
    const TfliteImage image = BuildTfliteImage(graph).value();
    ASSERT_EQ(image.placements.size(), 1U) << "row sources are never inline, their scales would be unknown";
    ASSERT_EQ(image.pending_scales.size(), 1U);
    const Graph read = MustRead(MustSerialize(graph));
    const std::span<const float> scales = ScalesOf(read.quantizations[0]);
    ASSERT_EQ(scales.size(), static_cast<size_t>(rows));
    for (int64_t row = 0; row < rows; ++row) ASSERT_EQ(scales[static_cast<size_t>(row)], static_cast<float>(row + 1) / 16.0F);
    EXPECT_EQ(read.buffers[0].bytes->view()[16], std::byte{7});
  }
}

TEST(TfliteTest, RowsOfFloatsBringNoScales) {
  const Graph graph = LookupGraph(DType::kF32, {5, 4}, std::make_shared<PatternRows>(5, 16, 0));
  EXPECT_TRUE(BuildTfliteImage(graph).value().pending_scales.empty());
  EXPECT_TRUE(GraphsEqual(graph, MustRead(MustSerialize(graph))).value());
}

TEST(TfliteTest, ScalesAndConstantsMayBeUnaddressable) {
  const Graph graph = EveryOpGraph();
  Graph behind_reads = EveryOpGraph();
  for (Buffer& buffer : behind_reads.buffers) buffer.bytes = std::make_shared<Unaddressable>(buffer.bytes);
  for (Quantization& quantization : behind_reads.quantizations) quantization.scales = std::make_shared<Unaddressable>(quantization.scales);
  EXPECT_EQ(MustSerialize(graph), MustSerialize(behind_reads));
}

TEST(TfliteTest, AMemberBeyond4GiBIsLaidOutWithoutTouchingItsWeights) {
  constexpr uint64_t kTable = 5ULL << 30;
  ToyGraph toy;
  toy.Begin("main");
  const TensorId ids = toy.Input("ids", DType::kI32, {1});
  for (int i = 0; i < 2; ++i) {
    const TensorId table = toy.Floats({1}, {0.0F});
    toy.Output("row" + std::to_string(i), toy.Op(OpKind::kEmbeddingLookup, {ids, table}, {1, 1280}));
  }
  Graph graph = toy.Take();
  for (Buffer& buffer : graph.buffers) buffer.bytes = std::make_shared<SizeOnly>(kTable);
  for (Tensor& tensor : graph.subgraphs[0].tensors) {
    if (tensor.is_constant()) tensor.shape = {1 << 20, 1280};
  }
  const TfliteImage image = BuildTfliteImage(graph).value();
  ASSERT_EQ(image.placements.size(), 2U);
  EXPECT_LT(image.root.size(), 4096U);
  EXPECT_EQ(image.placements[1].offset, image.placements[0].offset + kTable);
  EXPECT_EQ(image.size, image.placements[1].offset + kTable);
  const tflite::Buffer& second = *RootOf(image.root).buffers()->Get(2);
  EXPECT_EQ(second.offset(), image.placements[1].offset);
  EXPECT_EQ(second.size(), kTable);
}

TEST(TfliteTest, ARootBeyond2GiBIsRefusedBeforeItIsBuilt) {
  constexpr int64_t kRows = 300'000'000;  // 1.2 GB of scales and 2.4 GB of zero points
  const Result<TfliteImage> image = BuildTfliteImage(LookupGraph(DType::kI8, {kRows, 2}, std::make_shared<PatternRows>(kRows, 2)));
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code, ErrorCode::kTfliteTooLarge);
}

TEST(TfliteTest, WeightsBeyond2To64BytesAreRefused) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId ids = toy.Input("ids", DType::kI32, {1});
  for (int i = 0; i < 17; ++i) {
    toy.Output("row" + std::to_string(i), toy.Op(OpKind::kEmbeddingLookup, {ids, toy.Floats({1}, {0.0F})}, {1}));
  }
  Graph graph = toy.Take();
  for (Buffer& buffer : graph.buffers) buffer.bytes = std::make_shared<SizeOnly>(1ULL << 60);
  for (Tensor& tensor : graph.subgraphs[0].tensors) {
    if (tensor.is_constant()) tensor.shape = {1 << 30, 1 << 28};
  }
  EXPECT_EQ(BuildTfliteImage(graph).error().code, ErrorCode::kTfliteTooLarge);
}

TEST(TfliteTest, ZeroPointsArePresentZeroAndShared) {
  const Member member = MustSerialize(EveryOpGraph());
  const tflite::Model& model = RootOf(member);
  std::set<const void*> tables;
  std::map<size_t, std::set<const void*>> zero_points;
  size_t uses = 0;
  for (const tflite::SubGraph* subgraph : *model.subgraphs()) {
    for (const tflite::Tensor* tensor : *subgraph->tensors()) {
      const tflite::QuantizationParameters* quantization = tensor->quantization();
      if (quantization == nullptr) continue;
      ++uses;
      tables.insert(quantization);
      ASSERT_EQ(quantization->zero_point()->size(), quantization->scale()->size());
      for (const int64_t zero_point : *quantization->zero_point()) EXPECT_EQ(zero_point, 0);
      zero_points[quantization->scale()->size()].insert(quantization->zero_point());
    }
  }
  EXPECT_EQ(uses, 5U);
  EXPECT_EQ(tables.size(), 3U) << "one table per Quantization, whatever the number of subgraphs";
  for (const auto& [count, vectors] : zero_points) EXPECT_EQ(vectors.size(), 1U) << count;
}

TEST(TfliteTest, OperatorVersionsAreTheLowestThatOldReadersNeed) {
  const Member member = MustSerialize(EveryOpGraph());
  std::map<int, std::set<int>> versions;
  for (const tflite::OperatorCode* code : *RootOf(member).operator_codes()) {
    versions[code->builtin_code()].insert(code->version());
    EXPECT_EQ(code->deprecated_builtin_code(), std::min(code->builtin_code(), 127));
  }
  const std::map<int, std::set<int>> special = {{InfoOf(OpKind::kFullyConnected).builtin, {5, 6, 12}},
                                                {InfoOf(OpKind::kEmbeddingLookup).builtin, {4}},
                                                {InfoOf(OpKind::kDequantize).builtin, {3}}};
  EXPECT_EQ(versions.size(), AllOps().size());
  for (const auto& [builtin, found] : versions) {
    const auto expected = special.find(builtin);
    EXPECT_EQ(found, expected == special.end() ? std::set<int>{1} : expected->second) << builtin;
  }
  const Member floats = MustSerialize(LookupGraph(DType::kF32, {2, 1}, std::make_shared<PatternRows>(2, 4, 0)));
  EXPECT_EQ(RootOf(floats).operator_codes()->Get(0)->version(), 1);
}

TEST(TfliteTest, InvalidGraphsAreNotWritten) {
  Graph graph = SmallGraph();
  graph.subgraphs[0].ops[0].inputs = {0, kNone};
  EXPECT_EQ(BuildTfliteImage(graph).error().code, ErrorCode::kTfliteReference);
  graph = SmallGraph();
  graph.subgraphs[0].ops[0].attributes = NoAttributes{};
  EXPECT_EQ(SerializeTflite(graph).error().code, ErrorCode::kGraphShape);
}

TEST(TfliteTest, QuantizationOfABufferIsItsTensors) {
  const Graph graph = SmallGraph();
  EXPECT_EQ(QuantizationOfBuffer(graph, 0), 0);
  EXPECT_EQ(QuantizationOfBuffer(graph, 1), kNone);
}

// --------------------------------------------------------------------------------------------------------------------- places in memory

TEST(TfliteTest, AMemberAtAnOddAddressReadsWithoutCopyingItsWeights) {
  const Graph graph = EveryOpGraph();
  const Member member = MustSerialize(graph);
  for (const size_t shift : {1U, 4U, 13U}) {
    std::vector<std::byte> shifted(shift);
    shifted.insert(shifted.end(), member.begin(), member.end());
    const SharedBytes file = MakeMemorySource(ByteView(shifted));
    const SharedBytes source = MakeSubSource(file, shift, member.size()).value();
    const Result<Graph> read = ReadTflite(source);
    ASSERT_TRUE(read.has_value()) << read.error().message;
    EXPECT_TRUE(GraphsEqual(graph, *read).value());
    const ByteView whole = file->view();
    for (const Buffer& buffer : read->buffers) {
      if (buffer.bytes->size() <= kInlineBytes) continue;
      EXPECT_TRUE(buffer.bytes->view().data() >= whole.data() && buffer.bytes->view().data() < whole.data() + whole.size());
    }
  }
}

TEST(TfliteTest, AMemberThatIsNotAddressableReads) {
  const Graph graph = EveryOpGraph();
  const Member member = MustSerialize(graph);
  const Result<Graph> read = ReadTflite(std::make_shared<Unaddressable>(MakeMemorySource(ByteView(member))));
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_TRUE(GraphsEqual(graph, *read).value());
}

TEST(TfliteTest, TruncationAtAnyByteIsNoticed) {
  // The last byte is a weight's, so every byte counts.
  const Member member = MustSerialize(LookupGraph(DType::kI8, {5, 16}, std::make_shared<PatternRows>(5, 16)));
  for (size_t size = 0; size < member.size(); ++size) {
    EXPECT_FALSE(ReadTflite(MakeMemorySource(ByteView(member).first(size))).has_value()) << size << " of " << member.size() << " bytes";
  }
  // Without weights behind the root only padding at its end may be missed.
  const Graph inside = SmallGraph();
  const Member root = MustSerialize(inside);
  for (size_t size = 0; size < root.size(); ++size) {
    const Result<Graph> read = ReadTflite(MakeMemorySource(ByteView(root).first(size)));
    if (!read) continue;
    EXPECT_GT(size + 8, root.size());
    EXPECT_TRUE(GraphsEqual(inside, *read).value());
  }
}

// Any outcome but a crash: the sanitizers watch.
TEST(TfliteTest, FlippedBytesAreSurvived) {
  const Member member = MustSerialize(SmallGraph());
  size_t refused = 0;
  for (size_t i = 0; i < member.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      Member damaged = member;
      damaged[i] ^= static_cast<std::byte>(flip);
      if (!ReadTflite(MakeMemorySource(ByteView(damaged))).has_value()) ++refused;
    }
  }
  EXPECT_GT(refused, member.size());
}

// --------------------------------------------------------------------------------------------------------------------------------- lies

struct Lie {
  std::string name;
  std::function<void(RawModel&)> tell;
  ErrorCode code;
  std::string message;
};
void PrintTo(const Lie& lie, std::ostream* out) { *out << lie.name; }
std::string NameOfLie(const ::testing::TestParamInfo<Lie>& lie) { return lie.param.name; }

class TfliteLieTest : public ::testing::TestWithParam<Lie> {};

TEST_P(TfliteLieTest, IsRefused) {
  RawModel model = HonestModel();
  GetParam().tell(model);
  const Result<Graph> graph = ReadTflite(MakeMemorySource(AsBytes(model.Bytes())));
  ASSERT_FALSE(graph.has_value());
  EXPECT_EQ(graph.error().code, GetParam().code) << graph.error().message;
  EXPECT_THAT(graph.error().message, HasSubstr(GetParam().message));
}

testing::RawTfliteTensor& At(RawModel& model, size_t id) { return model.subgraphs[0].tensors[id]; }
testing::RawQuantization& Scales(RawModel& model) { return *model.subgraphs[0].tensors[1].quantization; }
testing::RawOperator& OpAt(RawModel& model, size_t index) { return model.subgraphs[0].operators[index]; }

// Makes operator 0 one of `builtin` with inputs x and y and the given options.
template <typename Options>
void Become(RawModel& model, int builtin, tflite::BuiltinOptions type, Options options) {
  model.codes[1] = {.builtin = builtin, .deprecated = static_cast<int8_t>(std::min(builtin, 127)), .custom = {}};
  OpAt(model, 1).options_type = type;
  OpAt(model, 1).options = [options](flatbuffers::FlatBufferBuilder& b) { return options(b).Union(); };
}

INSTANTIATE_TEST_SUITE_P(Structure, TfliteLieTest,
                         ::testing::ValuesIn(std::vector<Lie>{
                             {"Identifier", [](RawModel& m) { m.identifier = "TFL2"; }, ErrorCode::kTfliteStructure, "identifier"},
                             {"Version", [](RawModel& m) { m.version = 2; }, ErrorCode::kTfliteStructure, "version 2"},
                         }),
                         NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Buffers, TfliteLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"BufferDoesNotExist", [](RawModel& m) { At(m, 3).buffer = 3; }, ErrorCode::kTfliteReference, "buffer 3 does not exist"},
        {"BufferIndexHuge", [](RawModel& m) { At(m, 3).buffer = 0xFFFFFFFF; }, ErrorCode::kTfliteReference, "buffer 4294967295"},
        {"EndOutside", [](RawModel& m) { m.buffers[1].offset = 4097; }, ErrorCode::kTfliteReference, "outside the member"},
        {"OffsetOutside", [](RawModel& m) { m.buffers[1].offset = 1ULL << 40; }, ErrorCode::kTfliteReference, "outside the member"},
        {"OffsetPlusSizeOverflows", [](RawModel& m) { m.buffers[1].size = std::numeric_limits<uint64_t>::max() - 4000; },
         ErrorCode::kTfliteReference, "outside the member"},
        {"DataAndOffset", [](RawModel& m) { m.buffers[1].data.assign(12, 1); }, ErrorCode::kTfliteReference, "both inside and outside"},
        {"ConstantOfOtherSize", [](RawModel& m) { m.buffers[1].size = 11; }, ErrorCode::kTfliteReference, "needs 12 bytes"},
        {"InlineConstantOfOtherSize", [](RawModel& m) { m.buffers[2].data.pop_back(); }, ErrorCode::kTfliteReference, "needs 12 bytes"},
        {"OffsetOneMeansNone", [](RawModel& m) { m.buffers[2] = {.data = {}, .offset = 1, .size = 12}; }, ErrorCode::kTfliteReference,
         "no value yet"},
        {"MetadataBufferDoesNotExist", [](RawModel& m) { m.metadata = {{"x", 7}}; }, ErrorCode::kTfliteReference, "metadata \"x\""},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Quantization, TfliteLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"NoZeroPoints", [](RawModel& m) { Scales(m).zero_points.clear(); }, ErrorCode::kTfliteQuantization, "0 zero points"},
        {"TooManyZeroPoints", [](RawModel& m) { Scales(m).zero_points.push_back(0); }, ErrorCode::kTfliteQuantization, "4 zero points"},
        {"ZeroPointNotZero", [](RawModel& m) { Scales(m).zero_points[2] = 8; }, ErrorCode::kTfliteTypeUnsupported, "zero point 8"},
        {"ScaleZero", [](RawModel& m) { Scales(m).scales[1] = 0; }, ErrorCode::kTfliteQuantization, "scale 0"},
        {"ScaleNegative", [](RawModel& m) { Scales(m).scales[1] = -1; }, ErrorCode::kTfliteQuantization, "scale -1"},
        {"ScaleSubnormal", [](RawModel& m) { Scales(m).scales[0] = 1e-40F; }, ErrorCode::kTfliteQuantization, "not a positive normal"},
        {"ScaleNan", [](RawModel& m) { Scales(m).scales[0] = NAN; }, ErrorCode::kTfliteQuantization, "not a positive normal"},
        {"ScaleInfinite", [](RawModel& m) { Scales(m).scales[0] = INFINITY; }, ErrorCode::kTfliteQuantization, "not a positive normal"},
        {"ScalesMissing", [](RawModel& m) { At(m, 1).quantization.reset(); }, ErrorCode::kTfliteQuantization, "without scales"},
        {"TwoScalesForThreeRows",
         [](RawModel& m) {
           Scales(m).scales.pop_back();
           Scales(m).zero_points.pop_back();
         },
         ErrorCode::kTfliteQuantization, "2 scales"},
        {"AxisOutside", [](RawModel& m) { Scales(m).axis = 2; }, ErrorCode::kTfliteQuantization, "dimension 2"},
        {"AxisOfOtherLength", [](RawModel& m) { Scales(m).axis = 1; }, ErrorCode::kTfliteQuantization, "dimension 1"},
        {"QuantizedActivation", [](RawModel& m) { At(m, 2).quantization = Scales(m); }, ErrorCode::kTfliteQuantization, "3 scales"},
        {"DetailsOfUnknownKind", [](RawModel& m) { Scales(m).details = static_cast<tflite::QuantizationDetails>(3); },
         ErrorCode::kTfliteTypeUnsupported, "details"},
    }),
    NameOfLie);

// The weights become int4 [3, 64] in blocks of 32, with tensor 5 for their scales.
RawModel InBlocks() {
  RawModel m = HonestModel();
  At(m, 0).shape = {1, 2, 64};
  testing::RawTfliteTensor& weights = At(m, 1);
  weights.type = 17;
  weights.shape = {3, 64};
  weights.quantization = testing::RawQuantization{.scales = {}, .zero_points = {}};
  weights.quantization->details = tflite::QuantizationDetails::BlockwiseQuantization;
  weights.quantization->blocks = {5, -1, 32};
  weights.buffer = static_cast<uint32_t>(m.buffers.size());
  m.buffers.push_back({.data = std::vector<uint8_t>(96, 0x71)});
  m.subgraphs[0].tensors.push_back({.name = "scales",
                                    .type = 1,
                                    .shape = {3, 2},
                                    .buffer = static_cast<uint32_t>(m.buffers.size()),
                                    .quantization = {},
                                    .shape_signature = {}});
  m.buffers.push_back({.data = std::vector<uint8_t>(12, 0x3c)});
  return m;
}

TEST(TfliteTest, BlocksOfOthersAreReadAndBlocksOfOursComeBackEqual) {
  const std::string bytes = InBlocks().Bytes();
  const Graph graph = MustRead(AsBytes(bytes));
  const Subgraph& subgraph = graph.subgraphs[0];
  EXPECT_EQ(subgraph.tensors[1].block_scales, 5);
  EXPECT_EQ(BlockSizeOf(subgraph, subgraph.tensors[1]), 32);
  EXPECT_EQ(BlockSizeOf(subgraph, subgraph.tensors[0]), 0);
  EXPECT_TRUE(GraphsEqual(graph, MustRead(MustSerialize(graph))).value());

  ToyGraph toy;
  for (const char* key : {"first", "second"}) {
    toy.Begin(key);
    const TensorId x = toy.Input("x", DType::kF32, {2, 256});
    const TensorId weights = toy.Blocks({9, 256}, 64, RandomFloats(9 * 256, 3));
    toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, weights}, {2, 9}, FullyConnectedAttributes{.keep_num_dims = true}));
  }
  const Graph ours = toy.Take();
  const std::vector<std::byte> member = MustSerialize(ours);
  EXPECT_TRUE(GraphsEqual(ours, MustRead(member)).value());
  const tflite::Model& model = *tflite::GetModel(member.data());
  const auto* details = model.subgraphs()->Get(0)->tensors()->Get(2)->quantization();
  ASSERT_EQ(details->details_type(), tflite::QuantizationDetails::BlockwiseQuantization);
  EXPECT_EQ(details->details_as_BlockwiseQuantization()->zero_points(), -1);
  EXPECT_EQ(details->details_as_BlockwiseQuantization()->block_size(), 64);
  EXPECT_EQ(details, model.subgraphs()->Get(1)->tensors()->Get(2)->quantization());  // one table serves both
}

class TfliteBlockLieTest : public ::testing::TestWithParam<Lie> {};

TEST_P(TfliteBlockLieTest, IsRefused) {
  RawModel model = InBlocks();
  GetParam().tell(model);
  const Result<Graph> graph = ReadTflite(MakeMemorySource(AsBytes(model.Bytes())));
  ASSERT_FALSE(graph.has_value());
  EXPECT_EQ(graph.error().code, GetParam().code) << graph.error().message;
  EXPECT_THAT(graph.error().message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Blocks, TfliteBlockLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"DetailsMissing", [](RawModel& m) { Scales(m).no_details = true; }, ErrorCode::kTfliteTypeUnsupported, "details of kind 2"},
        {"ZeroPoints", [](RawModel& m) { Scales(m).blocks[1] = 5; }, ErrorCode::kTfliteTypeUnsupported, "zero points of blocks"},
        {"ScalesNegative", [](RawModel& m) { Scales(m).blocks[0] = -1; }, ErrorCode::kTfliteReference, "tensor -1"},
        {"ScalesOutside", [](RawModel& m) { Scales(m).blocks[0] = 6; }, ErrorCode::kTfliteReference, "tensor 6, which does not exist"},
        {"ScalesAreTheWeights", [](RawModel& m) { Scales(m).blocks[0] = 1; }, ErrorCode::kTfliteQuantization, "do not go together"},
        {"ScalesAreNoConstant", [](RawModel& m) { At(m, 5).buffer = 0; }, ErrorCode::kTfliteQuantization, "f16 constants"},
        {"ScalesOfF32",
         [](RawModel& m) {
           At(m, 5).type = 0;
           m.buffers.back().data.resize(24);
         },
         ErrorCode::kTfliteQuantization, "f32 [3,2]"},
        {"ScalesOfOtherRows",
         [](RawModel& m) {
           At(m, 5).shape = {2, 2};
           m.buffers.back().data.resize(8);
         },
         ErrorCode::kTfliteQuantization, "f16 [2,2]"},
        {"ScalesOfOneDimension", [](RawModel& m) { At(m, 5).shape = {6}; }, ErrorCode::kTfliteQuantization, "do not go together"},
        {"BlockSizeOther", [](RawModel& m) { Scales(m).blocks[2] = 64; }, ErrorCode::kTfliteQuantization, "blocks of 64"},
        {"BlockSizeZero", [](RawModel& m) { Scales(m).blocks[2] = 0; }, ErrorCode::kTfliteQuantization, "blocks of 0"},
        {"BlockSizeNegative", [](RawModel& m) { Scales(m).blocks[2] = -32; }, ErrorCode::kTfliteQuantization, "blocks of -32"},
        {"BlocksTooSmall",
         [](RawModel& m) {
           Scales(m).blocks[2] = 16;
           At(m, 5).shape = {3, 4};
           m.buffers.back().data.resize(24);
         },
         ErrorCode::kTfliteQuantization, "for blocks of 32 columns"},
        {"WeightsOfInt8",
         [](RawModel& m) {
           At(m, 1).type = 9;
           m.buffers[At(m, 1).buffer].data.resize(192);
         },
         ErrorCode::kTfliteQuantization, "block scales of i8"},
        {"WeightsNoConstant", [](RawModel& m) { At(m, 1).buffer = 0; }, ErrorCode::kTfliteQuantization, "constant i4 matrices"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Tensors, TfliteLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"TypeUnknown", [](RawModel& m) { At(m, 2).type = 19; }, ErrorCode::kTfliteTypeUnsupported, "type code 19"},
        {"TypeNegative", [](RawModel& m) { At(m, 2).type = -1; }, ErrorCode::kTfliteTypeUnsupported, "type code -1"},
        {"RankHuge", [](RawModel& m) { At(m, 2).shape.assign(1000, 1); }, ErrorCode::kTfliteTypeUnsupported, "rank 1000"},
        {"DimensionNegative", [](RawModel& m) { At(m, 2).shape[0] = -1; }, ErrorCode::kGraphShape, "[-1,2,3]"},
        {"DimensionZero", [](RawModel& m) { At(m, 2).shape[0] = 0; }, ErrorCode::kGraphShape, "[0,2,3]"},
        {"ShapeOverflows", [](RawModel& m) { At(m, 2).shape.assign(8, 1 << 30); }, ErrorCode::kGraphShape, "not a valid shape"},
        {"Dynamic", [](RawModel& m) { At(m, 0).shape_signature = {1, -1, 4}; }, ErrorCode::kTfliteTypeUnsupported, "dynamic"},
        {"Variable", [](RawModel& m) { At(m, 0).is_variable = true; }, ErrorCode::kTfliteTypeUnsupported, "variable"},
        {"Sparse", [](RawModel& m) { At(m, 3).is_sparse = true; }, ErrorCode::kTfliteTypeUnsupported, "sparse"},
        {"InAnotherFile", [](RawModel& m) { At(m, 3).external_buffer = 1; }, ErrorCode::kTfliteTypeUnsupported, "another file"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Operators, TfliteLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"CodeDoesNotExist", [](RawModel& m) { OpAt(m, 0).code = 2; }, ErrorCode::kTfliteReference, "operator code 2"},
        {"CodeHuge", [](RawModel& m) { OpAt(m, 0).code = 0xFFFFFFFF; }, ErrorCode::kTfliteReference, "operator code 4294967295"},
        {"BuiltinUnknown", [](RawModel& m) { m.codes[0].builtin = 206; }, ErrorCode::kTfliteOpUnsupported, "builtin 206"},
        {"BuiltinNegative", [](RawModel& m) { m.codes[0] = {.builtin = -5, .deprecated = -5, .custom = {}}; },
         ErrorCode::kTfliteOpUnsupported, "builtin -5"},
        {"BuiltinOfOldFilesUnknown", [](RawModel& m) { m.codes[0] = {.builtin = 0, .deprecated = 33, .custom = {}}; },
         ErrorCode::kTfliteOpUnsupported, "builtin 33"},
        {"Custom", [](RawModel& m) { m.codes[0] = {.builtin = 32, .deprecated = 32, .custom = "My\nOp"}; }, ErrorCode::kTfliteOpUnsupported,
         "My\\x0aOp"},
        {"TensorDoesNotExist", [](RawModel& m) { OpAt(m, 0).inputs = {0, 5}; }, ErrorCode::kTfliteReference, "reads tensor 5"},
        {"TensorNegative", [](RawModel& m) { OpAt(m, 0).inputs = {-2, 1}; }, ErrorCode::kTfliteReference, "reads tensor -2"},
        {"RequiredInputAbsent", [](RawModel& m) { OpAt(m, 0).inputs = {0, -1}; }, ErrorCode::kTfliteReference, "reads tensor -1"},
        {"OutputDoesNotExist", [](RawModel& m) { OpAt(m, 1).outputs = {9}; }, ErrorCode::kTfliteReference, "writes tensor 9"},
        {"TwoOutputs", [](RawModel& m) { OpAt(m, 1).outputs = {4, 4}; }, ErrorCode::kTfliteReference, "2 outputs"},
        {"ReadBeforeWritten", [](RawModel& m) { std::swap(OpAt(m, 0), OpAt(m, 1)); }, ErrorCode::kTfliteReference, "no value yet"},
        {"FusedActivation",
         [](RawModel& m) { OpAt(m, 0).options = [](auto& b) { return tflite::CreateFullyConnectedOptions(b, 1, 0, true).Union(); }; },
         ErrorCode::kTfliteOpUnsupported, "fused activation 1"},
        {"FusedActivationOfAdd", [](RawModel& m) { OpAt(m, 1).options = [](auto& b) { return tflite::CreateAddOptions(b, 3).Union(); }; },
         ErrorCode::kTfliteOpUnsupported, "ADD with fused activation 3"},
        {"FusedActivationOfSub",
         [](RawModel& m) { Become(m, 41, tflite::BuiltinOptions::SubOptions, [](auto& b) { return tflite::CreateSubOptions(b, 4); }); },
         ErrorCode::kTfliteOpUnsupported, "SUB with fused activation 4"},
        {"FusedActivationOfMul",
         [](RawModel& m) { Become(m, 18, tflite::BuiltinOptions::MulOptions, [](auto& b) { return tflite::CreateMulOptions(b, 1); }); },
         ErrorCode::kTfliteOpUnsupported, "MUL with fused activation 1"},
        {"FusedActivationOfConcatenation",
         [](RawModel& m) {
           Become(m, 2, tflite::BuiltinOptions::ConcatenationOptions, [](auto& b) { return tflite::CreateConcatenationOptions(b, 0, 1); });
         },
         ErrorCode::kTfliteOpUnsupported, "CONCATENATION with fused activation 1"},
        {"ShuffledWeights",
         [](RawModel& m) { OpAt(m, 0).options = [](auto& b) { return tflite::CreateFullyConnectedOptions(b, 0, 1, true).Union(); }; },
         ErrorCode::kTfliteOpUnsupported, "shuffled"},
        {"CastToUnknownType",
         [](RawModel& m) {
           OpAt(m, 1).inputs = {2};
           Become(m, 53, tflite::BuiltinOptions::CastOptions, [](auto& b) { return tflite::CreateCastOptions(b, 0, 22); });
         },
         ErrorCode::kTfliteTypeUnsupported, "CAST"},
        {"OptionsOfAnotherOperator",
         [](RawModel& m) {
           OpAt(m, 1).options_type = tflite::BuiltinOptions::MulOptions;
           OpAt(m, 1).options = [](auto& b) { return tflite::CreateMulOptions(b, 1).Union(); };
         },
         ErrorCode::kTfliteStructure, "options of another operator"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    SignaturesAndSubgraphs, TfliteLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"InputDoesNotExist", [](RawModel& m) { m.subgraphs[0].inputs = {12}; }, ErrorCode::kTfliteReference, "input tensor 12"},
        {"OutputDoesNotExist", [](RawModel& m) { m.subgraphs[0].outputs = {-7}; }, ErrorCode::kTfliteReference, "output tensor -7"},
        {"SubgraphDoesNotExist", [](RawModel& m) { m.signatures[0].subgraph = 1; }, ErrorCode::kTfliteReference, "subgraph 1"},
        {"SubgraphHuge", [](RawModel& m) { m.signatures[0].subgraph = 0x80000000; }, ErrorCode::kTfliteReference, "subgraph 2147483648"},
        {"KeyTwice", [](RawModel& m) { m.signatures.push_back(m.signatures[0]); }, ErrorCode::kTfliteReference, "used twice"},
        {"KeyEmpty", [](RawModel& m) { m.signatures[0].key = ""; }, ErrorCode::kTfliteReference, "key"},
        {"NameTwice",
         [](RawModel& m) {
           m.subgraphs[0].outputs = {4, 2};
           m.signatures[0].outputs = {{"y", 4}, {"y", 2}};
         },
         ErrorCode::kTfliteReference, "output name \"y\""},
        {"TensorIndexHuge", [](RawModel& m) { m.signatures[0].inputs[0].second = 0xFFFFFFFF; }, ErrorCode::kTfliteReference,
         "inputs are not"},
        {"OutputMissing", [](RawModel& m) { m.signatures[0].outputs.clear(); }, ErrorCode::kTfliteReference, "outputs are not"},
    }),
    NameOfLie);

// Tables and vectors may be shared, so a few bytes can stand for gigabytes of graph.
TEST(TfliteTest, ASmallFileThatStandsForAHugeModelIsRefused) {
  flatbuffers::FlatBufferBuilder b;
  const auto name = b.CreateString(std::string(100'000, 'n'));
  const auto shape = b.CreateVector(std::vector<int32_t>{1});
  std::vector<flatbuffers::Offset<tflite::Tensor>> tensors;
  for (int i = 0; i < 2000; ++i) {
    tflite::TensorBuilder tensor(b);
    tensor.add_name(name);
    tensor.add_shape(shape);
    tensors.push_back(tensor.Finish());
  }
  const auto all = b.CreateVector(tensors);
  const auto subgraph = tflite::CreateSubGraph(b, all);
  const auto subgraphs = b.CreateVector(std::vector{subgraph});
  const auto buffers = b.CreateVector(std::vector{tflite::CreateBuffer(b)});
  tflite::FinishModelBuffer(b, tflite::CreateModel(b, 3, 0, subgraphs, 0, buffers));
  const ByteView bytes{reinterpret_cast<const std::byte*>(b.GetBufferPointer()), b.GetSize()};
  EXPECT_LT(bytes.size(), 200'000U);
  EXPECT_EQ(ReadTflite(MakeMemorySource(bytes)).error().code, ErrorCode::kTfliteStructure) << "200 MB of names";
}

TEST(TfliteTest, SubgraphsThatShareTheirTablesAThousandfoldAreRefused) {
  flatbuffers::FlatBufferBuilder b;
  const auto tensor = tflite::CreateTensor(b, b.CreateVector(std::vector<int32_t>{1}));
  const auto tensors = b.CreateVector(std::vector(2000, tensor));
  const auto subgraph = tflite::CreateSubGraph(b, tensors);
  const auto subgraphs = b.CreateVector(std::vector(2000, subgraph));
  const auto buffers = b.CreateVector(std::vector{tflite::CreateBuffer(b)});
  tflite::FinishModelBuffer(b, tflite::CreateModel(b, 3, 0, subgraphs, 0, buffers));
  const ByteView bytes{reinterpret_cast<const std::byte*>(b.GetBufferPointer()), b.GetSize()};
  EXPECT_EQ(ReadTflite(MakeMemorySource(bytes)).error().code, ErrorCode::kTfliteStructure) << "4 million tensors in 16 kB";
}

TEST(TfliteTest, MetadataOfAMemberThatIsNotAddressableIsRead) {
  const Member member = MustSerialize(SmallGraph());
  const Graph read = ReadTflite(std::make_shared<Unaddressable>(MakeMemorySource(ByteView(member)))).value();
  EXPECT_EQ(read.metadata, SmallGraph().metadata);
}

}  // namespace
}  // namespace taskpress
