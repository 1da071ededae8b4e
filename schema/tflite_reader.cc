#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "schema/base/checked_math.h"
#include "schema/base/text.h"
#include "schema/tflite.h"
#include "schema/tflite_generated.h"

namespace taskpress {
namespace {

namespace fb = taskpress::tflite;

constexpr uint64_t kMaxVerifiedBytes = (1ULL << 31) - 2;  // offsets inside the root are 32-bit
constexpr int kMaxDepth = 64;
constexpr uint64_t kMaxTables = 4'000'000;
constexpr size_t kMaxRank = 8;
// F4: what a model spells out, compared with the bytes it takes.
constexpr uint64_t kMaxInflation = 16;
constexpr uint64_t kFreeBytes = 1 << 16;
constexpr uint64_t kMaxSpelledOut = 1 << 30;

template <typename T>
size_t SizeOf(const T* vector) {
  return vector == nullptr ? 0 : vector->size();
}

std::string_view TextOf(const flatbuffers::String* text) { return text == nullptr ? std::string_view() : text->string_view(); }

// Walks one verified model. Every number in it is still a stranger's.
class Reader {
 public:
  // `root` begins with the FlatBuffer that `model` lies in; `member` is what offsets count in. They are the same, or root is a copy of
  // member's beginning.
  Reader(SharedBytes root, SharedBytes member, const fb::Model& model)
      : root_(std::move(root)),
        member_(std::move(member)),
        model_(model),
        budget_(std::min(kMaxInflation * root_->size() + kFreeBytes, kMaxSpelledOut)) {}

  Result<Graph> Read() {
    graph_.description = TRY(CopyText(model_.description()));
    TRY(ReadBuffers());
    TRY(ReadMetadata());
    NumberConstants();
    TRY(ReadOperatorCodes());
    for (size_t i = 0; i < SizeOf(model_.subgraphs()); ++i) TRY(ReadSubgraph(*model_.subgraphs()->Get(static_cast<uint32_t>(i))));
    TRY(ReadSignatures());
    TRY(ValidateGraph(graph_));  // F9 to F12
    return std::move(graph_);
  }

 private:
  // F4. Tables may share strings and vectors, so a few bytes can stand for gigabytes.
  Status Spend(uint64_t bytes) {
    spent_ += bytes;  // at most 2^31 bytes for each of 2^22 tables
    if (spent_ <= budget_) return {};
    return Fail(ErrorCode::kTfliteStructure, "names and lists shared by its tables add up to more than {} bytes", budget_);
  }

  Result<std::string> CopyText(const flatbuffers::String* text) {
    TRY(Spend(SizeOf(text)));
    return std::string(TextOf(text));
  }

  Result<std::vector<TensorId>> CopyIds(const flatbuffers::Vector<int32_t>* ids) {
    TRY(Spend(SizeOf(ids) * sizeof(int32_t)));
    return ids == nullptr ? std::vector<TensorId>() : std::vector<TensorId>(ids->begin(), ids->end());
  }

  // [TFLite's buffers]; null for an empty one.
  Status ReadBuffers() {
    for (size_t i = 0; i < SizeOf(model_.buffers()); ++i) {
      const fb::Buffer& buffer = *model_.buffers()->Get(static_cast<uint32_t>(i));
      buffers_.push_back(TRY(ReadBuffer(buffer, i)));
    }
    return {};
  }

  // F5
  Result<SharedBytes> ReadBuffer(const fb::Buffer& buffer, size_t index) {
    if (buffer.offset() > 1 && buffer.size() > 0) {  // offsets 0 and 1 mean "none"
      if (SizeOf(buffer.data()) > 0) {
        return Fail(ErrorCode::kTfliteReference, "buffer {}: data both inside and outside the FlatBuffer", index);
      }
      if (!RangeInside(buffer.offset(), buffer.size(), member_->size())) {
        return Fail(ErrorCode::kTfliteReference,
                    "buffer {}: range [{}, +{}) lies outside the member of {} bytes; the file is truncated or damaged", index,
                    buffer.offset(), buffer.size(), member_->size());
      }
      return MakeSubSource(member_, buffer.offset(), buffer.size());
    }
    if (SizeOf(buffer.data()) == 0) return SharedBytes();
    return InsideRoot(buffer.data()->data(), buffer.data()->size());
  }

