#include "schema/bundle.h"

#include <algorithm>
#include <set>

#include "schema/base/text.h"
#include "tests/schema/bundle_files.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

class BundleTest : public BundleFolderTest {};

TEST(SectionTableTest, EveryKindHasOneRowWithUniqueNames) {
  std::set<SectionKind> kinds;
  std::set<std::string_view> names;
  std::set<std::string_view> entries;
  std::set<std::tuple<int, std::string_view, std::string_view>> litertlm;
  for (const SectionInfo& info : AllSections()) {
    EXPECT_TRUE(kinds.insert(info.kind).second) << info.name;
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_TRUE(entries.insert(info.task_entry).second) << info.name;
    // Generic data, which no client looks up, are told apart by their item "name".
    const bool generic = info.kind == SectionKind::kSizes;
    EXPECT_TRUE(litertlm.emplace(info.litertlm_data_type, info.litertlm_type, generic ? info.name : "").second) << info.name;
    EXPECT_EQ(InfoOf(info.kind).name, info.name);
    // A client's two spellings of a model differ only in case.
    EXPECT_EQ(info.litertlm_type, info.is_model ? ToLowerAscii(info.task_entry) : "") << info.name;
  }
  EXPECT_EQ(kinds.size(), std::to_underlying(SectionKind::kOther) + 1U);
  EXPECT_EQ(std::ranges::count(AllSections(), true, &SectionInfo::required), 5);
}

TEST(ContainerTest, FollowsFromTheExtension) {
  EXPECT_EQ(ContainerFromPath("a/b.task"), Container::kTask);
  EXPECT_EQ(ContainerFromPath("b.LiteRTLM"), Container::kLitertlm);
  EXPECT_FALSE(ContainerFromPath("task").has_value());
  EXPECT_FALSE(ContainerFromPath("b.tflite").has_value());
  EXPECT_EQ(NameOf(Container::kTask), "task");
  EXPECT_EQ(NameOf(Container::kLitertlm), "litertlm");
}

TEST(ReadBundleTest, SaysWhatAForeignFileIs) {
  struct Foreign {
    std::string bytes;
    ErrorCode code;
    std::string_view message;
  };
  const std::vector<Foreign> table = {
      {"", ErrorCode::kUnknownContainer, "empty"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", ErrorCode::kNotATensorFile, "Git LFS pointer"},
      {"<!DOCTYPE html><html>", ErrorCode::kNotATensorFile, "web page"},
      {"\r\n <html lang=en>", ErrorCode::kNotATensorFile, "web page"},
      {std::string("GGUF\x03\0\0\0", 8), ErrorCode::kUnknownContainer, "GGUF"},
      {std::string("\x1c\0\0\0TFL3\0\0\0\0", 12), ErrorCode::kUnknownContainer, ".tflite"},
      {std::string("\x40\0\0\0\0\0\0\0{\"a\":", 13), ErrorCode::kUnknownContainer, "safetensors"},
      {std::string(600, '\0'), ErrorCode::kUnknownContainer, "are zero"},
      {"LITER", ErrorCode::kUnknownContainer, "truncated: the 5 bytes of this file begin a .litertlm"},
      {std::string("\x1f\x8b\x08\0abc", 7), ErrorCode::kUnknownContainer, "begins with \"\\x1f\\x8b\\x08\\x00abc\""},
      {std::string(65, '\0') + "PK\x03\x04", ErrorCode::kUnknownContainer, "not a bundle"},
      {std::string("PK\x05\x06") + std::string(18, '\0'), ErrorCode::kZipStructure, "empty"},
  };
  for (const Foreign& foreign : table) {
    const Result<Bundle> bundle = ReadBundle(InMemory(foreign.bytes), "model.task");
    EXPECT_THAT(bundle, Fails(foreign.code, foreign.message)) << Printable(foreign.bytes);
    EXPECT_THAT(bundle.error().message, testing::StartsWith("model.task: "));
  }
}

TEST_F(BundleTest, TheContentDecidesNotTheExtension) {
  const std::filesystem::path path = folder_ / "a.task";
  ASSERT_THAT(WriteBundleTo(path, SmallSections()), Succeeds());
  std::filesystem::rename(path, folder_ / "a.litertlm");
  const Result<Bundle> bundle = ReadBundle(folder_ / "a.litertlm");
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->container, Container::kTask);
}

TEST_F(BundleTest, MissingFilesAndFoldersAreUsageErrors) {
  EXPECT_THAT(ReadBundle(folder_ / "none.task"), Fails(ErrorCode::kFileNotFound, "none.task"));
  EXPECT_THAT(ReadBundle(folder_), Fails(ErrorCode::kNotRegularFile, ""));
}

TEST_F(BundleTest, ASectionOutlivesItsBundle) {
  ASSERT_THAT(WriteBundleTo(folder_ / "a.litertlm", SmallSections()), Succeeds());
  const SharedBytes bytes = ReadBundle(folder_ / "a.litertlm")->Find(SectionKind::kEmbedder)->bytes;
  EXPECT_EQ(AsText(bytes->view()), std::string(77, 'e'));
}

