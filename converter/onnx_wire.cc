#include "converter/onnx_wire.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "schema/base/checked_math.h"
#include "schema/placeholder.h"

// N1 to N9 are the rules of FORMATS.md, section ONNX model.
namespace taskpress {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using onnx::TensorProto;

constexpr uint64_t kMaxFileBytes = std::numeric_limits<int32_t>::max();  // protobuf's own limit
constexpr int kMaxDepth = 100;                                           // protobuf's default
constexpr uint64_t kMaxFields = 4'000'000;                               // the largest export of a Gemma has fewer than a quarter of it
constexpr uint64_t kMaxVarintBytes = 256 << 20;
constexpr int kMaxRank = 8;
constexpr int kMaxExternalEntries = 16;  // the format knows six keys

// The messages of the schema that hold others, as far as they can make the parser allocate.
enum class Part : uint8_t {
  kModel,
  kGraph,
  kNode,
  kAttribute,
  kTensor,
  kSparse,
  kTraining,
  kFunction,
  kValueInfo,
  kType,
  kTypeBody,
  kShape,
  kAnnotation
};

struct Child {
  Part parent;
  int field;
  Part child;
};

constexpr auto kChildren = std::to_array<Child>({
    {Part::kModel, onnx::ModelProto::kGraphFieldNumber, Part::kGraph},
    {Part::kModel, onnx::ModelProto::kTrainingInfoFieldNumber, Part::kTraining},
    {Part::kModel, onnx::ModelProto::kFunctionsFieldNumber, Part::kFunction},
    {Part::kGraph, onnx::GraphProto::kNodeFieldNumber, Part::kNode},
    {Part::kGraph, onnx::GraphProto::kInitializerFieldNumber, Part::kTensor},
    {Part::kGraph, onnx::GraphProto::kSparseInitializerFieldNumber, Part::kSparse},
    {Part::kGraph, onnx::GraphProto::kInputFieldNumber, Part::kValueInfo},
    {Part::kGraph, onnx::GraphProto::kOutputFieldNumber, Part::kValueInfo},
    {Part::kGraph, onnx::GraphProto::kValueInfoFieldNumber, Part::kValueInfo},
    {Part::kGraph, onnx::GraphProto::kQuantizationAnnotationFieldNumber, Part::kAnnotation},
    {Part::kNode, onnx::NodeProto::kAttributeFieldNumber, Part::kAttribute},
    {Part::kAttribute, onnx::AttributeProto::kTFieldNumber, Part::kTensor},
    {Part::kAttribute, onnx::AttributeProto::kTensorsFieldNumber, Part::kTensor},
    {Part::kAttribute, onnx::AttributeProto::kGFieldNumber, Part::kGraph},
    {Part::kAttribute, onnx::AttributeProto::kGraphsFieldNumber, Part::kGraph},
    {Part::kAttribute, onnx::AttributeProto::kSparseTensorFieldNumber, Part::kSparse},
    {Part::kAttribute, onnx::AttributeProto::kSparseTensorsFieldNumber, Part::kSparse},
    {Part::kAttribute, onnx::AttributeProto::kTpFieldNumber, Part::kType},
    {Part::kAttribute, onnx::AttributeProto::kTypeProtosFieldNumber, Part::kType},
    {Part::kSparse, onnx::SparseTensorProto::kValuesFieldNumber, Part::kTensor},
    {Part::kSparse, onnx::SparseTensorProto::kIndicesFieldNumber, Part::kTensor},
    {Part::kTraining, onnx::TrainingInfoProto::kInitializationFieldNumber, Part::kGraph},
    {Part::kTraining, onnx::TrainingInfoProto::kAlgorithmFieldNumber, Part::kGraph},
    {Part::kFunction, onnx::FunctionProto::kNodeFieldNumber, Part::kNode},
    {Part::kFunction, onnx::FunctionProto::kAttributeProtoFieldNumber, Part::kAttribute},
    {Part::kFunction, onnx::FunctionProto::kValueInfoFieldNumber, Part::kValueInfo},
    {Part::kValueInfo, onnx::ValueInfoProto::kTypeFieldNumber, Part::kType},
    {Part::kType, onnx::TypeProto::kTensorTypeFieldNumber, Part::kTypeBody},
    {Part::kType, onnx::TypeProto::kSparseTensorTypeFieldNumber, Part::kTypeBody},
    {Part::kType, onnx::TypeProto::kSequenceTypeFieldNumber, Part::kTypeBody},
    {Part::kType, onnx::TypeProto::kMapTypeFieldNumber, Part::kTypeBody},
    {Part::kType, onnx::TypeProto::kOptionalTypeFieldNumber, Part::kTypeBody},
    {Part::kTypeBody, 1, Part::kType},   // the element type of a sequence or an optional; of a tensor it is a number
    {Part::kTypeBody, 2, Part::kShape},  // or the value type of a map, which counts like one
});

// What grows in memory beyond its bytes in the file.
struct Cost {
  uint64_t fields = 0;        // each may be an object of its own
  uint64_t varint_bytes = 0;  // packed: each byte may be a number of eight
};

bool IsPackedVarints(Part part, int field) {
  if (part == Part::kAttribute) return field == onnx::AttributeProto::kIntsFieldNumber;
  return part == Part::kTensor && (field == TensorProto::kDimsFieldNumber || field == TensorProto::kInt32DataFieldNumber ||
                                   field == TensorProto::kInt64DataFieldNumber || field == TensorProto::kUint64DataFieldNumber);
}

// False when the message is malformed or exceeds a limit.
bool AddCost(CodedInputStream& input, Part part, int depth, Cost& cost) {
  if (depth > kMaxDepth) return false;
  while (const uint32_t tag = input.ReadTag()) {
    if (++cost.fields > kMaxFields) return false;
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      if (!WireFormatLite::SkipField(&input, tag)) return false;
      continue;
    }
    uint32_t length = 0;
    if (!input.ReadVarint32(&length) || length > kMaxFileBytes) return false;
    if (IsPackedVarints(part, field) && (cost.varint_bytes += length) > kMaxVarintBytes) return false;
    const auto child = std::ranges::find_if(kChildren, [&](const Child& row) { return row.parent == part && row.field == field; });
    if (child == kChildren.end()) {
      if (!input.Skip(static_cast<int>(length))) return false;
      continue;
    }
    if (input.BytesUntilLimit() >= 0 && std::cmp_greater(length, input.BytesUntilLimit())) return false;
    const CodedInputStream::Limit limit = input.PushLimit(static_cast<int>(length));
    if (!AddCost(input, child->child, depth + 1, cost) || input.BytesUntilLimit() != 0) return false;
    input.PopLimit(limit);
  }
  return input.ConsumedEntireMessage();
}