  // Bytes of the verified FlatBuffer.
  Result<SharedBytes> InsideRoot(const void* data, uint64_t size) {
    return MakeSubSource(root_, static_cast<uint64_t>(static_cast<const std::byte*>(data) - root_->view().data()), size);
  }

  // F13
  Status ReadMetadata() {
    for (size_t i = 0; i < SizeOf(model_.metadata()); ++i) {
      const fb::Metadata& from = *model_.metadata()->Get(static_cast<uint32_t>(i));
      std::string name = TRY(CopyText(from.name()));
      if (from.buffer() >= buffers_.size()) {
        return Fail(ErrorCode::kTfliteReference, "metadata \"{}\": buffer {} does not exist", Printable(name), from.buffer());
      }
      std::string value;
      if (const SharedBytes& bytes = buffers_[from.buffer()]; bytes != nullptr) {
        TRY(Spend(bytes->size()));
        value.resize(bytes->size());
        TRY(bytes->Read(0, std::as_writable_bytes(std::span(value))));
      }
      graph_.metadata.emplace_back(std::move(name), std::move(value));
    }
    return {};
  }

  // F13. The graph's constants are the buffers that hold something, but for those that only metadata speak of.
  void NumberConstants() {
    std::vector<bool> metadata_only(buffers_.size());
    for (size_t i = 0; i < SizeOf(model_.metadata()); ++i) metadata_only[model_.metadata()->Get(static_cast<uint32_t>(i))->buffer()] = true;
    for (size_t i = 0; i < SizeOf(model_.subgraphs()); ++i) {
      const auto* tensors = model_.subgraphs()->Get(static_cast<uint32_t>(i))->tensors();
      for (size_t k = 0; k < SizeOf(tensors); ++k) {
        const uint32_t buffer = tensors->Get(static_cast<uint32_t>(k))->buffer();
        if (buffer < metadata_only.size()) metadata_only[buffer] = false;
      }
    }
    for (size_t i = 0; i < buffers_.size(); ++i) {
      const bool is_constant = buffers_[i] != nullptr && !metadata_only[i];
      numbers_.push_back(is_constant ? static_cast<int32_t>(graph_.buffers.size()) : kNone);
      if (is_constant) graph_.buffers.push_back({buffers_[i]});
    }
  }

  // F6
  Status ReadOperatorCodes() {
    for (size_t i = 0; i < SizeOf(model_.operator_codes()); ++i) {
      const fb::OperatorCode& code = *model_.operator_codes()->Get(static_cast<uint32_t>(i));
      const int builtin = std::max<int>(code.builtin_code(), code.deprecated_builtin_code());
      const std::optional<OpKind> kind = OpKindFromBuiltin(builtin);
      if (!kind) {
        return Fail(ErrorCode::kTfliteOpUnsupported, "operator code {}: builtin {} version {} \"{}\" is not known to this version", i,
                    builtin, code.version(), Printable(TextOf(code.custom_code())));
      }
      op_kinds_.push_back(*kind);
    }
    return {};
  }

