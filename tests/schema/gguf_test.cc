#include "schema/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/testing/raw_files.h"
#include "tests/testing/raw_gguf.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

std::string Number64(uint64_t value) { return RawBytes({value}); }
std::string Number32(uint32_t value) { return RawBytes({value}); }

RawGguf Honest() {
  RawGguf gguf;
  gguf.metadata = {
      {"general.architecture", GgufText("gemma3")}, {"a.number", GgufU32(7)},   {"a.real", GgufF32(0.5F)}, {"a.truth", GgufBool(true)},
      {"texts", GgufTexts({"x", "\xE2\x96\x81y"})}, {"ints", GgufInts({-1, 2})}};
  gguf.tensors = {{.name = "b", .dimensions = {2, 3}, .bytes = RawBytes({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F})},
                  {.name = "a", .dimensions = {32}, .type = 8, .bytes = std::string(34, '\1')}};
  return gguf;
}

TEST(GgufTest, ReadsMetadataAndTensorsSortedByName) {
  const std::string bytes = Honest().Bytes();
  const Result<GgufFile> file = ParseGguf(AsBytes(bytes));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(std::get<std::string_view>(*file->Find("general.architecture")), "gemma3");
  EXPECT_EQ(std::get<uint64_t>(*file->Find("a.number")), 7U);
  EXPECT_EQ(std::get<double>(*file->Find("a.real")), 0.5);
  EXPECT_TRUE(std::get<bool>(*file->Find("a.truth")));
  EXPECT_EQ(std::get<std::string_view>(std::get<GgufArray>(*file->Find("texts"))[1]), "\xE2\x96\x81y");
  EXPECT_EQ(std::get<int64_t>(std::get<GgufArray>(*file->Find("ints"))[0]), -1);
  EXPECT_EQ(file->Find("nothing"), nullptr);
  ASSERT_EQ(file->tensors.size(), 2U);
  EXPECT_EQ(file->tensors[0].name, "a");
  EXPECT_EQ(file->tensors[0].type, GgmlType::kQ8_0);
  EXPECT_EQ(file->tensors[0].bytes.size(), 34U);
  EXPECT_EQ(file->tensors[1].shape, (Shape{3, 2})) << "outermost first";
  EXPECT_EQ(LoadLittle<float>(file->tensors[1].bytes.data() + 20), 6.0F);
}

TEST(GgufTest, HonoursItsAlignment) {
  RawGguf gguf = Honest();
  gguf.metadata.emplace_back("general.alignment", GgufU32(256));
  gguf.alignment = 256;
  const std::string bytes = gguf.Bytes();
  const Result<GgufFile> file = ParseGguf(AsBytes(bytes));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ((reinterpret_cast<const char*>(file->tensors[1].bytes.data()) - bytes.data()) % 256, 0);
}

// A file that was cut anywhere is refused; the padding that may follow the last tensor is nobody's loss.
TEST(GgufTest, RefusesEveryTruncation) {
  const std::string bytes = Honest().Bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    EXPECT_FALSE(ParseGguf(AsBytes(cut)).has_value()) << size << " of " << bytes.size();
  }
}

struct Lie {
  const char* what;
  std::function<void(RawGguf&)> tell;
  ErrorCode code;
  const char* message;
};

class GgufLies : public ::testing::TestWithParam<Lie> {};

TEST_P(GgufLies, AreRefused) {
  RawGguf gguf = Honest();
  GetParam().tell(gguf);
  const std::string bytes = gguf.Bytes();
  const Result<GgufFile> file = ParseGguf(AsBytes(bytes));
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(InfoOf(file.error().code).name, InfoOf(GetParam().code).name) << file.error().message;
  EXPECT_THAT(file.error().message, HasSubstr(GetParam().message));
}

constexpr uint32_t kText = 8;
constexpr uint32_t kArray = 9;

