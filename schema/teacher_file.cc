#include "schema/teacher_file.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "schema/base/checked_math.h"
#include "schema/base/half.h"
#include "schema/base/hash.h"
#include "schema/indexed_file.h"
#include "schema/json.h"

// T1 to T12 are the rules of FORMATS.md, section Teacher file.
namespace taskpress {
namespace {

constexpr IndexedFileKind kKind{.magic = "TPTEACH", .noun = "teacher file", .code = ErrorCode::kTeacherFile};
constexpr std::string_view kSchema = "taskpress/teacher/1";
constexpr JsonLimits kIndexLimits{.max_bytes = kKind.max_index_bytes, .max_depth = 8};
constexpr size_t kMaxTextBytes = 1024;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxTop = 1 << 16;
constexpr int64_t kMaxWindowTokens = 1 << 20;
// How far the probabilities of a row may be from adding up to 1: float32 sums, and values of 11 bits.
constexpr double kTopTolerance = 1e-3;
constexpr double kFullTolerance = 0.02;
// Random-looking floats shrink little, and that at any level.
constexpr int kLevel = 1;

template <typename... Args>
std::unexpected<Error> Damaged(std::format_string<const Args&...> format, const Args&... args) {
  return Fail<Args...>(ErrorCode::kTeacherFile, format, args...);
}

std::string_view NameOf(TeacherKind kind) { return kind == TeacherKind::kTop ? "top" : "full"; }

// A value of the file as it may appear in a message.
std::string Shown(const Json& value) {
  constexpr size_t kShown = 100;
  return value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, kShown);
}

Status CheckText(const char* key, const std::string& text) {
  const bool control = std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (!text.empty() && text.size() <= kMaxTextBytes && !control) return {};
  return Damaged("\"{}\" is {}, expected 1 to {} bytes without control characters", key, Shown(text), kMaxTextBytes);
}

Result<std::string> TextAt(const Json& json, const char* key) {
  const Json& value = json[key];
  if (!value.is_string()) return Damaged("\"{}\" is {}, expected a text", key, value.type_name());
  TRY(CheckText(key, value.get_ref<const std::string&>()));
  return value.get<std::string>();
}

Result<uint64_t> NumberAt(const Json& json, const char* key, uint64_t least, uint64_t most) {
  const Json& value = json[key];
  if (value.is_number_unsigned() && value.get<uint64_t>() >= least && value.get<uint64_t>() <= most) return value.get<uint64_t>();
  return Damaged("\"{}\" is {}, expected an integer from {} to {}", key, Shown(value), least, most);
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

// T4
Status CheckSizes(const TeacherInfo& info) {
  if (info.vocab_size < 2 || info.vocab_size > kMaxVocab) return Damaged("a vocabulary of {} tokens", info.vocab_size);
  const int64_t most = std::min(info.vocab_size, kMaxTop);
  if (info.top >= 1 && info.top <= most) return {};
  return Damaged("names {} tokens per position, expected 1 to {}", info.top, most);
}

// T5
Result<TeacherWindow> ParseWindow(const Json& json) {
  static constexpr std::array<std::string_view, 4> kKeys = {"tokens", "offset", "bytes", "crc32"};
  TRY(CheckKeys(json, "a window", kKeys));
  TeacherWindow window;
  window.tokens = static_cast<int64_t>(TRY(NumberAt(json, "tokens", 1, kMaxWindowTokens)));
  window.offset = TRY(NumberAt(json, "offset", 0, UINT64_MAX));
  window.bytes = TRY(NumberAt(json, "bytes", 0, UINT64_MAX));
  window.crc32 = static_cast<uint32_t>(TRY(NumberAt(json, "crc32", 0, UINT32_MAX)));
  return window;
}

// T6
Status CheckLayout(std::span<const TeacherWindow> windows, uint64_t end) {
  uint64_t position = kIndexedHeaderBytes;
  for (size_t i = 0; i < windows.size(); ++i) {
    const TeacherWindow& window = windows[i];
    if (window.offset != position) {
      return Damaged("window {}: begins at {}, the one before it ends at {}: {}", i, window.offset, position,
                     window.offset < position ? "they overlap" : "a hole");
    }
    if (!RangeInside(window.offset, window.bytes, end)) {
      return Damaged("window {}: {} bytes at {} end behind {}; the file is truncated", i, window.bytes, window.offset, end);
    }
    position += window.bytes;
  }
  if (position != end) return Damaged("windows end at {}, the index begins at {}", position, end);
  return {};
}

Result<TeacherIndex> ParseIndex(ByteView text, uint64_t bodies_end) {
  const Result<Json> json = ParseJson(text, kIndexLimits);
  if (!json) return Damaged("the index is not strict JSON: {}", json.error().message);
  static constexpr std::array<std::string_view, 7> kKeys = {"schema", "taskpress", "teacher", "kind", "vocab_size", "top", "windows"};
  TRY(CheckKeys(*json, "the index", kKeys));
  if (TRY(TextAt(*json, "schema")) != kSchema) return Damaged("\"schema\" is not {}", kSchema);
  TeacherIndex index;
  index.info.version = TRY(TextAt(*json, "taskpress"));
  index.info.teacher = TRY(TextAt(*json, "teacher"));
  const std::string kind = TRY(TextAt(*json, "kind"));
  if (kind != NameOf(TeacherKind::kTop) && kind != NameOf(TeacherKind::kFull)) return Damaged("\"kind\" is {}", Shown(kind));
  index.info.kind = kind == NameOf(TeacherKind::kTop) ? TeacherKind::kTop : TeacherKind::kFull;
  index.info.vocab_size = static_cast<int64_t>(TRY(NumberAt(*json, "vocab_size", 0, INT64_MAX)));
  index.info.top = static_cast<int64_t>(TRY(NumberAt(*json, "top", 0, INT64_MAX)));
  TRY(CheckSizes(index.info));
  const Json& windows = (*json)["windows"];
  if (!windows.is_array()) return Damaged("\"windows\" is {}, expected a list", windows.type_name());
  for (const Json& window : windows) index.windows.push_back(TRY(ParseWindow(window)));
  TRY(CheckLayout(index.windows, bodies_end));
  return index;
}

Status CheckTokens(std::span<const int32_t> tokens, int64_t vocab_size) {
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size) return Damaged("holds the token {} of a vocabulary of {}", token, vocab_size);
  }
  return {};
}

