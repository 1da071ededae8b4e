#include "schema/teacher_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <cmath>
#include <limits>

#include "schema/base/error.h"
#include "schema/base/half.h"
#include "schema/base/hash.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

TeacherInfo Info(TeacherKind kind = TeacherKind::kTop) {
  return {.teacher = "sha256:ab", .version = "0.1.0", .kind = kind, .vocab_size = 4, .top = 2};
}

// Halves, quarters and eighths, whose float16 logarithms are near enough.
TeacherRow Row(TeacherKind kind, bool last) {
  TeacherRow row{.next = last ? 0.0F : std::log(0.25F), .ids = {3, 1}};
  const std::vector<float> shares =
      kind == TeacherKind::kTop ? std::vector<float>{0.5F, 0.25F} : std::vector<float>{0.125F, 0.25F, 0.125F, 0.5F};
  if (kind == TeacherKind::kTop) row.tail = 0.25F;
  for (const float share : shares) row.log_probabilities.push_back(std::log(share));
  return row;
}

// Windows of three tokens and of one.
std::filesystem::path WriteSmall(const TempFolder& folder, std::string_view name, TeacherKind kind = TeacherKind::kTop) {
  const std::filesystem::path path = folder.path() / name;
  Result<TeacherWriter> writer = TeacherWriter::Create(path, Info(kind));
  EXPECT_TRUE(writer.has_value()) << writer.error().message;
  EXPECT_TRUE(writer->BeginWindow(std::vector<int32_t>{2, 3, 0}));
  for (const bool last : {false, false, true}) EXPECT_TRUE(writer->AddRow(Row(kind, last)));
  EXPECT_TRUE(writer->BeginWindow(std::vector<int32_t>{1}));
  EXPECT_TRUE(writer->AddRow(Row(kind, true)));
  EXPECT_TRUE(writer->Commit());
  return path;
}

// Every row of every window, or the first error.
Status ReadAll(ByteView file) {
  const TeacherIndex index = TRY(ParseTeacher(file));
  for (const TeacherWindow& window : index.windows) {
    TeacherWindowReader reader = TRY(TeacherWindowReader::Open(file, index.info, window));
    TeacherRow row;
    for (int64_t i = 0; i < window.tokens; ++i) TRY(reader.Read(row));
  }
  return {};
}

TEST(TeacherFile, GivesBackWhatWasWrittenAndEqualBytesForEqualRows) {
  for (const TeacherKind kind : {TeacherKind::kTop, TeacherKind::kFull}) {
    const TempFolder folder;
    const std::filesystem::path path = WriteSmall(folder, "x.teacher", kind);
    const Result<TeacherFile> file = TeacherFile::Open(path);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    EXPECT_EQ(file->info(), Info(kind));
    ASSERT_EQ(file->windows().size(), 2U);
    Result<TeacherWindowReader> reader = file->OpenWindow(file->windows()[0]);
    ASSERT_TRUE(reader.has_value()) << reader.error().message;
    EXPECT_TRUE(std::ranges::equal(reader->tokens(), std::vector<int32_t>{2, 3, 0}));
    for (const bool last : {false, false, true}) {
      TeacherRow row;
      ASSERT_TRUE(reader->Read(row));
      const TeacherRow expected = Row(kind, last);
      EXPECT_EQ(row.next, expected.next);
      EXPECT_EQ(row.tail, expected.tail);
      EXPECT_EQ(row.ids, expected.ids);
      ASSERT_EQ(row.log_probabilities.size(), expected.log_probabilities.size());
      for (size_t i = 0; i < row.log_probabilities.size(); ++i) {
        const float wanted = expected.log_probabilities[i];
        EXPECT_EQ(row.log_probabilities[i], kind == TeacherKind::kTop ? wanted : F16ToFloat(FloatToF16(wanted)));
      }
    }
    TeacherRow beyond;
    EXPECT_EQ(reader->Read(beyond).error().code, ErrorCode::kTeacherFile);
    EXPECT_EQ(ReadFileBytes(WriteSmall(folder, "y.teacher", kind)), ReadFileBytes(path));
    EXPECT_FALSE(std::filesystem::exists(PartPath(path)));
  }
}

