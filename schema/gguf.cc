#include "schema/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <format>
#include <optional>

#include "schema/base/checked_math.h"
#include "schema/base/text.h"
#include "schema/base/utf8.h"

// U1 to U14 are the rules of FORMATS.md, section GGUF.
namespace taskpress {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;
constexpr uint64_t kMaxEntries = 65536;  // of metadata, and tensors
constexpr uint64_t kMaxKeyBytes = 1024;
constexpr uint64_t kMaxTextBytes = 1 << 20;
constexpr uint64_t kMaxArrayElements = 1 << 21;
constexpr uint64_t kMaxNameBytes = 63;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr int64_t kMaxDimension = int64_t{1} << 40;

constexpr auto kTypes = std::to_array<GgmlTypeInfo>({
    {GgmlType::kF32, "F32", 1, 4},
    {GgmlType::kF16, "F16", 1, 2},
    {GgmlType::kBF16, "BF16", 1, 2},
    {GgmlType::kQ8_0, "Q8_0", 32, 34},
    {GgmlType::kQ4_0, "Q4_0", 32, 18},
    {GgmlType::kQ5_0, "Q5_0", 32, 22},
    {GgmlType::kQ4_K, "Q4_K", 256, 144},
    {GgmlType::kQ5_K, "Q5_K", 256, 176},
    {GgmlType::kQ6_K, "Q6_K", 256, 210},
});

std::string TypeNames() {
  std::string names;
  for (const GgmlTypeInfo& type : kTypes) names += Format("{}{}", names.empty() ? "" : ", ", type.name);
  return names;
}

enum class ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kText, kArray, kU64, kI64, kF64 };

// Bytes of one element in the file; 0 for texts and arrays, nothing for types that do not exist.
std::optional<uint64_t> BytesOf(uint32_t type) {
  constexpr std::array<uint64_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < kBytes.size() ? std::optional(kBytes[type]) : std::nullopt;
}

class Reader {
 public:
  explicit Reader(ByteView file) : file_(file) {}

  [[nodiscard]] uint64_t offset() const { return offset_; }

  template <typename T>
  Result<T> Number(std::string_view what) {
    return LoadLittle<T>(TRY(Take(sizeof(T), what)).data());
  }

  // U4
  Result<std::string_view> Text(std::string_view what, uint64_t limit) {
    const auto length = TRY(Number<uint64_t>(what));
    if (length > limit) return Bad("{} has {} bytes, at most {} are read", Printable(what), length, limit);
    const std::string_view text = AsText(TRY(Take(length, what)));
    if (ValidUtf8Prefix(text) != text.size()) return Bad("{} is not UTF-8", Printable(what));
    return text;
  }

  Result<GgufValue> Value(const std::string& key) {
    const auto type = TRY(Number<uint32_t>(key));
    if (!BytesOf(type)) return Bad("\"{}\" has the value type {}, which does not exist", Printable(key), type);  // U5
    if (static_cast<ValueType>(type) != ValueType::kArray) return Scalar(static_cast<ValueType>(type), key);
    return Array(key);
  }

  template <typename... Args>
  std::unexpected<Error> Bad(std::format_string<Args...> what, Args&&... args) const {
    return Fail(ErrorCode::kGgufHeader, "byte {}: {}", offset_, std::format(what, std::forward<Args>(args)...));
  }

 private:
  Result<ByteView> Take(uint64_t size, std::string_view what) {
    if (!RangeInside(offset_, size, file_.size())) {
      return Bad("{} needs {} bytes, the file ends after {}", Printable(what), size, file_.size() - offset_);
    }
    const ByteView taken = file_.subspan(offset_, size);
    offset_ += size;
    return taken;
  }

