#include "quantizer/calibration_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <fstream>
#include <limits>

#include "schema/base/error.h"
#include "schema/base/hash.h"
#include "tests/quantizer/matrices.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

CalibrationInfo Info() { return {.model = "sha256:ab", .token_hash = "cd", .tokens = 300, .version = "0.1.0"}; }

SecondMoments Moments(int64_t columns, MomentKind kind, uint32_t seed) {
  Result<SecondMoments> moments = ComputeMomentsPlain(NormalValues(300 * columns, seed), 300, columns, kind);
  EXPECT_TRUE(moments.has_value());
  return *std::move(moments);
}

void ExpectEqual(const SecondMoments& a, const SecondMoments& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.activation_step2, b.activation_step2);
  EXPECT_EQ(a.sums, b.sums);
  EXPECT_EQ(a.squares, b.squares);
  EXPECT_EQ(a.max_magnitudes, b.max_magnitudes);
  EXPECT_EQ(a.products, b.products);  // ComputeMomentsPlain leaves the upper triangle zero, and so does the reader
}

// "a" full, "b" diagonal.
std::filesystem::path WriteSmall(const TempFolder& folder, std::string_view name, uint32_t seed, CalibrationInfo info = Info()) {
  const std::filesystem::path path = folder.path() / name;
  Result<CalibrationWriter> writer = CalibrationWriter::Create(path, std::move(info));
  EXPECT_TRUE(writer.has_value()) << writer.error().message;
  EXPECT_TRUE(writer->Add("a", Moments(5, MomentKind::kFull, seed)));
  EXPECT_TRUE(writer->Add("b", Moments(3, MomentKind::kDiagonal, seed + 1)));
  EXPECT_TRUE(writer->Commit());
  return path;
}

TEST(CalibrationFile, GivesBackWhatWasWrittenAndEqualBytesForEqualSites) {
  const TempFolder folder;
  const std::filesystem::path path = WriteSmall(folder, "x.calib", 1);
  const Result<CalibrationFile> file = CalibrationFile::Open(path);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->info(), Info());
  ASSERT_EQ(file->sites().size(), 2U);
  EXPECT_EQ(file->Find("c"), nullptr);
  const Result<SecondMoments> a = file->Read(*file->Find("a"));
  const Result<SecondMoments> b = file->Read(*file->Find("b"));
  ASSERT_TRUE(a && b);
  ExpectEqual(*a, Moments(5, MomentKind::kFull, 1));
  ExpectEqual(*b, Moments(3, MomentKind::kDiagonal, 2));
  EXPECT_EQ(ReadFileBytes(WriteSmall(folder, "y.calib", 1)), ReadFileBytes(path));
  EXPECT_FALSE(std::filesystem::exists(PartPath(path)));
}

TEST(CalibrationFile, IsRefusedWhenCutAtAnyByte) {
  const TempFolder folder;
  const std::string whole = ReadFileBytes(WriteSmall(folder, "x.calib", 1));
  for (size_t size = 0; size < whole.size(); ++size) {
    const Result<CalibrationIndex> index = ParseCalibration(AsBytes(std::string_view(whole).substr(0, size)));
    ASSERT_FALSE(index.has_value()) << size;
    EXPECT_EQ(index.error().code, ErrorCode::kCalibrationFile);
  }
  ASSERT_TRUE(ParseCalibration(AsBytes(whole)));
}

TEST(CalibrationFile, EveryChangedByteIsNoticed) {
  const TempFolder folder;
  const std::string whole = ReadFileBytes(WriteSmall(folder, "x.calib", 1));
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    const Result<CalibrationIndex> index = ParseCalibration(AsBytes(changed));
    bool noticed = !index.has_value();
    for (size_t i = 0; index && i < index->sites.size(); ++i) {
      Result<SecondMoments> moments = MakeMoments(index->sites[i].columns, index->sites[i].kind);
      ASSERT_TRUE(moments.has_value());
      noticed |= !AddCalibrationSite(AsBytes(changed), index->sites[i], *moments);
    }
    EXPECT_TRUE(noticed) << at;
  }
}

