#include "schema/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <limits>

#include "schema/base/error.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ByteView Bytes(std::string_view text) { return AsBytes(text); }

// [2,3] F32 behind one I8, so that its data begin at an odd byte.
std::string SmallFile() {
  const std::vector<RawTensor> tensors = {
      {.name = "z", .dtype = "I8", .shape = {1}, .bytes = "\x7f"},
      {.name = "a", .dtype = "F32", .shape = {2, 3}, .bytes = RawBytes({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F})},
      {.name = "none", .dtype = "BF16", .shape = {0, 4}, .bytes = ""},
      {.name = "scalar", .dtype = "F64", .shape = {}, .bytes = RawBytes({0.5})}};
  return HonestSafetensors(tensors);
}

TEST(SafetensorsTest, ReadsNamesTypesShapesAndBytesSortedByName) {
  const std::string file = SmallFile();
  const Result<std::vector<TensorView>> tensors = ParseSafetensors(Bytes(file), nullptr);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 4U);
  const TensorView& a = tensors->front();
  EXPECT_EQ(a.name(), "a");
  EXPECT_EQ(a.type(), DType::kF32);
  EXPECT_THAT(a.shape(), ElementsAre(2, 3));
  EXPECT_EQ(LoadLittle<float>(a.bytes().data() + 20), 6.0F);
  EXPECT_EQ((*tensors)[1].name(), "none");
  EXPECT_TRUE((*tensors)[1].bytes().empty());
  EXPECT_EQ((*tensors)[2].name(), "scalar");
  EXPECT_TRUE((*tensors)[2].shape().empty());
  EXPECT_EQ((*tensors)[3].name(), "z");
}

TEST(SafetensorsTest, ReadsMetadataAndAnEmptyFile) {
  std::map<std::string, std::string> metadata;
  const Result<std::vector<TensorView>> tensors =
      ParseSafetensors(Bytes(RawSafetensors(R"({"__metadata__":{"format":"pt"}}   )", "")), &metadata);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  EXPECT_TRUE(tensors->empty());
  EXPECT_THAT(metadata, ElementsAre(testing::Pair("format", "pt")));
}

TEST(SafetensorsTest, ReadsEveryDTypeThatHasATag) {
  for (const DTypeInfo& info : AllDTypes()) {
    if (info.safetensors.empty()) continue;
    const std::vector<RawTensor> tensors = {{.name = "t",
                                             .dtype = std::string(info.safetensors),
                                             .shape = {3},
                                             .bytes = std::string(3 * static_cast<size_t>(info.bits) / 8, '\1')}};
    const std::string file = HonestSafetensors(tensors);
    const Result<std::vector<TensorView>> views = ParseSafetensors(Bytes(file), nullptr);
    ASSERT_TRUE(views.has_value()) << views.error().message;
    EXPECT_EQ(views->front().type(), info.type);
  }
}

struct Lie {
  std::string_view name;
  std::string file;
  ErrorCode code;
  std::string_view message;
};

// One F32 tensor [2] over 8 bytes with some field replaced.
std::string WithEntry(std::string_view entry, std::string_view data = "12345678") {
  return RawSafetensors(Format(R"({{"t":{}}})", entry), data);
}

// dtype F32, data_offsets [0,8], and this shape.
std::string WithShape(std::string_view shape) { return WithEntry(Format(R"({{"dtype":"F32","shape":{},"data_offsets":[0,8]}})", shape)); }
std::string WithOffsets(std::string_view offsets) {
  return WithEntry(Format(R"({{"dtype":"F32","shape":[2],"data_offsets":{}}})", offsets));
}
std::string WithType(std::string_view type) { return WithEntry(Format(R"({{"dtype":{},"shape":[2],"data_offsets":[0,8]}})", type)); }
std::string WithName(std::string_view name) {
  return RawSafetensors(Format(R"({{"{}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}})", name), "12345678");
}
// Two I8 tensors with these offsets over 8 bytes.
std::string WithTwo(uint64_t a_begin, uint64_t a_end, uint64_t b_begin, uint64_t b_end) {
  return RawSafetensors(
      Format(R"({{"a":{{"dtype":"I8","shape":[{}],"data_offsets":[{},{}]}},"b":{{"dtype":"I8","shape":[{}],"data_offsets":[{},{}]}}}})",
             a_end - a_begin, a_begin, a_end, b_end - b_begin, b_begin, b_end),
      "12345678");
}

