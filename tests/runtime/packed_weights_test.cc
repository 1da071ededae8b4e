// Packed weights across processes: what one packed the next one finds, and never what another bundle's weights were.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "runtime/xnnpack_packed_weights.h"
#include "schema/base/mapped_file.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMatrixBytes = 6000;
constexpr uint64_t kBundleBytes = 20'000;

std::string Noise(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<char>(seed >> 24);
  }
  return bytes;
}

// What a process does: map the bundle, pack two matrices of it.
struct Start {
  Start(const std::filesystem::path& bundle, const std::filesystem::path& cache, std::string_view layout = "reversed 1",
        uint64_t packed_bytes = kMatrixBytes) {
    const FileIdentity identity = SettledIdentityOf(bundle).value();
    file = MappedFile::Open(bundle).value();
    weights.UseSource({.path = bundle, .identity = identity, .mapping = file->bytes()}, cache, threads);
    for (const uint64_t at : {uint64_t{64}, uint64_t{9000}}) Pack(layout, at, packed_bytes);
  }

  void Pack(std::string_view layout, uint64_t at, uint64_t packed_bytes = kMatrixBytes) {
    const ByteView bytes = file->bytes().subspan(at, kMatrixBytes);
    const auto pack = [&](ByteSpan to) -> Status {
      ++packs;
      std::reverse_copy(bytes.begin(), bytes.end(), to.begin());
      return {};
    };
    const std::byte* data = weights.Packed(layout, {.bytes = bytes, .in = 60, .out = 100}, packed_bytes, pack).value();
    EXPECT_TRUE(std::equal(bytes.rbegin(), bytes.rend(), data)) << at;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % kTensorAlignment, 0U);
  }

  ThreadPool threads = ThreadPool::Create(1).value();
  std::shared_ptr<const MappedFile> file;
  int packs = 0;
  PackedWeights weights;
};

class PackedWeightsFile : public ::testing::Test {
 protected:
  PackedWeightsFile() { folder_.Write("bundle", Noise(kBundleBytes, 1)); }

  // Packs a first time, so that the file is there.
  void Make() const {
    Start start(bundle_, cache_);
    EXPECT_EQ(start.packs, 2);
    EXPECT_TRUE(start.weights.writing());
    start.weights.Seal();
    EXPECT_EQ(start.weights.report().state, WeightCacheState::kWritten);
  }
  // How many matrices another start has to pack, and what it says.
  std::pair<int, PackedWeightReport> Again() const {
    Start start(bundle_, cache_);
    start.weights.Seal();
    return {start.packs, start.weights.report()};
  }

  TempFolder folder_;
  std::filesystem::path bundle_ = folder_.path() / "bundle";
  std::filesystem::path cache_ = folder_.path() / "bundle.packed";
};

TEST_F(PackedWeightsFile, TheSecondStartPacksNothing) {
  Make();
  const auto [packs, report] = Again();
  EXPECT_EQ(packs, 0);
  EXPECT_EQ(report.state, WeightCacheState::kUsed);
  EXPECT_EQ(report.mapped_bytes, 2 * kMatrixBytes);
  EXPECT_EQ(report.anonymous_bytes, 0U);
  EXPECT_EQ(report.note, "");
}

TEST_F(PackedWeightsFile, WithoutAPathEverythingIsInMemory) {
  Start start(bundle_, {});
  start.weights.Seal();
  EXPECT_EQ(start.packs, 2);
  EXPECT_EQ(start.weights.report().state, WeightCacheState::kOff);
  EXPECT_EQ(start.weights.report().anonymous_bytes, 2 * kMatrixBytes);
  EXPECT_EQ(start.weights.report().mapped_bytes, 0U);
  EXPECT_FALSE(std::filesystem::exists(cache_));
}

TEST_F(PackedWeightsFile, WithoutSealThereIsNoFile) {
  {
    const Start start(bundle_, cache_);
  }
  EXPECT_FALSE(std::filesystem::exists(cache_));
  EXPECT_FALSE(std::filesystem::exists(PartPath(cache_)));
}

