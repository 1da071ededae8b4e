#include "schema/litertlm.h"

#include <fcntl.h>
#include <unistd.h>

#include <functional>

#include "tests/schema/bundle_files.h"
#include "tests/schema/raw_litertlm.h"

namespace taskpress {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;

constexpr uint64_t kBlock = 16384;

class LitertlmFileTest : public BundleFolderTest {
 protected:
  std::filesystem::path path() const { return folder_ / "small.litertlm"; }
  std::string WriteSmall() {
    EXPECT_THAT(WriteBundleTo(path(), SmallSections()), Succeeds());
    return ReadAll(path());
  }
};

// Metadata and a model in two blocks.
RawLitertlm HonestFile() {
  RawLitertlm raw;
  raw.sections = {
      {.begin = kBlock, .end = kBlock + 10, .type = 5},
      {.begin = 2 * kBlock, .end = 2 * kBlock + 20, .type = 3, .items = {{.key = "model_type", .value = "tf_lite_prefill_decode"}}}};
  raw.file_size = 2 * kBlock + 20;
  return raw;
}

Result<Bundle> ReadRaw(const RawLitertlm& raw) { return ReadLitertlm(InMemory(raw.Build()), "raw.litertlm"); }

// --- writing ----------------------------------------------------------------------------------------------------------------------------

TEST_F(LitertlmFileTest, WhatIsWrittenIsReadBack) {
  WriteSmall();
  const Result<Bundle> bundle = ReadBundle(path());
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->container, Container::kLitertlm);
  EXPECT_EQ(bundle->version, "1.5.0");
  EXPECT_THAT(bundle->warnings, IsEmpty());
  ASSERT_EQ(bundle->sections.size(), 5U);
  EXPECT_EQ(bundle->sections[0].kind, SectionKind::kMetadata);
  EXPECT_EQ(bundle->sections[1].kind, SectionKind::kTokenizer);
  EXPECT_EQ(bundle->sections[4].name, "prefill_decode");
  EXPECT_THAT(bundle->sections[4].items, ElementsAre(Pair("model_type", "tf_lite_prefill_decode")));
  EXPECT_EQ(TextOf(*bundle->Find(SectionKind::kPrefillDecode)), std::string(301, 'd'));
  EXPECT_THAT(VerifyChecksums(*bundle), Succeeds());
}

TEST_F(LitertlmFileTest, TheLayoutFollowsTheFormat) {
  const std::string bytes = WriteSmall();
  const auto* start = reinterpret_cast<const std::byte*>(bytes.data());
  EXPECT_THAT(bytes, StartsWith("LITERTLM"));
  EXPECT_EQ(LoadLittle<uint32_t>(start + 8), 1U);
  EXPECT_EQ(LoadLittle<uint32_t>(start + 12), 5U);
  EXPECT_EQ(LoadLittle<uint32_t>(start + 16), 0U);
  EXPECT_EQ(LoadLittle<uint32_t>(start + 20), 0U);
  EXPECT_LE(LoadLittle<uint64_t>(start + 24), kBlock);
  const Result<Bundle> bundle = ReadBundle(path());
  ASSERT_THAT(bundle, Succeeds());
  for (size_t i = 0; i < bundle->sections.size(); ++i) EXPECT_EQ(bundle->sections[i].offset, (i + 1) * kBlock);
  EXPECT_EQ(bytes.size(), 5 * kBlock + 301) << "the last section is not padded";
  const size_t gap = kBlock + SmallSections()[0].size;
  EXPECT_EQ(bytes.substr(gap, 2 * kBlock - gap), std::string(2 * kBlock - gap, '\0'));
}

TEST_F(LitertlmFileTest, NoFieldOfASectionIsLeftToItsDefault) {
  const std::string bytes = WriteSmall();
  const litertlm::LiteRTLMMetaData* root = litertlm::GetLiteRTLMMetaData(bytes.data() + 32);
  for (const litertlm::SectionObject* section : *root->section_metadata()->objects()) {
    using Section = litertlm::SectionObject;
    for (const auto field : {Section::VT_ITEMS, Section::VT_BEGIN_OFFSET, Section::VT_END_OFFSET, Section::VT_DATA_TYPE}) {
      EXPECT_NE(reinterpret_cast<const flatbuffers::Table*>(section)->GetOptionalFieldOffset(field), 0) << field;
    }
  }
}