std::vector<Lie> ContainerLies() {
  using enum ErrorCode;
  return {
      {"S1 LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", kNotATensorFile, "git lfs pull"},
      {"S1 web page", "\n <!DOCTYPE html><html></html>", kNotATensorFile, "web page"},
      {"S1 upper-case web page", "<HTML><body>404</body></HTML>", kNotATensorFile, "web page"},
      {"S1 error text", "Entry not found", kNotATensorFile, "Entry not found"},
      {"S1 short text", "404\n", kNotATensorFile, "404"},
      {"S2 empty file", "", kSafetensorsHeader, "truncated"},
      {"S2 shorter than the length", std::string("\x02\0\0\0\0\0\0", 7), kSafetensorsHeader, "has 7 bytes"},
      {"S2 length over the limit", RawSafetensors("{}", "", 100'000'001), kSafetensorsHeader, "exceeds the format's limit"},
      {"S2 largest length", RawSafetensors("{}", "", ~0ULL), kSafetensorsHeader, "exceeds the format's limit"},
      {"S2 length past the end", RawSafetensors("{}", "", 3), kSafetensorsHeader, "does not fit into a file of 10"},
      {"S3 empty header", RawSafetensors("", ""), kSafetensorsHeader, "does not begin with '{'"},
      {"S3 space first", RawSafetensors(" {}", ""), kSafetensorsHeader, "does not begin with '{'"},
      {"S3 array", RawSafetensors("[]", ""), kSafetensorsHeader, "does not begin with '{'"},
      {"S4 syntax", RawSafetensors("{\"a\":}", ""), kSafetensorsHeader, "not strict JSON"},
      {"S4 two values", RawSafetensors("{}{}", ""), kSafetensorsHeader, "not strict JSON"},
      {"S4 zero padding", RawSafetensors(std::string_view("{}\0\0", 4), ""), kSafetensorsHeader, "zero byte"},
      {"S4 comment", RawSafetensors("{/**/}", ""), kSafetensorsHeader, "not strict JSON"},
      {"S4 invalid UTF-8", RawSafetensors("{\"\xff\":{}}", ""), kSafetensorsHeader, "UTF-8"},
      {"S4 duplicate tensor",
       RawSafetensors(R"({"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})", ""),
       kSafetensorsHeader, "duplicate key \"a\""},
      {"S4 duplicate field", WithEntry(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), kSafetensorsHeader,
       "duplicate key \"dtype\""},
      {"S4 too deep", WithShape("[[[[[[[2]]]]]]]"), kSafetensorsHeader, "nested deeper than 8"},
      {"S5 metadata array", RawSafetensors(R"({"__metadata__":[]})", ""), kSafetensorsHeader, "expected an object"},
      {"S5 metadata null", RawSafetensors(R"({"__metadata__":null})", ""), kSafetensorsHeader, "expected an object"},
      {"S5 metadata number", RawSafetensors(R"({"__metadata__":{"a":1}})", ""), kSafetensorsHeader, "expected a string"},
  };
}

