#include "schema/graph.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>

#include "schema/base/text.h"

namespace taskpress {
namespace {

template <typename Attributes>
constexpr size_t kCarries = OpAttributes(Attributes()).index();

constexpr auto kOps = std::to_array<OpInfo>({
    {OpKind::kAdd, "ADD", 0, 2, 2, kCarries<NoAttributes>},
    {OpKind::kSub, "SUB", 41, 2, 2, kCarries<NoAttributes>},
    {OpKind::kMul, "MUL", 18, 2, 2, kCarries<NoAttributes>},
    {OpKind::kMinimum, "MINIMUM", 57, 2, 2, kCarries<NoAttributes>},
    {OpKind::kMaximum, "MAXIMUM", 55, 2, 2, kCarries<NoAttributes>},
    {OpKind::kSquare, "SQUARE", 92, 1, 1, kCarries<NoAttributes>},
    {OpKind::kSqrt, "SQRT", 75, 1, 1, kCarries<NoAttributes>},
    {OpKind::kRsqrt, "RSQRT", 76, 1, 1, kCarries<NoAttributes>},
    {OpKind::kTanh, "TANH", 28, 1, 1, kCarries<NoAttributes>},
    {OpKind::kRelu, "RELU", 19, 1, 1, kCarries<NoAttributes>},
    {OpKind::kGelu, "GELU", 150, 1, 1, kCarries<GeluAttributes>},
    {OpKind::kCos, "COS", 108, 1, 1, kCarries<NoAttributes>},
    {OpKind::kSin, "SIN", 66, 1, 1, kCarries<NoAttributes>},
    {OpKind::kCast, "CAST", 53, 1, 1, kCarries<CastAttributes>},
    {OpKind::kMean, "MEAN", 40, 2, 2, kCarries<MeanAttributes>},
    {OpKind::kSoftmax, "SOFTMAX", 25, 1, 1, kCarries<SoftmaxAttributes>},
    {OpKind::kSlice, "SLICE", 65, 3, 3, kCarries<NoAttributes>},
    {OpKind::kReshape, "RESHAPE", 22, 1, 2, kCarries<NoAttributes>},
    {OpKind::kTranspose, "TRANSPOSE", 39, 2, 2, kCarries<NoAttributes>},
    {OpKind::kConcatenation, "CONCATENATION", 2, 1, -1, kCarries<ConcatenationAttributes>},
    {OpKind::kGather, "GATHER", 36, 2, 2, kCarries<GatherAttributes>},
    {OpKind::kFullyConnected, "FULLY_CONNECTED", 9, 2, 3, kCarries<FullyConnectedAttributes>},
    {OpKind::kBatchMatMul, "BATCH_MATMUL", 126, 2, 2, kCarries<BatchMatMulAttributes>},
    {OpKind::kDynamicUpdateSlice, "DYNAMIC_UPDATE_SLICE", 151, 3, 3, kCarries<NoAttributes>},
    {OpKind::kEmbeddingLookup, "EMBEDDING_LOOKUP", 7, 2, 2, kCarries<NoAttributes>},
    {OpKind::kDequantize, "DEQUANTIZE", 6, 1, 1, kCarries<NoAttributes>},
});

std::string Where(const Subgraph& subgraph) { return Format("subgraph \"{}\"", Printable(subgraph.name)); }

// "subgraph "decode", tensor 12 "x""
std::string Where(const Subgraph& subgraph, TensorId id) {
  return Format("{}, tensor {} \"{}\"", Where(subgraph), id, Printable(subgraph.tensors[static_cast<size_t>(id)].name));
}

bool InRange(int64_t index, size_t count) { return index >= 0 && static_cast<uint64_t>(index) < count; }

Status ValidateConstant(const Graph& graph, const Subgraph& subgraph, TensorId id) {
  const Tensor& tensor = subgraph.tensors[static_cast<size_t>(id)];
  if (!InRange(tensor.buffer, graph.buffers.size())) {
    return Fail(ErrorCode::kTfliteReference, "{}: buffer {} does not exist, the model has {}", Where(subgraph, id), tensor.buffer,
                graph.buffers.size());
  }
  const SharedBytes& bytes = graph.buffers[static_cast<size_t>(tensor.buffer)].bytes;
  const std::optional<uint64_t> needed = NumBytes(tensor.type, tensor.shape);
  if (bytes == nullptr || !needed || bytes->size() != *needed) {
    return Fail(ErrorCode::kTfliteReference, "{}: {} {} needs {} bytes, buffer {} holds {}", Where(subgraph, id), NameOf(tensor.type),
                ToString(tensor.shape), needed ? std::to_string(*needed) : "too many", tensor.buffer, bytes == nullptr ? 0 : bytes->size());
  }
  return {};
}

// Blocks of 32 columns or a multiple of it, as every reader wants them.
constexpr int64_t kBlockStep = 32;

Status ValidateBlockScales(const Subgraph& subgraph, TensorId id) {
  const Tensor& tensor = subgraph.tensors[static_cast<size_t>(id)];
  if (tensor.type != DType::kI4 || !tensor.is_constant() || tensor.shape.size() != 2 || tensor.quantization != kNone) {
    return Fail(ErrorCode::kTfliteQuantization, "{}: block scales of {} {}; constant i4 matrices without other scales have them",
                Where(subgraph, id), NameOf(tensor.type), ToString(tensor.shape));
  }
  if (!InRange(tensor.block_scales, subgraph.tensors.size())) {
    return Fail(ErrorCode::kTfliteReference, "{}: its block scales are tensor {}, which does not exist", Where(subgraph, id),
                tensor.block_scales);
  }
  const Tensor& scales = subgraph.tensors[static_cast<size_t>(tensor.block_scales)];
  const bool fits = scales.type == DType::kF16 && scales.is_constant() && scales.shape.size() == 2 && scales.shape[0] == tensor.shape[0] &&
                    scales.shape[1] > 0 && tensor.shape[1] % scales.shape[1] == 0;
  if (!fits || tensor.shape[1] / scales.shape[1] % kBlockStep != 0) {
    return Fail(ErrorCode::kTfliteQuantization,
                "{}: {} with block scales {} {}; f16 constants for blocks of {} columns, or a multiple, fit", Where(subgraph, id),
                ToString(tensor.shape), NameOf(scales.type), ToString(scales.shape), kBlockStep);
  }
  return {};
}

Status ValidateQuantization(const Graph& graph, const Subgraph& subgraph, TensorId id) {
  const Tensor& tensor = subgraph.tensors[static_cast<size_t>(id)];
  const bool integer_weight = tensor.type == DType::kI4 || (tensor.type == DType::kI8 && tensor.is_constant());
  if (tensor.block_scales != kNone) return ValidateBlockScales(subgraph, id);
  if (tensor.quantization == kNone) {
    if (!integer_weight) return {};
    return Fail(ErrorCode::kTfliteQuantization, "{}: {} weights without scales", Where(subgraph, id), NameOf(tensor.type));
  }
  if (!InRange(tensor.quantization, graph.quantizations.size())) {
    return Fail(ErrorCode::kTfliteReference, "{}: quantization {} does not exist", Where(subgraph, id), tensor.quantization);
  }
  const Quantization& quantization = graph.quantizations[static_cast<size_t>(tensor.quantization)];
  if (!integer_weight || !InRange(quantization.axis, tensor.shape.size()) ||
      (quantization.num_scales != 1 && quantization.num_scales != tensor.shape[static_cast<size_t>(quantization.axis)])) {
    return Fail(ErrorCode::kTfliteQuantization,
                "{}: {} {} with {} scales along dimension {}; a weight has one scale, or one per entry of that dimension",
                Where(subgraph, id), NameOf(tensor.type), ToString(tensor.shape), quantization.num_scales, quantization.axis);
  }
  if (quantization.scales != nullptr && quantization.scales->size() != static_cast<uint64_t>(quantization.num_scales) * sizeof(float)) {
    return Fail(ErrorCode::kTfliteQuantization, "{}: {} bytes of scales for {} channels", Where(subgraph, id), quantization.scales->size(),
                quantization.num_scales);
  }
  return {};
}

// Scales that are not there yet come out of one buffer's rows, and into one table.
Status ValidatePendingScales(const Graph& graph) {
  std::map<int32_t, int32_t> of_buffer;
  std::map<int32_t, int32_t> of_quantization;
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (size_t i = 0; i < subgraph.tensors.size(); ++i) {
      const Tensor& tensor = subgraph.tensors[i];
      if (tensor.quantization == kNone) continue;
      const Quantization& quantization = graph.quantizations[static_cast<size_t>(tensor.quantization)];
      if (quantization.scales != nullptr) continue;
      const auto id = static_cast<TensorId>(i);
      const RowSource* rows = tensor.is_constant() ? graph.buffers[static_cast<size_t>(tensor.buffer)].bytes->rows() : nullptr;
      if (rows == nullptr) return Fail(ErrorCode::kTfliteQuantization, "{}: nothing brings its scales", Where(subgraph, id));
      if (rows->num_rows() * rows->scales_per_row() != quantization.num_scales) {
        return Fail(ErrorCode::kTfliteQuantization, "{}: its rows bring {} scales, {} are needed", Where(subgraph, id),
                    rows->num_rows() * rows->scales_per_row(), quantization.num_scales);
      }
      if (of_buffer.try_emplace(tensor.buffer, tensor.quantization).first->second != tensor.quantization ||
          of_quantization.try_emplace(tensor.quantization, tensor.buffer).first->second != tensor.buffer) {
        return Fail(ErrorCode::kTfliteQuantization, "{}: buffer {} and quantization {} are not each other's only partner",
                    Where(subgraph, id), tensor.buffer, tensor.quantization);
      }
    }
  }
  return {};
}

// Static, and every dimension fits the format's int32.
bool IsValidShape(const Tensor& tensor) {
  constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();
  return NumBytes(tensor.type, tensor.shape).has_value() &&
         std::ranges::all_of(tensor.shape, [](int64_t dimension) { return dimension >= 1 && dimension <= kLargest; });
}

Status ValidateTensors(const Graph& graph, const Subgraph& subgraph) {
  for (size_t i = 0; i < subgraph.tensors.size(); ++i) {
    const auto id = static_cast<TensorId>(i);
    const Tensor& tensor = subgraph.tensors[i];
    if (!IsValidShape(tensor)) {
      return Fail(ErrorCode::kGraphShape, "{}: {} is not a valid shape; dimensions from 1 to 2^31 - 1 and a size of 64 bits are expected",
                  Where(subgraph, id), ToString(tensor.shape));
    }
    if (tensor.buffer != kNone) TRY(ValidateConstant(graph, subgraph, id));
    TRY(ValidateQuantization(graph, subgraph, id));
  }
  return {};
}

// Walks a subgraph in execution order: each tensor has one origin (input, constant or operator) and is read after it exists.
class OrderCheck {
 public:
  explicit OrderCheck(const Subgraph& subgraph) : subgraph_(subgraph), ready_(subgraph.tensors.size()) {
    for (size_t i = 0; i < ready_.size(); ++i) ready_[i] = subgraph.tensors[i].is_constant();
  }