TEST(TeacherFile, IsRefusedWhenCutAtAnyByte) {
  const TempFolder folder;
  const std::string whole = ReadFileBytes(WriteSmall(folder, "x"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const Result<TeacherIndex> index = ParseTeacher(AsBytes(std::string_view(whole).substr(0, size)));
    ASSERT_FALSE(index.has_value()) << size;
    EXPECT_EQ(index.error().code, ErrorCode::kTeacherFile);
  }
  EXPECT_TRUE(ReadAll(AsBytes(whole)));
}

TEST(TeacherFile, EveryChangedByteIsNoticed) {
  const TempFolder folder;
  const std::string whole = ReadFileBytes(WriteSmall(folder, "x"));
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    const Status status = ReadAll(AsBytes(changed));
    ASSERT_FALSE(status.has_value()) << at;
    EXPECT_EQ(status.error().code, ErrorCode::kTeacherFile) << at;
  }
}

// A file put together by hand.
std::string Header(std::string_view index, uint64_t offset, uint64_t bytes, uint32_t version = 1, uint32_t zeros = 0) {
  std::string header("TPTEACH\0", 8);
  header += RawBytes({version, zeros}) + RawBytes({offset, bytes}) + RawBytes({Crc32(0, AsBytes(index))});
  return header + RawBytes({Crc32(0, AsBytes(header))});
}
std::string WithIndex(std::string_view index, std::string_view bodies = "") {
  return Header(index, 40 + bodies.size(), index.size()) + std::string(bodies) + std::string(index);
}
std::string Index(std::string_view windows, std::string_view sizes = R"("kind":"top","vocab_size":4,"top":2)",
                  std::string_view texts = R"("taskpress":"1","teacher":"t")", std::string_view schema = "taskpress/teacher/1") {
  return Format(R"({{"schema":"{}",{},{},"windows":{}}})", schema, texts, sizes, windows);
}
std::string Window(std::string_view offset, std::string_view bytes, std::string_view tokens = "1", std::string_view crc = "0") {
  return Format(R"({{"tokens":{},"offset":{},"bytes":{},"crc32":{}}})", tokens, offset, bytes, crc);
}
std::string OneWindow(const std::string& window) { return WithIndex(Index("[" + window + "]"), "12345678"); }

struct Lie {
  std::string_view name;
  std::string file;
  std::string_view message;
};