std::vector<Lie> TensorLies() {
  using enum ErrorCode;
  return {
      {"S6 empty name", WithName(""), kSafetensorsTensor, "empty name"},
      {"S6 long name", WithName(std::string(1025, 'x')), kSafetensorsTensor, "1025 bytes"},
      {"S6 escape sequence in a name", WithName(R"(\u001b[31m)"), kSafetensorsTensor, "\\u001b[31m\": its name holds control characters"},
      {"S6 not an object", WithEntry("7"), kSafetensorsTensor, "exactly dtype, shape and data_offsets"},
      {"S6 no shape", WithEntry(R"({"dtype":"F32","data_offsets":[0,8]})"), kSafetensorsTensor, "exactly dtype, shape and data_offsets"},
      {"S6 no dtype", WithEntry(R"({"Dtype":"F32","shape":[2],"data_offsets":[0,8]})"), kSafetensorsTensor,
       "exactly dtype, shape and data_offsets"},
      {"S6 no offsets", WithEntry(R"({"dtype":"F32","shape":[2],"offsets":[0,8]})"), kSafetensorsTensor,
       "exactly dtype, shape and data_offsets"},
      {"S6 extra field", WithEntry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"scale":1})"), kSafetensorsTensor, "exactly dtype"},
      {"S7 number", WithType("0"), kSafetensorsTensor, "dtype is number"},
      {"S7 unknown", WithType(R"("F33")"), kSafetensorsTensor, "unknown dtype \"F33\""},
      {"S7 empty", WithType(R"("")"), kSafetensorsTensor, "unknown dtype \"\""},
      {"S7 lower case", WithType(R"("f32")"), kSafetensorsTensor, "unknown dtype"},
      {"S7 float8", WithType(R"("F8_E4M3")"), kSafetensorsDType, "F8_E4M3 is not supported"},
      {"S7 unsigned 32", WithType(R"("U32")"), kSafetensorsDType, "U32 is not supported"},
      {"S8 not an array", WithShape("2"), kSafetensorsTensor, "at most 8 dimensions"},
      {"S8 nine dimensions", WithShape("[2,1,1,1,1,1,1,1,1]"), kSafetensorsTensor, "at most 8 dimensions"},
      {"S8 float", WithShape("[2.0]"), kSafetensorsTensor, "not a non-negative integer"},
      {"S8 negative", WithShape("[-2]"), kSafetensorsTensor, "not a non-negative integer"},
      {"S8 text", WithShape(R"(["2"])"), kSafetensorsTensor, "not a non-negative integer"},
      {"S8 larger than 63 bits", WithShape("[9223372036854775808]"), kSafetensorsTensor, "overflows"},
      {"S8 larger than 64 bits", WithShape("[18446744073709551618]"), kSafetensorsTensor, "not a non-negative integer"},
      {"S8 product wraps to 2", WithShape("[4294967297,4294967296,2]"), kSafetensorsTensor, "overflows"},
      {"S8 zero hides an overflow", WithShape("[0,4294967296,4294967296]"), kSafetensorsTensor, "overflows"},
      {"S9 not an array", WithOffsets("8"), kSafetensorsTensor, "two non-negative integers"},
      {"S9 one number", WithOffsets("[0]"), kSafetensorsTensor, "two non-negative integers"},
      {"S9 three numbers", WithOffsets("[0,8,8]"), kSafetensorsTensor, "two non-negative integers"},
      {"S9 float", WithOffsets("[0,8.0]"), kSafetensorsTensor, "two non-negative integers"},
      {"S9 negative", WithOffsets("[-8,0]"), kSafetensorsTensor, "two non-negative integers"},
      {"S9 backwards", WithOffsets("[8,0]"), kSafetensorsTensor, "run backwards"},
      {"S9 past the end", WithOffsets("[4,12]"), kSafetensorsLayout, "end outside the 8 bytes"},
      {"S9 far past the end", WithOffsets("[0,18446744073709551615]"), kSafetensorsLayout, "end outside the 8 bytes"},
      {"S10 too few bytes", WithOffsets("[0,4]"), kSafetensorsTensor, "hold 4 bytes, F32 [2] needs 8"},
      {"S10 too many bytes", WithShape("[1]"), kSafetensorsTensor, "hold 8 bytes, F32 [1] needs 4"},
      {"S10 byte count overflows", WithShape("[4611686018427387904]"), kSafetensorsTensor, "needs more than 2^64"},
      {"S11 overlap", WithTwo(0, 5, 4, 8), kSafetensorsLayout, "they overlap"},
      {"S11 same range", WithTwo(0, 8, 0, 8), kSafetensorsLayout, "they overlap"},
      {"S11 hole", WithTwo(0, 3, 4, 8), kSafetensorsLayout, "a hole"},
      {"S11 hole at the start", WithTwo(1, 4, 4, 8), kSafetensorsLayout, "a hole"},
      {"S11 bytes left over", WithTwo(0, 3, 3, 7), kSafetensorsLayout, "cover 7 of 8 bytes"},
      {"S11 data without tensors", RawSafetensors("{}", "x"), kSafetensorsLayout, "cover 0 of 1 bytes"},
  };
}

