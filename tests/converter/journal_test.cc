#include "converter/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

Journal Example() {
  return {.fingerprint = std::string(64, 'a'),
          .inputs = {{.path = "model.safetensors", .bytes = 100, .modified_ns = 1'700'000'000'000'000'001}},
          .state = {.units = 7, .bytes = 4096, .crcs = {1, 0xFFFFFFFF, 3}},
          .member_crcs = {}};
}

TEST(JournalTest, WhatIsWrittenIsReadBack) {
  const TempFolder folder;
  const std::filesystem::path path = JournalPath(folder.path() / "a.task");
  EXPECT_EQ(path.filename(), "a.task.part.journal");
  EXPECT_EQ(ReadJournal(path).value(), std::nullopt);
  Journal journal = Example();
  for (const std::vector<uint32_t>& members : {std::vector<uint32_t>{}, std::vector<uint32_t>{8, 9}}) {
    journal.member_crcs = members;
    ASSERT_TRUE(WriteJournal(path, journal).has_value());
    EXPECT_EQ(ReadJournal(path).value(), journal);
  }
}

TEST(JournalTest, ADamagedJournalIsRefusedWithItsName) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "a.task.part.journal";
  ASSERT_TRUE(WriteJournal(path, Example()).has_value());
  const std::string good = ReadFileBytes(path);
  const auto refused = [&](const std::string& text) {
    folder.Write("a.task.part.journal", text);
    const Result<std::optional<Journal>> read = ReadJournal(path);
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kCannotResume) << text;
    EXPECT_THAT(read.error().message, HasSubstr(path.string()));
  };
  for (size_t length = 0; length + 1 < good.size(); ++length) refused(good.substr(0, length));
  struct Lie {
    const char* from;
    const char* to;
  };
  for (const Lie& lie : {Lie{"journal/1", "journal/2"}, Lie{"\"units\":7", "\"units\":-7"}, Lie{"\"units\":7", "\"units\":7.5"},
                         Lie{"\"bytes\":4096", "\"bytes\":\"x\""}, Lie{"4294967295", "4294967296"}, Lie{"[1,", "[true,"},
                         Lie{"\"fingerprint\":\"", "\"finger\":\""}, Lie{"\"crc32\":[", "\"crc33\":["},
                         Lie{"\"inputs\":[", "\"inputs\":[7,"}, Lie{"\"member_crc32\":[]", "\"member_crc32\":{}"}}) {
    std::string text = good;
    ASSERT_NE(text.find(lie.from), std::string::npos) << lie.from;
    text.replace(text.find(lie.from), std::string_view(lie.from).size(), lie.to);
    refused(text);
  }
}

TEST(JournalTest, AnotherConversionIsToldFromThisOne) {
  const Journal journal = Example();
  EXPECT_TRUE(CheckSameConversion(journal, journal.fingerprint, journal.inputs).has_value());
  std::vector<InputState> touched = journal.inputs;
  touched[0].modified_ns += 2'000'000'000;
  EXPECT_THAT(CheckSameConversion(journal, journal.fingerprint, touched).error().message, HasSubstr("modified 2 s later"));
  std::vector<InputState> grown = journal.inputs;
  grown[0].bytes = 101;
  EXPECT_THAT(CheckSameConversion(journal, journal.fingerprint, grown).error().message, HasSubstr("of 100 bytes, now 101"));
  EXPECT_THAT(CheckSameConversion(journal, journal.fingerprint, {}).error().message, HasSubstr("1 input files, this one reads 0"));
  const Status other = CheckSameConversion(journal, std::string(64, 'b'), journal.inputs);
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code, ErrorCode::kCannotResume);
  EXPECT_THAT(other.error().message, HasSubstr("other options"));
}

TEST(JournalTest, TheKeeperWritesOnceAPeriodAndAtTheEnd) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "j";
  std::vector<OutputFile> files;
  files.push_back(OutputFile::Create(folder.path() / "a", 10).value());
  JournalKeeper keeper(path, Example(), files, 1000);
  StreamState state = Example().state;
  state.bytes += 999;
  ASSERT_TRUE(keeper.Advance(state).has_value());
  EXPECT_FALSE(std::filesystem::exists(path));
  state.bytes += 1;
  state.units = 8;
  ASSERT_TRUE(keeper.Advance(state).has_value());
  ASSERT_TRUE(keeper.Finish(state, {5}).has_value());
  const Journal read = *ReadJournal(path).value();
  EXPECT_EQ(read.state, state);
  EXPECT_THAT(read.member_crcs, ::testing::ElementsAre(5U));
}

TEST(JournalTest, InputsAreLookedAtNotRead) {
  const TempFolder folder;
  const std::filesystem::path file = folder.Write("x", "12345");
  const std::vector<InputState> states = LookAtInputs(std::array{file}).value();
  ASSERT_EQ(states.size(), 1U);
  EXPECT_EQ(states[0].bytes, 5U);
  EXPECT_GT(states[0].modified_ns, 1'700'000'000'000'000'000);
  EXPECT_EQ(LookAtInputs(std::array{folder.path() / "none"}).error().code, ErrorCode::kReadFailed);
}

}  // namespace
}  // namespace taskpress
