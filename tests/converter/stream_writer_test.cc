#include "converter/stream_writer.h"

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

constexpr uint64_t kUnit = 64 << 10;

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

// A matrix in blocks, whose scales come out of the same pass when both are rows of one origin.
class BlockRows final : public RowSource {
 public:
  explicit BlockRows(bool has_origin) : has_origin_(has_origin) {}
  [[nodiscard]] int64_t num_rows() const override { return 3000; }
  [[nodiscard]] uint64_t row_bytes() const override { return 64; }
  [[nodiscard]] int64_t scales_per_row() const override { return 4; }
  [[nodiscard]] const void* origin() const override { return has_origin_ ? this : nullptr; }
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const override {
    rows_read_ += count;
    for (size_t i = 0; i < packed.size(); ++i) packed[i] = static_cast<std::byte>((static_cast<uint64_t>(first_row) * 64 + i) * 37 >> 3U);
    for (size_t i = 0; i < scales.size(); ++i) {
      scales[i] = 1.0F + static_cast<float>((static_cast<uint64_t>(first_row) * 4 + i) % 128) / 128;
    }
    return {};
  }
  [[nodiscard]] int64_t rows_read() const { return rows_read_; }

 private:
  bool has_origin_;
  mutable std::atomic<int64_t> rows_read_ = 0;
};

Graph GraphOfBlocks(const std::shared_ptr<const BlockRows>& rows) {
  ToyGraph toy;
  toy.Begin("main");
  const TensorId x = toy.Input("x", DType::kF32, {1, 128});
  const TensorId weights = toy.Blocks({1, 128}, 32, RandomFloats(128, 1));
  toy.Output("y", toy.Op(OpKind::kFullyConnected, {x, weights}, {1, 3000}, FullyConnectedAttributes{}));
  Graph graph = toy.Take();
  Tensor& matrix = graph.subgraphs[0].tensors[static_cast<size_t>(weights)];
  matrix.shape = {3000, 128};
  matrix.buffer = 0;  // as the builder has it: weights before their scales
  Tensor& scales = graph.subgraphs[0].tensors[static_cast<size_t>(matrix.block_scales)];
  scales.shape = {3000, 4};
  scales.buffer = 1;
  graph.buffers[0].bytes = rows;
  graph.buffers[1].bytes = MakeBlockScales(rows);
  return graph;
}

// A member at `offset` of a file whose first bytes are somebody else's.
class OneMember {
 public:
  explicit OneMember(const Graph& graph, uint64_t offset = 0) : graph_(graph), offset_(offset) {
    member_ = plan_.AddMember(BuildMemberImage(graph_).value(), std::array{Place{.file = 0, .offset = offset}});
    plan_.Cut(kUnit);
  }

  Status Run(StreamOptions options) {
    files_.push_back(OutputFile::Create(path(), offset_ + member_.size).value());
    return Continue(options);
  }
  Status Continue(const StreamOptions& options) {
    TRY(WriteStream(plan_, files_, options, state_, times_));
    TRY(WriteRoots(plan_, files_));
    return files_.front().Commit();
  }
  std::filesystem::path path() const { return folder_.path() / "member"; }
  std::string Bytes() const { return ReadFileBytes(path()).substr(offset_); }
  uint32_t Crc() const { return MemberCrc(plan_, member_, state_.crcs); }

  StreamPlan plan_;
  StreamMember member_;
  StreamState state_;
  StreamTimes times_;
  std::vector<OutputFile> files_;

 private:
  Graph graph_;
  uint64_t offset_;
  TempFolder folder_;
};

StreamOptions Threads(int threads) { return {.work = {.threads = threads, .stop = nullptr}, .buffer_bytes = 1 << 20}; }