std::vector<Lie> Lies() {
  const std::string empty = Index("[]");
  std::string wrong_magic = WithIndex(empty);
  wrong_magic[3] = 'X';
  std::string not_zero = WithIndex(empty);
  not_zero[7] = '1';
  std::string wrong_crc = WithIndex(empty);
  wrong_crc[20] = static_cast<char>(wrong_crc[20] ^ 1);
  std::string wrong_index = WithIndex(empty);
  wrong_index.back() = ' ';
  return {
      {"T1 empty", "", "truncated"},
      {"T1 magic", wrong_magic, "no teacher file"},
      {"T1 magic without its zero", not_zero, "no teacher file"},
      {"T1 header crc", wrong_crc, "CRC-32 of the header"},
      {"T1 version", Header(empty, 40, empty.size(), 2) + empty, "is of version 2"},
      {"T1 zeros", Header(empty, 40, empty.size(), 1, 7) + empty, "not zero"},
      {"T2 index inside the header", Header(empty, 39, empty.size()) + empty, "does not end with the file"},
      {"T2 index too short", Header(empty, 40, empty.size() - 1) + empty, "does not end with the file"},
      {"T2 index far away", Header(empty, ~0ULL - 3, empty.size()) + empty, "does not end with the file"},
      {"T2 index without end", Header(empty, 40, ~0ULL) + empty, "does not end with the file"},
      {"T2 something behind", WithIndex(empty) + "x", "does not end with the file"},
      {"T2 index too large", WithIndex(std::string((16 << 20) + 1, ' ')), "exceeds"},
      {"T2 index crc", wrong_index, "CRC-32 of the index"},
      {"T3 no JSON", WithIndex("{"), "not strict JSON"},
      {"T3 duplicate key", WithIndex(R"({"windows":[],"windows":[]})"), "duplicate"},
      {"T3 deep", WithIndex(Index(std::string(20, '[') + std::string(20, ']'))), "nested deeper"},
      {"T3 list", WithIndex("[]"), "object of exactly"},
      {"T3 missing key", WithIndex(Index("[]", R"("kind":"top","top":2)")), "object of exactly"},
      {"T3 unknown key", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":2,"x":1)")), "object of exactly"},
      {"T3 schema", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":2)", R"("taskpress":"1","teacher":"t")", "other")),
       "schema"},
      {"T3 no teacher", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":2)", R"("taskpress":"1","teacher":"")")), "teacher"},
      {"T3 teacher number", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":2)", R"("taskpress":"1","teacher":1)")), "teacher"},
      {"T3 control", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":2)", R"("taskpress":"\n","teacher":"t")")), "control"},
      {"T3 windows", WithIndex(Index("{}")), "expected a list"},
      {"T4 kind", WithIndex(Index("[]", R"("kind":"all","vocab_size":4,"top":2)")), "kind"},
      {"T4 vocabulary of one", WithIndex(Index("[]", R"("kind":"top","vocab_size":1,"top":1)")), "vocabulary of 1"},
      {"T4 vocabulary too large", WithIndex(Index("[]", R"("kind":"top","vocab_size":16777217,"top":1)")), "vocabulary of 16777217"},
      {"T4 vocabulary text", WithIndex(Index("[]", R"("kind":"top","vocab_size":"4","top":1)")), "vocab_size"},
      {"T4 no top", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":0)")), "names 0 tokens"},
      {"T4 more than there are", WithIndex(Index("[]", R"("kind":"top","vocab_size":4,"top":5)")), "names 5 tokens"},
      {"T4 too many", WithIndex(Index("[]", R"("kind":"top","vocab_size":100000,"top":65537)")), "names 65537 tokens"},
      {"T5 window", OneWindow("7"), "a window is not an object"},
      {"T5 window key", OneWindow(R"({"tokens":1})"), "a window is not an object"},
      {"T5 no tokens", OneWindow(Window("40", "8", "0")), "tokens"},
      {"T5 too many tokens", OneWindow(Window("40", "8", "1048577")), "tokens"},
      {"T5 offset", OneWindow(Window("-1", "8")), "offset"},
      {"T5 bytes", OneWindow(Window("40", "8.0")), "bytes"},
      {"T5 crc", OneWindow(Window("40", "8", "1", "4294967296")), "crc32"},
      {"T6 in the header", OneWindow(Window("32", "16")), "overlap"},
      {"T6 hole in front", OneWindow(Window("41", "7")), "a hole"},
      {"T6 hole behind", OneWindow(Window("40", "7")), "the index begins at 48"},
      {"T6 into the index", OneWindow(Window("40", "9")), "end behind"},
      {"T6 without end", OneWindow(Window("40", "18446744073709551615")), "end behind"},
      {"T6 overlap", WithIndex(Index("[" + Window("40", "6") + "," + Window("44", "4") + "]"), "12345678"), "overlap"},
      {"T6 hole", WithIndex(Index("[" + Window("40", "3") + "," + Window("44", "4") + "]"), "12345678"), "a hole"},
      {"T6 bodies of nobody", WithIndex(empty, "12345678"), "the index begins at 48"},
  };
}