// A file put together by hand.
std::string Header(std::string_view index, uint64_t offset, uint64_t bytes, uint32_t version = 1, uint32_t zeros = 0) {
  std::string header("TPCALIB\0", 8);
  header += RawBytes({version, zeros}) + RawBytes({offset, bytes}) + RawBytes({Crc32(0, AsBytes(index))});
  return header + RawBytes({Crc32(0, AsBytes(header))});
}
std::string WithIndex(std::string_view index, std::string_view bodies = "") {
  return Header(index, 40 + bodies.size(), index.size()) + std::string(bodies) + std::string(index);
}
std::string Index(std::string_view sites, std::string_view rest = R"("taskpress":"1","model":"m","token_hash":"t","tokens":3)",
                  std::string_view schema = "taskpress/calibration/1") {
  return Format(R"({{"schema":"{}",{},"sites":{}}})", schema, rest, sites);
}
std::string Site(std::string_view offset, std::string_view bytes, std::string_view name = "\"a\"", std::string_view columns = "2",
                 std::string_view kind = "\"full\"", std::string_view crc = "0") {
  return Format(R"({{"name":{},"columns":{},"kind":{},"offset":{},"bytes":{},"crc32":{}}})", name, columns, kind, offset, bytes, crc);
}
std::string OneSite(const std::string& site) { return WithIndex(Index("[" + site + "]"), "12345678"); }

struct Lie {
  std::string_view name;
  std::string file;
  std::string_view message;
};

std::vector<Lie> Lies() {
  const std::string empty = Index("[]");
  std::string wrong_magic = WithIndex(empty);
  wrong_magic[3] = 'X';
  std::string wrong_crc = WithIndex(empty);
  wrong_crc[20] = static_cast<char>(wrong_crc[20] ^ 1);
  std::string wrong_index = WithIndex(empty);
  wrong_index.back() = ' ';
  const std::string long_name = "\"" + std::string(1025, 'x') + "\"";
  const std::string deep = Index(std::string(20, '[') + std::string(20, ']'));
  return {
      {"H1 empty", "", "truncated"},
      {"H1 magic", wrong_magic, "no calibration file"},
      {"H1 header crc", wrong_crc, "CRC-32 of the header"},
      {"H1 version", Header(empty, 40, empty.size(), 2) + empty, "is of version 2"},
      {"H1 zeros", Header(empty, 40, empty.size(), 1, 7) + empty, "not zero"},
      {"H2 index inside the header", Header(empty, 39, empty.size()) + empty, "does not end with the file"},
      {"H2 index too short", Header(empty, 40, empty.size() - 1) + empty, "does not end with the file"},
      {"H2 index far away", Header(empty, ~0ULL - 3, empty.size()) + empty, "does not end with the file"},
      {"H2 index without end", Header(empty, 40, ~0ULL) + empty, "does not end with the file"},
      {"H2 something behind", WithIndex(empty) + "x", "does not end with the file"},
      {"H2 index too large", WithIndex(std::string((16 << 20) + 1, ' ')), "exceeds"},
      {"H2 index crc", wrong_index, "CRC-32 of the index"},
      {"H3 no JSON", WithIndex("{"), "not strict JSON"},
      {"H3 duplicate key", WithIndex(R"({"sites":[],"sites":[]})"), "duplicate"},
      {"H3 deep", WithIndex(deep), "nested deeper"},
      {"H3 list", WithIndex("[]"), "object of exactly"},
      {"H3 missing key", WithIndex(Index("[]", R"("taskpress":"1","model":"m","tokens":3)")), "object of exactly"},
      {"H3 unknown key", WithIndex(Index("[]", R"("taskpress":"1","model":"m","token_hash":"t","tokens":3,"x":1)")), "object of exactly"},
      {"H3 schema", WithIndex(Index("[]", R"("taskpress":"1","model":"m","token_hash":"t","tokens":3)", "taskpress/calibration/2")),
       "schema"},
      {"H3 model empty", WithIndex(Index("[]", R"("taskpress":"1","model":"","token_hash":"t","tokens":3)")), "model"},
      {"H3 model number", WithIndex(Index("[]", R"("taskpress":"1","model":1,"token_hash":"t","tokens":3)")), "model"},
      {"H3 control character", WithIndex(Index("[]", R"("taskpress":"1","model":"a\n","token_hash":"t","tokens":3)")), "control"},
      {"H3 tokens negative", WithIndex(Index("[]", R"("taskpress":"1","model":"m","token_hash":"t","tokens":-3)")), "tokens"},
      {"H3 tokens fraction", WithIndex(Index("[]", R"("taskpress":"1","model":"m","token_hash":"t","tokens":3.0)")), "tokens"},
      {"H3 tokens large", WithIndex(Index("[]", R"("taskpress":"1","model":"m","token_hash":"t","tokens":9007199254740993)")), "tokens"},
      {"H3 sites", WithIndex(Index("{}")), "expected a list"},
      {"H4 site", OneSite("7"), "a site is not an object"},
      {"H4 site key", OneSite(R"({"name":"a"})"), "a site is not an object"},
      {"H4 name empty", OneSite(Site("40", "8", "\"\"")), "name"},
      {"H4 name long", OneSite(Site("40", "8", long_name)), "name"},
      {"H4 name control", OneSite(Site("40", "8", "\"a\\u0001\"")), "control"},
      {"H4 two of a name", WithIndex(Index("[" + Site("40", "4") + "," + Site("44", "4") + "]"), "12345678"), "two sites"},
      {"H5 no columns", OneSite(Site("40", "8", "\"a\"", "0")), "columns"},
      {"H5 too many columns", OneSite(Site("40", "8", "\"a\"", "131073")), "columns"},
      {"H5 columns text", OneSite(Site("40", "8", "\"a\"", "\"2\"")), "columns"},
      {"H5 kind", OneSite(Site("40", "8", "\"a\"", "2", "\"half\"")), "kind"},
      {"H6 offset", OneSite(Site("-1", "8")), "offset"},
      {"H6 bytes", OneSite(Site("40", "8.0")), "bytes"},
      {"H6 crc", OneSite(Site("40", "8", "\"a\"", "2", "\"full\"", "4294967296")), "crc32"},
      {"H7 in the header", OneSite(Site("32", "16")), "overlap"},
      {"H7 hole in front", OneSite(Site("41", "7")), "a hole"},
      {"H7 hole behind", OneSite(Site("40", "7")), "the index begins at 48"},
      {"H7 into the index", OneSite(Site("40", "9")), "end behind"},
      {"H7 without end", OneSite(Site("40", "18446744073709551615")), "end behind"},
      {"H7 overlap", WithIndex(Index("[" + Site("40", "6") + "," + Site("44", "4", "\"b\"") + "]"), "12345678"), "overlap"},
      {"H7 hole", WithIndex(Index("[" + Site("40", "3") + "," + Site("44", "4", "\"b\"") + "]"), "12345678"), "a hole"},
      {"H7 bodies of nobody", WithIndex(empty, "12345678"), "the index begins at 48"},
  };
}

