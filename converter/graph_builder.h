// Writes a Graph as expressions: Value y = b.FullyConnected(x, w). Shapes are inferred at once; the first bad call is remembered, later
// calls do nothing, and Finish() returns it. Operators whose results nobody needs are left out when a subgraph ends, and so are constants
// that no operator reads.
#ifndef TASKPRESS_CONVERTER_GRAPH_BUILDER_H_
#define TASKPRESS_CONVERTER_GRAPH_BUILDER_H_

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// A tensor of the subgraph under construction.
struct Value {
  TensorId id = kNone;
};

// A constant of the model, shared by every subgraph that uses it.
struct Weight {
  std::string name;
  DType type = DType::kF32;
  Shape shape;
  SharedBytes bytes;                   // a RowSource brings its own scales (one per row) for kI8 and kI4
  SharedBytes block_scales = nullptr;  // instead, for kI4: f16 [rows, columns / block]
  bool two_terms = false;              // its inputs are multiplied as two rows, see QuantSpec
};

class GraphBuilder {
 public:
  void BeginSubgraph(std::string_view name);
  // `outputs` are (signature name, value). The signature's inputs are the subgraph's, by their tensor names.
  void EndSubgraph(std::string_view signature_key, std::span<const std::pair<std::string, Value>> outputs);

  Value Input(std::string_view name, DType type, Shape shape);
  // The same name twice is the same constant; its type and shape must be the same, too.
  Value Constant(const Weight& weight);
  Value Float(float value);  // shape [1]
  Value Floats(std::span<const float> values, Shape shape);
  Value Integers(std::span<const int32_t> values);  // shape [n]

  Value Add(Value a, Value b);
  Value Sub(Value a, Value b);
  Value Mul(Value a, Value b);
  Value Minimum(Value a, Value b);
  Value Maximum(Value a, Value b);
  Value Square(Value x);
  Value Sqrt(Value x);
  Value Rsqrt(Value x);
  Value Tanh(Value x);
  Value Relu(Value x);
  Value GeluTanh(Value x);
  Value Cos(Value x);
  Value Sin(Value x);
  Value IntegersToFloats(Value x);
  Value MeanOfLast(Value x);  // [..., n] -> [..., 1]
  Value Softmax(Value x);     // over the last dimension
  Value Slice(Value x, std::span<const int32_t> begin, std::span<const int32_t> size);
  Value SliceOfLast(Value x, int64_t begin, int64_t size);
  Value Reshape(Value x, Shape shape);
  Value Transpose(Value x, std::span<const int32_t> permutation);
  Value Concatenation(std::span<const Value> values, int32_t axis);
  Value Gather(Value x, Value indices, int32_t axis);
  // With weights of two terms [.., tokens, in] becomes [.., 2 * tokens, in] on the way.
  Value FullyConnected(Value x, Value weights, std::optional<Value> bias = std::nullopt);
  Value BatchMatMul(Value a, Value b, bool adj_y);
  Value DynamicUpdateSlice(Value operand, Value update, Value start);
  // f16 tables become GATHER and DEQUANTIZE.
  Value EmbeddingLookup(Value ids, Value table);

  [[nodiscard]] const Shape& shape(Value value) const;
  // Dimension `axis`, counted from the end when negative.
  [[nodiscard]] int64_t dim(Value value, int axis) const;
  void SetDescription(std::string text) { graph_.description = std::move(text); }
  void AddMetadata(std::string name, std::string bytes) { graph_.metadata.emplace_back(std::move(name), std::move(bytes)); }
  // Any room that builds may report a problem here; the first one counts.
  void Report(Error error);

  Result<Graph> Finish();

 private:
  struct ModelConstant {
    DType type;
    Shape shape;
    int32_t buffer = kNone;
    int32_t quantization = kNone;
    int64_t blocks = 0;  // per row, 0: none
    bool two_terms = false;
  };

  Value Emit(OpKind kind, std::vector<TensorId> inputs, DType type, Shape shape, OpAttributes attributes = NoAttributes{});
  Value Unary(OpKind kind, Value x, OpAttributes attributes = NoAttributes{});
  Value Binary(OpKind kind, Value a, Value b);
  Value HalvesToFloats(Value x);
  Value TwoTerms(Value x);
  Value Broken(OpKind kind, std::string_view why);
  // Report what is wrong with operands; false from the first error on.
  bool Exist(OpKind kind, std::span<const Value> values);
  bool AllAre(OpKind kind, DType type, std::initializer_list<Value> values);
  [[nodiscard]] const Tensor& tensor(Value value) const { return subgraph_.tensors[static_cast<size_t>(value.id)]; }
  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  const ModelConstant& ModelConstantOf(const Weight& weight);
  void PruneDeadOps();
  void PruneUnusedTensors();
  void PruneUnusedConstants();

  Graph graph_;
  Subgraph subgraph_;
  std::vector<std::string> input_names_;
  std::map<std::string, ModelConstant, std::less<>> model_constants_;  // by name
  std::map<std::string, TensorId, std::less<>> subgraph_constants_;    // name -> tensor
  std::map<TensorId, Value> two_terms_;                                // of the subgraph: made once for all matrices that read it
  std::optional<Error> error_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_GRAPH_BUILDER_H_
