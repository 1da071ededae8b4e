#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "schema/base/checked_math.h"
#include "schema/tflite.h"
#include "schema/tflite_generated.h"

namespace taskpress {
namespace {

namespace fb = taskpress::tflite;
using flatbuffers::Offset;

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kMaxRoot = (1ULL << 31) - 1;
constexpr uint64_t kPlaceholder = 2;  // any value a real offset cannot be mistaken for; replaced once the root's size is known

// F15
bool IsInline(const Buffer& buffer) {
  return buffer.bytes != nullptr && buffer.bytes->rows() == nullptr && buffer.bytes->size() <= kInlineBytes;
}

// F18. The lowest version each operator needs, so that old readers accept the file.
int VersionOf(const Subgraph& subgraph, const Op& op) {
  const auto type = [&](size_t input) { return subgraph.tensors[static_cast<size_t>(op.inputs[input])].type; };
  if (op.kind == OpKind::kFullyConnected) {
    if (type(1) == DType::kI8) return 12;
    return op.inputs.size() == 3 && op.inputs[2] != kNone ? 5 : 6;
  }
  if (op.kind == OpKind::kEmbeddingLookup) return type(1) == DType::kF32 ? 1 : 4;
  if (op.kind == OpKind::kDequantize) return 3;
  return 1;
}

// An upper bound of the root, with room for the tables and vectors of each thing that is written.
uint64_t RootBound(const Graph& graph) {
  constexpr uint64_t kTable = 128;
  uint64_t bytes = 2 * kTable + graph.description.size();
  std::set<int64_t> zero_points;
  for (const Quantization& quantization : graph.quantizations) {
    const auto count = static_cast<uint64_t>(quantization.num_scales);
    bytes += kTable + count * sizeof(float);
    if (zero_points.insert(quantization.num_scales).second) bytes += count * sizeof(int64_t);
  }
  for (const Buffer& buffer : graph.buffers) bytes += kTable + (IsInline(buffer) ? buffer.bytes->size() : 0);
  for (const auto& [name, value] : graph.metadata) bytes += 2 * kTable + name.size() + value.size();
  for (const Subgraph& subgraph : graph.subgraphs) {
    bytes += kTable + subgraph.name.size() + (subgraph.inputs.size() + subgraph.outputs.size()) * sizeof(TensorId);
    for (const Tensor& tensor : subgraph.tensors)
      bytes += (tensor.block_scales == kNone ? 1 : 3) * kTable + tensor.name.size() + tensor.shape.size() * sizeof(int32_t);
    for (const Op& op : subgraph.ops) bytes += 2 * kTable + (op.inputs.size() + op.outputs.size()) * sizeof(TensorId);
  }
  for (const Signature& signature : graph.signatures) {
    bytes += kTable + signature.key.size();
    for (const auto& [name, id] : signature.inputs) bytes += kTable + name.size();
    for (const auto& [name, id] : signature.outputs) bytes += kTable + name.size();
  }
  return bytes;
}

// Calls that create something in the builder stand in statements of their own: the order of a call's arguments is the compiler's choice,
// and the bytes must not be.
class Writer {
 public:
  explicit Writer(const Graph& graph) : graph_(graph) { builder_.ForceDefaults(true); }

  Result<TfliteImage> Build() {
    TRY(ValidateGraph(graph_));
    if (const uint64_t bound = RootBound(graph_); bound > kMaxRoot) {
      return Fail(ErrorCode::kTfliteTooLarge, "the FlatBuffer root may take {} bytes, at most {} are possible", bound, kMaxRoot);
    }
    ListOperatorCodes();
    std::vector<Offset<fb::SubGraph>> subgraphs;
    for (const Subgraph& subgraph : graph_.subgraphs) subgraphs.push_back(TRY(WriteSubgraph(subgraph)));
    std::vector<Offset<fb::SignatureDef>> signatures;
    for (const Signature& signature : graph_.signatures) signatures.push_back(WriteSignature(signature));
    TRY(WriteBuffers());
    WriteModel(subgraphs, signatures);
    return Finish();
  }