TEST(TeacherFile, RefusesLies) {
  ASSERT_TRUE(ParseTeacher(AsBytes(WithIndex(Index("[]")))));
  ASSERT_TRUE(ParseTeacher(AsBytes(OneWindow(Window("40", "8")))));
  for (const Lie& lie : Lies()) {
    const Result<TeacherIndex> index = ParseTeacher(AsBytes(lie.file));
    ASSERT_FALSE(index.has_value()) << lie.name;
    EXPECT_EQ(index.error().code, ErrorCode::kTeacherFile) << lie.name;
    EXPECT_THAT(index.error().message, HasSubstr(lie.message)) << lie.name;
  }
}

// The body of one token, of which fields can lie.
struct RawBody {
  int32_t token = 2;
  float next = 0;
  float tail = 0.25F;
  std::vector<int32_t> ids = {3, 1};
  std::vector<float> values = {std::log(0.5F), std::log(0.25F)};
  [[nodiscard]] std::string bytes() const {
    return RawBytes({token}) + RawBytes({next, tail}) + RawBytes(std::span<const int32_t>(ids)) + RawBytes(std::span<const float>(values));
  }
};

std::string Compressed(const std::string& content) {
  std::string frame(ZSTD_compressBound(content.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), content.data(), content.size(), 1));
  return frame;
}

Status ReadBody(const std::string& body, std::string_view sizes = R"("kind":"top","vocab_size":4,"top":2)", std::string_view tokens = "1") {
  const std::string crc = std::to_string(Crc32(0, AsBytes(body)));
  const std::string file = WithIndex(Index("[" + Window("40", std::to_string(body.size()), tokens, crc) + "]", sizes), body);
  return ReadAll(AsBytes(file));
}

TEST(TeacherFile, RefusesBodiesThatLie) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::string frame = Compressed(RawBody{}.bytes());
  const Status honest = ReadBody(frame);
  ASSERT_TRUE(honest.has_value()) << honest.error().message;
  const std::vector<std::pair<std::string, std::string>> lies = {
      {"", "zstd"},
      {"no frame at all", "zstd"},
      {frame.substr(0, frame.size() - 1), "one zstd frame"},
      {frame + "x", "one zstd frame"},
      {frame + frame, "one zstd frame"},
      {Compressed(RawBody{}.bytes() + "x"), "no zstd frame of 28 bytes"},
      {Compressed(RawBody{}.bytes().substr(1)), "no zstd frame of 28 bytes"},
      {Compressed(RawBody{.token = 4}.bytes()), "token 4 of a vocabulary of 4"},
      {Compressed(RawBody{.token = -1}.bytes()), "token -1"},
      {Compressed(RawBody{.next = 1}.bytes()), "log-probability 1"},
      {Compressed(RawBody{.next = kNan}.bytes()), "log-probability nan"},
      {Compressed(RawBody{.next = -kInfinity}.bytes()), "log-probability -inf"},
      {Compressed(RawBody{.next = -1}.bytes()), "log-probability -1"},  // of the last position
      {Compressed(RawBody{.tail = -0.25F}.bytes()), "a tail of -0.25"},
      {Compressed(RawBody{.tail = 1.5F}.bytes()), "a tail of 1.5"},
      {Compressed(RawBody{.tail = kNan}.bytes()), "a tail of nan"},
      {Compressed(RawBody{.tail = 0.5F}.bytes()), "add up to"},
      {Compressed(RawBody{.ids = {3, 4}}.bytes()), "token 4"},
      {Compressed(RawBody{.ids = {-3, 1}}.bytes()), "token -3"},
      {Compressed(RawBody{.ids = {3, 3}}.bytes()), "token 3 twice"},
      {Compressed(RawBody{.values = {std::log(0.25F), std::log(0.5F)}}.bytes()), "a less likely token comes first"},
      {Compressed(RawBody{.values = {0.1F, -2}}.bytes()), "log-probability 0.1"},
      {Compressed(RawBody{.values = {kNan, -2}}.bytes()), "log-probability nan"},
      {Compressed(RawBody{.values = {-0.1F, -kInfinity}}.bytes()), "log-probability -inf"},
  };
  for (const auto& [body, message] : lies) {
    const Status status = ReadBody(body);
    ASSERT_FALSE(status.has_value()) << message;
    EXPECT_EQ(status.error().code, ErrorCode::kTeacherFile) << message;
    EXPECT_THAT(status.error().message, HasSubstr(message));
  }
  EXPECT_FALSE(ReadBody(frame, R"("kind":"top","vocab_size":4,"top":1)"));
  EXPECT_FALSE(ReadBody(frame, R"("kind":"full","vocab_size":3,"top":2)")) << "a tail, and not one of 4 values";
  EXPECT_FALSE(ReadBody(frame, R"("kind":"top","vocab_size":4,"top":2)", "2"));
  const TeacherWindow wrong{.tokens = 1, .offset = 40, .bytes = 8, .crc32 = 1};
  EXPECT_THAT(TeacherWindowReader::Open(AsBytes(OneWindow(Window("40", "8"))), Info(), wrong).error().message, HasSubstr("CRC-32"));
}