TEST_F(LitertlmFileTest, EqualSectionsGiveEqualBytesAndNothingIsDated) {
  const std::string bytes = WriteSmall();
  EXPECT_EQ(WriteSmall(), bytes);
  const Result<Bundle> bundle = ReadBundle(path());
  ASSERT_THAT(bundle, Succeeds());
  ASSERT_EQ(bundle->system_items.size(), 3U);
  EXPECT_THAT(bundle->system_items[0], Pair("Authors", "Taskpress"));
  EXPECT_THAT(bundle->system_items[1], Pair("uuid", testing::MatchesRegex("[0-9a-f]+-[0-9a-f]+-8[0-9a-f]+-[89ab][0-9a-f]+-[0-9a-f]+")));
  EXPECT_EQ(bundle->system_items[1].second.size(), 36U);
  EXPECT_THAT(bundle->system_items[2], Pair("creation_timestamp", "1980-01-01T00:00:00Z"));
  std::vector<SectionToWrite> other = SmallSections();
  other.pop_back();
  ASSERT_THAT(WriteBundleTo(path(), other), Succeeds());
  EXPECT_NE(ReadBundle(path())->system_items[1].second, bundle->system_items[1].second) << "the uuid depends on the sections";
}

TEST_F(LitertlmFileTest, FurtherItemsAreWrittenBehindTheModelType) {
  std::vector<SectionToWrite> sections = {TextSection(SectionKind::kVisionAdapter, "v")};
  sections[0].items = {{"backend_constraint", "cpu"}, {"model_type", "ignored"}};
  ASSERT_THAT(WriteBundleTo(path(), sections), Succeeds());
  const Result<Bundle> bundle = ReadBundle(path());
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_THAT(bundle->sections[0].items, ElementsAre(Pair("model_type", "tf_lite_vision_adapter"), Pair("backend_constraint", "cpu")));
}