// Strictly below zero or zero, and a number.
bool IsLogProbability(float value) { return std::isfinite(value) && value <= 0; }

// T10
Status CheckTeacherRow(const TeacherInfo& info, const TeacherRow& row, bool is_last) {
  if (!IsLogProbability(row.next) || (is_last && row.next != 0)) return Damaged("the next token has the log-probability {}", row.next);
  if (!(row.tail >= 0 && row.tail <= 1) || (info.kind == TeacherKind::kFull && row.tail != 0)) return Damaged("a tail of {}", row.tail);
  TRY(CheckTokens(row.ids, info.vocab_size));
  std::vector<int32_t> sorted = row.ids;
  std::ranges::sort(sorted);
  if (std::ranges::adjacent_find(sorted) != sorted.end()) return Damaged("names the token {} twice", *std::ranges::adjacent_find(sorted));
  double sum = static_cast<double>(row.tail);
  for (const float value : row.log_probabilities) {
    if (!IsLogProbability(value)) return Damaged("holds the log-probability {}", value);
    sum += std::exp(static_cast<double>(value));
  }
  const bool top = info.kind == TeacherKind::kTop;
  if (top && !std::ranges::is_sorted(row.log_probabilities, std::ranges::greater())) return Damaged("a less likely token comes first");
  const double tolerance = top ? kTopTolerance : kFullTolerance;
  if (std::abs(sum - 1) > tolerance) return Damaged("the probabilities add up to {}, not 1", sum);
  return {};
}

Status InWindow(Status status, size_t position) {
  if (status) return status;
  return std::unexpected(WithContext(std::move(status).error(), Format("position {}", position)));
}

}  // namespace