TEST(CalibrationFile, RefusesLies) {
  ASSERT_TRUE(ParseCalibration(AsBytes(WithIndex(Index("[]")))));
  ASSERT_TRUE(ParseCalibration(AsBytes(OneSite(Site("40", "8")))));
  for (const Lie& lie : Lies()) {
    const Result<CalibrationIndex> index = ParseCalibration(AsBytes(lie.file));
    ASSERT_FALSE(index.has_value()) << lie.name;
    EXPECT_EQ(index.error().code, ErrorCode::kCalibrationFile) << lie.name;
    EXPECT_THAT(index.error().message, HasSubstr(lie.message)) << lie.name;
  }
}

// The body of one column, of which fields can lie.
struct RawBody {
  int64_t tokens = 2;
  double step2 = 0.5;
  double sum = -1;
  double square = 4;
  float magnitude = 2;
  float product = 4;
  [[nodiscard]] std::string bytes() const { return RawBytes({tokens}) + RawBytes({step2, sum, square}) + RawBytes({magnitude, product}); }
};

std::string Compressed(const std::string& content) {
  std::string frame(ZSTD_compressBound(content.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), content.data(), content.size(), 1));
  return frame;
}

// A frame of the same content that does not declare its size.
std::string CompressedWithoutSize(const std::string& content) {
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  std::string frame(ZSTD_compressBound(content.size()), '\0');
  frame.resize(ZSTD_compress2(context, frame.data(), frame.size(), content.data(), content.size()));
  ZSTD_freeCCtx(context);
  return frame;
}

