// Bundles of the micro checkpoint on their way from one container to the other, and what is not allowed on the way.
#include "converter/repack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "schema/base/hash.h"
#include "schema/base/text.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/schema/bundle_files.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/tiny_sentencepiece.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kContext = 64;

class RepackTest : public ::testing::Test {
 protected:
  RepackTest() {
    WriteMicro({.recipe = "dynamic_int4", .context = kContext, .prefill = {8}}, {task_, litertlm_});
    fs::create_directory(out_);
  }
  [[nodiscard]] fs::path Out(const std::string& name) const { return out_ / name; }
  static Result<RepackedBundle> Repack(const fs::path& from, const fs::path& to, const SectionChanges& changes = {}) {
    WriteOptions options;
    options.work.threads = 2;
    return RepackBundle(from, to, changes, options);
  }
  // A section's bytes as a file, to be put in another's place.
  [[nodiscard]] fs::path FileOf(const fs::path& bundle, SectionKind kind) const {
    return folder_.Write(Format("{}.section", InfoOf(kind).name), TextOf(*Must(ReadBundle(bundle)).Find(kind)));
  }
  // A bundle like `from` with more sections behind its own.
  fs::path WithSections(const fs::path& from, const std::string& name, const std::vector<SectionToWrite>& more) {
    const Bundle bundle = Must(ReadBundle(from));
    std::vector<SectionToWrite> sections;
    for (const Section& section : bundle.sections) sections.push_back(SectionFromSource(section.kind, section.bytes));
    sections.insert(sections.end(), more.begin(), more.end());
    Must(WriteBundleTo(folder_.path() / name, sections));
    return folder_.path() / name;
  }
  static BundleMetadata MetadataOf(const fs::path& file) { return Must(LoadBundleModel(Must(ReadBundle(file)))).metadata; }
  [[nodiscard]] bool NothingIsLeft() const { return fs::is_empty(out_); }

  TempFolder folder_;
  fs::path task_ = folder_.path() / "micro.task";
  fs::path litertlm_ = folder_.path() / "micro.litertlm";
  fs::path out_ = folder_.path() / "out";
};

std::vector<std::string> NamesOf(const fs::path& bundle) {
  std::vector<std::string> names;
  const Bundle read = Must(ReadBundle(bundle));
  for (const Section& section : read.sections) names.push_back(section.name);
  return names;
}

// --- from one container to the other ----------------------------------------------------------------------------------------------------

TEST_F(RepackTest, ThereAndBackGivesTheSameFile) {
  const RepackedBundle there = Must(Repack(task_, Out("a.litertlm")));
  const RepackedBundle back = Must(Repack(Out("a.litertlm"), Out("a.task")));
  EXPECT_EQ(ReadFileBytes(Out("a.task")), ReadFileBytes(task_));
  EXPECT_EQ(back.bundle.path, Out("a.task"));
  EXPECT_EQ(back.bundle.bytes, fs::file_size(task_));
  EXPECT_EQ(back.bundle.sha256, Must(DigestFile(task_)).sha256);
  EXPECT_EQ(there.bundle.sha256, Must(DigestFile(Out("a.litertlm"))).sha256);
}

TEST_F(RepackTest, ALitertlmBecomesTheTaskThatConvertWrites) {
  Must(Repack(litertlm_, Out("a.task")));
  EXPECT_EQ(ReadFileBytes(Out("a.task")), ReadFileBytes(task_));
}

TEST_F(RepackTest, ATaskBecomesTheLitertlmThatConvertWritesUpToTheSampler) {
  const RepackedBundle repacked = Must(Repack(task_, Out("a.litertlm")));
  const Bundle ours = Must(ReadBundle(Out("a.litertlm")));
  const Bundle converted = Must(ReadBundle(litertlm_));
  ASSERT_EQ(NamesOf(Out("a.litertlm")), NamesOf(litertlm_));
  for (size_t i = 0; i < ours.sections.size(); ++i) {
    if (ours.sections[i].kind == SectionKind::kMetadata) continue;
    EXPECT_EQ(TextOf(ours.sections[i]), TextOf(converted.sections[i])) << ours.sections[i].name;
  }
  BundleMetadata expected = MetadataOf(litertlm_);
  EXPECT_EQ(expected.sampler, (SamplerSettings{.k = 64, .p = 0.95F, .temperature = 1.0F}));
  expected.sampler.k = 1;  // what a client takes when nothing is said
  EXPECT_EQ(MetadataOf(Out("a.litertlm")), expected);
  EXPECT_THAT(repacked.notes, ElementsAre(HasSubstr("context of 64 tokens and the model type gemma3n")));
}