TEST(SafetensorsTest, RefusesEveryLieWithItsCodeAndAMessageThatNamesIt) {
  std::vector<Lie> lies = ContainerLies();
  std::ranges::move(TensorLies(), std::back_inserter(lies));
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.name);
    const Result<std::vector<TensorView>> tensors = ParseSafetensors(Bytes(lie.file), nullptr);
    ASSERT_FALSE(tensors.has_value());
    EXPECT_EQ(InfoOf(tensors.error().code).name, InfoOf(lie.code).name);
    EXPECT_THAT(tensors.error().message, HasSubstr(lie.message));
  }
}

TEST(SafetensorsTest, TheHonestTwinsOfTheLiesAreAccepted) {
  for (const std::string& file :
       {WithName("t"), WithShape("[2]"), WithOffsets("[0,8]"), WithType(R"("I32")"), WithTwo(0, 4, 4, 8), WithTwo(5, 8, 0, 5),
        WithTwo(0, 8, 8, 8), WithShape("[2,1,1,1,1,1,1,1]"), WithName(std::string(1024, 'x'))}) {
    const Result<std::vector<TensorView>> tensors = ParseSafetensors(Bytes(file), nullptr);
    EXPECT_TRUE(tensors.has_value()) << tensors.error().message;
  }
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string file = SmallFile();
  for (size_t size = 0; size < file.size(); ++size) {
    const std::vector<char> copy(file.begin(),
                                 file.begin() + static_cast<std::ptrdiff_t>(size));  // exact allocation, so ASan sees one byte too far
    EXPECT_FALSE(ParseSafetensors(std::as_bytes(std::span(copy)), nullptr).has_value()) << size;
  }
}

TEST(SafetensorsTest, SurvivesEverySingleByteChange) {
  const std::string file = SmallFile();
  for (size_t i = 0; i < file.size(); ++i) {
    for (const int change : {0x01, 0x80, 0xff}) {
      std::string changed = file;
      changed[i] = static_cast<char>(changed[i] ^ change);
      const Result<std::vector<TensorView>> tensors = ParseSafetensors(Bytes(changed), nullptr);
      if (tensors) {
        EXPECT_EQ(tensors->size(), 4U);
      } else {
        EXPECT_FALSE(tensors.error().message.empty());
      }
    }
  }
}

TEST(SafetensorsTest, OpensManyTensorsQuickly) {
  constexpr int kTensors = 20'000;
  std::vector<RawTensor> tensors;
  for (int i = 0; i < kTensors; ++i) {
    tensors.push_back({.name = Format("model.language_model.layers.{}.mlp.weight", i), .dtype = "BF16", .shape = {1, 1}, .bytes = "ab"});
  }
  const std::string file = HonestSafetensors(tensors);
  const auto start = std::chrono::steady_clock::now();
  const Result<std::vector<TensorView>> views = ParseSafetensors(Bytes(file), nullptr);
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(views.has_value()) << views.error().message;
  EXPECT_EQ(views->size(), kTensors);
  EXPECT_LT(seconds, 10.0);  // linear: under a second even with sanitizers; quadratic: minutes
}

