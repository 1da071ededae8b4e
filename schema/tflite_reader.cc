#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "schema/base/checked_math.h"
#include "schema/tflite.h"
#include "schema/tflite_generated.h"

namespace taskpress {
namespace {

namespace fb = taskpress::tflite;

constexpr size_t kMaxVerifiedBytes = (1ULL << 31) - 2;  // offsets inside the root are 32-bit
constexpr int kMaxDepth = 64;
constexpr int kMaxTables = 16'000'000;
constexpr size_t kMaxRank = 8;

template <typename T>
size_t SizeOf(const T* vector) {
  return vector == nullptr ? 0 : vector->size();
}

std::string TextOf(const flatbuffers::String* text) { return text == nullptr ? std::string() : text->str(); }

std::vector<TensorId> IdsOf(const flatbuffers::Vector<int32_t>* ids) {
  return ids == nullptr ? std::vector<TensorId>() : std::vector<TensorId>(ids->begin(), ids->end());
}

// Walks one verified model. Every number in it is still a stranger's.
class Reader {
 public:
  Reader(SharedBytes member, const fb::Model& model) : member_(std::move(member)), model_(model) {}

  Result<Graph> Read() {
    graph_.description = TextOf(model_.description());
    TRY(ReadBuffers());
    TRY(ReadOperatorCodes());
    for (size_t i = 0; i < SizeOf(model_.subgraphs()); ++i) TRY(ReadSubgraph(*model_.subgraphs()->Get(static_cast<uint32_t>(i))));
    TRY(ReadSignatures());
    TRY(ReadMetadata());
    TRY(ValidateGraph(graph_));
    return std::move(graph_);
  }

 private:
  // TFLite's buffer i is graph buffer i. Buffer 0 is empty by convention; an empty buffer means "no constant".
  Status ReadBuffers() {
    for (size_t i = 0; i < SizeOf(model_.buffers()); ++i) {
      const fb::Buffer& buffer = *model_.buffers()->Get(static_cast<uint32_t>(i));
      graph_.buffers.push_back({TRY(ReadBuffer(buffer, i))});
    }
    return {};
  }

  Result<SharedBytes> ReadBuffer(const fb::Buffer& buffer, size_t index) {
    if (buffer.offset() > 1) {  // F5; 0 and 1 mean "none"
      if (SizeOf(buffer.data()) > 0)
        return Fail(ErrorCode::kTfliteReference, "buffer {}: data both inside and outside the FlatBuffer", index);
      if (!RangeInside(buffer.offset(), buffer.size(), member_->size())) {
        return Fail(ErrorCode::kTfliteReference,
                    "buffer {}: range [{}, +{}) lies outside the member of {} bytes; the file is truncated or damaged", index,
                    buffer.offset(), buffer.size(), member_->size());
      }
      return MakeSubSource(member_, buffer.offset(), buffer.size());
    }
    if (SizeOf(buffer.data()) == 0) return SharedBytes();
    const auto offset = static_cast<uint64_t>(reinterpret_cast<const std::byte*>(buffer.data()->data()) - member_->view().data());
    return MakeSubSource(member_, offset, buffer.data()->size());
  }

  Status ReadOperatorCodes() {
    for (size_t i = 0; i < SizeOf(model_.operator_codes()); ++i) {
      const fb::OperatorCode& code = *model_.operator_codes()->Get(static_cast<uint32_t>(i));
      const int builtin = std::max<int>(code.builtin_code(), code.deprecated_builtin_code());
      const std::optional<OpKind> kind = OpKindFromBuiltin(builtin);
      if (!kind) {
        return Fail(ErrorCode::kTfliteOpUnsupported, "operator code {}: builtin {} version {} \"{}\" is not known to this version", i,
                    builtin, code.version(), TextOf(code.custom_code()));
      }
      op_kinds_.push_back(*kind);
    }
    return {};
  }