uint64_t TeacherBodyBytes(const TeacherInfo& info, int64_t tokens) {
  const uint64_t values = info.kind == TeacherKind::kTop ? 4 * static_cast<uint64_t>(info.top) : 2 * static_cast<uint64_t>(info.vocab_size);
  return static_cast<uint64_t>(tokens) * (4 + 8 + 4 * static_cast<uint64_t>(info.top) + values);
}

Result<std::string> FormatTeacherIndex(const TeacherIndex& index) {
  OrderedJson json{{"schema", kSchema},
                   {"taskpress", index.info.version},
                   {"teacher", index.info.teacher},
                   {"kind", NameOf(index.info.kind)},
                   {"vocab_size", index.info.vocab_size},
                   {"top", index.info.top},
                   {"windows", OrderedJson::array()}};
  for (const TeacherWindow& window : index.windows) {
    json["windows"].push_back(
        OrderedJson{{"tokens", window.tokens}, {"offset", window.offset}, {"bytes", window.bytes}, {"crc32", window.crc32}});
  }
  try {
    return json.dump();
  } catch (const OrderedJson::exception& error) {
    return Damaged("a name is not UTF-8: {}", error.what());
  }
}

// T1, T2
Result<TeacherIndex> ParseTeacher(ByteView file) {
  const IndexPlace place = TRY(ParseIndexedHeader(kKind, file));
  return ParseIndex(file.subspan(place.offset, place.bytes), place.offset);
}

// T7, T8
Result<TeacherWindowReader> TeacherWindowReader::Open(ByteView file, const TeacherInfo& info, const TeacherWindow& window) {
  TRY(CheckSizes(info));
  if (window.tokens < 1 || window.tokens > kMaxWindowTokens) return Damaged("a window of {} tokens", window.tokens);
  if (!RangeInside(window.offset, window.bytes, file.size())) {
    return Damaged("{} bytes at {} lie outside the file", window.bytes, window.offset);
  }
  const ByteView body = file.subspan(window.offset, window.bytes);
  if (Crc32(0, body) != window.crc32) return Damaged("the CRC-32 of a window's {} bytes is wrong", window.bytes);
  ZstdFrameReader frame = TRY(ZstdFrameReader::Open(body, TeacherBodyBytes(info, window.tokens), ErrorCode::kTeacherFile));
  std::vector<int32_t> tokens(static_cast<size_t>(window.tokens));
  TRY(frame.ReadInto(std::span(tokens)));
  TRY(CheckTokens(tokens, info.vocab_size));  // T9
  return TeacherWindowReader(std::move(frame), info, std::move(tokens));
}

Status TeacherWindowReader::CheckRow(const TeacherRow& row) const { return CheckTeacherRow(info_, row, position_ + 1 == tokens_.size()); }

Status TeacherWindowReader::Read(TeacherRow& row) {
  if (position_ == tokens_.size()) return Damaged("a window of {} tokens has no position {}", tokens_.size(), position_);
  row.next = TRY(frame_.ReadOne<float>());
  row.tail = TRY(frame_.ReadOne<float>());
  row.ids.resize(static_cast<size_t>(info_.top));
  TRY(frame_.ReadInto(std::span(row.ids)));
  row.log_probabilities.resize(static_cast<size_t>(info_.kind == TeacherKind::kTop ? info_.top : info_.vocab_size));
  if (info_.kind == TeacherKind::kTop) {
    TRY(frame_.ReadInto(std::span(row.log_probabilities)));
  } else {
    halves_.resize(row.log_probabilities.size());
    TRY(frame_.ReadInto(std::span(halves_)));
    std::ranges::transform(halves_, row.log_probabilities.begin(), F16ToFloat);
  }
  TRY(InWindow(CheckRow(row), position_));
  if (++position_ == tokens_.size()) TRY(frame_.Finish());
  return {};
}