  Result<GgufValue> Scalar(ValueType type, const std::string& key) {
    switch (type) {
      case ValueType::kU8:
        return GgufValue(uint64_t{TRY(Number<uint8_t>(key))});
      case ValueType::kI8:
        return GgufValue(int64_t{TRY(Number<int8_t>(key))});
      case ValueType::kU16:
        return GgufValue(uint64_t{TRY(Number<uint16_t>(key))});
      case ValueType::kI16:
        return GgufValue(int64_t{TRY(Number<int16_t>(key))});
      case ValueType::kU32:
        return GgufValue(uint64_t{TRY(Number<uint32_t>(key))});
      case ValueType::kI32:
        return GgufValue(int64_t{TRY(Number<int32_t>(key))});
      case ValueType::kF32:
        return GgufValue(double{TRY(Number<float>(key))});
      case ValueType::kU64:
        return GgufValue(TRY(Number<uint64_t>(key)));
      case ValueType::kI64:
        return GgufValue(TRY(Number<int64_t>(key)));
      case ValueType::kF64:
        return GgufValue(TRY(Number<double>(key)));
      case ValueType::kText:
        return GgufValue(TRY(Text(key, kMaxTextBytes)));
      case ValueType::kBool: {
        const auto byte = TRY(Number<uint8_t>(key));
        if (byte > 1) return Bad("\"{}\" is the truth value {}", Printable(key), byte);  // U5
        return GgufValue(byte == 1);
      }
      case ValueType::kArray:
        break;
    }
    return Bad("\"{}\" is an array of arrays", Printable(key));  // U6
  }

  // U6: before anything is allocated, the elements are known to be in the file.
  Result<GgufValue> Array(const std::string& key) {
    const auto type = TRY(Number<uint32_t>(key));
    const std::optional<uint64_t> element = BytesOf(type);
    if (!element) return Bad("\"{}\" is an array of the value type {}, which does not exist", Printable(key), type);
    const auto count = TRY(Number<uint64_t>(key));
    if (count > kMaxArrayElements) return Bad("\"{}\" has {} elements, at most {} are read", Printable(key), count, kMaxArrayElements);
    const uint64_t at_least = *element == 0 ? sizeof(uint64_t) : *element;  // a text begins with its length
    if (!RangeInside(offset_, count * at_least, file_.size())) {
      return Bad("\"{}\" has {} elements, the file ends after {} bytes", Printable(key), count, file_.size() - offset_);
    }
    GgufArray values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) values.push_back(TRY(Scalar(static_cast<ValueType>(type), key)));
    return GgufValue(std::move(values));
  }

  ByteView file_;
  uint64_t offset_ = 0;
};

// U1, U2
Status CheckVersion(Reader& reader, ByteView file) {
  if (file.size() < kMagic.size() || AsText(file.first(kMagic.size())) != kMagic) {
    return Fail(ErrorCode::kGgufHeader, "does not begin with \"GGUF\": not a GGUF file");
  }
  TRY(reader.Number<uint32_t>("magic"));
  const auto version = TRY(reader.Number<uint32_t>("version"));
  if (version == kVersion) return {};
  if (std::byteswap(version) <= kVersion) return Fail(ErrorCode::kGgufUnsupported, "a big-endian GGUF file");
  return Fail(ErrorCode::kGgufUnsupported, "GGUF version {}, only {} is read", version, kVersion);
}

// U7
Result<uint64_t> Alignment(const GgufFile& file) {
  const GgufValue* value = file.Find("general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const uint64_t* alignment = std::get_if<uint64_t>(value);
  if (alignment == nullptr || !std::has_single_bit(*alignment) || *alignment > kMaxAlignment) {
    return Fail(ErrorCode::kGgufHeader, "general.alignment is not a power of two up to {}", kMaxAlignment);
  }
  return *alignment;
}

struct Entry {
  GgufTensor tensor;
  uint64_t offset = 0;  // in the data
  uint64_t size = 0;
};

template <typename... Args>
std::unexpected<Error> BadTensor(std::string_view name, std::format_string<Args...> what, Args&&... args) {
  return Fail(ErrorCode::kGgufTensor, "tensor \"{}\": {}", Printable(name), std::format(what, std::forward<Args>(args)...));
}

// U8 to U11
Result<Entry> ReadEntry(Reader& reader) {
  Entry entry;
  GgufTensor& tensor = entry.tensor;
  tensor.name = TRY(reader.Text("a tensor's name", kMaxNameBytes));
  if (tensor.name.empty()) return Fail(ErrorCode::kGgufTensor, "byte {}: a tensor without a name", reader.offset());
  const auto dimensions = TRY(reader.Number<uint32_t>(tensor.name));
  if (dimensions > kMaxDimensions) return BadTensor(tensor.name, "{} dimensions, at most {} are possible", dimensions, kMaxDimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto dimension = TRY(reader.Number<int64_t>(tensor.name));
    if (dimension < 1 || dimension > kMaxDimension) return BadTensor(tensor.name, "dimension {} is {}", i, dimension);
    tensor.shape.insert(tensor.shape.begin(), dimension);
  }
  const auto code = TRY(reader.Number<uint32_t>(tensor.name));
  const auto type = std::ranges::find(kTypes, code, [](const GgmlTypeInfo& info) { return static_cast<uint32_t>(info.type); });
  if (type == kTypes.end()) {
    return Fail(ErrorCode::kGgufUnsupported, "tensor \"{}\" has the ggml type {}; read are {}", Printable(tensor.name), code, TypeNames());
  }
  tensor.type = type->type;
  entry.offset = TRY(reader.Number<uint64_t>(tensor.name));
  const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % type->block_values != 0) {
    return BadTensor(tensor.name, "rows of {} values, {} packs {} of them into a block", row, type->name, type->block_values);
  }
  const std::optional<int64_t> values = NumElements(tensor.shape);
  const std::optional<int64_t> bytes = values ? CheckedMul(*values / type->block_values, type->block_bytes) : std::nullopt;
  if (!bytes) return BadTensor(tensor.name, "its shape {} overflows", ToString(tensor.shape));
  entry.size = static_cast<uint64_t>(*bytes);
  return entry;
}

