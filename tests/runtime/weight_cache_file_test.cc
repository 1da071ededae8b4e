// The file of packed weights: what is written is found again; whatever breaks a rule of FORMATS.md, "Packed weights", is refused as a
// whole.
#include "runtime/weight_cache_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>

#include "runtime/tensor_buffer.h"
#include "runtime/weight_cache_layout.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

const ThreadPool& Threads() {
  static const ThreadPool threads =
      ThreadPool::Create(1).value();  // waiting for another one thousands of times takes long on a busy machine
  return threads;
}

WeightCacheFingerprint Fingerprint(int seed) {
  WeightCacheFingerprint fingerprint;
  fingerprint.fill(static_cast<std::byte>(seed));
  return fingerprint;
}

WeightCacheKey KeyNumber(int number) {
  WeightCacheKey key = {};
  key[3] = static_cast<std::byte>(number);
  return key;
}

std::vector<std::byte> Bytes(size_t count, int seed) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>((i * 31 + static_cast<size_t>(seed) * 7 + i / 251) & 0xFF);
  return bytes;
}

// Two small matrices, one of more than a page.
const std::vector<std::byte> kFirst = Bytes(100, 1);
const std::vector<std::byte> kSecond = Bytes(5000, 2);

void WriteCache(const std::filesystem::path& path, int fingerprint = 1) {
  WeightCacheWriter writer = WeightCacheWriter::Create(path, Fingerprint(fingerprint)).value();
  ASSERT_TRUE(writer.Append(KeyNumber(1), kFirst));
  ASSERT_TRUE(writer.Append(KeyNumber(2), kSecond));
  ASSERT_TRUE(writer.Commit());
}

Result<WeightCacheFile> OpenCache(const std::filesystem::path& path, int fingerprint = 1) {
  return WeightCacheFile::Open(path, Fingerprint(fingerprint), Threads());
}

TEST(WeightCacheFile, GivesBackWhatWasWritten) {
  const TempFolder folder;
  WriteCache(folder.path() / "w");
  const WeightCacheFile cache = OpenCache(folder.path() / "w").value();
  EXPECT_EQ(cache.entries().size(), 2U);
  EXPECT_TRUE(std::ranges::equal(cache.Find(KeyNumber(1)), kFirst));
  EXPECT_TRUE(std::ranges::equal(cache.Find(KeyNumber(2)), kSecond));
  EXPECT_TRUE(cache.Find(KeyNumber(3)).empty());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(cache.Find(KeyNumber(2)).data()) % kWeightCachePage, 0U);
}

TEST(WeightCacheFile, IsNotThereBeforeItIsWhole) {
  const TempFolder folder;
  {
    WeightCacheWriter writer = WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).value();
    ASSERT_TRUE(writer.Append(KeyNumber(1), kFirst));
    EXPECT_EQ(OpenCache(folder.path() / "w").error().code, ErrorCode::kFileNotFound);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(WeightCacheFile, IsWrittenByOneProcessAtATime) {
  const TempFolder folder;
  WeightCacheWriter writer = WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).value();
  EXPECT_EQ(WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).error().code, ErrorCode::kOutputExists);
  ASSERT_TRUE(writer.Append(KeyNumber(1), kFirst));
  ASSERT_TRUE(writer.Commit());
  EXPECT_TRUE(OpenCache(folder.path() / "w"));
}

TEST(WeightCacheFile, MemoryOfAWriterOutlivesItsFile) {
  const TempFolder folder;
  WeightCacheWriter writer = WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).value();
  const ByteSpan first = writer.Reserve(kFirst.size()).value();
  std::ranges::copy(kFirst, first.begin());
  writer.Finish(KeyNumber(1));
  const ByteSpan given_up = writer.Reserve(10).value();  // never finished
  EXPECT_TRUE(std::ranges::all_of(given_up, [](std::byte byte) { return byte == std::byte{0}; }));
  ASSERT_TRUE(writer.Append(KeyNumber(2), kSecond));
  ASSERT_TRUE(writer.Commit());
  std::filesystem::remove(folder.path() / "w");
  EXPECT_TRUE(std::ranges::equal(first, kFirst));

  WeightCacheWriter abandoned = WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).value();
  const ByteSpan bytes = abandoned.Reserve(kFirst.size()).value();
  std::ranges::copy(kFirst, bytes.begin());
  abandoned.Abandon();
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_TRUE(std::ranges::equal(bytes, kFirst));
}

