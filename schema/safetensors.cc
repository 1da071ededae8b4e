#include "schema/safetensors.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <tuple>
#include <utility>

#include "schema/base/checked_math.h"
#include "schema/base/output_file.h"
#include "schema/json.h"
#include "schema/placeholder.h"

// S1 to S14 are the rules of FORMATS.md, section Safetensors.
namespace taskpress {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kHeaderAlignment = 8;
constexpr JsonLimits kHeaderLimits{.max_bytes = kMaxHeaderBytes, .max_depth = 8};
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxRank = 8;
constexpr uint64_t kWriteBlockBytes = 4 << 20;
constexpr std::string_view kMetadataKey = "__metadata__";

// Tags the format knows and Gemma checkpoints never use.
constexpr auto kForeignTags = std::to_array<std::string_view>(
    {"F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "U16", "U32", "U64", "C64"});

// One entry of the header; offsets count from the end of the header.
struct HeaderTensor {
  std::string name;
  DType type = DType::kF32;
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// A string of the file as it may appear in a message: escaped and not endless.
std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 100;
  const std::string shown(text.substr(0, kShown));
  return Json(shown).dump(-1, ' ', false, Json::error_handler_t::replace) + (text.size() > kShown ? "..." : "");
}

bool StartsWithIgnoringCase(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && std::ranges::equal(text.substr(0, prefix.size()), prefix, [](unsigned char a, unsigned char b) {
           return std::tolower(a) == std::tolower(b);
         });
}

// S1. A real file has zeros in bytes 4 to 7, so eight bytes of text can never be one.
Status CheckNotText(ByteView file) {
  constexpr size_t kLook = 64;
  const std::string_view start = AsText(file.first(std::min(file.size(), kLook)));
  TRY(RefuseLfsPointer(file));
  const size_t text_begin = std::min(start.find_first_not_of(" \t\r\n"), start.size());
  const std::string_view text = start.substr(text_begin);
  for (const std::string_view tag : {"<!doctype", "<html", "<head", "<?xml"}) {
    if (StartsWithIgnoringCase(text, tag)) {
      return Fail(ErrorCode::kNotATensorFile, "is a web page, not the data; log in or accept the licence, then download the file again");
    }
  }
  const auto is_text = [](char c) { return (c >= ' ' && c <= '~') || c == '\t' || c == '\r' || c == '\n'; };
  if (!start.empty() && std::ranges::all_of(start.substr(0, kLengthBytes), is_text)) {
    return Fail(ErrorCode::kNotATensorFile, "is text, not tensor data; it begins with {}", Quoted(start));
  }
  return {};
}

// S2, S3: the header's text, with its bounds checked.
Result<ByteView> FindHeader(ByteView file) {
  if (file.size() < kLengthBytes) {
    return Fail(ErrorCode::kSafetensorsHeader, "has {} bytes, the header length alone needs {}; the file is truncated", file.size(),
                kLengthBytes);
  }
  const auto length = LoadLittle<uint64_t>(file.data());
  if (length > kMaxHeaderBytes) {
    return Fail(ErrorCode::kSafetensorsHeader, "header length {} exceeds the format's limit of {}; this is not a safetensors file", length,
                kMaxHeaderBytes);
  }
  if (!RangeInside(kLengthBytes, length, file.size())) {
    return Fail(ErrorCode::kSafetensorsHeader, "header of {} bytes does not fit into a file of {}; the file is truncated", length,
                file.size());
  }
  const ByteView header = file.subspan(kLengthBytes, length);
  if (header.empty() || header.front() != std::byte{'{'}) {
    return Fail(ErrorCode::kSafetensorsHeader, "header does not begin with '{{'; this is not a safetensors file");
  }
  return header;
}

// S4
Result<Json> ParseHeaderJson(ByteView header) {
  Result<Json> json = ParseJson(header, kHeaderLimits);
  if (!json) return Fail(ErrorCode::kSafetensorsHeader, "header is not strict JSON: {}", json.error().message);
  return json;
}

// S5
Result<std::map<std::string, std::string>> ParseMetadata(const Json& json) {
  if (!json.is_object()) return Fail(ErrorCode::kSafetensorsHeader, "__metadata__ is {}, expected an object", json.type_name());
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return Fail(ErrorCode::kSafetensorsHeader, "__metadata__: {} is {}, expected a string", Quoted(key), value.type_name());
    }
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

// S6
Status CheckName(std::string_view name) {
  if (name.empty()) return Fail(ErrorCode::kSafetensorsTensor, "a tensor has an empty name");
  if (name.size() > kMaxNameBytes) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor {}: its name has {} bytes, at most {} are allowed", Quoted(name), name.size(),
                kMaxNameBytes);
  }
  if (std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor {}: its name holds control characters", Quoted(name));
  }
  return {};
}

// S7
Result<DType> ParseDType(std::string_view name, const Json& json) {
  if (!json.is_string()) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": dtype is {}, expected a string", name, json.type_name());
  }
  const auto& tag = json.get_ref<const std::string&>();
  if (const std::optional<DType> type = DTypeFromSafetensors(tag)) return *type;
  if (std::ranges::find(kForeignTags, tag) != kForeignTags.end()) {
    return Fail(ErrorCode::kSafetensorsDType, "tensor \"{}\": dtype {} is not supported; convert the tensor to BF16 or F32 first", name,
                tag);
  }
  return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": unknown dtype {}", name, Quoted(tag));
}

