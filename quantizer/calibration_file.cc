#include "quantizer/calibration_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "schema/base/checked_math.h"
#include "schema/base/hash.h"
#include "schema/indexed_file.h"
#include "schema/json.h"
#include "schema/zstd_frame.h"

// H1 to H13 are the rules of FORMATS.md, section Calibration file.
namespace taskpress {
namespace {

constexpr IndexedFileKind kKind{.magic = "TPCALIB", .noun = "calibration file", .code = ErrorCode::kCalibrationFile};
constexpr size_t kMaxTextBytes = 1024;
constexpr int64_t kMaxTokens = int64_t{1} << 53;
constexpr std::string_view kSchema = "taskpress/calibration/1";
constexpr JsonLimits kIndexLimits{.max_bytes = kKind.max_index_bytes, .max_depth = 8};

template <typename... Args>
std::unexpected<Error> Damaged(std::format_string<const Args&...> format, const Args&... args) {
  return Fail<Args...>(ErrorCode::kCalibrationFile, format, args...);
}

std::string_view NameOf(MomentKind kind) { return kind == MomentKind::kFull ? "full" : "diagonal"; }

// A text of the file as it may appear in a message.
std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 100;
  return Json(std::string(text.substr(0, kShown))).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> TextAt(const Json& json, const char* key) {
  const Json& value = json[key];
  if (!value.is_string()) return Damaged("\"{}\" is {}, expected a text", key, value.type_name());
  const auto& text = value.get_ref<const std::string&>();
  if (text.empty() || text.size() > kMaxTextBytes || std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    return Damaged("\"{}\" is {}, expected 1 to {} bytes without control characters", key, Quoted(text), kMaxTextBytes);
  }
  return text;
}

Result<uint64_t> NumberAt(const Json& json, const char* key, uint64_t least, uint64_t most) {
  const Json& value = json[key];
  if (!value.is_number_unsigned() || value.get<uint64_t>() < least || value.get<uint64_t>() > most) {
    return Damaged("\"{}\" is {}, expected an integer from {} to {}", key,
                   Quoted(value.dump(-1, ' ', false, Json::error_handler_t::replace)), least, most);
  }
  return value.get<uint64_t>();
}

// Exactly these keys.
Status CheckKeys(const Json& json, std::string_view what, std::span<const std::string_view> keys) {
  const bool all =
      json.is_object() && json.size() == keys.size() && std::ranges::all_of(keys, [&](std::string_view key) { return json.contains(key); });
  if (all) return {};
  std::string list;
  for (const std::string_view key : keys) list += (list.empty() ? "" : ", ") + std::string(key);
  return Damaged("{} is not an object of exactly {}", what, list);
}

// H4 to H6
Result<CalibrationSite> ParseSite(const Json& json) {
  static constexpr std::array<std::string_view, 6> kKeys = {"name", "columns", "kind", "offset", "bytes", "crc32"};
  TRY(CheckKeys(json, "a site", kKeys));
  CalibrationSite site;
  site.name = TRY(TextAt(json, "name"));
  site.columns = static_cast<int64_t>(TRY(NumberAt(json, "columns", 1, kMaxMomentColumns)));
  const std::string kind = TRY(TextAt(json, "kind"));
  if (kind != NameOf(MomentKind::kFull) && kind != NameOf(MomentKind::kDiagonal)) return Damaged("\"kind\" is {}", Quoted(kind));
  site.kind = kind == NameOf(MomentKind::kFull) ? MomentKind::kFull : MomentKind::kDiagonal;
  site.offset = TRY(NumberAt(json, "offset", 0, UINT64_MAX));
  site.bytes = TRY(NumberAt(json, "bytes", 0, UINT64_MAX));
  site.crc32 = static_cast<uint32_t>(TRY(NumberAt(json, "crc32", 0, UINT32_MAX)));
  return site;
}

// H7
Status CheckLayout(std::span<const CalibrationSite> sites, std::optional<uint64_t> end) {
  const uint64_t bodies_end = end.value_or(UINT64_MAX);
  std::set<std::string_view> names;
  uint64_t position = kCalibrationHeaderBytes;
  for (const CalibrationSite& site : sites) {
    if (!names.insert(site.name).second) return Damaged("two sites are called {}", Quoted(site.name));
    if (site.offset != position) {
      return Damaged("site {}: begins at {}, the one before it ends at {}: {}", Quoted(site.name), site.offset, position,
                     site.offset < position ? "they overlap" : "a hole");
    }
    if (!RangeInside(site.offset, site.bytes, bodies_end)) {
      return Damaged("site {}: {} bytes at {} end behind {}; the file is truncated", Quoted(site.name), site.bytes, site.offset,
                     bodies_end);
    }
    position += site.bytes;
  }
  if (end && position != *end) return Damaged("sites end at {}, the index begins at {}", position, bodies_end);
  return {};
}

enum class Sign { kAny, kNotNegative };

// H10: reads as many values as `into` has and adds them. `scratch` is at least as large.
template <typename T>
Status ReadAndAdd(ZstdFrameReader& reader, std::span<T> into, std::span<T> scratch, Sign sign, bool maximum = false) {
  const std::span<T> values = scratch.first(into.size());
  TRY(reader.Read(std::as_writable_bytes(values)));
  for (size_t i = 0; i < into.size(); ++i) {
    if (!std::isfinite(values[i]) || (sign == Sign::kNotNegative && values[i] < 0)) return Damaged("holds the value {}", values[i]);
    into[i] = maximum ? std::max(into[i], values[i]) : into[i] + values[i];
  }
  return {};
}

Status ReadBody(ZstdFrameReader& reader, SecondMoments& into) {
  const auto tokens = TRY(reader.ReadOne<int64_t>());
  if (tokens < 0 || tokens > kMaxTokens - into.tokens) return Damaged("counts {} tokens", tokens);
  into.tokens += tokens;
  const auto columns = static_cast<size_t>(into.columns);
  std::vector<double> doubles(columns);
  std::vector<float> floats(columns);
  TRY(ReadAndAdd<double>(reader, std::span(&into.activation_step2, 1), doubles, Sign::kNotNegative));
  TRY(ReadAndAdd<double>(reader, into.sums, doubles, Sign::kAny));
  TRY(ReadAndAdd<double>(reader, into.squares, doubles, Sign::kNotNegative));
  TRY(ReadAndAdd<float>(reader, into.max_magnitudes, floats, Sign::kNotNegative, true));
  if (into.kind() == MomentKind::kDiagonal) return {};
  for (size_t row = 0; row < columns; ++row) {
    const std::span<float> values = std::span(into.products).subspan(row * columns, row + 1);
    TRY(ReadAndAdd<float>(reader, values.first(row), floats, Sign::kAny));
    TRY(ReadAndAdd<float>(reader, values.subspan(row), floats, Sign::kNotNegative));
  }
  return {};
}

// H8, H9
Status AddSite(ByteView file, const CalibrationSite& site, SecondMoments& into) {
  if (into.columns != site.columns || into.kind() != site.kind) {
    return Fail(ErrorCode::kQuantShape, "{} columns of kind {} cannot be added to {} of kind {}", site.columns, NameOf(site.kind),
                into.columns, NameOf(into.kind()));
  }
  if (!RangeInside(site.offset, site.bytes, file.size())) return Damaged("{} bytes at {} lie outside the file", site.bytes, site.offset);
  const ByteView frame = file.subspan(site.offset, site.bytes);
  if (Crc32(0, frame) != site.crc32) return Damaged("the CRC-32 of its {} bytes is wrong", site.bytes);
  const uint64_t needed = CalibrationBodyBytes(site.columns, site.kind);
  ZstdFrameReader reader = TRY(ZstdFrameReader::Open(frame, needed, ErrorCode::kCalibrationFile));
  TRY(ReadBody(reader, into));
  return reader.Finish();
}

}  // namespace

uint64_t CalibrationBodyBytes(int64_t columns, MomentKind kind) {
  const auto d = static_cast<uint64_t>(columns);
  return 16 + d * (8 + 8 + 4) + (kind == MomentKind::kFull ? d * (d + 1) / 2 * 4 : 0);
}

std::vector<std::byte> FormatCalibrationHeader(uint64_t offset, std::string_view index) {
  return FormatIndexedHeader(kKind, offset, index);
}

Result<std::string> FormatCalibrationIndex(const CalibrationIndex& index) {
  OrderedJson json;
  json["schema"] = kSchema;
  json["taskpress"] = index.info.version;
  json["model"] = index.info.model;
  json["token_hash"] = index.info.token_hash;
  json["tokens"] = index.info.tokens;
  json["sites"] = OrderedJson::array();
  for (const CalibrationSite& site : index.sites) {
    json["sites"].push_back(OrderedJson{{"name", site.name},
                                        {"columns", site.columns},
                                        {"kind", NameOf(site.kind)},
                                        {"offset", site.offset},
                                        {"bytes", site.bytes},
                                        {"crc32", site.crc32}});
  }
  try {
    return json.dump();
  } catch (const OrderedJson::exception& error) {
    return Damaged("a name is not UTF-8: {}", error.what());
  }
}

Result<CalibrationIndex> ParseCalibrationIndex(ByteView text, std::optional<uint64_t> bodies_end) {
  const Result<Json> json = ParseJson(text, kIndexLimits);
  if (!json) return Damaged("the index is not strict JSON: {}", json.error().message);
  static constexpr std::array<std::string_view, 6> kKeys = {"schema", "taskpress", "model", "token_hash", "tokens", "sites"};
  TRY(CheckKeys(*json, "the index", kKeys));
  if (TRY(TextAt(*json, "schema")) != kSchema) return Damaged("\"schema\" is not {}", kSchema);
  CalibrationIndex index;
  index.info.version = TRY(TextAt(*json, "taskpress"));
  index.info.model = TRY(TextAt(*json, "model"));
  index.info.token_hash = TRY(TextAt(*json, "token_hash"));
  index.info.tokens = static_cast<int64_t>(TRY(NumberAt(*json, "tokens", 0, kMaxTokens)));
  const Json& sites = (*json)["sites"];
  if (!sites.is_array()) return Damaged("\"sites\" is {}, expected a list", sites.type_name());
  for (const Json& site : sites) index.sites.push_back(TRY(ParseSite(site)));
  TRY(CheckLayout(index.sites, bodies_end));
  return index;
}

// H1, H2
Result<CalibrationIndex> ParseCalibration(ByteView file) {
  const IndexPlace place = TRY(ParseIndexedHeader(kKind, file));
  return ParseCalibrationIndex(file.subspan(place.offset, place.bytes), place.offset);
}

Status AddCalibrationSite(ByteView file, const CalibrationSite& site, SecondMoments& into) {
  Status added = AddSite(file, site, into);
  if (!added) return std::unexpected(WithContext(std::move(added).error(), Format("site {}", Quoted(site.name))));
  return added;
}

Result<CalibrationFile> CalibrationFile::Open(const std::filesystem::path& path) {
  CalibrationFile opened;
  opened.file_ = TRY(MappedFile::Open(path));
  Result<CalibrationIndex> index = ParseCalibration(opened.file_->bytes());
  TRY(opened.file_->CheckUnchanged());
  if (!index) return std::unexpected(WithContext(std::move(index).error(), opened.file_->name()));
  opened.index_ = *std::move(index);
  return opened;
}

const CalibrationSite* CalibrationFile::Find(std::string_view name) const {
  const auto found = std::ranges::find(index_.sites, name, &CalibrationSite::name);
  return found == index_.sites.end() ? nullptr : &*found;
}

Result<SecondMoments> CalibrationFile::Read(const CalibrationSite& site) const {
  SecondMoments moments = TRY(MakeMoments(site.columns, site.kind));
  TRY(AddTo(site, moments));
  return moments;
}

Status CalibrationFile::AddTo(const CalibrationSite& site, SecondMoments& into) const {
  file_->WillRead(site.offset, site.bytes);
  Status added = AddCalibrationSite(file_->bytes(), site, into);
  file_->Forget(site.offset, site.bytes);
  TRY(file_->CheckUnchanged());
  if (!added) return std::unexpected(WithContext(std::move(added).error(), file_->name()));
  return added;
}

}  // namespace taskpress