  Status ReadSubgraph(const fb::SubGraph& from) {
    Subgraph subgraph{
        .name = TextOf(from.name()), .tensors = {}, .ops = {}, .inputs = IdsOf(from.inputs()), .outputs = IdsOf(from.outputs())};
    for (size_t i = 0; i < SizeOf(from.tensors()); ++i) {
      Result<Tensor> tensor = ReadTensor(*from.tensors()->Get(static_cast<uint32_t>(i)));
      if (!tensor)
        return std::unexpected(WithContext(std::move(tensor).error(), std::format("subgraph \"{}\", tensor {}", subgraph.name, i)));
      subgraph.tensors.push_back(*std::move(tensor));
    }
    for (size_t i = 0; i < SizeOf(from.operators()); ++i) {
      Result<Op> op = ReadOp(*from.operators()->Get(static_cast<uint32_t>(i)));
      if (!op) return std::unexpected(WithContext(std::move(op).error(), std::format("subgraph \"{}\", operator {}", subgraph.name, i)));
      subgraph.ops.push_back(*std::move(op));
    }
    graph_.subgraphs.push_back(std::move(subgraph));
    return {};
  }

  Result<Tensor> ReadTensor(const fb::Tensor& from) {
    Tensor tensor{.name = TextOf(from.name())};
    const std::optional<DType> type = DTypeFromTflite(from.type());
    if (!type || from.sparsity() != nullptr || from.is_variable()) {
      return Fail(ErrorCode::kTfliteTypeUnsupported, "\"{}\": type code {}{}{}", tensor.name, from.type(),
                  from.sparsity() != nullptr ? ", sparse" : "", from.is_variable() ? ", variable" : "");
    }
    tensor.type = *type;
    if (SizeOf(from.shape()) > kMaxRank)
      return Fail(ErrorCode::kTfliteTypeUnsupported, "\"{}\": rank {}", tensor.name, from.shape()->size());
    for (size_t i = 0; i < SizeOf(from.shape()); ++i) tensor.shape.push_back(from.shape()->Get(static_cast<uint32_t>(i)));
    if (from.shape_signature() != nullptr && std::ranges::count(*from.shape_signature(), -1) > 0) {
      return Fail(ErrorCode::kTfliteTypeUnsupported, "\"{}\": dynamic dimensions", tensor.name);
    }
    if (from.buffer() >= graph_.buffers.size()) {
      return Fail(ErrorCode::kTfliteReference, "\"{}\": buffer {} does not exist, the model has {}", tensor.name, from.buffer(),
                  graph_.buffers.size());
    }
    if (graph_.buffers[from.buffer()].bytes != nullptr) tensor.buffer = static_cast<int32_t>(from.buffer());
    Result<int32_t> quantization = ReadQuantization(from.quantization());
    if (!quantization) return std::unexpected(WithContext(std::move(quantization).error(), std::format("\"{}\"", tensor.name)));
    tensor.quantization = *quantization;
    return tensor;
  }

  // Parameters shared by several tensors (the same table, or the same vectors) become one Quantization.
  Result<int32_t> ReadQuantization(const fb::QuantizationParameters* from) {
    if (from == nullptr || SizeOf(from->scale()) == 0) {
      if (from != nullptr && from->details_type() != fb::QuantizationDetails::NONE) {
        return Fail(ErrorCode::kTfliteTypeUnsupported, "block-wise quantization is not supported by this version");
      }
      return kNone;
    }
    const auto known = quantizations_.find(from);
    if (known != quantizations_.end()) return known->second;
    const uint32_t count = from->scale()->size();
    if (SizeOf(from->zero_point()) != count) {
      return Fail(ErrorCode::kTfliteQuantization, "{} scales but {} zero points; readers demand equal counts", count,
                  SizeOf(from->zero_point()));
    }
    TRY(CheckZeroPoints(*from->zero_point()));
    for (const float scale : *from->scale()) {
      if (!std::isnormal(scale) || scale < 0)
        return Fail(ErrorCode::kTfliteQuantization, "scale {} is not a positive normal number", scale);
    }
    const auto offset = static_cast<uint64_t>(reinterpret_cast<const std::byte*>(from->scale()->data()) - member_->view().data());
    graph_.quantizations.push_back({.axis = from->quantized_dimension(),
                                    .num_scales = count,
                                    .scales = TRY(MakeSubSource(member_, offset, static_cast<uint64_t>(count) * sizeof(float)))});
    const auto index = static_cast<int32_t>(graph_.quantizations.size() - 1);
    quantizations_[from] = index;
    return index;
  }