// U12, U13: tensors follow each other in the order of the file, each at the next aligned byte, as ggml's reader demands.
Status PlaceTensors(std::vector<Entry>& entries, uint64_t data_begin, uint64_t alignment, ByteView file) {
  uint64_t expected = 0;
  for (Entry& entry : entries) {
    const std::string& name = entry.tensor.name;
    if (entry.offset != expected) return BadTensor(name, "begins at byte {} of the data, expected {}", entry.offset, expected);
    const std::optional<uint64_t> begin = CheckedAdd(data_begin, entry.offset);
    if (!begin || !RangeInside(*begin, entry.size, file.size())) {
      return BadTensor(name, "{} bytes at {} of the data do not lie in the file of {} bytes", entry.size, entry.offset, file.size());
    }
    entry.tensor.bytes = file.subspan(*begin, entry.size);
    expected = AlignUp(entry.offset + entry.size, alignment);  // both lie in the file
  }
  if (file.size() > data_begin + expected) {  // U14
    return Fail(ErrorCode::kGgufTensor, "{} bytes follow the last tensor", file.size() - data_begin - expected);
  }
  return {};
}

}  // namespace

std::span<const GgmlTypeInfo> AllGgmlTypes() { return kTypes; }

const GgmlTypeInfo& InfoOf(GgmlType type) { return *std::ranges::find(kTypes, type, &GgmlTypeInfo::type); }

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = std::ranges::lower_bound(tensors, name, {}, &GgufTensor::name);
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

Result<GgufFile> ParseGguf(ByteView file) {
  Reader reader(file);
  TRY(CheckVersion(reader, file));
  const auto tensor_count = TRY(reader.Number<uint64_t>("the number of tensors"));
  const auto metadata_count = TRY(reader.Number<uint64_t>("the number of metadata entries"));
  if (tensor_count > kMaxEntries || metadata_count > kMaxEntries) {  // U3
    return reader.Bad("{} tensors and {} metadata entries, at most {} each are read", tensor_count, metadata_count, kMaxEntries);
  }
  GgufFile out;
  for (uint64_t i = 0; i < metadata_count; ++i) {
    const std::string key(TRY(reader.Text("a metadata key", kMaxKeyBytes)));
    GgufValue value = TRY(reader.Value(key));
    if (!out.metadata.emplace(key, std::move(value)).second) return reader.Bad("the key \"{}\" occurs twice", Printable(key));  // U5
  }
  const uint64_t alignment = TRY(Alignment(out));
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < tensor_count; ++i) entries.push_back(TRY(ReadEntry(reader)));
  const std::optional<uint64_t> data_begin = CheckedAlignUp(reader.offset(), alignment);
  if (!data_begin || (*data_begin > file.size() && !entries.empty())) {
    return Fail(ErrorCode::kGgufTensor, "the file ends before its tensor data");
  }
  TRY(PlaceTensors(entries, *data_begin, alignment, file));
  for (Entry& entry : entries) out.tensors.push_back(std::move(entry.tensor));
  std::ranges::sort(out.tensors, {}, &GgufTensor::name);
  const auto twin = std::ranges::adjacent_find(out.tensors, {}, &GgufTensor::name);
  if (twin != out.tensors.end()) return BadTensor(twin->name, "occurs twice");  // U8
  return out;
}

}  // namespace taskpress