Result<TeacherFile> TeacherFile::Open(const std::filesystem::path& path) {
  TeacherFile opened;
  opened.file_ = TRY(MappedFile::Open(path));
  Result<TeacherIndex> index = ParseTeacher(opened.file_->bytes());
  TRY(opened.file_->CheckUnchanged());
  if (!index) return std::unexpected(WithContext(std::move(index).error(), path.string()));
  opened.index_ = *std::move(index);
  return opened;
}

Result<TeacherWindowReader> TeacherFile::OpenWindow(const TeacherWindow& window) const {
  Result<TeacherWindowReader> reader = TeacherWindowReader::Open(file_->bytes(), index_.info, window);
  TRY(file_->CheckUnchanged());
  if (!reader) return std::unexpected(WithContext(std::move(reader).error(), file_->name()));
  return reader;
}

Result<TeacherWriter> TeacherWriter::Create(const std::filesystem::path& path, TeacherInfo info, bool replace) {
  // What the reader would refuse is refused before the work.
  const std::string text = TRY(FormatTeacherIndex({.info = info, .windows = {}}));
  TRY(ParseIndex(AsBytes(text), kIndexedHeaderBytes));
  OutputFile file = TRY(OutputFile::Create(path, 0, {.replace = replace}));
  TeacherWriter writer(std::move(file), std::move(info));
  writer.end_ = kIndexedHeaderBytes;
  return writer;
}

Status TeacherWriter::BeginWindow(std::span<const int32_t> tokens) {
  if (rows_left_ != 0) return Damaged("a window begins where the one before it lacks {} positions", rows_left_);
  const auto count = static_cast<int64_t>(tokens.size());
  if (count < 1 || count > kMaxWindowTokens) return Damaged("a window of {} tokens", count);
  TRY(CheckTokens(tokens, index_.info.vocab_size));
  index_.windows.push_back({.tokens = count, .offset = end_});
  frame_.emplace(file_, end_, TeacherBodyBytes(index_.info, count), kLevel);
  rows_left_ = count;
  return frame_->Write(std::as_bytes(tokens));
}

Status TeacherWriter::AddRow(const TeacherRow& row) {
  const TeacherInfo& info = index_.info;
  if (rows_left_ == 0) return Damaged("a position too many");
  const size_t values = static_cast<size_t>(info.kind == TeacherKind::kTop ? info.top : info.vocab_size);
  if (std::ssize(row.ids) != info.top || row.log_probabilities.size() != values) {
    return Damaged("a position of {} tokens and {} values, expected {} and {}", row.ids.size(), row.log_probabilities.size(), info.top,
                   values);
  }
  TRY(InWindow(CheckTeacherRow(info, row, rows_left_ == 1), static_cast<size_t>(index_.windows.back().tokens - rows_left_)));
  TRY(frame_->WriteOne(row.next));
  TRY(frame_->WriteOne(row.tail));
  TRY(frame_->Write(std::as_bytes(std::span(row.ids))));
  if (info.kind == TeacherKind::kTop) {
    TRY(frame_->Write(std::as_bytes(std::span(row.log_probabilities))));
  } else {
    std::vector<uint16_t> halves(values);
    std::ranges::transform(row.log_probabilities, halves.begin(), FloatToF16);
    TRY(frame_->Write(std::as_bytes(std::span(halves))));
  }
  if (--rows_left_ > 0) return {};
  TRY(frame_->Finish());
  TeacherWindow& window = index_.windows.back();
  window.bytes = frame_->bytes();
  window.crc32 = frame_->crc32();
  end_ += window.bytes;
  return {};
}

// T12
Status TeacherWriter::Commit() {
  if (rows_left_ != 0) return Damaged("the last window lacks {} positions", rows_left_);
  const std::string text = TRY(FormatTeacherIndex(index_));
  TRY(ParseIndex(AsBytes(text), end_));
  if (text.size() > kKind.max_index_bytes) return Damaged("an index of {} bytes exceeds {}", text.size(), kKind.max_index_bytes);
  TRY(file_.WriteAt(end_, AsBytes(text)));
  TRY(file_.WriteAt(0, FormatIndexedHeader(kKind, end_, text)));
  return file_.Commit();
}

}  // namespace taskpress