// What declares more than memory holds is unpacked token by token and row by row, and is over where it is.
TEST(TeacherFile, AHugeWindowCostsNoMoreThanItsTokensAndARow) {
  const std::string body = Compressed(std::string((size_t{1} << 16) * (4 + 8 + 4 * 2 + 4 * 2), '\0'));
  EXPECT_THAT(ReadBody(body, R"("kind":"top","vocab_size":4,"top":2)", "65536").error().message, HasSubstr("position 0"));
}

TEST(TeacherWriter, LeavesNothingUnderTheNameUntilItIsDone) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "x";
  {
    Result<TeacherWriter> writer = TeacherWriter::Create(path, Info());
    ASSERT_TRUE(writer && writer->BeginWindow(std::vector<int32_t>{1}));
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  WriteSmall(folder, "x");
  EXPECT_EQ(TeacherWriter::Create(path, Info()).error().code, ErrorCode::kOutputExists);
  EXPECT_TRUE(TeacherWriter::Create(path, Info(), true));
}

TEST(TeacherWriter, RefusesWhatTheReaderWould) {
  const TempFolder folder;
  TeacherInfo info = Info();
  for (const auto& [change, value] : std::vector<std::pair<int64_t TeacherInfo::*, int64_t>>{
           {&TeacherInfo::vocab_size, 1}, {&TeacherInfo::top, 0}, {&TeacherInfo::top, 5}}) {
    info = Info();
    info.*change = value;
    EXPECT_EQ(TeacherWriter::Create(folder.path() / "x", info).error().code, ErrorCode::kTeacherFile);
  }
  info = Info();
  info.teacher = "\xff";
  EXPECT_FALSE(TeacherWriter::Create(folder.path() / "x", info));
  Result<TeacherWriter> writer = TeacherWriter::Create(folder.path() / "x", Info());
  ASSERT_TRUE(writer.has_value());
  EXPECT_FALSE(writer->AddRow(Row(TeacherKind::kTop, true))) << "no window";
  EXPECT_FALSE(writer->BeginWindow({}));
  EXPECT_FALSE(writer->BeginWindow(std::vector<int32_t>{4}));
  ASSERT_TRUE(writer->BeginWindow(std::vector<int32_t>{1}));
  EXPECT_FALSE(writer->AddRow(Row(TeacherKind::kTop, false))) << "the last has no next token";
  EXPECT_FALSE(writer->AddRow(Row(TeacherKind::kFull, true))) << "four values";
  TeacherRow row = Row(TeacherKind::kTop, true);
  row.tail = 0.75F;
  EXPECT_FALSE(writer->AddRow(row));
  EXPECT_FALSE(writer->BeginWindow(std::vector<int32_t>{1})) << "a position is missing";
  EXPECT_FALSE(writer->Commit()) << "a position is missing";
}

}  // namespace
}  // namespace taskpress