  Status ReadSubgraph(const fb::SubGraph& from) {
    Subgraph subgraph;
    subgraph.name = TRY(CopyText(from.name()));
    subgraph.inputs = TRY(CopyIds(from.inputs()));
    subgraph.outputs = TRY(CopyIds(from.outputs()));
    const auto in_context = [&](Error error, std::string_view what, size_t index) {
      return std::unexpected(WithContext(std::move(error), Format("subgraph \"{}\", {} {}", Printable(subgraph.name), what, index)));
    };
    for (size_t i = 0; i < SizeOf(from.tensors()); ++i) {
      Result<Tensor> tensor = ReadTensor(*from.tensors()->Get(static_cast<uint32_t>(i)));
      if (!tensor) return in_context(std::move(tensor).error(), "tensor", i);
      subgraph.tensors.push_back(*std::move(tensor));
    }
    for (size_t i = 0; i < subgraph.tensors.size(); ++i) {
      Status fits = CheckBlockSize(subgraph, *from.tensors()->Get(static_cast<uint32_t>(i)), subgraph.tensors[i]);
      if (!fits) return in_context(std::move(fits).error(), "tensor", i);
    }
    for (size_t i = 0; i < SizeOf(from.operators()); ++i) {
      Result<Op> op = ReadOp(*from.operators()->Get(static_cast<uint32_t>(i)));
      if (!op) return in_context(std::move(op).error(), "operator", i);
      subgraph.ops.push_back(*std::move(op));
    }
    graph_.subgraphs.push_back(std::move(subgraph));
    return {};
  }

  Result<Tensor> ReadTensor(const fb::Tensor& from) {
    Tensor tensor{.name = TRY(CopyText(from.name()))};
    Result<void> read = ReadTensorBody(from, tensor);
    if (!read) return std::unexpected(WithContext(std::move(read).error(), Format("\"{}\"", Printable(tensor.name))));
    return tensor;
  }

  // F8
  Status ReadTensorBody(const fb::Tensor& from, Tensor& tensor) {
    const std::optional<DType> type = DTypeFromTflite(from.type());
    if (!type || from.sparsity() != nullptr || from.is_variable() || from.external_buffer() != 0) {
      return Fail(ErrorCode::kTfliteTypeUnsupported, "type code {}{}{}{}", from.type(), from.sparsity() != nullptr ? ", sparse" : "",
                  from.is_variable() ? ", variable" : "", from.external_buffer() != 0 ? ", its data are in another file" : "");
    }
    tensor.type = *type;
    if (SizeOf(from.shape()) > kMaxRank) return Fail(ErrorCode::kTfliteTypeUnsupported, "rank {}", from.shape()->size());
    for (size_t i = 0; i < SizeOf(from.shape()); ++i) tensor.shape.push_back(from.shape()->Get(static_cast<uint32_t>(i)));
    if (SizeOf(from.shape_signature()) > kMaxRank || std::ranges::count(TRY(CopyIds(from.shape_signature())), -1) > 0) {
      return Fail(ErrorCode::kTfliteTypeUnsupported, "dynamic dimensions");
    }
    if (from.buffer() >= numbers_.size()) {
      return Fail(ErrorCode::kTfliteReference, "buffer {} does not exist, the model has {}", from.buffer(), numbers_.size());
    }
    tensor.buffer = numbers_[from.buffer()];
    if (const auto* blocks = TRY(BlocksOf(from.quantization()))) {
      tensor.block_scales = blocks->scales();
      if (blocks->scales() < 0) return Fail(ErrorCode::kTfliteReference, "its block scales are tensor {}", blocks->scales());
      return {};
    }
    tensor.quantization = TRY(ReadQuantization(from.quantization()));
    return {};
  }

  // F21. Null for tensors that are not quantized in blocks.
  static Result<const fb::BlockwiseQuantization*> BlocksOf(const fb::QuantizationParameters* from) {
    if (from == nullptr || from->details_type() == fb::QuantizationDetails::NONE) return nullptr;
    if (from->details_type() != fb::QuantizationDetails::BlockwiseQuantization || from->details() == nullptr) {
      return Fail(ErrorCode::kTfliteTypeUnsupported, "quantization details of kind {} are not supported by this version",
                  std::to_underlying(from->details_type()));
    }
    const fb::BlockwiseQuantization* blocks = from->details_as_BlockwiseQuantization();
    if (blocks->zero_points() == kNone) return blocks;
    return Fail(ErrorCode::kTfliteTypeUnsupported, "zero points of blocks (tensor {}): only symmetric quantization is supported",
                blocks->zero_points());
  }