TEST(StreamWriterTest, WritesTheBytesOfTheSimpleWriterWithAnyNumberOfThreadsAndBuffers) {
  for (const Graph& graph : {MixedGraph(), EveryOpGraph(), Graph()}) {
    const std::vector<std::byte> expected = SerializeTflite(graph).value();
    for (const int threads : {1, 2, 4}) {
      for (const uint64_t buffers : {0U, 1U << 18, 1U << 24}) {
        for (const uint64_t offset : {0U, 64U, 4099U}) {
          OneMember member(graph, offset);
          StreamOptions options = Threads(threads);
          options.buffer_bytes = buffers;
          ASSERT_TRUE(member.Run(options).has_value());
          EXPECT_TRUE(std::ranges::equal(AsBytes(member.Bytes()), expected)) << threads << " threads at " << offset;
          EXPECT_EQ(member.Crc(), Crc32(0, expected)) << threads << " threads at " << offset;
        }
      }
    }
  }
}

TEST(StreamWriterTest, BlockScalesAreThoseOfTheirRowsMadeInOnePassOrInTwo) {
  std::string bytes;
  for (const bool has_origin : {true, false}) {
    const auto rows = std::make_shared<const BlockRows>(has_origin);
    const Graph graph = GraphOfBlocks(rows);
    const std::vector<std::byte> expected = SerializeTflite(graph).value();
    for (const int threads : {1, 3}) {
      const int64_t before = rows->rows_read();
      OneMember member(graph, 64);
      ASSERT_TRUE(member.Run(Threads(threads)).has_value());
      EXPECT_EQ(rows->rows_read() - before, has_origin ? 3000 : 6000);
      EXPECT_TRUE(std::ranges::equal(AsBytes(member.Bytes()), expected)) << threads << " threads";
      EXPECT_EQ(member.Crc(), Crc32(0, expected));
    }
    EXPECT_TRUE(bytes.empty() || std::ranges::equal(AsBytes(bytes), expected));
    bytes.assign(reinterpret_cast<const char*>(expected.data()), expected.size());
  }
}

TEST(StreamWriterTest, TellsWhichTensorsBytesItHasWrittenInTheOrderOfTheFile) {
  OneMember member(MixedGraph());
  std::map<std::string, uint64_t> reported;
  std::vector<std::string> order;
  StreamOptions options = Threads(2);
  options.on_bytes = [&](std::string_view tensor, uint64_t bytes) {
    reported[std::string(tensor)] += bytes;
    if (order.empty() || order.back() != tensor) order.emplace_back(tensor);
  };
  ASSERT_TRUE(member.Run(options).has_value());
  EXPECT_EQ(reported.at("t1"), 5000U * 600U);
  EXPECT_EQ(reported.at("t3"), 1800U * sizeof(float));
  EXPECT_THAT(order, ::testing::ElementsAre("t1", "t3"));
  EXPECT_EQ(member.plan_.bytes(), 5000U * 600U + 1800U * sizeof(float));
  EXPECT_EQ(member.state_.bytes, member.plan_.bytes());
}

TEST(StreamWriterTest, AnErrorOfASourceComesBackAndAStopIsObeyed) {
  Graph unreadable = MixedGraph();
  unreadable.buffers[1].bytes = std::make_shared<testing::SizeOnly>(1800 * sizeof(float));
  EXPECT_EQ(OneMember(unreadable).Run(Threads(2)).error().code, ErrorCode::kReadFailed);
  const std::atomic<bool> stop = true;
  StreamOptions stopped = Threads(2);
  stopped.work.stop = &stop;
  EXPECT_EQ(OneMember(MixedGraph()).Run(stopped).error().code, ErrorCode::kInterrupted);
}