TEST_F(RepackTest, WhatATaskHasNoPlaceForIsSaid) {
  EXPECT_THAT(Must(Repack(litertlm_, Out("a.task"))).notes, ElementsAre(HasSubstr("sampler (k 64, p 0.95, temperature 1)")));
}

TEST_F(RepackTest, InOneContainerNothingChanges) {
  for (const fs::path& from : {task_, litertlm_}) {
    const fs::path to = Out("same" + from.extension().string());
    EXPECT_THAT(Must(Repack(from, to)).notes, IsEmpty());
    EXPECT_EQ(ReadFileBytes(to), ReadFileBytes(from));
  }
}

TEST_F(RepackTest, StagesComeInOrderAndEveryByteIsCounted) {
  std::vector<std::string> stages;
  ConvertEvent last;
  WriteOptions options;
  options.on_event = [&](const ConvertEvent& event) {
    if (stages.empty() || stages.back() != event.stage) stages.emplace_back(event.stage);
    if (event.stage == "write") last = event;
  };
  Must(RepackBundle(task_, Out("a.litertlm"), {}, options));
  EXPECT_THAT(stages, ElementsAre("check", "write", "verify", "smoke"));
  uint64_t bytes = 0;
  const Bundle written = Must(ReadBundle(Out("a.litertlm")));
  for (const Section& section : written.sections) bytes += section.bytes->size();
  EXPECT_EQ(last.bytes_total, bytes);
  EXPECT_EQ(last.bytes_done, bytes);
}

// --- sections ---------------------------------------------------------------------------------------------------------------------------

TEST_F(RepackTest, SectionsThatNobodyKnowsAreCarriedAlong) {
  SectionToWrite model = TextSection(SectionKind::kOther, "a drafter", "tf_lite_mtp_drafter");
  model.items = {{"backend_constraint", "cpu"}};
  const fs::path first = WithSections(litertlm_, "more.litertlm", {TextSection(SectionKind::kOther, "hello", "notes.txt"), model});
  EXPECT_THAT(Must(Repack(first, Out("a.task"))).notes, ElementsAre(HasSubstr("sampler"), HasSubstr("key/value items")));
  Must(Repack(Out("a.task"), Out("a.litertlm")));
  for (const fs::path& path : {Out("a.task"), Out("a.litertlm")}) {
    const Bundle bundle = Must(ReadBundle(path));
    ASSERT_EQ(bundle.sections.size(), 7U);
    EXPECT_EQ(bundle.sections[5].name, "notes.txt");
    EXPECT_EQ(TextOf(bundle.sections[5]), "hello");
    EXPECT_EQ(ToLowerAscii(bundle.sections[6].name), "tf_lite_mtp_drafter");
    EXPECT_EQ(TextOf(bundle.sections[6]), "a drafter");
  }
  Must(Repack(first, Out("b.litertlm")));
  EXPECT_EQ(ReadFileBytes(Out("b.litertlm")), ReadFileBytes(first));  // items too
}

TEST_F(RepackTest, ADroppedSectionIsGoneAndTheOthersStay) {
  const std::vector<SectionToWrite> more = {TextSection(SectionKind::kVisionEncoder, "eyes"),
                                            TextSection(SectionKind::kOther, "hello", "notes.txt")};
  const fs::path first = WithSections(task_, "more.task", more);
  Must(Repack(first, Out("a.task"), {.drop = {"vision_encoder", "notes.txt"}, .replace = {}}));
  EXPECT_EQ(ReadFileBytes(Out("a.task")), ReadFileBytes(task_));
  Must(Repack(first, Out("b.task"), {.drop = {"vision_encoder"}, .replace = {}}));
  EXPECT_EQ(NamesOf(Out("b.task")).back(), "notes.txt");
}

TEST_F(RepackTest, WhatClientsNeedIsNotDropped) {
  for (const SectionInfo& info : AllSections()) {
    if (!info.required) continue;
    const std::string name(info.name);
    const Result<RepackedBundle> refused = Repack(task_, Out("a.task"), {.drop = {name}, .replace = {}});
    EXPECT_THAT(refused, Fails(ErrorCode::kUsage, "section \"" + name + "\" cannot be dropped"));
    EXPECT_THAT(refused.error().message, HasSubstr("--replace " + name + "=FILE"));
  }
  EXPECT_TRUE(NothingIsLeft());
}