Result<SecondMoments> ReadBody(const std::string& body, std::string_view columns = "1", std::string_view kind = "\"full\"") {
  const std::string crc = std::to_string(Crc32(0, AsBytes(body)));
  const std::string file = WithIndex(Index("[" + Site("40", std::to_string(body.size()), "\"a\"", columns, kind, crc) + "]"), body);
  const CalibrationIndex index = TRY(ParseCalibration(AsBytes(file)));
  SecondMoments moments = TRY(MakeMoments(index.sites[0].columns, index.sites[0].kind));
  TRY(AddCalibrationSite(AsBytes(file), index.sites[0], moments));
  return moments;
}

TEST(CalibrationFile, RefusesBodiesThatLie) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Result<SecondMoments> honest = ReadBody(Compressed(RawBody{}.bytes()));
  ASSERT_TRUE(honest.has_value()) << honest.error().message;
  EXPECT_EQ(honest->products, std::vector<float>{4});
  EXPECT_EQ(honest->sums, std::vector<double>{-1});
  const std::string frame = Compressed(RawBody{}.bytes());
  const std::vector<std::pair<std::string, std::string>> lies = {
      {"", "zstd"},
      {"no frame at all", "zstd"},
      {frame.substr(0, frame.size() - 1), "one zstd frame"},
      {frame + "x", "one zstd frame"},
      {frame + frame, "one zstd frame"},
      {Compressed(RawBody{}.bytes() + "x"), "no zstd frame of 40 bytes"},
      {Compressed(RawBody{}.bytes().substr(1)), "no zstd frame of 40 bytes"},
      {CompressedWithoutSize(RawBody{}.bytes()), "no zstd frame of 40 bytes"},
      {Compressed(RawBody{.tokens = -1}.bytes()), "tokens"},
      {Compressed(RawBody{.tokens = (int64_t{1} << 53) + 1}.bytes()), "tokens"},
      {Compressed(RawBody{.step2 = -1}.bytes()), "-1"},
      {Compressed(RawBody{.step2 = kNan}.bytes()), "nan"},
      {Compressed(RawBody{.sum = kNan}.bytes()), "nan"},
      {Compressed(RawBody{.square = -2}.bytes()), "-2"},
      {Compressed(RawBody{.magnitude = -3}.bytes()), "-3"},
      {Compressed(RawBody{.magnitude = kInfinity}.bytes()), "inf"},
      {Compressed(RawBody{.product = -4}.bytes()), "-4"},
      {Compressed(RawBody{.product = kInfinity}.bytes()), "inf"},
  };
  for (const auto& [body, message] : lies) {
    const Result<SecondMoments> moments = ReadBody(body);
    ASSERT_FALSE(moments.has_value()) << message;
    EXPECT_EQ(moments.error().code, ErrorCode::kCalibrationFile);
    EXPECT_THAT(moments.error().message, HasSubstr(message));
    EXPECT_THAT(moments.error().message, HasSubstr("site \"a\""));
  }
  EXPECT_FALSE(ReadBody(frame, "2"));
  EXPECT_FALSE(ReadBody(frame, "1", "\"diagonal\""));
  SecondMoments one = *MakeMoments(1, MomentKind::kFull);
  const CalibrationSite site{.name = "a", .columns = 1, .offset = 40, .bytes = 8, .crc32 = 1};
  EXPECT_THAT(AddCalibrationSite(AsBytes(OneSite(Site("40", "8"))), site, one).error().message, HasSubstr("CRC-32"));
}

TEST(CalibrationWriter, LeavesNothingUnderTheNameUntilItIsDone) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "x.calib";
  {
    Result<CalibrationWriter> writer = CalibrationWriter::Create(path, Info());
    ASSERT_TRUE(writer && writer->Add("a", Moments(4, MomentKind::kFull, 1)));
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  WriteSmall(folder, "x.calib", 1);
  EXPECT_EQ(CalibrationWriter::Create(path, Info()).error().code, ErrorCode::kOutputExists);
}