// What a killed process leaves: the files, and the state after some unit. Another process knows neither the scales nor the bytes.
void ExpectToGoOnBehindAnyUnit(const Graph& graph) {
  const std::vector<std::byte> expected = SerializeTflite(graph).value();
  const uint64_t units = OneMember(graph).plan_.units();
  ASSERT_GT(units, 3U);
  for (uint64_t stop_at = 1; stop_at <= units; stop_at += 3) {
    OneMember first(graph);
    StreamOptions options = Threads(2);
    options.scales_in_files = true;
    StreamState kept;
    options.on_unit = [&](const StreamState& state) -> Status {
      if (state.units > stop_at) return Fail(ErrorCode::kInterrupted, "killed");
      kept = state;
      return {};
    };
    static_cast<void>(WriteStream(first.plan_,
                                  (first.files_.push_back(OutputFile::Create(first.path(), first.member_.size).value()), first.files_),
                                  options, first.state_, first.times_));
    ASSERT_EQ(kept.units, stop_at);
    OneMember second(graph);
    second.state_ = kept;
    second.files_ = std::move(first.files_);
    ASSERT_TRUE(RestoreScales(second.plan_, second.files_, kept.units).has_value());
    ASSERT_TRUE(second.Continue(Threads(2)).has_value());
    EXPECT_TRUE(std::ranges::equal(AsBytes(ReadFileBytes(first.path())), expected)) << "behind unit " << stop_at;
    EXPECT_EQ(second.Crc(), Crc32(0, expected));
  }
}

TEST(StreamWriterTest, GoesOnBehindAnyUnitInAFreshProcess) {
  ExpectToGoOnBehindAnyUnit(MixedGraph());
  ExpectToGoOnBehindAnyUnit(GraphOfBlocks(std::make_shared<const BlockRows>(true)));
}

// A big graph and one that has the first rows of its table: both read back as what they are alone, the table is made once.
TEST(StreamWriterTest, RootsThatShareConstantsReadBackAsTheirGraphs) {
  const auto rows = std::make_shared<PatternRows>(5000, 600);
  const Graph big = LookupGraph(DType::kI8, {5000, 600}, rows);
  const Graph small = LookupGraph(DType::kI8, {1234, 600}, MakeFirstRows(rows, 1234).value());
  const Graph mixed = MixedGraph();
  const std::array<const Graph*, 3> graphs{&big, &small, &mixed};
  std::string first;
  for (const int threads : {1, 4}) {
    const TempFolder folder;
    const MemberImage image = BuildMemberImage(graphs).value();
    StreamPlan plan;
    const StreamMember member = plan.AddMember(image, std::array{Place{.file = 0, .offset = 0}});
    plan.Cut(kUnit);
    EXPECT_EQ(plan.bytes(), 2 * 5000U * 600U + 1800U * sizeof(float));
    std::vector<OutputFile> files;
    files.push_back(OutputFile::Create(folder.path() / "member", image.size).value());
    StreamState state;
    StreamTimes times;
    ASSERT_TRUE(WriteStream(plan, files, Threads(threads), state, times).has_value());
    ASSERT_TRUE(WriteRoots(plan, files).has_value());
    ASSERT_TRUE(files.front().Commit().has_value());
    const std::string bytes = ReadFileBytes(folder.path() / "member");
    for (size_t i = 0; i < graphs.size(); ++i) {
      const std::string_view shown = std::string_view(bytes).substr(image.roots[i].offset);
      EXPECT_EQ(MemberCrc(plan, member, state.crcs, image.roots[i].offset), Crc32(0, AsBytes(shown))) << i;
      const Graph read = ReadTflite(MakeMemorySource(AsBytes(shown))).value();
      const Graph alone = ReadTflite(MakeMemorySource(SerializeTflite(*graphs[i]).value())).value();
      EXPECT_TRUE(GraphsEqual(read, alone).value()) << i;
    }
    EXPECT_TRUE(first.empty() || first == bytes);
    first = bytes;
  }
}

using RowLog = std::vector<std::pair<const void*, int64_t>>;  // who was asked for rows, from which on

class LoggedRows final : public RowSource {
 public:
  LoggedRows(int64_t rows, const void* origin, RowLog& log) : rows_(rows), origin_(origin), log_(log) {}
  [[nodiscard]] int64_t num_rows() const override { return rows_; }
  [[nodiscard]] uint64_t row_bytes() const override { return 600; }
  [[nodiscard]] const void* origin() const override { return origin_; }
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const override {
    log_.emplace_back(origin_, first_row);
    return PatternRows(rows_, 600).ReadRows(first_row, count, packed, scales);
  }