  // F21. What the details say, once all tensors are known.
  static Status CheckBlockSize(const Subgraph& subgraph, const fb::Tensor& from, const Tensor& tensor) {
    if (tensor.block_scales == kNone || std::cmp_greater_equal(tensor.block_scales, subgraph.tensors.size())) return {};
    const Shape& scales = subgraph.tensors[static_cast<size_t>(tensor.block_scales)].shape;
    const int64_t block_size = from.quantization()->details_as_BlockwiseQuantization()->block_size();
    const bool fits = scales.size() == 2 && tensor.shape.size() == 2 && CheckedMul(block_size, scales[1]) == tensor.shape[1];
    if (fits) return {};
    return Fail(ErrorCode::kTfliteQuantization, "\"{}\": blocks of {} columns, {} and scales {} do not go together", Printable(tensor.name),
                block_size, ToString(tensor.shape), ToString(scales));
  }

  // F10. Scales that several tensors share become one Quantization.
  Result<int32_t> ReadQuantization(const fb::QuantizationParameters* from) {
    if (from == nullptr) return kNone;
    const uint64_t count = SizeOf(from->scale());
    if (count == 0) return kNone;
    if (SizeOf(from->zero_point()) != count) {
      return Fail(ErrorCode::kTfliteQuantization, "{} scales but {} zero points; readers demand equal counts", count,
                  SizeOf(from->zero_point()));
    }
    TRY(CheckZeroPoints(*from->zero_point()));
    const auto [known, is_new] =
        quantizations_.try_emplace({from->scale(), from->quantized_dimension()}, static_cast<int32_t>(graph_.quantizations.size()));
    if (!is_new) return known->second;
    for (const float scale : *from->scale()) {
      if (!std::isnormal(scale) || scale < 0) {
        return Fail(ErrorCode::kTfliteQuantization, "scale {} is not a positive normal number", scale);
      }
    }
    graph_.quantizations.push_back({.axis = from->quantized_dimension(),
                                    .num_scales = static_cast<int64_t>(count),
                                    .scales = TRY(InsideRoot(from->scale()->data(), count * sizeof(float)))});
    return known->second;
  }

  Status CheckZeroPoints(const flatbuffers::Vector<int64_t>& zero_points) {
    if (!checked_zero_points_.insert(&zero_points).second) return {};  // one vector usually serves all tables of a size
    for (const int64_t zero_point : zero_points) {
      if (zero_point != 0) {
        return Fail(ErrorCode::kTfliteTypeUnsupported, "zero point {}: only symmetric quantization is supported", zero_point);
      }
    }
    return {};
  }

  Result<Op> ReadOp(const fb::Operator& from) {
    if (from.opcode_index() >= op_kinds_.size()) {
      return Fail(ErrorCode::kTfliteReference, "operator code {} does not exist, the model has {}", from.opcode_index(), op_kinds_.size());
    }
    Op op;
    op.kind = op_kinds_[from.opcode_index()];
    op.inputs = TRY(CopyIds(from.inputs()));
    op.outputs = TRY(CopyIds(from.outputs()));
    op.attributes = TRY(ReadAttributes(op.kind, from));
    return op;
  }

  static Status NoActivation(OpKind kind, int activation) {
    if (activation == 0) return {};
    return Fail(ErrorCode::kTfliteOpUnsupported, "{} with fused activation {}", NameOf(kind), activation);
  }

  // F7. Null when the file has none, which means the format's defaults.
  template <typename Options>
  static Result<const Options*> OptionsOf(OpKind kind, const fb::Operator& from) {
    if (from.builtin_options_type() == fb::BuiltinOptions::NONE || from.builtin_options() == nullptr) return nullptr;
    const Options* options = from.builtin_options_as<Options>();
    if (options != nullptr) return options;
    return Fail(ErrorCode::kTfliteStructure, "{} with options of another operator (kind {})", NameOf(kind),
                std::to_underlying(from.builtin_options_type()));
  }