  Status CheckZeroPoints(const flatbuffers::Vector<int64_t>& zero_points) {
    if (&zero_points == checked_zero_points_) return {};  // one vector usually serves all tables of a size
    for (const int64_t zero_point : zero_points) {
      if (zero_point != 0)
        return Fail(ErrorCode::kTfliteTypeUnsupported, "zero point {}: only symmetric quantization is supported", zero_point);
    }
    checked_zero_points_ = &zero_points;
    return {};
  }

  Result<Op> ReadOp(const fb::Operator& from) {
    if (from.opcode_index() >= op_kinds_.size()) {
      return Fail(ErrorCode::kTfliteReference, "operator code {} does not exist, the model has {}", from.opcode_index(), op_kinds_.size());
    }
    Op op{.kind = op_kinds_[from.opcode_index()], .inputs = IdsOf(from.inputs()), .outputs = IdsOf(from.outputs()), .attributes = {}};
    op.attributes = TRY(ReadAttributes(op.kind, from));
    return op;
  }

  static Status NoActivation(OpKind kind, int activation) {
    if (activation == 0) return {};
    return Fail(ErrorCode::kTfliteOpUnsupported, "{} with fused activation {}", NameOf(kind), activation);
  }

  // A missing options table means the format's defaults.
  static Result<OpAttributes> ReadAttributes(OpKind kind, const fb::Operator& from) {
    switch (kind) {
      case OpKind::kAdd:
        if (const auto* o = from.builtin_options_as_AddOptions()) TRY(NoActivation(kind, o->fused_activation_function()));
        return NoAttributes{};
      case OpKind::kSub:
        if (const auto* o = from.builtin_options_as_SubOptions()) TRY(NoActivation(kind, o->fused_activation_function()));
        return NoAttributes{};
      case OpKind::kMul:
        if (const auto* o = from.builtin_options_as_MulOptions()) TRY(NoActivation(kind, o->fused_activation_function()));
        return NoAttributes{};
      case OpKind::kFullyConnected: {
        const auto* o = from.builtin_options_as_FullyConnectedOptions();
        if (o == nullptr) return FullyConnectedAttributes{.keep_num_dims = false};
        TRY(NoActivation(kind, o->fused_activation_function()));
        if (o->weights_format() != 0) return Fail(ErrorCode::kTfliteOpUnsupported, "FULLY_CONNECTED with shuffled weights");
        return FullyConnectedAttributes{.keep_num_dims = o->keep_num_dims()};
      }
      case OpKind::kBatchMatMul: {
        const auto* o = from.builtin_options_as_BatchMatMulOptions();
        return o == nullptr ? BatchMatMulAttributes{} : BatchMatMulAttributes{.adj_x = o->adj_x(), .adj_y = o->adj_y()};
      }
      case OpKind::kSoftmax: {
        const auto* o = from.builtin_options_as_SoftmaxOptions();
        return SoftmaxAttributes{.beta = o == nullptr ? 0.0F : o->beta()};
      }
      case OpKind::kConcatenation: {
        const auto* o = from.builtin_options_as_ConcatenationOptions();
        if (o == nullptr) return ConcatenationAttributes{};
        TRY(NoActivation(kind, o->fused_activation_function()));
        return ConcatenationAttributes{.axis = o->axis()};
      }
      case OpKind::kGather: {
        const auto* o = from.builtin_options_as_GatherOptions();
        return o == nullptr ? GatherAttributes{} : GatherAttributes{.axis = o->axis(), .batch_dims = o->batch_dims()};
      }
      case OpKind::kCast: {
        const auto* o = from.builtin_options_as_CastOptions();
        const std::optional<DType> in = DTypeFromTflite(o == nullptr ? 0 : o->in_data_type());
        const std::optional<DType> out = DTypeFromTflite(o == nullptr ? 0 : o->out_data_type());
        if (!in || !out) return Fail(ErrorCode::kTfliteTypeUnsupported, "CAST between unknown types");
        return CastAttributes{.from = *in, .to = *out};
      }
      case OpKind::kMean: {
        const auto* o = from.builtin_options_as_ReducerOptions();
        return MeanAttributes{.keep_dims = o != nullptr && o->keep_dims()};
      }
      case OpKind::kGelu: {
        const auto* o = from.builtin_options_as_GeluOptions();
        return GeluAttributes{.approximate = o != nullptr && o->approximate()};
      }
      case OpKind::kMinimum:
      case OpKind::kMaximum:
      case OpKind::kSquare:
      case OpKind::kSqrt:
      case OpKind::kRsqrt:
      case OpKind::kTanh:
      case OpKind::kRelu:
      case OpKind::kCos:
      case OpKind::kSin:
      case OpKind::kSlice:
      case OpKind::kReshape:
      case OpKind::kTranspose:
      case OpKind::kDynamicUpdateSlice:
      case OpKind::kEmbeddingLookup:
      case OpKind::kDequantize:
        return NoAttributes{};
    }
    return Fail(ErrorCode::kTfliteOpUnsupported, "operator kind {}", std::to_underlying(kind));
  }