  Status Run() {
    for (const TensorId id : subgraph_.inputs) {
      if (!MakeReady(id)) {
        return Fail(ErrorCode::kTfliteReference, "{}: input tensor {} does not exist, is a constant or is listed twice", Where(subgraph_),
                    id);
      }
    }
    for (size_t i = 0; i < subgraph_.ops.size(); ++i) TRY(CheckOp(subgraph_.ops[i], i));
    for (const TensorId id : subgraph_.outputs) {
      if (!IsReady(id))
        return Fail(ErrorCode::kTfliteReference, "{}: output tensor {} does not exist or has no value", Where(subgraph_), id);
    }
    return {};
  }

 private:
  [[nodiscard]] bool IsReady(TensorId id) const { return InRange(id, ready_.size()) && ready_[static_cast<size_t>(id)]; }
  // False when the tensor does not exist or is ready already.
  bool MakeReady(TensorId id) {
    if (!InRange(id, ready_.size()) || IsReady(id)) return false;
    ready_[static_cast<size_t>(id)] = true;
    return true;
  }

  Status CheckOp(const Op& op, size_t index) {
    const OpInfo& info = InfoOf(op.kind);
    const auto where = [&] { return Format("{}, operator {} {}", Where(subgraph_), index, info.name); };
    const auto count = static_cast<int>(op.inputs.size());
    if (count < info.min_inputs || (info.max_inputs >= 0 && count > info.max_inputs) || op.outputs.size() != 1) {
      return Fail(ErrorCode::kTfliteReference, "{}: {} inputs and {} outputs", where(), count, op.outputs.size());
    }
    if (op.attributes.index() != info.attributes) {
      return Fail(ErrorCode::kGraphShape, "{}: it carries the attributes of another operator", where());
    }
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      const TensorId id = op.inputs[i];
      const bool optional = i >= static_cast<size_t>(info.min_inputs);
      if (!IsReady(id) && !(optional && id == kNone)) {
        return Fail(ErrorCode::kTfliteReference, "{}: reads tensor {}, which does not exist or has no value yet", where(), id);
      }
    }
    if (!MakeReady(op.outputs[0])) {
      return Fail(ErrorCode::kTfliteReference, "{}: writes tensor {}, which does not exist or has a value already", where(), op.outputs[0]);
    }
    return {};
  }