struct TypeRow {
  int onnx;
  DType type;
};
constexpr auto kTypes = std::to_array<TypeRow>({{TensorProto::FLOAT, DType::kF32},
                                                {TensorProto::DOUBLE, DType::kF64},
                                                {TensorProto::FLOAT16, DType::kF16},
                                                {TensorProto::BFLOAT16, DType::kBF16},
                                                {TensorProto::INT64, DType::kI64},
                                                {TensorProto::INT32, DType::kI32},
                                                {TensorProto::INT16, DType::kI16},
                                                {TensorProto::INT8, DType::kI8},
                                                {TensorProto::UINT8, DType::kU8},
                                                {TensorProto::BOOL, DType::kBool}});
// The newest type of ONNX 1.20; this schema's is older.
constexpr int kLastKnownType = 26;

template <typename Stored, typename Values>
std::string Pack(const Values& values) {
  std::string bytes(static_cast<size_t>(values.size()) * sizeof(Stored), '\0');
  std::byte* to = reinterpret_cast<std::byte*>(bytes.data());
  for (const auto value : values) {
    StoreLittle(to, static_cast<Stored>(value));
    to += sizeof(Stored);
  }
  return bytes;
}

// int32_data holds each element of a small type as one number, halves by their bits.
template <typename Stored>
Result<std::string> PackSmall(const TensorProto& tensor) {
  for (const int32_t value : tensor.int32_data()) {
    if (!std::in_range<Stored>(value))
      return Fail(ErrorCode::kOnnxModel, "int32_data holds {}, no {}", value, OnnxTypeName(tensor.data_type()));
  }
  return Pack<Stored>(tensor.int32_data());
}