  static std::vector<NamedTensor> ReadNames(const flatbuffers::Vector<flatbuffers::Offset<fb::TensorMap>>* from) {
    std::vector<NamedTensor> named;
    for (size_t i = 0; i < SizeOf(from); ++i) {
      const fb::TensorMap& entry = *from->Get(static_cast<uint32_t>(i));
      const uint32_t index = std::min<uint32_t>(entry.tensor_index(), std::numeric_limits<int32_t>::max());
      named.emplace_back(TextOf(entry.name()), static_cast<TensorId>(index));
    }
    return named;
  }

  Status ReadSignatures() {
    for (size_t i = 0; i < SizeOf(model_.signature_defs()); ++i) {
      const fb::SignatureDef& from = *model_.signature_defs()->Get(static_cast<uint32_t>(i));
      if (from.subgraph_index() >= graph_.subgraphs.size()) {
        return Fail(ErrorCode::kTfliteReference, "signature \"{}\": subgraph {} does not exist", TextOf(from.signature_key()),
                    from.subgraph_index());
      }
      graph_.signatures.push_back({.key = TextOf(from.signature_key()),
                                   .subgraph = static_cast<int32_t>(from.subgraph_index()),
                                   .inputs = ReadNames(from.inputs()),
                                   .outputs = ReadNames(from.outputs())});
    }
    return {};
  }

  Status ReadMetadata() {
    for (size_t i = 0; i < SizeOf(model_.metadata()); ++i) {
      const fb::Metadata& from = *model_.metadata()->Get(static_cast<uint32_t>(i));
      if (from.buffer() >= graph_.buffers.size()) {
        return Fail(ErrorCode::kTfliteReference, "metadata \"{}\": buffer {} does not exist", TextOf(from.name()), from.buffer());
      }
      const SharedBytes& bytes = graph_.buffers[from.buffer()].bytes;
      graph_.metadata.emplace_back(TextOf(from.name()), bytes == nullptr ? std::string() : std::string(AsText(bytes->view())));
    }
    return {};
  }

  SharedBytes member_;
  const fb::Model& model_;
  Graph graph_;
  std::vector<OpKind> op_kinds_;
  std::map<const fb::QuantizationParameters*, int32_t> quantizations_;
  const flatbuffers::Vector<int64_t>* checked_zero_points_ = nullptr;
};

}  // namespace

Result<Graph> ReadTflite(const SharedBytes& member) {
  SharedBytes bytes = member;
  constexpr size_t kAlignment = alignof(int64_t);
  // FlatBuffers are read in place; a foreign archive may have put the member at an odd offset.
  if (bytes->view().empty() || reinterpret_cast<uintptr_t>(bytes->view().data()) % kAlignment != 0) {
    std::vector<std::byte> copy(bytes->size());
    TRY(bytes->Read(0, copy));
    bytes = MakeMemorySource(ByteView(copy));
  }
  const ByteView view = bytes->view();
  if (view.size() < 8 || AsText(view.subspan(4, 4)) != "TFL3") {  // F1
    return Fail(ErrorCode::kTfliteStructure, "identifier \"TFL3\" expected at byte 4, the member has {} bytes", view.size());
  }
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(view.data()), std::min(view.size(), kMaxVerifiedBytes), kMaxDepth,
                                 kMaxTables);
  if (!fb::VerifyModelBuffer(verifier)) {  // F2
    return Fail(ErrorCode::kTfliteStructure,
                "the FlatBuffer does not verify: an offset, vector or string lies outside the {} bytes of the member", view.size());
  }
  const fb::Model& model = *fb::GetModel(view.data());
  if (model.version() != 3) return Fail(ErrorCode::kTfliteStructure, "schema version {}, 3 expected", model.version());  // F3
  return Reader(bytes, model).Read();
}

}  // namespace taskpress