// All three models of another recipe: the bundle that convert would have written with it.
TEST_F(RepackTest, ReplacedModelsMakeTheBundleTheyCameFrom) {
  const fs::path other = folder_.path() / "int8.task";
  WriteMicro({.recipe = "dynamic_int8", .context = kContext, .prefill = {8}}, {other});
  SectionChanges changes;
  for (const SectionKind kind : {SectionKind::kEmbedder, SectionKind::kPerLayerEmbedder, SectionKind::kPrefillDecode}) {
    changes.replace.push_back({.section = std::string(InfoOf(kind).name), .file = FileOf(other, kind)});
  }
  Must(Repack(task_, Out("a.task"), changes));
  EXPECT_EQ(ReadFileBytes(Out("a.task")), ReadFileBytes(other));
}

TEST_F(RepackTest, MetadataMayComeInEitherSpelling) {
  BundleMetadata metadata = MetadataOf(litertlm_);
  metadata.sampler = {.k = 5, .p = 0.5F, .temperature = 0.25F};
  metadata.user.prefix = "Q: ";
  for (const Container spelling : {Container::kTask, Container::kLitertlm}) {
    const fs::path file = folder_.Write("metadata.pb", EncodeMetadata(spelling, metadata));
    for (const char* to : {"a.task", "a.litertlm"}) {
      fs::remove(Out(to));
      Must(Repack(task_, Out(to), {.drop = {}, .replace = {{"metadata", file}}}));
      const BundleMetadata read = MetadataOf(Out(to));
      EXPECT_EQ(read.user.prefix, "Q: ");
      EXPECT_EQ(read.stop_tokens, metadata.stop_tokens);
      const bool sampler_arrives = spelling == Container::kLitertlm && ContainerFromPath(Out(to)) == Container::kLitertlm;
      EXPECT_EQ(read.sampler == metadata.sampler, sampler_arrives) << NameOf(spelling) << " to " << to;
      if (sampler_arrives) {
        EXPECT_EQ(read, metadata);
      }
    }
  }
}

TEST_F(RepackTest, ATokenizerIsReplacedByItsLike) {
  Must(Repack(task_, Out("a.task"), {.drop = {}, .replace = {{"tokenizer", FileOf(task_, SectionKind::kTokenizer)}}}));
  EXPECT_EQ(ReadFileBytes(Out("a.task")), ReadFileBytes(task_));
}

// --- what is refused --------------------------------------------------------------------------------------------------------------------

TEST_F(RepackTest, NamesThatDoNotFitAreRefused) {
  const fs::path file = FileOf(task_, SectionKind::kTokenizer);
  const std::pair<SectionChanges, std::string> lies[] = {
      {{.drop = {"nonsense"}, .replace = {}}, "no section \"nonsense\"; it has metadata, tokenizer, embedder"},
      {{.drop = {"METADATA"}, .replace = {}}, "no section \"METADATA\""},
      {{.drop = {""}, .replace = {}}, "no section \"\""},
      {{.drop = {"vision_encoder"}, .replace = {}}, "no section \"vision_encoder\""},
      {{.drop = {}, .replace = {{"nonsense", file}}}, "no section \"nonsense\""},
      {{.drop = {}, .replace = {{"tokenizer", file}, {"tokenizer", file}}}, "named twice"},
      {{.drop = {}, .replace = {{"metadata", folder_.Write("empty", "")}}}, "is empty"},
  };
  for (const auto& [changes, text] : lies) EXPECT_THAT(Repack(task_, Out("a.task"), changes), Fails(ErrorCode::kUsage, text));

  const fs::path more = WithSections(
      task_, "more.task", {TextSection(SectionKind::kOther, "hello", "notes"), TextSection(SectionKind::kOther, "other", "embedder")});
  EXPECT_THAT(Repack(more, Out("a.task"), {.drop = {"notes", "notes"}, .replace = {}}), Fails(ErrorCode::kUsage, "dropped twice"));
  EXPECT_THAT(Repack(more, Out("a.task"), {.drop = {"notes"}, .replace = {{"notes", file}}}), Fails(ErrorCode::kUsage, "named twice"));
  EXPECT_THAT(Repack(more, Out("a.task"), {.drop = {"embedder"}, .replace = {}}), Fails(ErrorCode::kUsage, "2 sections are called"));
  EXPECT_TRUE(NothingIsLeft());
}