  const Subgraph& subgraph_;
  std::vector<bool> ready_;
};

Status ValidateSignatureSide(const Signature& signature, std::span<const NamedTensor> named, std::span<const TensorId> of_subgraph,
                             std::string_view side) {
  std::set<std::string> names;
  std::multiset<TensorId> ids;
  for (const auto& [name, id] : named) {
    if (name.empty() || !names.insert(name).second) {
      return Fail(ErrorCode::kTfliteReference, "signature \"{}\": {} name \"{}\" is empty or used twice", Printable(signature.key), side,
                  Printable(name));
    }
    ids.insert(id);
  }
  if (ids != std::multiset<TensorId>(of_subgraph.begin(), of_subgraph.end())) {
    return Fail(ErrorCode::kTfliteReference, "signature \"{}\": its {}s are not its subgraph's", Printable(signature.key), side);
  }
  return {};
}

Status ValidateSignatures(const Graph& graph) {
  std::set<std::string> keys;
  for (const Signature& signature : graph.signatures) {
    if (signature.key.empty() || !keys.insert(signature.key).second) {
      return Fail(ErrorCode::kTfliteReference, "signature key \"{}\" is empty or used twice", Printable(signature.key));
    }
    if (!InRange(signature.subgraph, graph.subgraphs.size())) {
      return Fail(ErrorCode::kTfliteReference, "signature \"{}\": subgraph {} does not exist", Printable(signature.key),
                  signature.subgraph);
    }
    const Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(signature.subgraph)];
    TRY(ValidateSignatureSide(signature, signature.inputs, subgraph.inputs, "input"));
    TRY(ValidateSignatureSide(signature, signature.outputs, subgraph.outputs, "output"));
  }
  return {};
}