 private:
  // F16. TFLite's buffer 0 is the empty one.
  static uint32_t BufferNumber(int32_t buffer) { return static_cast<uint32_t>(buffer + 1); }

  void ListOperatorCodes() {
    for (const Subgraph& subgraph : graph_.subgraphs) {
      for (const Op& op : subgraph.ops) {
        const std::pair<OpKind, int> code{op.kind, VersionOf(subgraph, op)};
        if (std::ranges::find(codes_, code) == codes_.end()) codes_.push_back(code);
      }
    }
  }

  void WriteModel(const std::vector<Offset<fb::SubGraph>>& subgraphs, const std::vector<Offset<fb::SignatureDef>>& signatures) {
    std::vector<Offset<fb::Metadata>> metadata;
    for (size_t i = 0; i < graph_.metadata.size(); ++i) {
      const auto name = builder_.CreateString(graph_.metadata[i].first);
      metadata.push_back(fb::CreateMetadata(builder_, name, static_cast<uint32_t>(1 + graph_.buffers.size() + i)));
    }
    std::vector<Offset<fb::OperatorCode>> codes;
    for (const auto& [kind, version] : codes_) {
      const int builtin = InfoOf(kind).builtin;
      codes.push_back(fb::CreateOperatorCode(builder_, static_cast<int8_t>(std::min(builtin, 127)), 0, version, builtin));  // F20
    }
    const auto all_codes = builder_.CreateVector(codes);
    const auto all_subgraphs = builder_.CreateVector(subgraphs);
    const auto description = builder_.CreateString(graph_.description);
    const auto all_buffers = builder_.CreateVector(buffers_);
    const auto all_metadata = builder_.CreateVector(metadata);
    const auto all_signatures = builder_.CreateVector(signatures);
    fb::FinishModelBuffer(
        builder_, fb::CreateModel(builder_, 3, all_codes, all_subgraphs, description, all_buffers, 0, all_metadata, all_signatures));
  }

  Result<Offset<fb::SubGraph>> WriteSubgraph(const Subgraph& subgraph) {
    std::vector<Offset<fb::Tensor>> tensors;
    for (const Tensor& tensor : subgraph.tensors) tensors.push_back(TRY(WriteTensor(subgraph, tensor)));
    std::vector<Offset<fb::Operator>> ops;
    for (const Op& op : subgraph.ops) ops.push_back(WriteOp(subgraph, op));
    const auto all_tensors = builder_.CreateVector(tensors);
    const auto inputs = SharedIds(subgraph.inputs);
    const auto outputs = SharedIds(subgraph.outputs);
    const auto all_ops = builder_.CreateVector(ops);
    const auto name = builder_.CreateString(subgraph.name);
    return fb::CreateSubGraph(builder_, all_tensors, inputs, outputs, all_ops, name);
  }

  Result<Offset<fb::Tensor>> WriteTensor(const Subgraph& subgraph, const Tensor& tensor) {
    std::vector<int32_t> dimensions;
    for (const int64_t dimension : tensor.shape) dimensions.push_back(static_cast<int32_t>(dimension));
    const auto shape = SharedIds(dimensions);
    const auto name = builder_.CreateSharedString(tensor.name);
    Offset<fb::QuantizationParameters> quantization;
    if (tensor.quantization != kNone) quantization = TRY(WriteQuantization(tensor.quantization));
    if (tensor.block_scales != kNone) quantization = WriteBlocks(tensor.block_scales, BlockSizeOf(subgraph, tensor));
    return fb::CreateTensor(builder_, shape, static_cast<int8_t>(InfoOf(tensor.type).tflite), BufferNumber(tensor.buffer), name,
                            quantization, false, 0, 0, true);
  }

