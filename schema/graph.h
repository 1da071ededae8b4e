// The contract between converter/ and runtime/: what a TFLite member says, as plain data.
//
// Indices instead of pointers, attributes in a std::variant, constants as ByteSources. One Graph is one TFLite model: weights (buffers) and
// quantization parameters are shared by its subgraphs, one subgraph per signature. TFLite FlatBuffer <-> Graph goes both ways
// (schema/tflite.h).
#ifndef TASKPRESS_SCHEMA_GRAPH_H_
#define TASKPRESS_SCHEMA_GRAPH_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "schema/base/error.h"
#include "schema/byte_source.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

using TensorId = int32_t;
inline constexpr int32_t kNone = -1;

// Every operator the bundles use. Semantics are TFLite's; inputs are listed in TFLite's order.
enum class OpKind : uint8_t {
  kAdd,                 // a, b                                   broadcasting
  kSub,                 // a, b
  kMul,                 // a, b
  kMinimum,             // a, b
  kMaximum,             // a, b
  kSquare,              // x
  kSqrt,                // x
  kRsqrt,               // x
  kTanh,                // x
  kRelu,                // x
  kGelu,                // x
  kCos,                 // x
  kSin,                 // x
  kCast,                // x
  kMean,                // x, axes (i32 constant)
  kSoftmax,             // x, over the last dimension
  kSlice,               // x, begin (i32), size (i32)
  kReshape,             // x, new shape (i32 constant)
  kTranspose,           // x, permutation (i32 constant)
  kConcatenation,       // x0, x1, ...
  kGather,              // x, indices (i32)
  kFullyConnected,      // x [..., in], weights [out, in], optional bias [out]
  kBatchMatMul,         // a [..., m, k], b [..., k, n] (adj_y: [..., n, k])
  kDynamicUpdateSlice,  // operand, update, start (i32)
  kEmbeddingLookup,     // ids [n] (i32), table [rows, ...]
  kDequantize,          // x (f16)
};

struct OpInfo {
  OpKind kind;
  std::string_view name;  // TFLite's spelling
  int builtin;            // BuiltinOperator code
  int min_inputs;
  int max_inputs;     // -1: any number
  size_t attributes;  // which alternative of OpAttributes it carries
};

std::span<const OpInfo> AllOps();
const OpInfo& InfoOf(OpKind kind);
std::optional<OpKind> OpKindFromBuiltin(int builtin);
[[nodiscard]] inline std::string_view NameOf(OpKind kind) { return InfoOf(kind).name; }

struct NoAttributes {
  bool operator==(const NoAttributes&) const = default;
};
struct FullyConnectedAttributes {
  bool keep_num_dims = true;
  bool operator==(const FullyConnectedAttributes&) const = default;
};
struct BatchMatMulAttributes {
  bool adj_x = false;
  bool adj_y = false;
  bool operator==(const BatchMatMulAttributes&) const = default;
};
struct SoftmaxAttributes {
  float beta = 1.0F;
  bool operator==(const SoftmaxAttributes&) const = default;
};
struct ConcatenationAttributes {
  int32_t axis = 0;
  bool operator==(const ConcatenationAttributes&) const = default;
};
struct GatherAttributes {
  int32_t axis = 0;
  int32_t batch_dims = 0;
  bool operator==(const GatherAttributes&) const = default;
};
struct CastAttributes {
  DType from = DType::kI32;
  DType to = DType::kF32;
  bool operator==(const CastAttributes&) const = default;
};
struct MeanAttributes {
  bool keep_dims = true;
  bool operator==(const MeanAttributes&) const = default;
};
struct GeluAttributes {
  bool approximate = true;  // tanh form
  bool operator==(const GeluAttributes&) const = default;
};

using OpAttributes = std::variant<NoAttributes, FullyConnectedAttributes, BatchMatMulAttributes, SoftmaxAttributes, ConcatenationAttributes,
                                  GatherAttributes, CastAttributes, MeanAttributes, GeluAttributes>;

struct Op {
  OpKind kind = OpKind::kAdd;
  std::vector<TensorId> inputs;  // kNone for an absent optional input
  std::vector<TensorId> outputs;
  OpAttributes attributes;
  bool operator==(const Op&) const = default;
};

// A constant of the model. Several tensors may point at one buffer.
struct Buffer {
  SharedBytes bytes;
};

// Symmetric quantization of a constant along one axis: value = scale[channel] * integer. Zero points are all zero.
struct Quantization {
  int32_t axis = 0;
  int64_t num_scales = 0;  // one per entry of the axis, or one for all
  SharedBytes scales;      // num_scales float32; null while the buffer is a RowSource whose scales are not yet known
};

struct Tensor {
  std::string name;
  DType type = DType::kF32;
  Shape shape;
  int32_t buffer = kNone;        // index into Graph::buffers: a constant
  int32_t quantization = kNone;  // index into Graph::quantizations
  // Of an i4 matrix [out, in] whose rows have a scale per block of columns, instead of `quantization`: the f16 constant [out, in / block]
  // of the same subgraph that holds them.
  TensorId block_scales = kNone;
  [[nodiscard]] bool is_constant() const { return buffer != kNone; }
  bool operator==(const Tensor&) const = default;
};

struct Subgraph {
  std::string name;
  std::vector<Tensor> tensors;
  std::vector<Op> ops;  // in execution order
  std::vector<TensorId> inputs;
  std::vector<TensorId> outputs;
  bool operator==(const Subgraph&) const = default;
};

using NamedTensor = std::pair<std::string, TensorId>;

struct Signature {
  std::string key;
  int32_t subgraph = 0;
  std::vector<NamedTensor> inputs;
  std::vector<NamedTensor> outputs;
  bool operator==(const Signature&) const = default;
};

struct Graph {
  std::string description;
  std::vector<Buffer> buffers;
  std::vector<Quantization> quantizations;
  std::vector<Subgraph> subgraphs;
  std::vector<Signature> signatures;
  std::vector<std::pair<std::string, std::string>> metadata;  // name -> bytes

  [[nodiscard]] const Signature* FindSignature(std::string_view key) const;
};

// The id behind a signature's tensor name, kNone when absent.
[[nodiscard]] TensorId FindTensor(std::span<const NamedTensor> tensors, std::string_view name);

// How many columns of a matrix share a scale, 0 when it has no block scales. Of a graph that ValidateGraph has seen.
[[nodiscard]] int64_t BlockSizeOf(const Subgraph& subgraph, const Tensor& tensor);

// float32 view of a constant's scales; valid as long as the Graph's sources live. Scales must be known and addressable.
[[nodiscard]] std::span<const float> ScalesOf(const Quantization& quantization);

// Structure and constants alike: sizes, indices, attributes and every constant byte. Reads constants block by block.
Result<bool> GraphsEqual(const Graph& a, const Graph& b);

// Checks what every user of a Graph relies on: indices in range, static shapes without empty dimensions, constant sizes equal to type and
// shape, quantization counts, operator arities and attributes, each tensor written once and before it is read, signatures consistent. Not
// whether the shapes of an operator's tensors go together: that is known where it is built and where it runs. kTfliteReference,
// kTfliteQuantization, kGraphShape.
Status ValidateGraph(const Graph& graph);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_GRAPH_H_