// Same name, same size, same time of modification: rsync and cp -p make such files.
TEST_F(PackedWeightsFile, ABundleWithOtherBytesIsAnotherBundle) {
  Make();
  struct stat before{};
  ASSERT_EQ(stat(bundle_.c_str(), &before), 0);
  folder_.Write("bundle", Noise(kBundleBytes, 2));  // in place: the same inode
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, bundle_.c_str(), times, 0), 0);
  struct stat after{};
  ASSERT_EQ(stat(bundle_.c_str(), &after), 0);
  ASSERT_EQ(after.st_ino, before.st_ino);
  ASSERT_EQ(after.st_size, before.st_size);
  ASSERT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  const auto [packs, report] = Again();  // checks the bytes
  EXPECT_EQ(packs, 2);
  EXPECT_EQ(report.state, WeightCacheState::kWritten);
  EXPECT_THAT(report.note, HasSubstr("another bundle"));
  EXPECT_EQ(Again().first, 0) << "it was replaced";
}

// One changed byte that no sample meets, at the same size and time of modification.
TEST_F(PackedWeightsFile, AByteBetweenTheSamplesCounts) {
  const std::string big = Noise(2 << 20, 3);
  folder_.Write("bundle", big);
  Make();
  struct stat before{};
  ASSERT_EQ(stat(bundle_.c_str(), &before), 0);
  const int file = open(bundle_.c_str(), O_WRONLY);
  const char changed = static_cast<char>(big[9001] ^ 1);
  ASSERT_EQ(pwrite(file, &changed, 1, 9001), 1);
  close(file);
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, bundle_.c_str(), times, 0), 0);
  EXPECT_EQ(Again().first, 2);
}

TEST_F(PackedWeightsFile, ABundleThatChangesWhileItIsPackedLeavesNoFile) {
  Start start(bundle_, cache_);
  std::filesystem::remove(bundle_);
  folder_.Write("bundle", Noise(kBundleBytes, 4));
  start.weights.Seal();
  EXPECT_EQ(start.weights.report().state, WeightCacheState::kUnavailable);
  EXPECT_THAT(start.weights.report().note, HasSubstr("changed"));
  EXPECT_FALSE(std::filesystem::exists(cache_));
}

TEST_F(PackedWeightsFile, ADamagedFileIsReplaced) {
  Make();
  const std::string sound = ReadFileBytes(cache_);
  for (const size_t at : {size_t{0}, size_t{20}, size_t{5000}, sound.size() - 1}) {
    std::string damaged = sound;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    folder_.Write("bundle.packed", damaged);
    EXPECT_EQ(Again().first, 2) << at;
    EXPECT_EQ(Again().first, 0) << at;
  }
  folder_.Write("bundle.packed", "");
  EXPECT_EQ(Again().first, 2);
  EXPECT_EQ(Again().first, 0);
}

TEST_F(PackedWeightsFile, AFolderThatCannotBeWrittenMeansPackingInMemory) {
  cache_ = folder_.path() / "missing" / "bundle.packed";
  const auto [packs, report] = Again();
  EXPECT_EQ(packs, 2);
  EXPECT_EQ(report.state, WeightCacheState::kUnavailable);
  EXPECT_EQ(report.anonymous_bytes, 2 * kMatrixBytes);
  EXPECT_THAT(report.note, HasSubstr("missing"));
}

TEST_F(PackedWeightsFile, OneOfTwoThatStartTogetherWritesTheFile) {
  Start first(bundle_, cache_);
  Start second(bundle_, cache_);
  EXPECT_EQ(second.packs, 2);
  EXPECT_EQ(second.weights.report().state, WeightCacheState::kUnavailable);
  EXPECT_THAT(second.weights.report().note, HasSubstr("another process"));
  second.weights.Seal();
  first.weights.Seal();
  EXPECT_EQ(first.weights.report().state, WeightCacheState::kWritten);
}