  // F17. One table per Quantization however many tensors use it, and one vector of zero points per length: 12 bytes a row become 4.
  Result<Offset<fb::QuantizationParameters>> WriteQuantization(int32_t index) {
    const auto known = quantizations_.find(index);
    if (known != quantizations_.end()) return known->second;
    const Quantization& quantization = graph_.quantizations[static_cast<size_t>(index)];
    const auto count = static_cast<size_t>(quantization.num_scales);
    float* values = nullptr;
    const auto scales = builder_.CreateUninitializedVector(count, &values);
    if (quantization.scales != nullptr) {
      TRY(quantization.scales->Read(0, std::as_writable_bytes(std::span(values, count))));
    } else {
      std::fill_n(values, count, 1.0F);
      pending_.emplace_back(index, scales);
    }
    auto& zero_points = zero_points_[count];
    if (zero_points.IsNull()) {
      int64_t* zeros = nullptr;
      zero_points = builder_.CreateUninitializedVector(count, &zeros);
      std::fill_n(zeros, count, 0);
    }
    const auto offset =
        fb::CreateQuantizationParameters(builder_, 0, 0, scales, zero_points, fb::QuantizationDetails::NONE, 0, quantization.axis);
    quantizations_[index] = offset;
    return offset;
  }

  // F21
  Offset<fb::QuantizationParameters> WriteBlocks(TensorId scales, int64_t block_size) {
    auto& offset = blocks_[{scales, block_size}];
    if (!offset.IsNull()) return offset;
    const auto details = fb::CreateBlockwiseQuantization(builder_, scales, kNone, static_cast<int32_t>(block_size));
    offset = fb::CreateQuantizationParameters(builder_, 0, 0, 0, 0, fb::QuantizationDetails::BlockwiseQuantization, details.Union(), 0);
    return offset;
  }

  // Small integer vectors (shapes, operand lists) repeat by the thousand.
  Offset<flatbuffers::Vector<int32_t>> SharedIds(const std::vector<int32_t>& ids) {
    auto& offset = shared_ids_[ids];
    if (offset.IsNull()) offset = builder_.CreateVector(ids);
    return offset;
  }

  Offset<fb::Operator> WriteOp(const Subgraph& subgraph, const Op& op) {
    const auto code = std::ranges::find(codes_, std::pair<OpKind, int>{op.kind, VersionOf(subgraph, op)});
    const auto [type, options] = WriteOptions(op);
    const auto inputs = SharedIds(op.inputs);
    const auto outputs = SharedIds(op.outputs);
    return fb::CreateOperator(builder_, static_cast<uint32_t>(code - codes_.begin()), inputs, outputs, type, options);
  }