// S8. Dimensions of zero do not excuse the others: the product that is checked skips them.
Result<Shape> ParseShape(std::string_view name, const Json& json) {
  if (!json.is_array() || json.size() > kMaxRank) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": shape must be an array of at most {} dimensions", name, kMaxRank);
  }
  Shape shape;
  int64_t product = 1;
  for (const Json& dimension : json) {
    if (!dimension.is_number_unsigned()) {
      return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": a dimension is not a non-negative integer", name);
    }
    const auto value = dimension.get<uint64_t>();
    const std::optional<int64_t> next =
        std::in_range<int64_t>(value) ? CheckedMul(product, std::max<int64_t>(static_cast<int64_t>(value), 1)) : std::nullopt;
    if (!next) return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": shape overflows at dimension {}", name, value);
    product = *next;
    shape.push_back(static_cast<int64_t>(value));
  }
  return shape;
}

// S9
Result<std::pair<uint64_t, uint64_t>> ParseRange(std::string_view name, const Json& json, uint64_t data_bytes) {
  if (!json.is_array() || json.size() != 2 || !json[0].is_number_unsigned() || !json[1].is_number_unsigned()) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": data_offsets must be two non-negative integers", name);
  }
  const auto begin = json[0].get<uint64_t>();
  const auto end = json[1].get<uint64_t>();
  if (begin > end) return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": data_offsets [{}, {}) run backwards", name, begin, end);
  if (end > data_bytes) {
    return Fail(ErrorCode::kSafetensorsLayout,
                "tensor \"{}\": data_offsets [{}, {}) end outside the {} bytes of data; the file is truncated", name, begin, end,
                data_bytes);
  }
  return std::pair(begin, end);
}

// S6 to S10
Result<HeaderTensor> ParseTensor(const std::string& name, const Json& json, uint64_t data_bytes) {
  TRY(CheckName(name));
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") || !json.contains("data_offsets")) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": expected an object of exactly dtype, shape and data_offsets", name);
  }
  HeaderTensor tensor;
  tensor.name = name;
  tensor.type = TRY(ParseDType(name, json["dtype"]));
  tensor.shape = TRY(ParseShape(name, json["shape"]));
  std::tie(tensor.begin, tensor.end) = TRY(ParseRange(name, json["data_offsets"], data_bytes));
  const std::optional<uint64_t> needed = NumBytes(tensor.type, tensor.shape);
  if (needed != tensor.end - tensor.begin) {  // S10
    return Fail(ErrorCode::kSafetensorsTensor,
                "tensor \"{}\": data_offsets [{}, {}) hold {} bytes, {} {} needs {}; the file is damaged, download it again", name,
                tensor.begin, tensor.end, tensor.end - tensor.begin, InfoOf(tensor.type).safetensors, ToString(tensor.shape),
                needed ? std::to_string(*needed) : "more than 2^64");
  }
  return tensor;
}

// S11: in the order of their offsets the ranges follow each other without gap or overlap, from the first byte of the data to the last.
Status CheckLayout(std::span<const HeaderTensor> tensors, uint64_t data_bytes) {
  std::vector<const HeaderTensor*> order;
  order.reserve(tensors.size());
  for (const HeaderTensor& tensor : tensors) order.push_back(&tensor);
  std::ranges::sort(order, {}, [](const HeaderTensor* tensor) { return std::pair(tensor->begin, tensor->end); });
  uint64_t position = 0;
  for (const HeaderTensor* tensor : order) {
    if (tensor->begin != position) {
      return Fail(ErrorCode::kSafetensorsLayout, "tensor \"{}\": data begins at {}, the tensor before it ends at {}: {}", tensor->name,
                  tensor->begin, position, tensor->begin < position ? "they overlap" : "a hole");
    }
    position = tensor->end;
  }
  if (position != data_bytes) {
    return Fail(ErrorCode::kSafetensorsLayout, "tensors cover {} of {} bytes of data; the rest belongs to nobody", position, data_bytes);
  }
  return {};
}

// S4 to S11. Sorted by name, because a JSON object is.
Result<std::vector<HeaderTensor>> ParseHeader(ByteView header, uint64_t data_bytes, std::map<std::string, std::string>* metadata) {
  const Json json = TRY(ParseHeaderJson(header));
  std::vector<HeaderTensor> tensors;
  tensors.reserve(json.size());
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadataKey) {
      std::map<std::string, std::string> parsed = TRY(ParseMetadata(value));
      if (metadata != nullptr) *metadata = std::move(parsed);
    } else {
      tensors.push_back(TRY(ParseTensor(name, value, data_bytes)));
    }
  }
  TRY(CheckLayout(tensors, data_bytes));
  return tensors;
}