TEST_F(LitertlmFileTest, OffsetsBeyondFourGigabytesAreRead) {
  std::vector<SectionToWrite> sections = SmallSections();
  sections[2].size = 5'000'000'001;
  const Result<LitertlmPlan> plan = PlanLitertlm(sections);
  ASSERT_THAT(plan, Succeeds());
  const int file = open(path().c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_GE(file, 0);
  ASSERT_EQ(ftruncate(file, static_cast<off_t>(plan->file_size)), 0);
  ASSERT_EQ(pwrite(file, plan->header.data(), plan->header.size(), 0), static_cast<ssize_t>(plan->header.size()));
  close(file);
  const Result<Bundle> bundle = ReadBundle(path());
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->Find(SectionKind::kEmbedder)->bytes->size(), 5'000'000'001U);
  EXPECT_EQ(bundle->sections[3].offset, 5'000'052'736U);  // 3 * 16384 + 5000000001, rounded up
  EXPECT_EQ(bundle->sections[3].offset % kBlock, 0U);
}

TEST_F(LitertlmFileTest, SectionsThatCannotBeWrittenAreRefused) {
  const auto plan = [](std::vector<SectionToWrite> sections) { return PlanLitertlm(sections); };
  EXPECT_THAT(plan({}), Fails(ErrorCode::kLitertlmSection, "0 sections"));
  EXPECT_THAT(plan(std::vector<SectionToWrite>(65)), Fails(ErrorCode::kLitertlmSection, "65 sections"));
  EXPECT_THAT(plan({TextSection(SectionKind::kMetadata, "")}), Fails(ErrorCode::kLitertlmSection, "empty"));
  EXPECT_THAT(plan({TextSection(SectionKind::kOther, "x", "")}), Fails(ErrorCode::kLitertlmSection, "no name"));
  EXPECT_THAT(plan({TextSection(SectionKind::kMetadata, "x"), TextSection(SectionKind::kMetadata, "y")}),
              Fails(ErrorCode::kDuplicateSection, "metadata"));
  SectionToWrite section = TextSection(SectionKind::kEmbedder, "x");
  section.items = {{"note", std::string(16000, 'n')}};
  EXPECT_THAT(plan({section}), Fails(ErrorCode::kLitertlmHeaderTooLarge, "clients read 16384"));
  section.items = {{"a", "1"}, {"a", "2"}};
  EXPECT_THAT(plan({section}), Fails(ErrorCode::kLitertlmSection, "two items \"a\""));
  section.items = {{"a", "\xff"}};
  EXPECT_THAT(plan({section}), Fails(ErrorCode::kLitertlmSection, "not UTF-8"));
  section.items = {};
  section.size = ~uint64_t{0};
  EXPECT_THAT(plan({section}), Fails(ErrorCode::kLitertlmSection, "does not fit"));
}

TEST_F(LitertlmFileTest, TheLargestHeaderThatClientsReadIsWritten) {
  // Grow an item until the header no longer fits; the last one that did must end at or below 16384 and be read back.
  std::vector<SectionToWrite> sections = SmallSections();
  std::string text(15000, 'n');
  for (;; text.push_back('n')) {
    sections[0].items = {{"note", text}};
    if (!PlanLitertlm(sections)) break;
  }
  text.pop_back();
  sections[0].items = {{"note", text}};
  ASSERT_THAT(WriteBundleTo(path(), sections), Succeeds());
  const std::string bytes = ReadAll(path());
  const auto header_end = LoadLittle<uint64_t>(reinterpret_cast<const std::byte*>(bytes.data()) + 24);
  EXPECT_EQ(header_end, kBlock);
  const Result<Bundle> bundle = ReadBundle(path());
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->sections[0].items[0].second, text);
}

// --- sections that no kind stands for ---------------------------------------------------------------------------------------------------

TEST_F(LitertlmFileTest, UnknownSectionsKeepTypeAndNameWhenWrittenAgain) {
  RawLitertlm raw = HonestFile();
  uint64_t at = 3 * kBlock;
  const auto add = [&](uint8_t type, std::vector<RawItem> items) {
    raw.sections.push_back({.begin = at, .end = at + 5, .type = type, .items = std::move(items)});
    at += kBlock;
  };
  add(1, {});
  add(1, {{.key = "name", .value = "notes"}});
  add(3, {{.key = "model_type", .value = "TF_LITE_AUX"}});
  add(3, {{.key = "model_type", .value = "tf_lite_foo"}});
  add(6, {});
  add(7, {{.key = "model_type", .value = "tf_lite_prefill_decode"}});
  add(9, {});
  add(77, {});
  raw.file_size = at;
  const Result<Bundle> first = ReadRaw(raw);
  ASSERT_THAT(first, Succeeds());
  std::vector<std::string> names;
  for (const Section& section : first->sections) names.push_back(section.name);
  EXPECT_THAT(names, ElementsAre("metadata", "prefill_decode", "generic_binary_2", "notes", "tf_lite_aux", "tf_lite_foo",
                                 "hf_tokenizer_zlib", "tflite_weights", "executor_metadata", "type_77"));
  EXPECT_EQ(first->warnings.size(), 8U);
  EXPECT_THAT(first->warnings, testing::Contains(HasSubstr("\"tf_lite_foo\" has a model_type that LiteRT-LM does not know")));

  std::vector<SectionToWrite> sections;
  for (const Section& section : first->sections) {
    sections.push_back(SectionFromSource(section.kind, section.bytes));
    sections.back().name = section.name;
    sections.back().items = section.items;
  }
  ASSERT_THAT(WriteBundleTo(path(), sections), Succeeds());
  const std::string bytes = ReadAll(path());
  const litertlm::LiteRTLMMetaData* root = litertlm::GetLiteRTLMMetaData(bytes.data() + 32);
  for (uint32_t i = 0; i < raw.sections.size(); ++i) {
    EXPECT_EQ(std::to_underlying(root->section_metadata()->objects()->Get(i)->data_type()), raw.sections[i].type) << names[i];
  }
  const Result<Bundle> second = ReadBundle(path());
  ASSERT_THAT(second, Succeeds());
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(second->sections[i].name, names[i]);
}

TEST(LitertlmReaderTest, ModelTypesAreReadInAnyCase) {
  RawLitertlm raw = HonestFile();
  raw.sections[1].items[0].value = "TF_LITE_Embedder";
  const Result<Bundle> bundle = ReadRaw(raw);
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->sections[1].kind, SectionKind::kEmbedder);
  EXPECT_THAT(bundle->warnings, IsEmpty());
}

