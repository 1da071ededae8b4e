#include "converter/lock_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kSha256OfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // FIPS 180-2, B.1

LockFile Example() {
  return {.version = "1.2.3",
          .output = {.name = "a.task", .bytes = 3, .sha256 = std::string(kSha256OfAbc)},
          .options = {{"slice", "e2b"}, {"quant", "dynamic_int4"}},
          .recipe = "lm_head.weight int4\n",
          .inputs = {{.name = "model.safetensors", .bytes = 9, .sha256 = std::string(64, '0')}}};
}

TEST(LockFileTest, WhatIsWrittenIsReadBackAndTheBytesAreTheSame) {
  const TempFolder folder;
  const std::filesystem::path output = folder.path() / "a.task";
  ASSERT_TRUE(WriteLockFile(output, Example()).has_value());
  const std::string first = ReadFileBytes(LockPath(output));
  EXPECT_THAT(first, ::testing::Not(HasSubstr(folder.path().string())));
  const LockFile read = ReadLockFile(LockPath(output)).value();
  EXPECT_EQ(read.version, "1.2.3");
  EXPECT_EQ(read.output.sha256, kSha256OfAbc);
  EXPECT_EQ(read.options.size(), 2U);
  EXPECT_EQ(read.inputs.at(0).bytes, 9U);
  ASSERT_TRUE(WriteLockFile(output, Example()).has_value());
  EXPECT_EQ(ReadFileBytes(LockPath(output)), first);
}

TEST(LockFileTest, WhatIsNoLockIsRefused) {
  const TempFolder folder;
  for (const char* text : {"{}", "[]", "{\"schema\":\"taskpress/lock/2\"}", "{\"schema\":\"taskpress/lock/1\"}",
                           "{\"schema\":\"taskpress/lock/1\",\"taskpress\":\"1\",\"recipe\":\"\",\"output\":{\"name\":\"a\"},\"inputs\":[],"
                           "\"options\":{}}"}) {
    const Result<LockFile> read = ReadLockFile(folder.Write("a.lock.json", text));
    ASSERT_FALSE(read.has_value()) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kLockMismatch) << text;
  }
}

TEST(LockFileTest, SumsKeepOtherLinesAndReplaceTheirOwn) {
  const TempFolder folder;
  const std::string other = std::string(64, 'f') + "  other.task\n";
  folder.Write("SHA256SUMS", std::string(64, '1') + "  a.task\n" + other);
  ASSERT_TRUE(UpdateSums(folder.path() / "a.task", Example().output).has_value());
  EXPECT_EQ(ReadFileBytes(folder.path() / "SHA256SUMS"), other + std::string(kSha256OfAbc) + "  a.task\n");
}

TEST(LockFileTest, DigestsAreThoseOfTheFile) {
  const TempFolder folder;
  const std::filesystem::path file = folder.Write("abc", "abc");
  const FileDigest digest = DigestFile(file).value();
  EXPECT_EQ(digest.name, "abc");
  EXPECT_EQ(digest.bytes, 3U);
  EXPECT_EQ(digest.sha256, kSha256OfAbc);
  EXPECT_TRUE(CheckDigest(digest, digest, file).has_value());
  const FileDigest changed = DigestFile(folder.Write("abc", "abd")).value();
  const Status differs = CheckDigest(digest, changed, file);
  ASSERT_FALSE(differs.has_value());
  EXPECT_EQ(differs.error().code, ErrorCode::kLockMismatch);
  EXPECT_THAT(differs.error().message, HasSubstr(changed.sha256));
  const std::atomic<bool> stop = true;
  EXPECT_EQ(DigestFile(file, &stop).error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(DigestFile(folder.path() / "none").error().code, ErrorCode::kReadFailed);
}

}  // namespace
}  // namespace taskpress