TEST(WeightCacheFile, AMatrixThatWasNeverFinishedIsNotInIt) {
  const TempFolder folder;
  WeightCacheWriter writer = WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).value();
  ASSERT_TRUE(writer.Reserve(6000));
  ASSERT_TRUE(writer.Append(KeyNumber(2), kSecond));
  ASSERT_TRUE(writer.Reserve(6000));
  ASSERT_TRUE(writer.Commit());
  const WeightCacheFile cache = OpenCache(folder.path() / "w").value();
  EXPECT_EQ(cache.entries().size(), 1U);
  EXPECT_TRUE(std::ranges::equal(cache.Find(KeyNumber(2)), kSecond));
}

TEST(WeightCacheFile, AFullDiskIsNoticedBeforeAnythingIsWritten) {
  const TempFolder folder;
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit limit = before;
  limit.rlim_cur = 100'000;
  setrlimit(RLIMIT_FSIZE, &limit);
  {
    WeightCacheWriter writer = WeightCacheWriter::Create(folder.path() / "w", Fingerprint(1)).value();
    const ByteSpan first = writer.Reserve(1000).value();
    writer.Finish(KeyNumber(1));
    const Result<ByteSpan> second = writer.Reserve(1'000'000);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kWriteFailed);
    EXPECT_THAT(second.error().message, HasSubstr("no room"));
    EXPECT_EQ(first[999], std::byte{0});
  }
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

// A file whose header and table are changed and given their checksums again, so that only the rule in question is broken.
std::string Changed(const std::string& file, const std::function<void(WeightCacheHeader&, std::vector<WeightCacheEntry>&)>& change) {
  WeightCacheHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  std::vector<WeightCacheEntry> entries(header.entries);
  std::memcpy(entries.data(), file.data() + header.table_offset, entries.size() * sizeof(WeightCacheEntry));
  const std::string before = file.substr(0, header.table_offset);
  change(header, entries);
  const ByteView table = std::as_bytes(std::span(entries));
  header.table_checksum = WeightChecksum(table);
  header.checksum = WeightChecksum(std::as_bytes(std::span(&header, 1)).first(offsetof(WeightCacheHeader, checksum)));
  std::string changed = before + std::string(AsText(table));
  std::memcpy(changed.data(), &header, sizeof(header));
  return changed;
}

TEST(WeightCacheFile, RefusesEveryLie) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "w";
  WriteCache(path);
  const std::string honest = ReadFileBytes(path);
  using Entries = std::vector<WeightCacheEntry>;
  struct Lie {
    const char* rule;
    ErrorCode code;
    std::string file;
  };
  const auto lie = [&](const std::function<void(WeightCacheHeader&, Entries&)>& change) { return Changed(honest, change); };
  std::string other_magic = honest;
  other_magic[0] = 'X';
  std::string header_bit = honest;
  header_bit[16] = static_cast<char>(header_bit[16] ^ 1);
  std::string table_bit = honest;
  table_bit.back() = static_cast<char>(table_bit.back() ^ 1);
  const std::vector<Lie> lies = {
      {"K2 too short", ErrorCode::kReadFailed, honest.substr(0, kWeightCachePage - 1)},
      {"K2 magic", ErrorCode::kReadFailed, other_magic},
      {"K2 header checksum", ErrorCode::kReadFailed, header_bit},
      {"K3 version", ErrorCode::kFileChanged, lie([](WeightCacheHeader& h, Entries&) { ++h.version; })},
      {"K3 fingerprint", ErrorCode::kFileChanged, lie([](WeightCacheHeader& h, Entries&) { h.fingerprint[31] ^= std::byte{1}; })},
      {"K4 size", ErrorCode::kReadFailed, honest + "x"},
      {"K4 size in header", ErrorCode::kReadFailed, lie([](WeightCacheHeader& h, Entries&) { ++h.file_size; })},
      {"K4 entries", ErrorCode::kReadFailed, lie([](WeightCacheHeader& h, Entries&) { h.entries = 0xFFFFFFFF; })},
      {"K4 fewer entries", ErrorCode::kReadFailed, lie([](WeightCacheHeader& h, Entries&) { --h.entries; })},
      {"K4 table before the header's end", ErrorCode::kReadFailed, lie([](WeightCacheHeader& h, Entries&) { h.table_offset = 0; })},
      {"K4 table behind the end", ErrorCode::kReadFailed, lie([](WeightCacheHeader& h, Entries&) { h.table_offset = 1ULL << 63; })},
      {"K5 table checksum", ErrorCode::kReadFailed, table_bit},
      {"K6 inside the header", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[0].offset = 0; })},
      {"K6 between pages", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { ++e[0].offset; })},
      {"K6 overlap", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[1].offset = e[0].offset; })},
      {"K6 order", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { std::swap(e[0], e[1]); })},
      {"K6 empty", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[0].bytes = 0; })},
      {"K6 behind the end", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[1].offset = 1ULL << 40; })},
      {"K6 no padding", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[1].bytes = 8192 - kTensorPadding + 1; })},
      {"K6 overflow", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[1].bytes = ~0ULL; })},
      {"K7 twice", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { e[1].key = e[0].key; })},
      {"K8 contents", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { ++e[1].checksum; })},
      {"K8 length", ErrorCode::kReadFailed, lie([](WeightCacheHeader&, Entries& e) { ++e[1].bytes; })},
  };
  for (const Lie& one : lies) {
    folder.Write("w", one.file);
    const Result<WeightCacheFile> opened = OpenCache(path);
    ASSERT_FALSE(opened) << one.rule;
    EXPECT_EQ(opened.error().code, one.code) << one.rule << ": " << opened.error().message;
    EXPECT_THAT(opened.error().message, HasSubstr("w: ")) << one.rule;
  }
  folder.Write("w", lie([](WeightCacheHeader&, Entries&) {}));
  EXPECT_TRUE(OpenCache(path)) << "an honest change";
  EXPECT_EQ(OpenCache(path, 2).error().code, ErrorCode::kFileChanged);
}