TEST_F(PackedWeightsFile, ADiskThatFillsUpMeansTheRestIsPackedInMemory) {
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit limit = before;
  limit.rlim_cur = 14'000;  // a header and one matrix
  setrlimit(RLIMIT_FSIZE, &limit);
  const auto [packs, report] = Again();
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(packs, 2);
  EXPECT_EQ(report.state, WeightCacheState::kUnavailable);
  EXPECT_EQ(report.anonymous_bytes, kMatrixBytes);
  EXPECT_GE(report.mapped_bytes, kMatrixBytes);
  EXPECT_THAT(report.note, HasSubstr("no room"));
  EXPECT_FALSE(std::filesystem::exists(cache_));
  EXPECT_FALSE(std::filesystem::exists(PartPath(cache_)));
}

TEST_F(PackedWeightsFile, AnotherPackingIsAnotherMatrixAndBothStay) {
  Make();
  {
    Start other(bundle_, cache_, "reversed 2");
    EXPECT_EQ(other.packs, 2);
    other.weights.Seal();
  }
  Start both(bundle_, cache_, "reversed 2");
  both.Pack("reversed 1", 64);
  both.Pack("reversed 1", 9000);
  EXPECT_EQ(both.packs, 0);
}

TEST_F(PackedWeightsFile, AMatrixOfAnotherSizeIsNotTaken) {
  Make();
  const Start larger(bundle_, cache_, "reversed 1", kMatrixBytes + 1);
  EXPECT_EQ(larger.packs, 2);
}

TEST_F(PackedWeightsFile, WhatLiesOutsideTheBundleIsKnownByItsContents) {
  const std::vector<float> scales = {1, 2, 3};
  const std::vector<float> others = {1, 2, 4};
  const auto packs = [&](std::span<const float> with) {
    Start start(bundle_, cache_);
    const int before = start.packs;
    const std::vector<float> copy(with.begin(), with.end());  // at another address each time
    const PackedWeights::Matrix matrix{.bytes = start.file->bytes().first(kMatrixBytes), .scales = copy, .in = 60, .out = 100};
    EXPECT_TRUE(start.weights.Packed("scaled", matrix, 100, [&](ByteSpan) -> Status {
      ++start.packs;
      return {};
    }));
    start.weights.Seal();
    return start.packs - before;
  };
  EXPECT_EQ(packs(scales), 1);
  EXPECT_EQ(packs(scales), 0);
  EXPECT_EQ(packs(others), 1);
  EXPECT_EQ(packs(others), 0);
  EXPECT_EQ(packs(scales), 0);
}

TEST_F(PackedWeightsFile, WhatIsPackedAfterSealingStaysInMemory) {
  Make();
  Start start(bundle_, cache_);
  start.weights.Seal();
  start.Pack("late", 128);
  EXPECT_EQ(start.weights.report().anonymous_bytes, kMatrixBytes);
  EXPECT_FALSE(start.weights.writing());
}

TEST_F(PackedWeightsFile, AFailedPackingFailsTheCall) {
  Start start(bundle_, cache_);
  const PackedWeights::Matrix matrix{.bytes = start.file->bytes().first(8), .in = 8, .out = 1};
  const auto fails = [](ByteSpan) -> Status { return Fail(ErrorCode::kReadFailed, "nothing there"); };
  EXPECT_EQ(start.weights.Packed("x", matrix, 8, fails).error().code, ErrorCode::kReadFailed);
  start.Pack("after it", 256);
  start.weights.Seal();
  EXPECT_EQ(start.weights.report().state, WeightCacheState::kWritten);
}

TEST(WeightSource, AFileIsSettledWhenItsLastChangeIsATickAgo) {
  const TempFolder folder;
  const std::filesystem::path path = folder.Write("f", "x");
  const FileIdentity identity = SettledIdentityOf(path).value();
  struct timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  EXPECT_GT(int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec - identity.changed_ns, 50'000'000);
  EXPECT_EQ(SettledIdentityOf(path).value(), identity);
  EXPECT_EQ(SettledIdentityOf(folder.path() / "g").error().code, ErrorCode::kFileNotFound);
}

}  // namespace
}  // namespace taskpress
