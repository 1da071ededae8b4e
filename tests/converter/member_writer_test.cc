#include "converter/member_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>

#include "schema/base/hash.h"
#include "tests/testing/graph_samples.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::EveryOpGraph;
using testing::LookupGraph;
using testing::PatternRows;
using testing::RandomFloats;
using testing::ToyGraph;

// A table of many row blocks that brings its scales, a float matrix that is copied, and one inside the root.
Graph MixedGraph() {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId ids = toy.Input("ids", DType::kI32, {1});
  const TensorId rows = toy.Quantized(DType::kI8, {1, 1}, std::array{1.0F});
  const TensorId row = toy.Op(OpKind::kEmbeddingLookup, {ids, rows}, {1, 600});
  const TensorId matrix = toy.Floats({3, 600}, RandomFloats(1800, 1));
  const TensorId product = toy.Op(OpKind::kFullyConnected, {row, matrix}, {1, 3}, FullyConnectedAttributes{});
  toy.Output("y", toy.Op(OpKind::kAdd, {product, toy.Floats({3}, {1.0F, 2.0F, 3.0F})}, {1, 3}));
  Graph graph = toy.Take();
  graph.subgraphs[0].tensors[static_cast<size_t>(rows)].shape = {5000, 600};
  graph.buffers[0].bytes = std::make_shared<PatternRows>(5000, 600);
  graph.quantizations[0] = {.axis = 0, .num_scales = 5000, .scales = nullptr};
  return graph;
}

struct Written {
  std::string bytes;
  uint32_t crc = 0;
  std::map<std::string, uint64_t> reported;  // tensor -> bytes
};

// Writes the member at `offset` of a file whose first bytes are somebody else's.
Written Write(const Graph& graph, uint64_t offset, int threads) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "member";
  const TfliteImage image = BuildTfliteImage(graph).value();
  OutputFile file = OutputFile::Create(path, offset + image.size).value();
  Written written;
  const Result<uint32_t> crc =
      WriteMember(graph, image, file, offset, {.threads = threads, .stop = nullptr},
                  [&](std::string_view tensor, uint64_t bytes) { written.reported[std::string(tensor)] += bytes; });
  EXPECT_TRUE(crc.has_value()) << crc.error().message;
  EXPECT_TRUE(file.Commit().has_value());
  written.crc = crc.value_or(0);
  written.bytes = ReadFileBytes(path).substr(offset);
  return written;
}

TEST(MemberWriterTest, WritesTheBytesOfTheSimpleWriterWithAnyNumberOfThreads) {
  for (const Graph& graph : {MixedGraph(), EveryOpGraph(), Graph()}) {
    const std::vector<std::byte> expected = SerializeTflite(graph).value();
    for (const int threads : {1, 2, 4}) {
      for (const uint64_t offset : {0U, 64U, 4099U}) {
        const Written written = Write(graph, offset, threads);
        EXPECT_TRUE(std::ranges::equal(AsBytes(written.bytes), expected)) << threads << " threads at " << offset;
        EXPECT_EQ(written.crc, Crc32(0, expected)) << threads << " threads at " << offset;
      }
    }
  }
}

TEST(MemberWriterTest, TellsWhichTensorsBytesItHasWritten) {
  const Graph graph = MixedGraph();
  const TfliteImage image = BuildTfliteImage(graph).value();
  const Written written = Write(graph, 0, 2);
  EXPECT_EQ(written.reported.at(""), image.size - 5000U * 600U - 1800U * sizeof(float));  // the root and what fills gaps
  EXPECT_EQ(written.reported.at("t1"), 5000U * 600U);
  EXPECT_EQ(written.reported.at("t3"), 1800U * sizeof(float));
  EXPECT_EQ(written.reported.size(), 3U);
}

TEST(MemberWriterTest, NobodyNeedsToListen) {
  const TempFolder folder;
  const Graph graph = MixedGraph();
  const TfliteImage image = BuildTfliteImage(graph).value();
  OutputFile file = OutputFile::Create(folder.path() / "member", image.size).value();
  EXPECT_TRUE(WriteMember(graph, image, file, 0, {.threads = 2, .stop = nullptr}, nullptr).has_value());
}

TEST(MemberWriterTest, AnErrorOfASourceComesBackAndAStopIsObeyed) {
  const TempFolder folder;
  Graph unreadable = MixedGraph();
  unreadable.buffers[1].bytes = std::make_shared<testing::SizeOnly>(1800 * sizeof(float));
  const TfliteImage image = BuildTfliteImage(unreadable).value();
  OutputFile file = OutputFile::Create(folder.path() / "member", image.size).value();
  EXPECT_EQ(WriteMember(unreadable, image, file, 0, {.threads = 2, .stop = nullptr}, nullptr).error().code, ErrorCode::kReadFailed);
  const std::atomic<bool> stop = true;
  const Graph graph = MixedGraph();
  EXPECT_EQ(WriteMember(graph, image, file, 0, {.threads = 2, .stop = &stop}, nullptr).error().code, ErrorCode::kInterrupted);
}

// A big graph and one that has the first rows of its table: both read back as what they are alone, the table is produced once.
TEST(MemberWriterTest, RootsThatShareConstantsReadBackAsTheirGraphs) {
  const auto rows = std::make_shared<PatternRows>(5000, 600);
  const Graph big = LookupGraph(DType::kI8, {5000, 600}, rows);
  const Graph small = LookupGraph(DType::kI8, {1234, 600}, MakeFirstRows(rows, 1234).value());
  const Graph mixed = MixedGraph();
  const std::array<const Graph*, 3> graphs{&big, &small, &mixed};
  std::string first;
  for (const int threads : {1, 4}) {
    const TempFolder folder;
    const std::filesystem::path path = folder.path() / "member";
    MemberImage image = BuildMemberImage(graphs).value();
    const MemberImage plan = image;
    OutputFile file = OutputFile::Create(path, plan.size).value();
    uint64_t reported = 0;
    const Result<std::vector<uint32_t>> checksums = WriteMember(std::move(image), file, 0, {.threads = threads, .stop = nullptr},
                                                                [&](std::string_view, uint64_t bytes) { reported += bytes; });
    ASSERT_TRUE(checksums.has_value()) << checksums.error().message;
    ASSERT_TRUE(file.Commit().has_value());
    EXPECT_EQ(reported, plan.size);
    const std::string bytes = ReadFileBytes(path);
    for (size_t i = 0; i < graphs.size(); ++i) {
      const std::string_view member = std::string_view(bytes).substr(plan.roots[i].offset);
      EXPECT_EQ(checksums->at(i), Crc32(0, AsBytes(member))) << i;
      const Graph read = ReadTflite(MakeMemorySource(AsBytes(member))).value();
      const Graph alone = ReadTflite(MakeMemorySource(SerializeTflite(*graphs[i]).value())).value();
      EXPECT_TRUE(GraphsEqual(read, alone).value()) << i;
    }
    EXPECT_TRUE(first.empty() || first == bytes);
    first = bytes;
  }
}

}  // namespace
}  // namespace taskpress