TEST_F(BundleTest, RepackingKeepsEveryByteOfEverySection) {
  std::vector<SectionToWrite> sections = SmallSections();
  sections.push_back(TextSection(SectionKind::kOther, "a note", "notes.txt"));
  sections.push_back(TextSection(SectionKind::kOther, "an aux model", "TF_LITE_AUX"));
  ASSERT_THAT(WriteBundleTo(folder_ / "1.task", sections), Succeeds());
  const auto repack = [&](const std::string& from, const std::string& to) {
    const Result<Bundle> bundle = ReadBundle(folder_ / from);
    ASSERT_THAT(bundle, Succeeds());
    std::vector<SectionToWrite> copies;
    for (const Section& section : bundle->sections) {
      copies.push_back(SectionFromSource(section.kind, section.bytes));
      copies.back().name = section.name;
    }
    ASSERT_THAT(WriteBundleTo(folder_ / to, copies), Succeeds());
  };
  repack("1.task", "2.litertlm");
  repack("2.litertlm", "3.task");
  EXPECT_EQ(ReadAll(folder_ / "3.task"), ReadAll(folder_ / "1.task"));
  const Result<Bundle> middle = ReadBundle(folder_ / "2.litertlm");
  ASSERT_THAT(middle, Succeeds());
  EXPECT_EQ(middle->sections[5].name, "notes.txt");
  EXPECT_EQ(middle->sections[6].name, "tf_lite_aux");
}

TEST_F(BundleTest, AFileOfTheWrongSizeIsRefused) {
  const std::vector<SectionToWrite> sections = SmallSections();
  for (const Container container : {Container::kTask, Container::kLitertlm}) {
    Result<OutputFile> file = OutputFile::Create(folder_ / "wrong", 10);
    ASSERT_THAT(file, Succeeds());
    EXPECT_THAT(WriteBundle(container, sections, *file), Fails(ErrorCode::kWriteFailed, "created with 10 bytes"));
  }
}

TEST_F(BundleTest, EveryByteIsWrittenWhateverTheFileHeldBefore) {
  for (const char* name : {"a.task", "a.litertlm"}) {
    const std::vector<SectionToWrite> sections = SmallSections();
    ASSERT_THAT(WriteBundleTo(folder_ / name, sections), Succeeds());
    const std::string clean = ReadAll(folder_ / name);
    Result<OutputFile> file = OutputFile::Create(folder_ / name, clean.size(), {.replace = true});
    ASSERT_THAT(file, Succeeds());
    ASSERT_THAT(file->WriteAt(0, AsBytes(std::string(clean.size(), '\xff'))), Succeeds());
    ASSERT_THAT(WriteBundle(*ContainerFromPath(name), sections, *file), Succeeds());
    ASSERT_THAT(file->Commit(), Succeeds());
    EXPECT_TRUE(ReadAll(folder_ / name) == clean) << name;
  }
}

TEST_F(BundleTest, BigSourcesAreCopiedBlockByBlock) {
  std::string big(5'000'001, '\0');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 2654435761U >> 13);
  const std::vector<SectionToWrite> sections = {TextSection(SectionKind::kMetadata, "m"), TextSection(SectionKind::kPrefillDecode, big)};
  for (const char* name : {"big.task", "big.litertlm"}) {
    ASSERT_THAT(WriteBundleTo(folder_ / name, sections), Succeeds());
    const Result<Bundle> bundle = ReadBundle(folder_ / name);
    ASSERT_THAT(bundle, Succeeds());
    EXPECT_TRUE(TextOf(bundle->sections[1]) == big) << name;
    EXPECT_THAT(VerifyChecksums(*bundle), Succeeds());
  }
}

TEST_F(BundleTest, AFileThatShrinksWhileItIsCheckedIsNoticed) {
  const std::filesystem::path path = folder_ / "a.task";
  ASSERT_THAT(WriteBundleTo(path, SmallSections()), Succeeds());
  const Result<Bundle> bundle = ReadBundle(path);
  ASSERT_THAT(bundle, Succeeds());
  std::filesystem::resize_file(path, 10);
  EXPECT_THAT(VerifyChecksums(*bundle), Fails(ErrorCode::kFileChanged, "has 10 now"));
}

TEST(TextTest, Utf8IsStrict) {
  for (const std::string_view good :
       {"", "a", "\xc3\xa9", "\xe2\x96\x81", "\xf0\x9f\x99\x82", "\xf4\x8f\xbf\xbf", "\xee\x80\x80", "\xed\x9f\xbf"}) {
    EXPECT_TRUE(IsUtf8(good)) << Printable(good);
  }
  for (const std::string_view bad : {"\x80", "\xc3", "\xc3(", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
                                     "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe2\x96", "a\xff"}) {
    EXPECT_FALSE(IsUtf8(bad)) << Printable(bad);
  }
}

TEST(TextTest, PrintableShowsEveryByteAndCutsLongTexts) {
  EXPECT_EQ(Printable("a\n\x7f\xc3\xa9~"), "a\\x0a\\x7f\\xc3\\xa9~");
  EXPECT_EQ(Printable(std::string(120, 'x')), std::string(120, 'x'));
  EXPECT_EQ(Printable(std::string(121, 'x')), std::string(120, 'x') + "... (121 bytes)");
}

}  // namespace
}  // namespace taskpress
