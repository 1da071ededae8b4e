// Rules E1 to E8: what a list of sizes may say, and what the file around it must look like.
#include "schema/bundle_sizes.h"

#include <functional>

#include "schema/bundle.h"
#include "schema/task.h"
#include "tests/schema/elastic_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class BundleSizesTest : public BundleFolderTest, public testing::WithParamInterface<const char*> {
 protected:
  [[nodiscard]] std::filesystem::path path() const { return folder_ / (std::string("elastic.") + GetParam()); }
  Result<Bundle> WriteAndRead(const std::vector<SectionToWrite>& sections) {
    EXPECT_THAT(WriteBundleTo(path(), sections), Succeeds());
    return ReadBundle(path());
  }
  // The bytes of the written file changed where `text` is found.
  Result<Bundle> ReadChanged(std::string_view text, std::string_view instead, size_t from = 0) {
    std::string bytes = ReadAll(path());
    const size_t at = bytes.find(text, from);
    EXPECT_NE(at, std::string::npos) << text;
    bytes.replace(at, instead.size(), instead);
    return ReadBundle(InMemory(bytes), "changed");
  }
};
INSTANTIATE_TEST_SUITE_P(Containers, BundleSizesTest, testing::Values("task", "litertlm"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(BundleSizesTest, AnHonestListIsReadWithAnyActiveSize) {
  HandmadeSizes made = MakeSizes();
  for (size_t active = 0; active < 3; ++active) {
    for (size_t i = 0; i < 3; ++i) made.list.sizes[i].active = i == active;
    const Result<Bundle> bundle = WriteAndRead(ElasticBundle(made));
    ASSERT_THAT(bundle, Succeeds());
    EXPECT_THAT(bundle->warnings, IsEmpty());
    ASSERT_EQ(bundle->sizes.size(), 3U);
    for (size_t i = 0; i < 3; ++i) {
      const BundleSize& size = bundle->sizes[i];
      EXPECT_EQ(size.name, made.list.sizes[i].name);
      EXPECT_EQ(size.text_parameters, 900);
      EXPECT_EQ(size.effective_parameters, 500);
      EXPECT_EQ(size.active, i == active);
      EXPECT_EQ(size.bytes->size(), made.region.size() - made.list.sizes[i].offset);
      EXPECT_EQ(AsText(size.bytes->view().first(size.root_bytes)), made.region.substr(made.list.sizes[i].offset, size.root_bytes));
    }
    const Section* model = bundle->Find(SectionKind::kPrefillDecode);
    EXPECT_EQ(model->offset, bundle->sizes[active].offset);
    EXPECT_EQ(model->bytes->size(), bundle->sizes[active].bytes->size());
    EXPECT_THAT(VerifyChecksums(*bundle), Succeeds());
    EXPECT_EQ(EncodeSizes(ListOf(*bundle)), EncodeSizes(made.list));
  }
}

TEST_P(BundleSizesTest, SizesAreFoundByNameInAnyCase) {
  const Result<Bundle> bundle = WriteAndRead(ElasticBundle(MakeSizes()));
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ((*bundle->FindSize("MIDDLE 2.5b"))->name, "Middle 2.5B");
  EXPECT_THAT(bundle->FindSize("tiny"), Fails(ErrorCode::kUsage, "no size \"tiny\"; it has big, Middle 2.5B, small"));
  EXPECT_THAT(bundle->SizeNames(), testing::ElementsAre("big", "Middle 2.5B", "small"));
  const Result<Bundle> plain = WriteAndRead(SmallSections());
  EXPECT_THAT(plain->SizeNames(), testing::ElementsAre(""));
  EXPECT_THAT(plain->FindSize("big"), Fails(ErrorCode::kUsage, "not an elastic bundle"));
}

struct Lie {
  const char* what;
  std::function<void(SizeList&)> tell;
  const char* message;
};

TEST_P(BundleSizesTest, ALieInTheListIsRefused) {
  for (const Lie& lie : {
           // E2
           Lie{"one size", [](SizeList& list) { list.sizes.resize(1); }, "1 sizes, from 2 to 16"},
           Lie{"17 sizes", [](SizeList& list) { list.sizes.resize(17, list.sizes[1]); }, "17 sizes, from 2 to 16"},
           Lie{"no name", [](SizeList& list) { list.sizes[1].name = ""; }, "\"\" is no name of a size"},
           Lie{"a long name", [](SizeList& list) { list.sizes[1].name = std::string(65, 'n'); }, "is no name of a size"},
           Lie{"a control character", [](SizeList& list) { list.sizes[1].name = "a\nb"; }, "is no name of a size"},
           Lie{"letters of other scripts", [](SizeList& list) { list.sizes[1].name = "gro\xC3\x9F"; }, "is no name of a size"},
           Lie{"a name twice", [](SizeList& list) { list.sizes[2].name = "BIG"; }, "two sizes are called \"BIG\""},
           Lie{"no parameters", [](SizeList& list) { list.sizes[1].effective_parameters = 0; }, "has 900 parameters, 0 of them"},
           Lie{"more effective than all", [](SizeList& list) { list.sizes[1].effective_parameters = 901; }, "901 of them effective"},
           // E3
           Lie{"the first root elsewhere", [](SizeList& list) { list.sizes[0].offset = 16384; }, "\"big\" is at 16384, expected at 0"},
           Lie{"a root on no block", [](SizeList& list) { list.sizes[1].offset += 64; }, "is at 16448, expected at 16384"},
           Lie{"a root too far", [](SizeList& list) { list.sizes[2].offset += 16384; }, "\"small\" is at 65536, expected at 49152"},
           Lie{"roots that overlap", [](SizeList& list) { list.sizes[0].root_bytes = 16384; }, "is at 16384, expected at 32768"},
           Lie{"no room for a header", [](SizeList& list) { list.sizes[0].root_bytes = 16300; }, "is at 16384, expected at 32768"},
           Lie{"a root without identifier", [](SizeList& list) { list.sizes[2].root_bytes = 7; }, "has 7 bytes at 49152"},
           Lie{"a root outside", [](SizeList& list) { list.sizes[2].root_bytes = 100'000; }, "has 100000 bytes at 49152"},
           Lie{"a root of 2^64 bytes", [](SizeList& list) { list.sizes[2].root_bytes = ~0ULL; }, "has 18446744073709551615 bytes"},
           Lie{"an endless region", [](SizeList& list) { list.region_bytes = ~0ULL; }, "a region of"},
           // E4
           Lie{"none is active", [](SizeList& list) { list.sizes[0].active = false; }, "0 sizes are active"},
           Lie{"two are active", [](SizeList& list) { list.sizes[1].active = true; }, "2 sizes are active"},
           Lie{"another one is active", [](SizeList& list) { std::swap(list.sizes[0].active, list.sizes[1].active); }, "is active and has"},
           Lie{"a longer region", [](SizeList& list) { list.region_bytes += 1; }, "is active and has"},
           Lie{"a shorter region", [](SizeList& list) { list.region_bytes -= 1; }, "is active and has"},
       }) {
    HandmadeSizes made = MakeSizes();
    const std::vector<SectionToWrite> honest = ElasticBundle(made);
    lie.tell(made.list);
    std::vector<SectionToWrite> sections = honest;
    sections.back() = TextSection(SectionKind::kSizes, EncodeSizes(made.list));
    EXPECT_THAT(WriteAndRead(sections), Fails(ErrorCode::kBundleSizes, lie.message)) << lie.what;
  }
}

// E1
TEST_P(BundleSizesTest, TheListIsTheWritersTextAndNothingElse) {
  const HandmadeSizes made = MakeSizes();
  const std::string honest = EncodeSizes(made.list);
  const auto with = [&](std::string_view text, std::string_view instead) {
    std::string changed = honest;
    changed.replace(changed.find(text), text.size(), instead);
    return changed;
  };
  for (const std::string& text : {
           std::string("PK\x03\x04"),
           std::string("[]"),
           std::string("{}"),
           honest + " ",
           honest + "{}",
           with("\"sizes\":[", "\"hidden\":\"payload\",\"sizes\":["),
           with("\"active\":1", "\"active\":2"),
           with("\"active\":1", "\"active\":true"),
           with("\"active\":1", "\"active\":1,\"note\":1"),
           with("\"text\":900", "\"text\":9.0e2"),
           with("\"text\":900", "\"text\":\"900\""),
           with("\"offset\":0", "\"offset\":-0"),
           with("\"offset\":16384", "\"offset\":-1"),
           with("\"root\":77,", ""),
           with("\"crc32\":\"", "\"crc32\":\"0"),
           with("\"taskpress_sizes\":1", "\"taskpress_sizes\":2"),
           with(",\"sizes\"", ", \"sizes\""),
           with("\"sizes\":[", "\"sizes\":[[],"),
           std::string(70'000, ' '),
       }) {
    EXPECT_THAT(WriteAndRead(ElasticBundle(made, text)), Fails(ErrorCode::kBundleSizes, "")) << text.substr(0, 200);
  }
  for (size_t length = 0; length < honest.size(); ++length) {
    EXPECT_FALSE(DecodeSizes(AsBytes(std::string_view(honest).substr(0, length))).has_value()) << length;
  }
}

TEST_P(BundleSizesTest, AListNeedsAModel) {  // E4
  std::vector<SectionToWrite> sections = ElasticBundle(MakeSizes());
  sections.erase(sections.begin() + 4);
  EXPECT_THAT(WriteAndRead(sections), Fails(ErrorCode::kBundleSizes, "without a prefill_decode section"));
}

TEST_P(BundleSizesTest, RootsInFrontOfTheActiveOneLieInTheFile) {  // E5
  HandmadeSizes made = MakeSizes();
  made.list.sizes[0].active = false;
  made.list.sizes[2].active = true;
  std::vector<SectionToWrite> sections;
  // A model that is shown whole, so that the file has no room for roots in front of it.
  sections.push_back(TextSection(SectionKind::kPrefillDecode, made.region.substr(made.list.sizes[2].offset)));
  sections.push_back(TextSection(SectionKind::kSizes, EncodeSizes(made.list)));
  EXPECT_THAT(WriteAndRead(sections), Fails(ErrorCode::kBundleSizes, "is active and has"));
}

TEST_P(BundleSizesTest, NoOtherSectionReachesIntoTheRegion) {  // E5
  HandmadeSizes made = MakeSizes();
  made.list.sizes[0].active = false;
  made.list.sizes[2].active = true;
  std::vector<SectionToWrite> sections;
  sections.push_back(TextSection(SectionKind::kEmbedder, std::string(100'000, 'e')));  // where the first two roots should be
  sections.push_back(TextSection(SectionKind::kPrefillDecode, made.region.substr(made.list.sizes[2].offset)));
  sections.push_back(TextSection(SectionKind::kSizes, EncodeSizes(made.list)));
  EXPECT_THAT(WriteAndRead(sections), Fails(ErrorCode::kBundleSizes, "section \"embedder\""));
}

TEST_P(BundleSizesTest, NothingHidesBetweenTheRoots) {  // E6
  for (const bool last_active : {false, true}) {
    HandmadeSizes made = MakeSizes();
    made.list.sizes[0].active = !last_active;
    made.list.sizes[2].active = last_active;
    for (const uint64_t hidden : {uint64_t{1000}, uint64_t{16383}, uint64_t{32768}, uint64_t{49152 - 129}}) {
      HandmadeSizes lying = made;
      lying.region[hidden] = 'x';
      for (ListedSize& size : lying.list.sizes) size.crc32 = Crc32(0, AsBytes(std::string_view(lying.region).substr(size.offset)));
      EXPECT_THAT(WriteAndRead(ElasticBundle(lying)), Fails(ErrorCode::kBundleSizes, "between two roots, are not zero")) << hidden;
    }
  }
}

TEST_P(BundleSizesTest, DamageToAnySizeIsNoticed) {  // E8
  const HandmadeSizes made = MakeSizes();
  ASSERT_THAT(WriteAndRead(ElasticBundle(made)), Succeeds());
  const auto damaged = [&](std::string_view text) {
    const Result<Bundle> bundle = ReadChanged(text, "X");
    EXPECT_THAT(bundle, Succeeds());
    return VerifyChecksums(*bundle);
  };
  EXPECT_THAT(damaged("bbbbbbbb"), Fails(ErrorCode::kZipChecksum, "size \"big\""));
  EXPECT_THAT(damaged("01234567"), Fails(ErrorCode::kZipChecksum, "size \"big\""));  // weights
  // Only the ones in front have the last root among their bytes.
  EXPECT_THAT(damaged("ssssssss"), Fails(ErrorCode::kZipChecksum, "size \"big\""));
  HandmadeSizes wrong = made;
  wrong.list.sizes[1].crc32 ^= 1;
  const Result<Bundle> bundle = WriteAndRead(ElasticBundle(wrong));
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_THAT(VerifyChecksums(*bundle), Fails(ErrorCode::kZipChecksum, "size \"Middle 2.5B\""));
}

class TaskSizesTest : public BundleFolderTest {};

TEST_F(TaskSizesTest, TheDirectorysChecksumIsThatOfTheActiveSize) {  // E7
  HandmadeSizes made = MakeSizes();
  made.list.sizes[0].crc32 ^= 1;
  ASSERT_THAT(WriteBundleTo(folder_ / "a.task", ElasticBundle(made)), Succeeds());
  EXPECT_THAT(ReadBundle(folder_ / "a.task"), Fails(ErrorCode::kBundleSizes, "the CRC-32 of prefill_decode"));
}

TEST_F(TaskSizesTest, SizesCannotComeFirst) {  // E10: an archive begins with a local header, T6
  EXPECT_THAT(PlanTask(std::vector{RegionSection(MakeSizes().region, 0)}), Fails(ErrorCode::kZipEntry, "cannot be the first"));
}

TEST_F(TaskSizesTest, WhatLiesInFrontOfTheActiveRootAndIsInNoListIsAGap) {  // E6, T7
  HandmadeSizes made = MakeSizes();
  made.list.sizes[0].active = false;
  made.list.sizes[2].active = true;
  ASSERT_THAT(WriteBundleTo(folder_ / "a.task", ElasticBundle(made)), Succeeds());
  std::string bytes = ReadAll(folder_ / "a.task");
  const size_t first_root = bytes.find("bbbbbbbb");
  bytes[first_root - 1] = 'x';  // the room of a header that is not there
  EXPECT_THAT(ReadBundle(InMemory(bytes), "a.task"), Fails(ErrorCode::kZipStructure, "belong to no entry and are not zero"));
}

}  // namespace
}  // namespace taskpress