TEST(SafetensorsFileTest, NamesTheFileInErrorsAndFindsTensors) {
  const TempFolder folder;
  const Result<SafetensorsFile> good = SafetensorsFile::Open(folder.Write("good.safetensors", SmallFile()));
  ASSERT_TRUE(good.has_value()) << good.error().message;
  ASSERT_NE(good->Find("scalar"), nullptr);
  EXPECT_EQ(good->Find("scalar")->name(), "scalar");
  EXPECT_EQ(good->Find("b"), nullptr);
  EXPECT_EQ(good->Find("zz"), nullptr);
  const Result<SafetensorsFile> bad = SafetensorsFile::Open(folder.Write("bad.safetensors", WithShape("[3]")));
  ASSERT_FALSE(bad.has_value());
  EXPECT_THAT(bad.error().message, HasSubstr("bad.safetensors: tensor \"t\""));
  EXPECT_EQ(SafetensorsFile::Open(folder.path() / "absent").error().code, ErrorCode::kFileNotFound);
  EXPECT_EQ(SafetensorsFile::Open(folder.path()).error().code, ErrorCode::kNotRegularFile);
}

SafetensorsEntry Entry(std::string name, DType type, Shape shape, std::string_view bytes) {
  return {.name = std::move(name), .type = type, .shape = std::move(shape), .bytes = MakeMemorySource(Bytes(bytes))};
}

// Byte i is i modulo 251; has no view, and notes the largest read.
class ComputedBytes final : public ByteSource {
 public:
  explicit ComputedBytes(uint64_t size) : size_(size) {}
  [[nodiscard]] uint64_t size() const override { return size_; }
  Status Read(uint64_t offset, ByteSpan out) const override {
    largest_ = std::max<uint64_t>(largest_, out.size());
    for (std::byte& byte : out) byte = static_cast<std::byte>(offset++ % 251);
    return {};
  }
  [[nodiscard]] uint64_t largest() const { return largest_; }
  void ForgetLargest() { largest_ = 0; }

 private:
  uint64_t size_;
  mutable uint64_t largest_ = 0;
};

class FailingBytes final : public ByteSource {
 public:
  [[nodiscard]] uint64_t size() const override { return 4; }
  Status Read(uint64_t, ByteSpan) const override { return Fail(ErrorCode::kWeightValue, "no value"); }
};