// The first 2000 pieces of the micro tokenizer.
std::string ShortTokenizer(const std::string& whole) {
  SentencePieceModel model = Must(ReadSentencePieceModel(AsBytes(whole)));
  model.mutable_pieces()->DeleteSubrange(2000, model.pieces_size() - 2000);
  return model.SerializeAsString();
}

TEST_F(RepackTest, ContentsThatDoNotFitAreRefused) {
  const std::string model = TextOf(*Must(ReadBundle(task_)).Find(SectionKind::kEmbedder));
  const std::string tokenizer = TextOf(*Must(ReadBundle(task_)).Find(SectionKind::kTokenizer));
  BundleMetadata silent = MetadataOf(litertlm_);
  silent.stop_tokens.clear();
  BundleMetadata long_context = MetadataOf(litertlm_);
  long_context.max_num_tokens = kContext + 1;
  BundleMetadata wordy = MetadataOf(litertlm_);
  wordy.stop_tokens.push_back({.id = 282, .text = {}});
  const auto spelled = [](const BundleMetadata& metadata) { return EncodeMetadata(Container::kLitertlm, metadata); };
  const std::tuple<std::string, std::string, ErrorCode, std::string> lies[] = {
      {"embedder", "no model at all", ErrorCode::kTfliteStructure, "cannot be section \"embedder\""},
      {"prefill_decode", model.substr(0, model.size() / 2), ErrorCode::kTfliteReference, "cannot be section"},
      {"prefill_decode", model, ErrorCode::kBundleContract, "micro.task"},
      {"tokenizer", "no tokenizer", ErrorCode::kTokenizerModel, "cannot be section \"tokenizer\""},
      {"tokenizer", ShortTokenizer(tokenizer), ErrorCode::kTokenizerModel, "2000 pieces, the model 2048 tokens"},
      {"tokenizer", TinyModel().SerializeAsString(), ErrorCode::kMetadataLint, "token"},
      {"metadata", "\xff\xff\xff", ErrorCode::kMetadataMalformed, "cannot be section \"metadata\""},
      {"metadata", spelled(silent), ErrorCode::kMetadataLint, "no stop tokens"},
      {"metadata", spelled(wordy), ErrorCode::kStopTokenLint, "282"},
      {"metadata", spelled(long_context), ErrorCode::kMetadataLint, "promises 65 tokens"},
  };
  for (const auto& [section, bytes, code, text] : lies) {
    const fs::path file = folder_.Write("lie", bytes);
    for (const char* to : {"a.task", "a.litertlm"}) {
      if (text.starts_with("promises") && std::string(to) == "a.task") continue;  // where it is not said
      EXPECT_THAT(Repack(task_, Out(to), {.drop = {}, .replace = {{section, file}}}), Fails(code, text)) << section << " to " << to;
    }
  }
  EXPECT_THAT(Repack(task_, Out("a.task"), {.drop = {}, .replace = {{"tokenizer", folder_.path() / "none"}}}),
              Fails(ErrorCode::kFileNotFound, "none"));
  EXPECT_TRUE(NothingIsLeft());
}

// Ids of the metadata keep their meaning: with a tokenizer that calls them otherwise the bundle would load and misbehave.
TEST_F(RepackTest, ATokenizerThatCallsTheStartTokenOtherwiseIsRefused) {
  SentencePieceModel model = Must(ReadSentencePieceModel(AsBytes(TextOf(*Must(ReadBundle(litertlm_)).Find(SectionKind::kTokenizer)))));
  model.mutable_pieces(2)->set_piece("<begin>");
  const fs::path file = folder_.Write("tokenizer", model.SerializeAsString());
  for (const fs::path& from : {task_, litertlm_}) {
    EXPECT_THAT(Repack(from, Out("a.litertlm"), {.drop = {}, .replace = {{"tokenizer", file}}}), Fails(ErrorCode::kMetadataLint, "<bos>"));
  }
}