TEST(CalibrationWriter, RefusesWhatTheReaderWould) {
  const TempFolder folder;
  EXPECT_FALSE(CalibrationWriter::Create(folder.path() / "x", {.model = "", .token_hash = "t", .tokens = 1, .version = "1"}));
  EXPECT_FALSE(CalibrationWriter::Create(folder.path() / "x", {.model = "m", .token_hash = "t", .tokens = -1, .version = "1"}));
  EXPECT_FALSE(CalibrationWriter::Create(folder.path() / "x", {.model = "\xff", .token_hash = "t", .tokens = 1, .version = "1"}));
  Result<CalibrationWriter> writer = CalibrationWriter::Create(folder.path() / "x", Info());
  ASSERT_TRUE(writer.has_value());
  EXPECT_FALSE(writer->Add("", Moments(2, MomentKind::kFull, 1)));
  EXPECT_FALSE(writer->Add("a\n", Moments(2, MomentKind::kFull, 1)));
  SecondMoments damaged = Moments(2, MomentKind::kFull, 1);
  damaged.sums[1] = std::numeric_limits<double>::infinity();
  EXPECT_FALSE(writer->Add("a", damaged));
  EXPECT_TRUE(writer->sites().empty());
  EXPECT_TRUE(writer->Commit());
  EXPECT_TRUE(CalibrationFile::Open(folder.path() / "x"));
}

TEST(CalibrationWriter, GoesOnWhereItStoppedAndGivesTheSameBytes) {
  const TempFolder folder;
  const std::string expected = ReadFileBytes(WriteSmall(folder, "whole.calib", 1));
  const std::filesystem::path path = folder.path() / "x.calib";
  const CalibrationWriterOptions resume{.resume = true};
  {
    Result<CalibrationWriter> writer = CalibrationWriter::Create(path, Info(), resume);
    ASSERT_TRUE(writer && writer->Add("a", Moments(5, MomentKind::kFull, 1)));
  }
  {
    // As if killed inside a large site.
    std::ofstream part(PartPath(path), std::ios::binary | std::ios::app);
    part << std::string(100'000, 'x');
  }
  Result<CalibrationWriter> writer = CalibrationWriter::Create(path, Info(), resume);
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  EXPECT_TRUE(writer->Has("a"));
  EXPECT_FALSE(writer->Has("b"));
  ASSERT_TRUE(writer->Add("a", Moments(7, MomentKind::kFull, 9)));  // is there already
  ASSERT_TRUE(writer->Add("b", Moments(3, MomentKind::kDiagonal, 2)));
  ASSERT_TRUE(writer->Commit());
  EXPECT_EQ(ReadFileBytes(path), expected);
  EXPECT_FALSE(std::filesystem::exists(PartPath(path)));
  EXPECT_FALSE(std::filesystem::exists(PartPath(path).string() + ".journal"));
}

TEST(CalibrationWriter, DoesNotGoOnWithAnotherCalibrationOrADamagedOne) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "x.calib";
  const std::filesystem::path journal = PartPath(path).string() + ".journal";
  const CalibrationWriterOptions resume{.resume = true};
  const auto begin = [&] {
    Result<CalibrationWriter> kept = CalibrationWriter::Create(path, Info(), resume);
    ASSERT_TRUE(kept && kept->Add("a", Moments(5, MomentKind::kFull, 1)));
  };
  begin();
  for (const CalibrationInfo& other : {CalibrationInfo{.model = "other", .token_hash = "cd", .tokens = 300, .version = "0.1.0"},
                                       CalibrationInfo{.model = "sha256:ab", .token_hash = "other", .tokens = 300, .version = "0.1.0"},
                                       CalibrationInfo{.model = "sha256:ab", .token_hash = "cd", .tokens = 301, .version = "0.1.0"},
                                       CalibrationInfo{.model = "sha256:ab", .token_hash = "cd", .tokens = 300, .version = "0.2.0"}}) {
    const Result<CalibrationWriter> writer = CalibrationWriter::Create(path, other, resume);
    ASSERT_FALSE(writer.has_value());
    EXPECT_EQ(writer.error().code, ErrorCode::kCannotResume);
    EXPECT_THAT(writer.error().message, HasSubstr("was begun with"));
  }
  EXPECT_TRUE(std::filesystem::exists(journal)) << "nothing is touched";
  std::string part = ReadFileBytes(PartPath(path));
  part.back() = static_cast<char>(part.back() ^ 1);
  folder.Write("x.calib.part", part);
  EXPECT_THAT(CalibrationWriter::Create(path, Info(), resume).error().message, HasSubstr("CRC-32"));
  part.pop_back();
  folder.Write("x.calib.part", part);
  EXPECT_THAT(CalibrationWriter::Create(path, Info(), resume).error().message, HasSubstr("ends inside site"));
  std::filesystem::remove(PartPath(path));
  EXPECT_EQ(CalibrationWriter::Create(path, Info(), resume).error().code, ErrorCode::kCannotResume);
  folder.Write("x.calib.part", part);
  folder.Write("x.calib.part.journal", "{}");
  EXPECT_EQ(CalibrationWriter::Create(path, Info(), resume).error().code, ErrorCode::kCannotResume);
  EXPECT_TRUE(CalibrationWriter::Create(path, Info()));
  EXPECT_FALSE(std::filesystem::exists(journal)) << "of a part that is gone";
}