INSTANTIATE_TEST_SUITE_P(
    Table, GgufLies,
    ::testing::Values(
        Lie{"U1_Magic", [](RawGguf& g) { g.magic = "GGJT"; }, ErrorCode::kGgufHeader, "not a GGUF file"},
        Lie{"U2_Version2", [](RawGguf& g) { g.version = 2; }, ErrorCode::kGgufUnsupported, "version 2"},
        Lie{"U2_BigEndian", [](RawGguf& g) { g.version = 0x03000000; }, ErrorCode::kGgufUnsupported, "big-endian"},
        // CVE-2025-53630 and CVE-2026-27940: counts whose product with an entry's size overflows.
        Lie{"U3_CVE_2026_27940_TensorCount", [](RawGguf& g) { g.tensor_count = 0x2000000000000001; }, ErrorCode::kGgufHeader, "at most"},
        Lie{"U3_CVE_2026_27940_MetadataCount", [](RawGguf& g) { g.metadata_count = ~uint64_t{0}; }, ErrorCode::kGgufHeader, "at most"},
        Lie{"U3_MoreTensorsThanThereAre", [](RawGguf& g) { g.tensor_count = 3; }, ErrorCode::kGgufTensor, ""},
        Lie{"U4_TextLongerThanTheFile", [](RawGguf& g) { g.metadata.back().second = Number32(kText) + Number64(100000) + "x"; },
            ErrorCode::kGgufHeader, "ends after"},
        Lie{"U4_TextOfExhaustingSize", [](RawGguf& g) { g.metadata.back().second = Number32(kText) + Number64(uint64_t{1} << 62); },
            ErrorCode::kGgufHeader, "at most"},
        Lie{"U4_NotUtf8", [](RawGguf& g) { g.metadata.back().second = GgufText("\xFF"); }, ErrorCode::kGgufHeader, "not UTF-8"},
        Lie{"U5_NoSuchType", [](RawGguf& g) { g.metadata.back().second = Number32(13); }, ErrorCode::kGgufHeader, "value type 13"},
        Lie{"U5_NegativeType", [](RawGguf& g) { g.metadata.back().second = Number32(0xFFFFFFFF) + Number64(0); }, ErrorCode::kGgufHeader,
            "does not exist"},
        Lie{"U5_KeyTwice", [](RawGguf& g) { g.metadata.push_back(g.metadata[1]); }, ErrorCode::kGgufHeader, "occurs twice"},
        Lie{"U5_TruthOfTwo", [](RawGguf& g) { g.metadata.back().second = Number32(7) + "\2"; }, ErrorCode::kGgufHeader, "truth value 2"},
        Lie{"U6_ArrayOfNoSuchType", [](RawGguf& g) { g.metadata.back().second = Number32(kArray) + Number32(99) + Number64(0); },
            ErrorCode::kGgufHeader, "99"},
        Lie{"U6_ArrayOfArrays",
            [](RawGguf& g) { g.metadata.back().second = Number32(kArray) + Number32(kArray) + Number64(1) + Number64(0); },
            ErrorCode::kGgufHeader, "array of arrays"},
        Lie{"U6_ArrayOfExhaustingSize",
            [](RawGguf& g) { g.metadata.back().second = Number32(kArray) + Number32(4) + Number64(uint64_t{1} << 61); },
            ErrorCode::kGgufHeader, "at most"},
        Lie{"U6_ArrayBeyondTheFile", [](RawGguf& g) { g.metadata.back().second = Number32(kArray) + Number32(10) + Number64(1 << 20); },
            ErrorCode::kGgufHeader, "ends after"},
        Lie{"U7_AlignmentZero", [](RawGguf& g) { g.metadata.emplace_back("general.alignment", GgufU32(0)); }, ErrorCode::kGgufHeader,
            "power of two"},
        Lie{"U7_AlignmentThree", [](RawGguf& g) { g.metadata.emplace_back("general.alignment", GgufU32(3)); }, ErrorCode::kGgufHeader,
            "power of two"},
        Lie{"U7_AlignmentOfAnotherType", [](RawGguf& g) { g.metadata.emplace_back("general.alignment", GgufText("32")); },
            ErrorCode::kGgufHeader, "power of two"},
        Lie{"U8_NoName", [](RawGguf& g) { g.tensors[0].name = ""; }, ErrorCode::kGgufTensor, "without a name"},
        Lie{"U8_LongName", [](RawGguf& g) { g.tensors[0].name = std::string(64, 'n'); }, ErrorCode::kGgufHeader, "at most 63"},
        Lie{"U8_NameTwice", [](RawGguf& g) { g.tensors[1].name = "b"; }, ErrorCode::kGgufTensor, "occurs twice"},
        Lie{"U9_FiveDimensions", [](RawGguf& g) { g.tensors[0].dimensions = {1, 1, 1, 1, 6}; }, ErrorCode::kGgufTensor, "5 dimensions"},
        Lie{"U9_ZeroDimension", [](RawGguf& g) { g.tensors[0].dimensions = {0, 3}; }, ErrorCode::kGgufTensor, "dimension 0 is 0"},
        Lie{"U9_NegativeDimension", [](RawGguf& g) { g.tensors[0].dimensions = {~uint64_t{0}, 3}; }, ErrorCode::kGgufTensor,
            "dimension 0 is -1"},
        Lie{"U9_CVE_2025_53630_ShapeOverflows", [](RawGguf& g) { g.tensors[0].dimensions = {uint64_t{1} << 32, uint64_t{1} << 32}; },
            ErrorCode::kGgufTensor, "overflows"},
        // Ollama CVE-2026-7482: dimensions larger than the data.
        Lie{"U12_CVE_2026_7482_ShapeBeyondTheFile", [](RawGguf& g) { g.tensors[1].dimensions = {32, 1 << 20}; }, ErrorCode::kGgufTensor,
            "do not lie in the file"},
        Lie{"U10_UnknownType", [](RawGguf& g) { g.tensors[0].type = 3; }, ErrorCode::kGgufUnsupported, "ggml type 3"},
        Lie{"U11_HalfABlock", [](RawGguf& g) { g.tensors[1].dimensions = {48}; }, ErrorCode::kGgufTensor, "rows of 48"},
        Lie{"U12_Overlap", [](RawGguf& g) { g.tensors[1].offset = 0; }, ErrorCode::kGgufTensor, "expected 32"},
        Lie{"U12_Unaligned", [](RawGguf& g) { g.tensors[1].offset = 33; }, ErrorCode::kGgufTensor, "expected 32"},
        Lie{"U12_OffsetOverflows", [](RawGguf& g) { g.tensors[0].offset = ~uint64_t{31}; }, ErrorCode::kGgufTensor, "expected 0"},
        Lie{"U13_CutData", [](RawGguf& g) { g.tensors[1].bytes.resize(20); }, ErrorCode::kGgufTensor, "do not lie in the file"},
        Lie{"U14_TrailingBytes", [](RawGguf& g) { g.tensors[1].bytes.resize(34 + 64); }, ErrorCode::kGgufTensor, "follow the last tensor"}),
    [](const ::testing::TestParamInfo<Lie>& test) { return std::string(test.param.what); });

}  // namespace
}  // namespace taskpress