 private:
  int64_t rows_;
  const void* origin_;
  RowLog& log_;
};

// What comes last in the output but first in the source is made first.
TEST(StreamWriterTest, TheSourceIsReadInItsOwnOrder) {
  static const int kFirstStored = 0;
  static const int kSecondStored = 0;
  RowLog log;
  Graph graph = MixedGraph();
  graph.buffers[0].bytes = std::make_shared<LoggedRows>(5000, &kSecondStored, log);
  Graph other = MixedGraph();
  other.buffers[0].bytes = std::make_shared<LoggedRows>(5000, &kFirstStored, log);
  const TempFolder folder;
  StreamPlan plan;
  const StreamMember one = plan.AddMember(BuildMemberImage(graph).value(), std::array{Place{.file = 0, .offset = 0}});
  const StreamMember two = plan.AddMember(BuildMemberImage(other).value(), std::array{Place{.file = 1, .offset = 0}});
  plan.Cut(kUnit, {{&kFirstStored, 7}, {&kSecondStored, 70}});
  std::vector<OutputFile> files;
  files.push_back(OutputFile::Create(folder.path() / "one", one.size).value());
  files.push_back(OutputFile::Create(folder.path() / "two", two.size).value());
  StreamState state;
  StreamTimes times;
  ASSERT_TRUE(WriteStream(plan, files, Threads(1), state, times).has_value());
  ASSERT_TRUE(WriteRoots(plan, files).has_value());
  for (OutputFile& file : files) ASSERT_TRUE(file.Commit().has_value());
  EXPECT_TRUE(std::ranges::is_sorted(log, {}, [](const auto& entry) { return entry.first == &kFirstStored ? 0 : 1; }));
  EXPECT_EQ(log.front().first, &kFirstStored);
  EXPECT_TRUE(std::ranges::equal(AsBytes(ReadFileBytes(folder.path() / "one")), SerializeTflite(graph).value()));
  EXPECT_TRUE(std::ranges::equal(AsBytes(ReadFileBytes(folder.path() / "two")), SerializeTflite(other).value()));
}

TEST(StreamWriterTest, RowsOfOneOriginAreMadeTogether) {
  static const int kStored = 0;
  RowLog log;
  Graph long_one = MixedGraph();
  long_one.buffers[0].bytes = std::make_shared<LoggedRows>(5000, &kStored, log);
  OneMember member(long_one);
  Graph short_one = MixedGraph();
  short_one.subgraphs[0].tensors[1].shape = {700, 600};
  short_one.buffers[0].bytes = std::make_shared<LoggedRows>(700, &kStored, log);
  short_one.quantizations[0].num_scales = 700;
  const StreamMember more = member.plan_.AddMember(BuildMemberImage(short_one).value(), std::array{Place{.file = 1, .offset = 0}});
  member.plan_.Cut(kUnit);
  const TempFolder folder;
  member.files_.push_back(OutputFile::Create(member.path(), member.member_.size).value());
  member.files_.push_back(OutputFile::Create(folder.path() / "short", more.size).value());
  ASSERT_TRUE(member.Continue(Threads(1)).has_value());
  ASSERT_TRUE(member.files_.back().Commit().has_value());
  EXPECT_TRUE(std::ranges::equal(AsBytes(ReadFileBytes(member.path())), SerializeTflite(long_one).value()));
  EXPECT_TRUE(std::ranges::equal(AsBytes(ReadFileBytes(folder.path() / "short")), SerializeTflite(short_one).value()));
  // Both begin at row 0, before either goes on.
  const auto streamed = std::ranges::find_if(log, [](const auto& entry) { return entry.second != 0; }) - log.begin();
  EXPECT_EQ(streamed, 2);
}

}  // namespace
}  // namespace taskpress