// S13, S14: the header a file with these entries must have, padded.
Result<std::string> FormatHeader(std::span<const SafetensorsEntry> entries, const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) header += Format("\"{}\":{}", kMetadataKey, Json(metadata).dump());
  uint64_t position = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (InfoOf(entry.type).safetensors.empty()) {
      return Fail(ErrorCode::kSafetensorsDType, "tensor {}: safetensors has no dtype {}", Quoted(entry.name), NameOf(entry.type));
    }
    if (entry.name == kMetadataKey) return Fail(ErrorCode::kSafetensorsTensor, "\"{}\" cannot name a tensor", kMetadataKey);
    const std::optional<uint64_t> end = CheckedAdd(position, entry.bytes->size());
    if (!end) return Fail(ErrorCode::kSafetensorsTensor, "tensor {}: total size overflows", Quoted(entry.name));
    header += Format("{}{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", header.size() > 1 ? "," : "",
                     Json(entry.name).dump(), InfoOf(entry.type).safetensors, ToString(entry.shape), position, *end);
    position = *end;
  }
  header += "}";
  header.resize(AlignUp(header.size(), kHeaderAlignment), ' ');
  return header;
}

uint64_t DataBytes(std::span<const SafetensorsEntry> entries) {
  uint64_t total = 0;
  for (const SafetensorsEntry& entry : entries) total += entry.bytes->size();
  return total;
}

// FormatHeader for entries that any caller may have made up: names that are not UTF-8 make nlohmann throw, every other lie is found by
// reading the header as a reader will (duplicate names, sizes that do not fit, names, ranks, length).
Result<std::string> MakeHeader(std::span<const SafetensorsEntry> entries, const std::map<std::string, std::string>& metadata) {
  Result<std::string> header;
  try {
    header = FormatHeader(entries, metadata);
  } catch (const Json::exception& error) {
    return Fail(ErrorCode::kSafetensorsTensor, "a name or metadata string is not UTF-8: {}", error.what());
  }
  if (!header) return header;
  TRY(ParseHeader(AsBytes(*header), DataBytes(entries), nullptr));
  return header;
}

// Copies a source into the file from `offset`, a block at a time.
Status WriteSource(OutputFile& file, uint64_t offset, const ByteSource& source, std::vector<std::byte>& block) {
  const ByteView view = source.view();
  for (uint64_t done = 0; done < source.size();) {
    const uint64_t count = std::min(kWriteBlockBytes, source.size() - done);
    if (view.empty()) {
      block.resize(std::max<size_t>(block.size(), count));
      TRY(source.Read(done, ByteSpan(block).first(count)));
      TRY(file.WriteAt(offset + done, ByteView(block).first(count)));
    } else {
      TRY(file.WriteAt(offset + done, view.subspan(done, count)));
    }
    done += count;
  }
  return {};
}

Status WriteChecked(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries, std::string_view header, bool replace) {
  OutputFile file = TRY(OutputFile::Create(path, kLengthBytes + header.size() + DataBytes(entries), {.replace = replace}));
  std::array<std::byte, kLengthBytes> length{};
  StoreLittle<uint64_t>(length.data(), header.size());
  TRY(file.WriteAt(0, length));
  TRY(file.WriteAt(kLengthBytes, AsBytes(header)));
  uint64_t position = kLengthBytes + header.size();
  std::vector<std::byte> block;
  for (const SafetensorsEntry& entry : entries) {
    const Status written = WriteSource(file, position, *entry.bytes, block);
    if (!written) return std::unexpected(WithContext(written.error(), Format("tensor \"{}\"", entry.name)));
    position += entry.bytes->size();
  }
  return file.Commit();
}

}  // namespace

Result<std::vector<TensorView>> ParseSafetensors(ByteView file, std::map<std::string, std::string>* metadata) {
  TRY(CheckNotText(file));
  const ByteView header = TRY(FindHeader(file));
  const ByteView data = file.subspan(kLengthBytes + header.size());
  std::vector<HeaderTensor> tensors = TRY(ParseHeader(header, data.size(), metadata));
  std::vector<TensorView> views;
  views.reserve(tensors.size());
  for (HeaderTensor& tensor : tensors) {
    const ByteView bytes = data.subspan(tensor.begin, tensor.end - tensor.begin);
    views.push_back(TRY(TensorView::Make(std::move(tensor.name), tensor.type, std::move(tensor.shape), bytes)));
  }
  return views;
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  SafetensorsFile opened;
  opened.file_ = TRY(MappedFile::Open(path));
  Result<std::vector<TensorView>> tensors = ParseSafetensors(opened.file_->bytes(), &opened.metadata_);
  if (!tensors) return std::unexpected(WithContext(std::move(tensors).error(), path.string()));
  opened.tensors_ = *std::move(tensors);
  return opened;
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(tensors_, name, {}, &TensorView::name);
  return found != tensors_.end() && found->name() == name ? &*found : nullptr;
}

Status WriteSafetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                        const std::map<std::string, std::string>& metadata, bool replace) {
  const Result<std::string> header = MakeHeader(entries, metadata);
  if (!header) return std::unexpected(WithContext(header.error(), path.string()));
  return WriteChecked(path, entries, *header, replace);
}

}  // namespace taskpress
