// Builds small graphs for tests in a few lines.
#ifndef TASKPRESS_TESTS_TESTING_TOY_GRAPH_H_
#define TASKPRESS_TESTS_TESTING_TOY_GRAPH_H_

#include <cstdint>
#include <initializer_list>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "schema/graph.h"

namespace taskpress::testing {

// Values in [-1, 1), the same on every machine.
std::vector<float> RandomFloats(int64_t count, uint32_t seed);

// Adds subgraphs with one signature each; constants of equal bytes are not merged, so share a weight by its buffer id.
class ToyGraph {
 public:
  ToyGraph() = default;

  // Starts a subgraph and its signature; later calls add to it.
  void Begin(std::string key);
  TensorId Input(std::string name, DType type, Shape shape);
  void Output(std::string name, TensorId id);

  TensorId Floats(Shape shape, std::span<const float> values);
  TensorId Floats(Shape shape, std::initializer_list<float> values) {
    return Floats(std::move(shape), std::span(values.begin(), values.size()));
  }
  TensorId Ints(std::initializer_list<int32_t> values);
  // f16 constant, values rounded.
  TensorId Halves(Shape shape, std::span<const float> values);
  // Symmetric integers with a scale per row: |largest| of a row / 7 or / 127. type: kI4 or kI8.
  TensorId Quantized(DType type, Shape shape, std::span<const float> values);
  // i4 [rows, columns] with a scale per block: |largest| / 7, rounded to a number that float16 and bfloat16 hold.
  TensorId Blocks(Shape shape, int64_t block_size, std::span<const float> values);
  // A tensor of this subgraph over the same bytes (and scales) as one of an earlier subgraph.
  TensorId SameConstant(int32_t subgraph, TensorId id);

  TensorId Op(OpKind kind, std::vector<TensorId> inputs, Shape shape, OpAttributes attributes = {}, DType type = DType::kF32);

  [[nodiscard]] const Graph& graph() const { return graph_; }
  [[nodiscard]] Graph Take() { return std::move(graph_); }
  [[nodiscard]] int32_t subgraph() const { return static_cast<int32_t>(graph_.subgraphs.size()) - 1; }

 private:
  Subgraph& current() { return graph_.subgraphs.back(); }
  TensorId AddTensor(Tensor tensor);
  int32_t AddBuffer(ByteView bytes);

  Graph graph_;
};

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_TOY_GRAPH_H_