TEST(WriteSafetensorsTest, WritesTheBytesOfTheFormat) {
  const TempFolder folder;
  const std::vector<SafetensorsEntry> entries = {Entry("b", DType::kI8, {3}, "xyz"), Entry("a\"\\", DType::kF16, {1, 2}, "1234")};
  const std::filesystem::path path = folder.path() / "out.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, entries, {{"format", "pt"}}).has_value());
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"a\"\\":{"dtype":"F16","shape":[1,2],"data_offsets":[3,7]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(ReadFileBytes(path), RawSafetensors(padded, "xyz1234"));
}

TEST(WriteSafetensorsTest, WhatIsWrittenReadsBack) {
  const TempFolder folder;
  const std::string values = RawBytes({1.5F, -2.0F});
  const std::vector<SafetensorsEntry> entries = {Entry("\xc3\xa9", DType::kBool, {1}, "\1"), Entry("f", DType::kF32, {2, 1}, values),
                                                 Entry("empty", DType::kI64, {0}, ""), Entry("scalar", DType::kU8, {}, "!")};
  const std::filesystem::path path = folder.path() / "out.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, entries).has_value());
  const Result<SafetensorsFile> file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_TRUE(file->metadata().empty());
  ASSERT_EQ(file->tensors().size(), entries.size());
  for (const SafetensorsEntry& entry : entries) {
    const TensorView* view = file->Find(entry.name);
    ASSERT_NE(view, nullptr) << entry.name;
    EXPECT_EQ(view->type(), entry.type);
    EXPECT_EQ(view->shape(), entry.shape);
    EXPECT_TRUE(std::ranges::equal(view->bytes(), entry.bytes->view()));
  }
}

TEST(WriteSafetensorsTest, PadsTheHeaderWithSpacesToAMultipleOfEight) {
  const TempFolder folder;
  for (size_t length = 1; length <= 8; ++length) {
    const std::vector<SafetensorsEntry> entries = {Entry(std::string(length, 'n'), DType::kI8, {1}, "x")};
    ASSERT_TRUE(WriteSafetensors(folder.path() / "out", entries, {}, true).has_value());
    const std::string file = ReadFileBytes(folder.path() / "out");
    ASSERT_EQ(file.size() % 8, 1U) << length;  // 8 + header + "x"
    const size_t brace = file.rfind('}');
    EXPECT_EQ(file.substr(brace + 1), std::string(file.size() - brace - 2, ' ') + "x");
    EXPECT_LT(file.size() - brace - 2, 8U);
  }
}

TEST(WriteSafetensorsTest, StreamsComputedBytesInBoundedBlocks) {
  const TempFolder folder;
  constexpr uint64_t kBytes = 9'000'001;
  const auto source = std::make_shared<ComputedBytes>(kBytes);
  std::vector<std::byte> copy(kBytes);
  ASSERT_TRUE(source->Read(0, copy).has_value());
  const std::vector<SafetensorsEntry> entries = {
      {.name = "big", .type = DType::kU8, .shape = {kBytes}, .bytes = source},
      {.name = "in memory", .type = DType::kU8, .shape = {kBytes}, .bytes = MakeMemorySource(copy)}};
  source->ForgetLargest();
  ASSERT_TRUE(WriteSafetensors(folder.path() / "out", entries).has_value());
  EXPECT_LE(source->largest(), 4U << 20);
  const Result<SafetensorsFile> file = SafetensorsFile::Open(folder.path() / "out");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_TRUE(std::ranges::equal(file->Find("big")->bytes(), copy));
  EXPECT_TRUE(std::ranges::equal(file->Find("in memory")->bytes(), copy));
}

TEST(WriteSafetensorsTest, RefusesEntriesThatNoReaderWouldAccept) {
  const TempFolder folder;
  struct Case {
    std::vector<SafetensorsEntry> entries;
    ErrorCode code;
    std::string_view message;
  };
  using enum ErrorCode;
  const std::vector<Case> cases = {
      {{Entry("a", DType::kI8, {1}, "x"), Entry("a", DType::kI8, {1}, "x")}, kSafetensorsHeader, "duplicate key \"a\""},
      {{Entry("a", DType::kI8, {2}, "x")}, kSafetensorsTensor, "I8 [2] needs 2"},
      {{Entry("a", DType::kI8, {-1}, "x")}, kSafetensorsTensor, "not a non-negative integer"},
      {{Entry("", DType::kI8, {1}, "x")}, kSafetensorsTensor, "empty name"},
      {{Entry("\xff", DType::kI8, {1}, "x")}, kSafetensorsTensor, "not UTF-8"},
      {{Entry("__metadata__", DType::kI8, {1}, "x")}, kSafetensorsTensor, "cannot name a tensor"},
      {{Entry("a", DType::kI4, {2}, "x")}, kSafetensorsDType, "no dtype i4"},
      {{{.name = "a", .type = DType::kI8, .shape = {4}, .bytes = std::make_shared<FailingBytes>()}},
       kWeightValue,
       "tensor \"a\": no value"},
  };
  for (const Case& wrong : cases) {
    const Status written = WriteSafetensors(folder.path() / "out", wrong.entries);
    ASSERT_FALSE(written.has_value()) << wrong.message;
    EXPECT_EQ(InfoOf(written.error().code).name, InfoOf(wrong.code).name);
    EXPECT_THAT(written.error().message, HasSubstr(wrong.message));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
}

TEST(WriteSafetensorsTest, ReplacesAnExistingFileOnlyWhenAsked) {
  const TempFolder folder;
  const std::filesystem::path path = folder.Write("out", "old");
  const std::vector<SafetensorsEntry> entries = {Entry("a", DType::kI8, {1}, "x")};
  EXPECT_EQ(WriteSafetensors(path, entries).error().code, ErrorCode::kOutputExists);
  EXPECT_EQ(ReadFileBytes(path), "old");
  EXPECT_TRUE(WriteSafetensors(path, entries, {}, true).has_value());
  EXPECT_TRUE(SafetensorsFile::Open(path).has_value());
}

}  // namespace
}  // namespace taskpress