  std::pair<fb::BuiltinOptions, Offset<void>> WriteOptions(const Op& op) {
    using enum fb::BuiltinOptions;
    switch (op.kind) {
      case OpKind::kAdd:
        return {AddOptions, fb::CreateAddOptions(builder_).Union()};
      case OpKind::kSub:
        return {SubOptions, fb::CreateSubOptions(builder_).Union()};
      case OpKind::kMul:
        return {MulOptions, fb::CreateMulOptions(builder_).Union()};
      case OpKind::kMinimum:
      case OpKind::kMaximum:
        return {MaximumMinimumOptions, fb::CreateMaximumMinimumOptions(builder_).Union()};
      case OpKind::kSquare:
        return {SquareOptions, fb::CreateSquareOptions(builder_).Union()};
      case OpKind::kCos:
        return {CosOptions, fb::CreateCosOptions(builder_).Union()};
      case OpKind::kSlice:
        return {SliceOptions, fb::CreateSliceOptions(builder_).Union()};
      case OpKind::kReshape:
        return {ReshapeOptions, fb::CreateReshapeOptions(builder_).Union()};
      case OpKind::kTranspose:
        return {TransposeOptions, fb::CreateTransposeOptions(builder_).Union()};
      case OpKind::kDequantize:
        return {DequantizeOptions, fb::CreateDequantizeOptions(builder_).Union()};
      case OpKind::kDynamicUpdateSlice:
        return {DynamicUpdateSliceOptions, fb::CreateDynamicUpdateSliceOptions(builder_).Union()};
      case OpKind::kFullyConnected: {
        const auto& a = std::get<FullyConnectedAttributes>(op.attributes);
        return {FullyConnectedOptions, fb::CreateFullyConnectedOptions(builder_, 0, 0, a.keep_num_dims, false).Union()};
      }
      case OpKind::kBatchMatMul: {
        const auto& a = std::get<BatchMatMulAttributes>(op.attributes);
        return {BatchMatMulOptions, fb::CreateBatchMatMulOptions(builder_, a.adj_x, a.adj_y, false).Union()};
      }
      case OpKind::kSoftmax:
        return {SoftmaxOptions, fb::CreateSoftmaxOptions(builder_, std::get<SoftmaxAttributes>(op.attributes).beta).Union()};
      case OpKind::kConcatenation:
        return {ConcatenationOptions,
                fb::CreateConcatenationOptions(builder_, std::get<ConcatenationAttributes>(op.attributes).axis, 0).Union()};
      case OpKind::kGather: {
        const auto& a = std::get<GatherAttributes>(op.attributes);
        return {GatherOptions, fb::CreateGatherOptions(builder_, a.axis, a.batch_dims).Union()};
      }
      case OpKind::kCast: {
        const auto& a = std::get<CastAttributes>(op.attributes);
        return {
            CastOptions,
            fb::CreateCastOptions(builder_, static_cast<int8_t>(InfoOf(a.from).tflite), static_cast<int8_t>(InfoOf(a.to).tflite)).Union()};
      }
      case OpKind::kMean:
        return {ReducerOptions, fb::CreateReducerOptions(builder_, std::get<MeanAttributes>(op.attributes).keep_dims).Union()};
      case OpKind::kGelu:
        return {GeluOptions, fb::CreateGeluOptions(builder_, std::get<GeluAttributes>(op.attributes).approximate).Union()};
      case OpKind::kSqrt:
      case OpKind::kRsqrt:
      case OpKind::kTanh:
      case OpKind::kRelu:
      case OpKind::kSin:
      case OpKind::kEmbeddingLookup:
        return {NONE, 0};
    }
    return {NONE, 0};
  }

  std::vector<Offset<fb::TensorMap>> WriteNames(const std::vector<NamedTensor>& named) {
    std::vector<Offset<fb::TensorMap>> entries;
    for (const auto& [name, id] : named) {
      const auto text = builder_.CreateSharedString(name);
      entries.push_back(fb::CreateTensorMap(builder_, text, static_cast<uint32_t>(id)));
    }
    return entries;
  }

  Offset<fb::SignatureDef> WriteSignature(const Signature& signature) {
    const auto inputs = builder_.CreateVector(WriteNames(signature.inputs));
    const auto outputs = builder_.CreateVector(WriteNames(signature.outputs));
    const auto key = builder_.CreateString(signature.key);
    return fb::CreateSignatureDef(builder_, inputs, outputs, key, static_cast<uint32_t>(signature.subgraph));
  }

  Status WriteBuffers() {
    buffers_.push_back(fb::CreateBuffer(builder_, 0, 0, 0));  // F16
    for (size_t i = 0; i < graph_.buffers.size(); ++i) {
      const Buffer& buffer = graph_.buffers[i];
      if (buffer.bytes == nullptr) {
        buffers_.push_back(fb::CreateBuffer(builder_, 0, 0, 0));
      } else if (IsInline(buffer)) {
        buffers_.push_back(TRY(WriteInline(*buffer.bytes)));
      } else {
        image_.placements.push_back({.buffer = static_cast<int32_t>(i), .offset = 0, .size = buffer.bytes->size()});
        buffers_.push_back(fb::CreateBuffer(builder_, 0, kPlaceholder, buffer.bytes->size()));
      }
    }
    for (const auto& [name, value] : graph_.metadata) {
      const auto data = builder_.CreateVector(reinterpret_cast<const uint8_t*>(value.data()), value.size());
      buffers_.push_back(fb::CreateBuffer(builder_, data, 0, 0));
    }
    return {};
  }