Result<bool> SourcesEqual(const SharedBytes& a, const SharedBytes& b) {
  if (a == b) return true;
  if (a == nullptr || b == nullptr || a->size() != b->size()) return false;
  constexpr uint64_t kBlock = 1 << 20;
  std::vector<std::byte> block_a;
  std::vector<std::byte> block_b;
  for (uint64_t offset = 0; offset < a->size(); offset += kBlock) {
    const uint64_t length = std::min(kBlock, a->size() - offset);
    block_a.resize(length);
    block_b.resize(length);
    TRY(a->Read(offset, block_a));
    TRY(b->Read(offset, block_b));
    if (block_a != block_b) return false;
  }
  return true;
}

}  // namespace

std::span<const OpInfo> AllOps() { return kOps; }

const OpInfo& InfoOf(OpKind kind) { return kOps[std::to_underlying(kind)]; }

std::optional<OpKind> OpKindFromBuiltin(int builtin) {
  const auto* found = std::ranges::find(kOps, builtin, &OpInfo::builtin);
  if (found == kOps.end()) return std::nullopt;
  return found->kind;
}

const Signature* Graph::FindSignature(std::string_view key) const {
  const auto found = std::ranges::find(signatures, key, &Signature::key);
  return found == signatures.end() ? nullptr : &*found;
}

TensorId FindTensor(std::span<const NamedTensor> tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &NamedTensor::first);
  return found == tensors.end() ? kNone : found->second;
}

int64_t BlockSizeOf(const Subgraph& subgraph, const Tensor& tensor) {
  if (tensor.block_scales == kNone) return 0;
  return tensor.shape[1] / subgraph.tensors[static_cast<size_t>(tensor.block_scales)].shape[1];
}

std::span<const float> ScalesOf(const Quantization& quantization) {
  if (quantization.scales == nullptr) return {};
  const ByteView bytes = quantization.scales->view();
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

Status ValidateGraph(const Graph& graph) {
  for (size_t i = 0; i < graph.quantizations.size(); ++i) {
    if (graph.quantizations[i].num_scales < 1) {
      return Fail(ErrorCode::kTfliteQuantization, "quantization {} has {} scales", i, graph.quantizations[i].num_scales);
    }
  }
  for (const Subgraph& subgraph : graph.subgraphs) {
    TRY(ValidateTensors(graph, subgraph));
    TRY(OrderCheck(subgraph).Run());
  }
  TRY(ValidatePendingScales(graph));
  return ValidateSignatures(graph);
}

Result<bool> GraphsEqual(const Graph& a, const Graph& b) {
  if (a.description != b.description || a.subgraphs != b.subgraphs || a.signatures != b.signatures || a.metadata != b.metadata ||
      a.buffers.size() != b.buffers.size() || a.quantizations.size() != b.quantizations.size()) {
    return false;
  }
  for (size_t i = 0; i < a.quantizations.size(); ++i) {
    const Quantization& left = a.quantizations[i];
    const Quantization& right = b.quantizations[i];
    if (left.axis != right.axis || left.num_scales != right.num_scales || !TRY(SourcesEqual(left.scales, right.scales))) return false;
  }
  for (size_t i = 0; i < a.buffers.size(); ++i) {
    if (!TRY(SourcesEqual(a.buffers[i].bytes, b.buffers[i].bytes))) return false;
  }
  return true;
}

}  // namespace taskpress
