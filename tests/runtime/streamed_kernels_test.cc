// Kernels::kStreamed against packed weights, and what it asks of its sources.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "runtime/executor.h"
#include "tests/testing/run_graph.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using testing::RandomFloats;
using testing::RunGraph;
using testing::ToyGraph;

// f32 rows that nobody can point at.
class FloatRows final : public RowSource {
 public:
  FloatRows(int64_t rows, int64_t columns, uint32_t seed) : rows_(rows), columns_(columns), values_(RandomFloats(rows * columns, seed)) {}
  int64_t num_rows() const override { return rows_; }
  uint64_t row_bytes() const override { return static_cast<uint64_t>(columns_) * sizeof(float); }
  int64_t scales_per_row() const override { return 0; }
  Status ReadRows(int64_t first, int64_t count, ByteSpan packed, std::span<float> /*scales*/) const override {
    if (fail_from_ && first + count > *fail_from_) return Fail(ErrorCode::kReadFailed, "row {}", *fail_from_);
    most_rows_ = std::max(most_rows_.load(), count);
    rows_read_ += count;
    std::memcpy(packed.data(), values_.data() + first * columns_, packed.size());
    return {};
  }
  std::optional<int64_t> fail_from_;
  mutable std::atomic<int64_t> rows_read_ = 0;
  mutable std::atomic<int64_t> most_rows_ = 0;

 private:
  int64_t rows_;
  int64_t columns_;
  std::vector<float> values_;
};

// y = x W^T + b, and z = y V^T
struct Product {
  int64_t rows = 7;
  int64_t in = 256;
  int64_t out = 200;
  std::shared_ptr<FloatRows> first = std::make_shared<FloatRows>(out, in, 1);
  std::shared_ptr<FloatRows> second = std::make_shared<FloatRows>(48, out, 2);

  Graph MakeGraph() const {
    ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, {1, rows, in});
    const TensorId w = toy.Floats({out, in}, std::vector<float>(static_cast<size_t>(out * in)));
    const TensorId v = toy.Floats({48, out}, std::vector<float>(static_cast<size_t>(48 * out)));
    const TensorId bias = toy.Floats({out}, RandomFloats(out, 3));
    const TensorId y = toy.Op(OpKind::kFullyConnected, {x, w, bias}, {1, rows, out}, FullyConnectedAttributes{.keep_num_dims = true});
    toy.Output("z", toy.Op(OpKind::kFullyConnected, {y, v}, {1, rows, 48}, FullyConnectedAttributes{.keep_num_dims = true}));
    Graph graph = toy.Take();
    const Subgraph& subgraph = graph.subgraphs[0];
    graph.buffers[static_cast<size_t>(subgraph.tensors[static_cast<size_t>(w)].buffer)].bytes = first;
    graph.buffers[static_cast<size_t>(subgraph.tensors[static_cast<size_t>(v)].buffer)].bytes = second;
    return graph;
  }
};

TEST(StreamedKernels, GiveTheBitsOfPackedWeights) {
  for (const int64_t rows : {1, 7, 64}) {
    for (const int64_t in : {32, 256, 40'000}) {  // the last in blocks of 64 rows
      const Product product{.rows = rows, .in = in};
      const Graph graph = product.MakeGraph();
      const std::vector<float> x = RandomFloats(rows * in, 4);
      const std::vector<float> packed = RunGraph(graph, {x}, {.kernels = Kernels::kXnnpack, .threads = 1}).value().floats();
      for (const int threads : {1, 2}) {
        EXPECT_EQ(RunGraph(graph, {x}, {.kernels = Kernels::kStreamed, .threads = threads}).value().floats(), packed) << rows << " " << in;
      }
    }
  }
}

TEST(StreamedKernels, ReadNothingBeforeTheyRunAndAMatrixOnceWhileItIsWanted) {
  const Product product{.in = 40'000};
  const Graph graph = product.MakeGraph();
  const auto shared = SharedRuntime::Create({.kernels = Kernels::kStreamed, .threads = 1}).value();
  Executor executor = Executor::Create(graph, 0, *shared).value();
  EXPECT_EQ(product.first->rows_read_, 0);
  EXPECT_EQ(executor.steps().size(), 2U);
  ASSERT_TRUE(executor.RunSteps(0, 1) && executor.RunSteps(0, 1));
  EXPECT_EQ(product.first->rows_read_, product.out) << "one matrix is kept";
  EXPECT_LE(product.first->most_rows_, 64 + 8) << "and never all of it in floats";
  ASSERT_TRUE(executor.RunSteps(1, 2));
  ASSERT_TRUE(executor.RunSteps(0, 1));
  EXPECT_EQ(product.first->rows_read_, 2 * product.out) << "another one took its place";
  EXPECT_EQ(shared->packed_weights().bytes(), 0U);
}

TEST(StreamedKernels, AFailureToReadIsReported) {
  const Product product;
  product.first->fail_from_ = 150;
  EXPECT_EQ(RunGraph(product.MakeGraph(), {}, {.kernels = Kernels::kStreamed, .threads = 2}).error().code, ErrorCode::kReadFailed);
}

TEST(StreamedKernels, TablesAreReadRowByRow) {
  const auto table = std::make_shared<FloatRows>(100'000, 4, 5);
  ToyGraph toy;
  toy.Begin("main");
  const TensorId ids = toy.Input("ids", DType::kI32, {3});
  const TensorId rows = toy.Floats({100'000, 4}, std::vector<float>(400'000));
  toy.Output("y", toy.Op(OpKind::kEmbeddingLookup, {ids, rows}, {3, 4}));
  Graph graph = toy.Take();
  graph.buffers[0].bytes = table;
  const std::vector<int32_t> wanted = {99'999, 0, 7};
  const std::vector<float> found = RunGraph(graph, {wanted}, {.kernels = Kernels::kStreamed}).value().floats();
  EXPECT_EQ(table->rows_read_, 3);
  EXPECT_EQ(found, RunGraph(graph, {wanted}, {.kernels = Kernels::kReference}).value().floats());
  for (const int32_t outside : {-1, 100'000}) {
    EXPECT_EQ(RunGraph(graph, {std::vector<int32_t>{0, 1, outside}}, {.kernels = Kernels::kStreamed}).error().code,
              ErrorCode::kRuntimeIndex);
  }
}

}  // namespace
}  // namespace taskpress