TEST_F(RepackTest, OutputsThatWouldDestroyAnInputAreRefused) {
  const std::string before = ReadFileBytes(task_);
  fs::create_symlink(task_, Out("link.task"));
  fs::create_hard_link(task_, Out("hard.task"));
  fs::create_hard_link(task_, Out("b.litertlm.part"));
  WriteOptions options{.work = {}, .replace = true, .on_event = {}};
  for (const fs::path& output : {task_, Out("link.task"), Out("hard.task"), Out("b.litertlm")}) {
    EXPECT_THAT(RepackBundle(task_, output, {}, options), Fails(ErrorCode::kUsage, "which is read")) << output;
  }
  const fs::path tokenizer = FileOf(task_, SectionKind::kTokenizer);
  fs::create_hard_link(tokenizer, Out("c.task"));
  EXPECT_THAT(RepackBundle(task_, Out("c.task"), {.drop = {}, .replace = {{"tokenizer", tokenizer}}}, options),
              Fails(ErrorCode::kUsage, "which is read"));
  EXPECT_EQ(ReadFileBytes(task_), before);
}

TEST_F(RepackTest, AnExistingOutputIsKeptUnlessReplacedAndAFailureKeepsIt) {
  const fs::path old = folder_.Write("out/a.task", "old");
  EXPECT_THAT(Repack(task_, old), Fails(ErrorCode::kOutputExists, "a.task"));
  WriteOptions options{.work = {}, .replace = true, .on_event = {}};
  EXPECT_FALSE(RepackBundle(task_, old, {.drop = {"embedder"}, .replace = {}}, options).has_value());
  EXPECT_EQ(ReadFileBytes(old), "old");
  Must(RepackBundle(litertlm_, old, {}, options));
  EXPECT_EQ(ReadFileBytes(old), ReadFileBytes(task_));
  EXPECT_THAT(Repack(task_, Out("a.zip")), Fails(ErrorCode::kUsage, ".task or .litertlm"));
}

TEST_F(RepackTest, DamagedInputIsNotGivenANewChecksum) {
  std::string bytes = ReadFileBytes(task_);
  bytes[bytes.size() - 4096] = static_cast<char>(bytes[bytes.size() - 4096] ^ 1);  // in the last matrix
  EXPECT_THAT(Repack(folder_.Write("damaged.task", bytes), Out("a.litertlm")), Fails(ErrorCode::kZipChecksum, "damaged.task"));
  EXPECT_THAT(Repack(folder_.Write("cut.task", bytes.substr(0, bytes.size() / 2)), Out("a.task")),
              Fails(ErrorCode::kZipStructure, "truncated"));
  EXPECT_THAT(Repack(folder_.Write("text.task", "no bundle"), Out("a.task")), Fails(ErrorCode::kUnknownContainer, "text.task"));
  EXPECT_THAT(Repack(folder_.path() / "none.task", Out("a.task")), Fails(ErrorCode::kFileNotFound, "none.task"));
  EXPECT_TRUE(NothingIsLeft());
}

// A model that parses, fits the others and says nothing sensible.
TEST_F(RepackTest, ABundleThatDoesNotSpeakGetsNoName) {
  const fs::path f32 = folder_.path() / "f32.task";
  WriteMicro({.recipe = "f32", .context = kContext, .prefill = {8}}, {f32});
  std::string bytes = ReadFileBytes(FileOf(f32, SectionKind::kPrefillDecode));
  bytes.replace(bytes.size() - 4096, 4096, 4096, '\xff');
  const fs::path file = folder_.Write("nan", bytes);
  EXPECT_THAT(Repack(f32, Out("a.task"), {.drop = {}, .replace = {{"prefill_decode", file}}}), Fails(ErrorCode::kNotFinite, "logit"));
  EXPECT_TRUE(NothingIsLeft());
}

TEST_F(RepackTest, ASignalInAnyStageEndsItAndLeavesNothing) {
  for (const char* stage : {"check", "write", "verify", "smoke"}) {
    std::atomic<bool> stop = false;
    WriteOptions options;
    options.work = {.threads = 2, .stop = &stop};
    options.on_event = [&](const ConvertEvent& event) { stop = stop || event.stage == stage; };
    EXPECT_THAT(RepackBundle(task_, Out("a.litertlm"), {}, options), Fails(ErrorCode::kInterrupted, "signal")) << stage;
    EXPECT_TRUE(NothingIsLeft()) << stage;
  }
}

}  // namespace
}  // namespace taskpress::testing