  Result<Offset<fb::Buffer>> WriteInline(const ByteSource& bytes) {
    std::vector<std::byte> scratch;
    const ByteView view = TRY(ViewOrRead(bytes, scratch));
    builder_.ForceVectorAlignment(view.size(), 1, 16);
    const auto data = builder_.CreateVector(reinterpret_cast<const uint8_t*>(view.data()), view.size());
    return fb::CreateBuffer(builder_, data, 0, 0);
  }

  Result<TfliteImage> Finish() {
    const uint64_t root_size = builder_.GetSize();
    fb::Model* model = fb::GetMutableModel(builder_.GetBufferPointer());
    uint64_t end = root_size;
    for (TfliteImage::Placement& placement : image_.placements) {
      const std::optional<uint64_t> begin = CheckedAlignUp(end, kAlignment);
      const std::optional<uint64_t> next = begin ? CheckedAdd(*begin, placement.size) : std::nullopt;
      if (!next) return Fail(ErrorCode::kTfliteTooLarge, "the weights exceed 2^64 bytes");
      placement.offset = *begin;
      end = *next;
      model->mutable_buffers()->GetMutableObject(BufferNumber(placement.buffer))->mutate_offset(placement.offset);
    }
    for (const auto& [index, vector] : pending_) {  // an Offset counts from the buffer's end; the length takes 4 bytes
      image_.pending_scales.push_back({.quantization = index, .offset = root_size - vector.o + sizeof(uint32_t)});
    }
    const auto* data = reinterpret_cast<const std::byte*>(builder_.GetBufferPointer());
    image_.root.assign(data, data + root_size);
    image_.size = end;
    return std::move(image_);
  }

  const Graph& graph_;
  flatbuffers::FlatBufferBuilder builder_{1 << 20};
  TfliteImage image_;
  std::vector<std::pair<OpKind, int>> codes_;
  std::vector<Offset<fb::Buffer>> buffers_;
  std::map<int32_t, Offset<fb::QuantizationParameters>> quantizations_;
  std::map<std::pair<TensorId, int64_t>, Offset<fb::QuantizationParameters>> blocks_;
  std::map<size_t, Offset<flatbuffers::Vector<int64_t>>> zero_points_;
  std::map<std::vector<int32_t>, Offset<flatbuffers::Vector<int32_t>>> shared_ids_;
  std::vector<std::pair<int32_t, Offset<flatbuffers::Vector<float>>>> pending_;
};

}  // namespace

Result<TfliteImage> BuildTfliteImage(const Graph& graph) { return Writer(graph).Build(); }

int32_t QuantizationOfBuffer(const Graph& graph, int32_t buffer) {
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      if (tensor.buffer == buffer && tensor.quantization != kNone) return tensor.quantization;
    }
  }
  return kNone;
}

Result<std::vector<std::byte>> SerializeTflite(const Graph& graph) {
  TfliteImage image = TRY(BuildTfliteImage(graph));
  std::vector<std::byte> member(image.size);
  for (const TfliteImage::Placement& placement : image.placements) {
    const ByteSource& bytes = *graph.buffers[static_cast<size_t>(placement.buffer)].bytes;
    const ByteSpan out = ByteSpan(member).subspan(placement.offset, placement.size);
    const RowSource* rows = bytes.rows();
    if (rows == nullptr) {
      TRY(bytes.Read(0, out));
      continue;
    }
    std::vector<float> scales(static_cast<size_t>(rows->num_rows() * rows->scales_per_row()));
    TRY(rows->ReadRows(0, rows->num_rows(), out, scales));
    const int32_t quantization = QuantizationOfBuffer(graph, placement.buffer);
    const auto slot = std::ranges::find(image.pending_scales, quantization, &TfliteImage::ScaleSlot::quantization);
    if (slot == image.pending_scales.end()) continue;
    std::ranges::copy(std::as_bytes(std::span(scales)), image.root.begin() + static_cast<ptrdiff_t>(slot->offset));
  }
  std::ranges::copy(image.root, member.begin());
  return member;
}

}  // namespace taskpress