TEST(LitertlmReaderTest, AModelWithoutModelTypeIsPrefillDecode) {
  RawLitertlm raw = HonestFile();
  raw.sections[1].items = {};
  const Result<Bundle> bundle = ReadRaw(raw);
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->sections[1].kind, SectionKind::kPrefillDecode);
}

TEST(LitertlmReaderTest, NumericItemsAreReportedButNeverFollowed) {
  for (const int tag : {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 200}) {
    RawLitertlm raw = HonestFile();
    raw.sections[1].items.push_back({.key = "number", .value = "", .number_type = static_cast<uint8_t>(tag)});
    const Result<Bundle> bundle = ReadRaw(raw);
    ASSERT_THAT(bundle, Succeeds()) << tag;
    EXPECT_THAT(bundle->sections[1].items[1], Pair("number", "<number>"));
  }
}

TEST(LitertlmReaderTest, SectionsComeInFileOrder) {
  RawLitertlm raw = HonestFile();
  std::swap(raw.sections[0], raw.sections[1]);
  const Result<Bundle> bundle = ReadRaw(raw);
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->sections[0].kind, SectionKind::kMetadata);
}

TEST(LitertlmReaderTest, OddLayoutsThatClientsMayRefuseAreWarnings) {
  RawLitertlm raw = HonestFile();
  raw.sections[1].begin += 4;
  const Result<Bundle> odd = ReadRaw(raw);
  ASSERT_THAT(odd, Succeeds());
  EXPECT_THAT(odd->warnings, ElementsAre(HasSubstr("\"prefill_decode\" begins at byte 32772, not a multiple of 16384")));
  raw = HonestFile();
  raw.system.push_back({.key = "note", .value = std::string(20000, 'n')});
  raw.sections = {{.begin = 4 * kBlock, .end = 4 * kBlock + 1, .type = 5}};
  raw.file_size = 4 * kBlock + 1;
  const Result<Bundle> long_header = ReadRaw(raw);
  ASSERT_THAT(long_header, Succeeds());
  EXPECT_THAT(long_header->warnings, ElementsAre(HasSubstr("clients read 16384 bytes")));
}

TEST(LitertlmReaderTest, MinorVersionsAreIgnored) {
  RawLitertlm raw = HonestFile();
  raw.version[1] = 250;
  raw.version[2] = 7;
  const Result<Bundle> bundle = ReadRaw(raw);
  ASSERT_THAT(bundle, Succeeds());
  EXPECT_EQ(bundle->version, "1.250.7");
}

// --- a table of lies --------------------------------------------------------------------------------------------------------------------