// The typed field that belongs to the type.
Result<std::string> TypedBytes(const TensorProto& tensor, DType type) {
  switch (type) {
    case DType::kF32:
      return Pack<float>(tensor.float_data());
    case DType::kF64:
      return Pack<double>(tensor.double_data());
    case DType::kI64:
      return Pack<int64_t>(tensor.int64_data());
    case DType::kI32:
      return Pack<int32_t>(tensor.int32_data());
    case DType::kI16:
      return PackSmall<int16_t>(tensor);
    case DType::kI8:
      return PackSmall<int8_t>(tensor);
    case DType::kU8:
    case DType::kBool:
      return PackSmall<uint8_t>(tensor);
    case DType::kF16:
    case DType::kBF16:
      return PackSmall<uint16_t>(tensor);
    case DType::kI4:
      break;
  }
  return Fail(ErrorCode::kOnnxModel, "no typed field holds {}", NameOf(type));
}

int NumTypedElements(const TensorProto& tensor) {
  // Each is bounded by the file's size, so that the sum fits 64 bits; it is only compared with zero and with one of its parts.
  const int64_t sum = int64_t{tensor.float_data_size()} + tensor.int32_data_size() + tensor.int64_data_size() + tensor.double_data_size() +
                      tensor.uint64_data_size() + tensor.string_data_size();
  return static_cast<int>(std::min<int64_t>(sum, std::numeric_limits<int>::max()));
}

// protobuf keeps a value that the enum lacks among the unknown fields, and calls the field absent.
bool HasUnknownDataLocation(const TensorProto& tensor) {
  const std::string& unknown = tensor.unknown_fields();
  CodedInputStream input(reinterpret_cast<const uint8_t*>(unknown.data()), static_cast<int>(unknown.size()));
  while (const uint32_t tag = input.ReadTag()) {
    if (WireFormatLite::GetTagFieldNumber(tag) == TensorProto::kDataLocationFieldNumber) return true;
    if (!WireFormatLite::SkipField(&input, tag)) return true;
  }
  return false;
}

Result<uint64_t> ParseNumber(const std::string& key, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return Fail(ErrorCode::kOnnxModel, "external_data: {} is no number of bytes", key);
}

}  // namespace

Status CheckOnnxWire(ByteView file) {
  TRY(RefuseLfsPointer(file));  // N1
  if (file.empty() || file.size() > kMaxFileBytes) {
    return Fail(ErrorCode::kOnnxModel, "has {} bytes; a model has from 1 to {}, larger weights lie in files beside it", file.size(),
                kMaxFileBytes);
  }
  CodedInputStream input(reinterpret_cast<const uint8_t*>(file.data()), static_cast<int>(file.size()));
  Cost cost;
  if (AddCost(input, Part::kModel, 0, cost)) return {};
  if (cost.fields > kMaxFields || cost.varint_bytes > kMaxVarintBytes) {  // N2
    return Fail(ErrorCode::kOnnxModel, "holds more than {} fields, or more than {} bytes of integers outside raw_data", kMaxFields,
                kMaxVarintBytes);
  }
  return Fail(ErrorCode::kOnnxModel, "is no ONNX model, or damaged or truncated near byte {} of {}", input.CurrentPosition(), file.size());
}

std::string OnnxTypeName(int type) {
  return onnx::TensorProto_DataType_IsValid(type) ? onnx::TensorProto_DataType_Name(type) : Format("type {}", type);
}

Result<std::optional<DType>> OnnxElementType(const TensorProto& tensor) {
  const int type = tensor.data_type();
  const auto row = std::ranges::find(kTypes, type, &TypeRow::onnx);
  if (row != kTypes.end()) return row->type;
  if (type > TensorProto::UNDEFINED && type <= kLastKnownType) return std::nullopt;
  return Fail(ErrorCode::kOnnxModel, "data_type {} is unknown", type);
}