  // F7
  static Result<OpAttributes> ReadAttributes(OpKind kind, const fb::Operator& from) {
    switch (kind) {
      case OpKind::kAdd:
        if (const auto* o = TRY(OptionsOf<fb::AddOptions>(kind, from))) TRY(NoActivation(kind, o->fused_activation_function()));
        return NoAttributes{};
      case OpKind::kSub:
        if (const auto* o = TRY(OptionsOf<fb::SubOptions>(kind, from))) TRY(NoActivation(kind, o->fused_activation_function()));
        return NoAttributes{};
      case OpKind::kMul:
        if (const auto* o = TRY(OptionsOf<fb::MulOptions>(kind, from))) TRY(NoActivation(kind, o->fused_activation_function()));
        return NoAttributes{};
      case OpKind::kFullyConnected: {
        const auto* o = TRY(OptionsOf<fb::FullyConnectedOptions>(kind, from));
        if (o == nullptr) return FullyConnectedAttributes{.keep_num_dims = false};
        TRY(NoActivation(kind, o->fused_activation_function()));
        if (o->weights_format() != 0) return Fail(ErrorCode::kTfliteOpUnsupported, "FULLY_CONNECTED with shuffled weights");
        return FullyConnectedAttributes{.keep_num_dims = o->keep_num_dims()};
      }
      case OpKind::kBatchMatMul: {
        const auto* o = TRY(OptionsOf<fb::BatchMatMulOptions>(kind, from));
        return o == nullptr ? BatchMatMulAttributes{} : BatchMatMulAttributes{.adj_x = o->adj_x(), .adj_y = o->adj_y()};
      }
      case OpKind::kSoftmax: {
        const auto* o = TRY(OptionsOf<fb::SoftmaxOptions>(kind, from));
        return SoftmaxAttributes{.beta = o == nullptr ? 0.0F : o->beta()};
      }
      case OpKind::kConcatenation: {
        const auto* o = TRY(OptionsOf<fb::ConcatenationOptions>(kind, from));
        if (o == nullptr) return ConcatenationAttributes{};
        TRY(NoActivation(kind, o->fused_activation_function()));
        return ConcatenationAttributes{.axis = o->axis()};
      }
      case OpKind::kGather: {
        const auto* o = TRY(OptionsOf<fb::GatherOptions>(kind, from));
        return o == nullptr ? GatherAttributes{} : GatherAttributes{.axis = o->axis(), .batch_dims = o->batch_dims()};
      }
      case OpKind::kCast: {
        const auto* o = TRY(OptionsOf<fb::CastOptions>(kind, from));
        const std::optional<DType> in = DTypeFromTflite(o == nullptr ? 0 : o->in_data_type());
        const std::optional<DType> out = DTypeFromTflite(o == nullptr ? 0 : o->out_data_type());
        if (!in || !out) return Fail(ErrorCode::kTfliteTypeUnsupported, "CAST between unknown types");
        return CastAttributes{.from = *in, .to = *out};
      }
      case OpKind::kMean: {
        const auto* o = TRY(OptionsOf<fb::ReducerOptions>(kind, from));
        return MeanAttributes{.keep_dims = o != nullptr && o->keep_dims()};
      }
      case OpKind::kGelu: {
        const auto* o = TRY(OptionsOf<fb::GeluOptions>(kind, from));
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

  Result<std::vector<NamedTensor>> ReadNames(const flatbuffers::Vector<flatbuffers::Offset<fb::TensorMap>>* from) {
    std::vector<NamedTensor> named;
    for (size_t i = 0; i < SizeOf(from); ++i) {
      const fb::TensorMap& entry = *from->Get(static_cast<uint32_t>(i));
      const uint32_t index = std::min<uint32_t>(entry.tensor_index(), std::numeric_limits<int32_t>::max());
      named.emplace_back(TRY(CopyText(entry.name())), static_cast<TensorId>(index));
    }
    return named;
  }

  Status ReadSignatures() {
    for (size_t i = 0; i < SizeOf(model_.signature_defs()); ++i) {
      const fb::SignatureDef& from = *model_.signature_defs()->Get(static_cast<uint32_t>(i));
      if (from.subgraph_index() >= graph_.subgraphs.size()) {
        return Fail(ErrorCode::kTfliteReference, "signature \"{}\": subgraph {} does not exist", Printable(TextOf(from.signature_key())),
                    from.subgraph_index());
      }
      Signature signature;
      signature.subgraph = static_cast<int32_t>(from.subgraph_index());
      signature.key = TRY(CopyText(from.signature_key()));
      signature.inputs = TRY(ReadNames(from.inputs()));
      signature.outputs = TRY(ReadNames(from.outputs()));
      graph_.signatures.push_back(std::move(signature));
    }
    return {};
  }

  SharedBytes root_;
  SharedBytes member_;
  const fb::Model& model_;
  uint64_t budget_;
  uint64_t spent_ = 0;
  Graph graph_;
  std::vector<SharedBytes> buffers_;  // [TFLite's buffers]
  std::vector<int32_t> numbers_;      // [TFLite's buffers] index into graph_.buffers
  std::vector<OpKind> op_kinds_;
  std::map<std::pair<const void*, int32_t>, int32_t> quantizations_;  // scales and axis -> index
  std::set<const void*> checked_zero_points_;
};

// F2. Every table and vector that a pointer can reach lies inside `bytes`. A real file refers to each of its tables from a place of its
// own (4 bytes), so more tables than that are the same ones visited again and again.
bool IsVerifiedModel(ByteView bytes) {
  const uint64_t max_tables = std::min<uint64_t>(bytes.size() / sizeof(uint32_t), kMaxTables);
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), kMaxDepth,
                                 static_cast<flatbuffers::uoffset_t>(max_tables));
  return fb::VerifyModelBuffer(verifier);
}

// F14. The first `size` bytes, addressable and aligned.
Result<SharedBytes> CopyBeginning(const SharedBytes& member, uint64_t size) {
  if (const ByteView view = member->view(); !view.empty()) return MakeMemorySource(view.first(size));
  std::vector<std::byte> bytes(size);
  TRY(member->Read(0, bytes));
  return MakeMemorySource(ByteView(bytes));
}

// A source that begins with the verified FlatBuffer and can be read in place. FlatBuffers hold 64-bit numbers, and a foreign archive may
// have put the member at an odd offset; then the beginning is copied, as much as the root needs, not the weights behind it.
Result<SharedBytes> FindRoot(const SharedBytes& member) {
  const uint64_t most = std::min(member->size(), kMaxVerifiedBytes);
  const ByteView view = member->view();
  if (!view.empty() && IsAligned<int64_t>(view)) {
    if (IsVerifiedModel(view.first(most))) return member;
  } else {
    constexpr uint64_t kFirstTry = 16 << 20;
    for (uint64_t size = std::min(kFirstTry, most);; size = std::min(size * 4, most)) {
      SharedBytes root = TRY(CopyBeginning(member, size));
      if (IsVerifiedModel(root->view())) return root;
      if (size == most) break;
    }
  }
  return Fail(ErrorCode::kTfliteStructure,
              "the FlatBuffer does not verify: an offset, vector or string lies outside the {} bytes of the member", member->size());
}

}  // namespace

Result<Graph> ReadTflite(const SharedBytes& member) {
  std::array<std::byte, 8> start{};
  if (member->size() >= start.size()) TRY(member->Read(0, start));
  if (AsText(start).substr(4) != fb::ModelIdentifier()) {  // F1
    return Fail(ErrorCode::kTfliteStructure, "identifier \"TFL3\" expected at byte 4, the member has {} bytes", member->size());
  }
  const SharedBytes root = TRY(FindRoot(member));
  const fb::Model& model = *fb::GetModel(root->view().data());
  if (model.version() != 3) return Fail(ErrorCode::kTfliteStructure, "schema version {}, 3 expected", model.version());  // F3
  return Reader(root, member, model).Read();
}

}  // namespace taskpress