TEST(LitertlmReaderTest, LiesAreRefused) {
  struct Lie {
    std::string_view what;
    std::function<void(RawLitertlm&)> tell;
    ErrorCode code;
    std::string_view message;
  };
  using Raw = RawLitertlm;
  const std::vector<Lie> lies = {
      {"magic", [](Raw& raw) { raw.magic = "LITERTLN"; }, ErrorCode::kLitertlmHeader, "magic is \"LITERTLN\""},                       // L1
      {"header before itself", [](Raw& raw) { raw.header_end = 31; }, ErrorCode::kLitertlmHeader, "header [32, 31)"},                 // L1
      {"header behind the file", [](Raw& raw) { raw.header_end = raw.file_size + 1; }, ErrorCode::kLitertlmHeader, "truncated"},      // L1
      {"major version 2", [](Raw& raw) { raw.version[0] = 2; }, ErrorCode::kLitertlmVersion, "version 2.5.0, expected 1.x"},          // L2
      {"major version 0", [](Raw& raw) { raw.version[0] = 0; }, ErrorCode::kLitertlmVersion, "version 0.5.0"},                        // L2
      {"header above 1 MiB", [](Raw& raw) { raw.header_end = (1 << 20) + 1; }, ErrorCode::kLitertlmHeader, "at most 1048576"},        // L3
      {"header of 2^64 bytes", [](Raw& raw) { raw.header_end = ~uint64_t{0}; }, ErrorCode::kLitertlmHeader, "at most 1048576"},       // L3
      {"empty header", [](Raw& raw) { raw.header_end = 32; }, ErrorCode::kLitertlmHeader, "does not verify"},                         // L5
      {"header too short for its FlatBuffer", [](Raw& raw) { raw.header_end = 80; }, ErrorCode::kLitertlmHeader, "does not verify"},  // L5
      {"no sections", [](Raw& raw) { raw.sections.clear(); }, ErrorCode::kLitertlmHeader, "lists no sections"},                       // L5
      {"65 sections", [](Raw& raw) { raw.sections.resize(65, raw.sections[0]); }, ErrorCode::kLitertlmHeader, "65 sections"},         // L5
      {"item not UTF-8", [](Raw& raw) { raw.system[0].value = "\xff"; }, ErrorCode::kLitertlmHeader, "not UTF-8"},                    // L5
      {"item twice", [](Raw& raw) { raw.system.push_back(raw.system[0]); }, ErrorCode::kLitertlmHeader, "two items \"Authors\""},     // L5
      {"item twice, first empty", [](Raw& raw) { raw.system = {{"a", ""}, {"a", "x"}}; }, ErrorCode::kLitertlmHeader, "two items"},   // L5
      {"same kind twice", [](Raw& raw) { raw.sections[1].type = 5, raw.sections[1].items = {}; }, ErrorCode::kDuplicateSection,
       "two sections \"metadata\""},  // L8
      {"same model twice in other case",
       [](Raw& raw) {
         raw.sections[0] = {.begin = kBlock, .end = kBlock + 1, .type = 3, .items = {{"model_type", "TF_LITE_PREFILL_DECODE"}}};
       },
       ErrorCode::kDuplicateSection, "prefill_decode"},  // L8
      {"named and implied prefill_decode", [](Raw& raw) { raw.sections[0].type = 3; }, ErrorCode::kDuplicateSection,
       "prefill_decode"},                                                                                                         // L8
      {"empty section", [](Raw& raw) { raw.sections[0].end = raw.sections[0].begin; }, ErrorCode::kLitertlmSection, "is empty"},  // L9
      {"end before begin", [](Raw& raw) { raw.sections[0].end = 1; }, ErrorCode::kLitertlmSection, "[16384, 1) is empty"},        // L9
      {"end behind the file", [](Raw& raw) { ++raw.sections[1].end; }, ErrorCode::kLitertlmSection,
       "truncated: section \"prefill_decode\""},                                                                                  // L9
      {"end at 2^64", [](Raw& raw) { raw.sections[1].end = ~uint64_t{0}; }, ErrorCode::kLitertlmSection, "truncated"},            // L9
      {"section in the header", [](Raw& raw) { raw.sections[0].begin = 16; }, ErrorCode::kLitertlmSection, "inside the header"},  // L9
      {"section at 0", [](Raw& raw) { raw.sections[0].begin = 0; }, ErrorCode::kLitertlmSection, "inside the header"},            // L9
      {"overlap", [](Raw& raw) { raw.sections[0].end = 2 * kBlock + 1; }, ErrorCode::kLitertlmSection,
       "before \"metadata\" ends at 32769"},  // L9
  };
  for (const Lie& lie : lies) {
    RawLitertlm raw = HonestFile();
    lie.tell(raw);
    EXPECT_THAT(ReadRaw(raw), Fails(lie.code, lie.message)) << lie.what;
  }
  EXPECT_THAT(ReadRaw(HonestFile()), Succeeds());
}

