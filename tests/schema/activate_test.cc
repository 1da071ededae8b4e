// Rule E11: which bytes of a file change when another size becomes the active one, and that nothing else does.
#include "schema/activate.h"

#include <algorithm>
#include <utility>

#include "schema/task.h"
#include "tests/schema/elastic_files.h"

namespace taskpress {
namespace {

// Ranges in which two files of one length differ, those less than 8 bytes apart joined.
std::vector<std::pair<size_t, size_t>> Differences(std::string_view a, std::string_view b) {
  std::vector<std::pair<size_t, size_t>> ranges;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    if (ranges.empty() || i - ranges.back().second > 8) ranges.emplace_back(i, i);
    ranges.back().second = i + 1;
  }
  return ranges;
}

class ActivateSizeTest : public BundleFolderTest, public testing::WithParamInterface<const char*> {
 protected:
  std::filesystem::path Named(const std::string& name) const { return folder_ / (name + "." + GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Containers, ActivateSizeTest, testing::Values("task", "litertlm"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(ActivateSizeTest, TheCopyIsTheFileThatTheWriterWouldHaveWritten) {
  HandmadeSizes made = MakeSizes();
  ASSERT_THAT(WriteBundleTo(Named("first"), ElasticBundle(made)), Succeeds());
  for (size_t active = 0; active < 3; ++active) {
    for (size_t i = 0; i < 3; ++i) made.list.sizes[i].active = i == active;
    const std::string& name = made.list.sizes[active].name;
    ASSERT_THAT(WriteBundleTo(Named("written"), ElasticBundle(made)), Succeeds());
    ASSERT_THAT(ActivateSize(Named("first"), Named("activated"), name, {.replace = true}), Succeeds());
    EXPECT_EQ(ReadAll(Named("activated")), ReadAll(Named("written"))) << name;
    const Result<Bundle> bundle = ReadBundle(Named("activated"));
    ASSERT_THAT(bundle, Succeeds());
    EXPECT_TRUE((*bundle->FindSize(name))->active);
    EXPECT_THAT(VerifyChecksums(*bundle), Succeeds());
  }
}

TEST_P(ActivateSizeTest, OnlyHeadersChangeAndTheWayBackGivesTheSameFile) {
  const HandmadeSizes made = MakeSizes();
  ASSERT_THAT(WriteBundleTo(Named("first"), ElasticBundle(made)), Succeeds());
  const std::string first = ReadAll(Named("first"));
  const Bundle before = ReadBundle(Named("first")).value();
  std::filesystem::path from = Named("first");
  for (const char* name : {"small", "Middle 2.5B", "big"}) {
    const std::filesystem::path to = Named(std::string("to ") + name);
    ASSERT_THAT(ActivateSize(from, to, name), Succeeds());
    from = to;
    const std::string now = ReadAll(to);
    ASSERT_EQ(now.size(), first.size());
    const uint64_t region = before.sizes.front().offset;
    const uint64_t end = region + made.region.size();
    for (const auto& [begin, stop] : Differences(first, now)) {
      const bool in_header = GetParam() == std::string("litertlm") && stop <= 16384;
      const bool behind = begin >= end;  // the list, and a .task's directory
      bool in_room = GetParam() == std::string("task") && stop <= region;
      for (const BundleSize& size : before.sizes) in_room = in_room || (begin >= size.offset - kRootRoom && stop <= size.offset);
      EXPECT_TRUE(in_header || behind || in_room) << name << ": bytes [" << begin << ", " << stop << ") differ";
    }
  }
  EXPECT_EQ(ReadAll(from), first);
}

TEST_P(ActivateSizeTest, ASizeThatIsActiveAlreadyChangesNothing) {
  ASSERT_THAT(WriteBundleTo(Named("first"), ElasticBundle(MakeSizes())), Succeeds());
  ASSERT_THAT(ActivateSize(Named("first"), Named("same"), "BIG"), Succeeds());
  EXPECT_EQ(ReadAll(Named("same")), ReadAll(Named("first")));
}

TEST_P(ActivateSizeTest, RefusesUnknownSizesPlainBundlesAndExistingOutputs) {
  ASSERT_THAT(WriteBundleTo(Named("first"), ElasticBundle(MakeSizes())), Succeeds());
  ASSERT_THAT(WriteBundleTo(Named("plain"), SmallSections()), Succeeds());
  EXPECT_THAT(ActivateSize(Named("first"), Named("out"), "tiny"), Fails(ErrorCode::kUsage, "no size \"tiny\""));
  EXPECT_THAT(ActivateSize(Named("plain"), Named("out"), "big"), Fails(ErrorCode::kUsage, "not an elastic bundle"));
  EXPECT_FALSE(std::filesystem::exists(Named("out")));
  EXPECT_THAT(ActivateSize(Named("first"), Named("plain"), "small"), Fails(ErrorCode::kOutputExists, "plain"));
}

// A copy into the other container keeps the sizes, whichever is active in the original.
TEST_P(ActivateSizeTest, ACopyFromASizeThatIsNotTheFirstHasTheSameBytes) {
  const HandmadeSizes made = MakeSizes();
  ASSERT_THAT(WriteBundleTo(Named("first"), ElasticBundle(made)), Succeeds());
  ASSERT_THAT(ActivateSize(Named("first"), Named("small"), "small"), Succeeds());
  const Bundle from = ReadBundle(Named("small")).value();
  std::vector<SectionToWrite> sections;
  for (const Section& section : from.sections) {
    sections.push_back(section.kind == SectionKind::kPrefillDecode ? SectionFromSizes(from)
                                                                   : SectionFromSource(section.kind, section.bytes));
  }
  for (const char* copy : {"copy.task", "copy.litertlm"}) {
    ASSERT_THAT(WriteBundleTo(folder_ / copy, sections), Succeeds());
    const Result<Bundle> bundle = ReadBundle(folder_ / copy);
    ASSERT_THAT(bundle, Succeeds());
    EXPECT_THAT(VerifyChecksums(*bundle), Succeeds());
    EXPECT_TRUE((*bundle->FindSize("small"))->active);
    EXPECT_EQ(EncodeSizes(ListOf(*bundle)), EncodeSizes(ListOf(from)));
  }
  EXPECT_EQ(ReadAll(folder_ / (std::string("copy.") + GetParam())), ReadAll(Named("small")));
}

// The numbers of an E4B bundle: entries beyond 4 GiB, and a smaller size whose entry no longer needs zip64 in its header.
TEST(ActivationPlanTest, HeadersKeepTheirPlaceAcrossTheZip64Border) {
  HandmadeSizes made = MakeSizes();
  SectionToWrite region = RegionSection(made.region, 0);
  region.size = 0xFFFFFFFF + uint64_t{100};
  for (const ListedSize& size : made.list.sizes) {
    region.entry = size.offset;
    const std::vector<SectionToWrite> sections{TextSection(SectionKind::kMetadata, "m"), region};
    const Result<TaskPlan> plan = PlanTask(sections);
    ASSERT_THAT(plan, Succeeds());
    EXPECT_EQ(plan->data_offsets[1] % 64, 0U);
    EXPECT_EQ(plan->data_offsets[1], PlanTask(std::vector{sections[0], RegionSection(made.region, 0)})->data_offsets[1]);
    EXPECT_EQ(plan->entries[1].header_offset + EncodeLocalHeader(*plan, 1).size(), plan->data_offsets[1] + size.offset);
    EXPECT_LE(EncodeLocalHeader(*plan, 1).size(), kRootRoom);
  }
}

}  // namespace
}  // namespace taskpress