TEST(WeightCacheFile, RefusesFilesOfOthersAndLinks) {
  const TempFolder folder;
  WriteCache(folder.path() / "w");
  std::filesystem::create_symlink(folder.path() / "w", folder.path() / "link");
  EXPECT_EQ(OpenCache(folder.path() / "link").error().code, ErrorCode::kReadFailed);
  EXPECT_EQ(OpenCache(folder.path()).error().code, ErrorCode::kReadFailed);
  if (geteuid() != 0) return;  // only root can give files away
  ASSERT_EQ(chown((folder.path() / "w").c_str(), 12345, static_cast<gid_t>(-1)), 0);
  EXPECT_THAT(OpenCache(folder.path() / "w").error().message, HasSubstr("another user"));
}

TEST(WeightCacheFile, RefusesItTruncatedAtEveryByte) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "w";
  WriteCache(path);
  const auto size = static_cast<off_t>(std::filesystem::file_size(path));
  for (off_t bytes = size - 1; bytes >= 0; --bytes) {
    ASSERT_EQ(truncate(path.c_str(), bytes), 0);
    ASSERT_FALSE(OpenCache(path)) << bytes;
  }
}

TEST(WeightCacheFile, ADamagedByteIsRefusedOrMeansNothing) {
  const TempFolder folder;
  const std::filesystem::path path = folder.path() / "w";
  WriteCache(path);
  const std::string file = ReadFileBytes(path);
  const int descriptor = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const auto put = [&](size_t at, int flipped) {
    const char byte = static_cast<char>(file[at] ^ flipped);
    EXPECT_EQ(pwrite(descriptor, &byte, 1, static_cast<off_t>(at)), 1);
  };
  const size_t table = file.size() - 2 * sizeof(WeightCacheEntry);
  // All of header and table; of matrices and the zeros between them every 11th byte.
  for (size_t at = 0; at < file.size(); at += at < sizeof(WeightCacheHeader) || at >= table ? 1 : std::min<size_t>(11, table - at)) {
    put(at, 0x10);
    const Result<WeightCacheFile> opened = OpenCache(path);
    put(at, 0);
    const bool matrix = (at >= 4096 && at < 4096 + kFirst.size()) || (at >= 8192 && at < 8192 + kSecond.size());
    ASSERT_EQ(opened.has_value(), at >= sizeof(WeightCacheHeader) && !matrix && at < table) << at;
  }
  close(descriptor);
  EXPECT_TRUE(OpenCache(path));
}

}  // namespace
}  // namespace taskpress