Result<Shape> OnnxShape(const TensorProto& tensor) {
  if (tensor.dims_size() > kMaxRank) {
    return Fail(ErrorCode::kOnnxModel, "has {} dimensions, at most {} are read", tensor.dims_size(), kMaxRank);
  }
  Shape shape;
  int64_t product = 1;
  for (const int64_t dimension : tensor.dims()) {
    // Dimensions of zero do not excuse the others: the product that is checked skips them.
    const std::optional<int64_t> next = dimension < 0 ? std::nullopt : CheckedMul(product, std::max<int64_t>(dimension, 1));
    if (!next) return Fail(ErrorCode::kOnnxModel, "the shape is negative or overflows at dimension {}", dimension);
    product = *next;
    shape.push_back(dimension);
  }
  return shape;
}

Result<std::string> TakeInlineBytes(TensorProto& tensor, DType type, const Shape& shape) {
  const int typed = NumTypedElements(tensor);
  if (tensor.has_raw_data() && typed > 0) {
    return Fail(ErrorCode::kOnnxModel, "holds raw_data and {} typed elements, one of them too many", typed);
  }
  std::string bytes;
  if (tensor.has_raw_data()) {
    bytes = std::move(*tensor.mutable_raw_data());
  } else {
    bytes = TRY(TypedBytes(tensor, type));
    if (std::cmp_not_equal(bytes.size() / (static_cast<size_t>(InfoOf(type).bits) / 8), typed)) {
      return Fail(ErrorCode::kOnnxModel, "holds typed elements in a field that is not {}'s", OnnxTypeName(tensor.data_type()));
    }
  }
  const std::optional<uint64_t> needed = NumBytes(type, shape);
  if (needed != bytes.size()) {
    return Fail(ErrorCode::kOnnxModel, "holds {} bytes, {} {} needs {}; the file is damaged, export the model again", bytes.size(),
                OnnxTypeName(tensor.data_type()), ToString(shape), needed ? std::to_string(*needed) : "more than 2^64");
  }
  return bytes;
}

Result<std::optional<ExternalData>> FindExternalData(const TensorProto& tensor) {
  if (tensor.has_segment()) return Fail(ErrorCode::kOnnxModel, "is a segment of a tensor; only whole ones are read");
  if (HasUnknownDataLocation(tensor)) return Fail(ErrorCode::kOnnxModel, "data_location is neither DEFAULT nor EXTERNAL");
  if (tensor.data_location() == TensorProto::DEFAULT) {
    if (tensor.external_data_size() == 0) return std::nullopt;
    return Fail(ErrorCode::kOnnxModel, "has external_data, but its data_location is DEFAULT");
  }
  if (tensor.has_raw_data() || NumTypedElements(tensor) > 0) {
    return Fail(ErrorCode::kOnnxModel, "holds data, but its data_location is EXTERNAL");
  }
  if (tensor.external_data_size() > kMaxExternalEntries) {
    return Fail(ErrorCode::kOnnxModel, "has {} entries of external_data, at most {} are read", tensor.external_data_size(),
                kMaxExternalEntries);
  }
  ExternalData found;
  std::vector<std::string_view> seen;
  for (const onnx::StringStringEntryProto& entry : tensor.external_data()) {
    if (std::ranges::contains(seen, entry.key())) return Fail(ErrorCode::kOnnxModel, "external_data has two entries of one key");
    seen.emplace_back(entry.key());
    if (entry.key() == "location") found.location = entry.value();
    if (entry.key() == "offset") found.offset = TRY(ParseNumber(entry.key(), entry.value()));
    if (entry.key() == "length") found.length = TRY(ParseNumber(entry.key(), entry.value()));
  }
  if (found.location.empty()) return Fail(ErrorCode::kOnnxModel, "external_data names no location");
  return found;
}

}  // namespace taskpress