TEST(CalibrationFiles, MergeInTheOrderGiven) {
  const TempFolder folder;
  CalibrationInfo other = Info();
  other.token_hash = "ef";
  other.tokens = 100;
  const std::vector<std::filesystem::path> inputs = {WriteSmall(folder, "1", 1), WriteSmall(folder, "2", 11, other),
                                                     WriteSmall(folder, "3", 21)};
  const std::filesystem::path output = folder.path() / "sum";
  const Status merged = MergeCalibrations(inputs, output, "0.3.0");
  ASSERT_TRUE(merged) << merged.error().message;
  const Result<CalibrationFile> file = CalibrationFile::Open(output);
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->info(),
            (CalibrationInfo{.model = "sha256:ab", .token_hash = Sha256Hex(AsBytes("cd\nef\ncd\n")), .tokens = 700, .version = "0.3.0"}));
  SecondMoments sum = Moments(5, MomentKind::kFull, 1);
  ASSERT_TRUE(AddMoments(sum, Moments(5, MomentKind::kFull, 11)) && AddMoments(sum, Moments(5, MomentKind::kFull, 21)));
  const Result<SecondMoments> a = file->Read(*file->Find("a"));
  ASSERT_TRUE(a.has_value());
  ExpectEqual(*a, sum);
}

TEST(CalibrationFiles, OfDifferentModelsOrSitesDoNotMerge) {
  const TempFolder folder;
  const std::filesystem::path first = WriteSmall(folder, "1", 1);
  CalibrationInfo other = Info();
  other.model = "other";
  const auto merge = [&](const std::filesystem::path& second) {
    return MergeCalibrations(std::vector<std::filesystem::path>{first, second}, folder.path() / "sum", "1");
  };
  const auto write = [&](std::string_view name, std::string_view site, int64_t columns, MomentKind kind, bool both) {
    Result<CalibrationWriter> writer = CalibrationWriter::Create(folder.path() / name, Info());
    EXPECT_TRUE(writer && writer->Add("a", Moments(5, MomentKind::kFull, 1)));
    if (both) {
      EXPECT_TRUE(writer->Add(std::string(site), Moments(columns, kind, 1)));
    }
    EXPECT_TRUE(writer->Commit());
    return folder.path() / name;
  };
  EXPECT_THAT(merge(WriteSmall(folder, "2", 1, other)).error().message, HasSubstr("is of model \"other\""));
  for (const std::filesystem::path& second :
       {write("3", "b", 3, MomentKind::kDiagonal, false), write("4", "c", 3, MomentKind::kDiagonal, true),
        write("5", "b", 4, MomentKind::kDiagonal, true), write("6", "b", 3, MomentKind::kFull, true)}) {
    const Status merged = merge(second);
    ASSERT_FALSE(merged) << second;
    EXPECT_EQ(merged.error().code, ErrorCode::kCalibrationMismatch);
  }
  EXPECT_FALSE(MergeCalibrations({}, folder.path() / "sum", "1"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "sum"));
  EXPECT_TRUE(merge(write("7", "b", 3, MomentKind::kDiagonal, true)));
}

}  // namespace
}  // namespace taskpress