TEST(LitertlmReaderTest, SharedTextsCannotMultiplyTheHeader) {  // L5
  // 1000 items that all point at one text of 10000 bytes: 10 MB from a header of 30 KB.
  flatbuffers::FlatBufferBuilder builder;
  const auto text = litertlm::CreateStringValue(builder, builder.CreateString(std::string(10000, 't')));
  std::vector<flatbuffers::Offset<litertlm::KeyValuePair>> pairs;
  for (int i = 0; i < 1000; ++i) {
    pairs.push_back(
        litertlm::CreateKeyValuePair(builder, builder.CreateString(std::to_string(i)), litertlm::VData::StringValue, text.Union()));
  }
  const auto system = litertlm::CreateSystemMetadata(builder, builder.CreateVector(pairs));
  const auto section = litertlm::CreateSectionObject(builder, 0, 4 * kBlock, 4 * kBlock + 1, litertlm::AnySectionDataType::SP_Tokenizer);
  const auto list = litertlm::CreateSectionMetadata(builder, builder.CreateVector(std::vector{section}));
  builder.Finish(litertlm::CreateLiteRTLMMetaData(builder, system, list));
  std::string file = HonestFile().Build().substr(0, 32);
  const uint64_t end = 32 + builder.GetSize();
  ASSERT_LT(end, 4 * kBlock);
  std::memcpy(file.data() + 24, &end, sizeof(end));
  file.append(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
  file.resize(4 * kBlock + 1);
  EXPECT_THAT(ReadLitertlm(InMemory(file), "bomb.litertlm"), Fails(ErrorCode::kLitertlmHeader, "longer than the header"));
}

// --- damage -----------------------------------------------------------------------------------------------------------------------------

TEST_F(LitertlmFileTest, EveryTruncationIsAnErrorThatBlamesTheFile) {
  std::vector<SectionToWrite> sections = SmallSections();
  sections.resize(2);
  ASSERT_THAT(WriteBundleTo(path(), sections), Succeeds());
  const SharedBytes whole = InMemory(ReadAll(path()));
  ASSERT_THAT(ReadBundle(whole, "whole.litertlm"), Succeeds());
  for (uint64_t size = 0; size < whole->size(); ++size) {
    const Result<Bundle> bundle = ReadBundle(*MakeSubSource(whole, 0, size), "cut.litertlm");
    ASSERT_FALSE(bundle.has_value()) << size;
    const ExitStatus status = InfoOf(bundle.error().code).status;
    ASSERT_TRUE(status == ExitStatus::kMalformed || status == ExitStatus::kUnsupported) << size;
    ASSERT_THAT(bundle.error().message, StartsWith("cut.litertlm: ")) << size;
    if (size > 0) {
      ASSERT_THAT(bundle.error().message, HasSubstr("truncated: ")) << size;
    }
  }
}

TEST_F(LitertlmFileTest, EveryFlippedHeaderByteIsRefusedOrReadWithoutHarm) {
  const std::string honest = WriteSmall();
  const auto header_end = LoadLittle<uint64_t>(reinterpret_cast<const std::byte*>(honest.data()) + 24);
  for (const int flip : {0x01, 0x55, 0x80, 0xFF}) {
    for (size_t i = 0; i < header_end; ++i) {
      std::string damaged = honest;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      const Result<Bundle> bundle = ReadBundle(InMemory(damaged), "damaged.litertlm");
      if (!bundle) continue;
      for (const Section& section : bundle->sections) ASSERT_LE(section.offset + section.bytes->size(), damaged.size()) << i;
    }
  }
}

}  // namespace
}  // namespace taskpress
