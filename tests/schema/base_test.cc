#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "schema/base/checked_math.h"
#include "schema/base/error.h"
#include "schema/base/half.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
#include "schema/base/output_file.h"
#include "schema/base/sigbus_guard.h"
#include "schema/byte_source.h"
#include "schema/dtype.h"
#include "schema/json.h"
#include "schema/shape.h"

namespace {
std::function<void()> before_lock;  // called once, in front of the next lock
}  // namespace

// In place of the C library's, so that something can happen between opening a file and locking it.
extern "C" int flock(int descriptor, int operation) noexcept {
  if (const std::function<void()> happen = std::exchange(before_lock, nullptr)) happen();
  return static_cast<int>(syscall(SYS_flock, descriptor, operation));
}

namespace taskpress {
namespace {

class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST(ErrorTest, EveryCodeIsUniqueAndExplained) {
  std::set<ErrorCode> seen;
  for (const ErrorInfo& info : AllErrorInfos()) {
    EXPECT_TRUE(seen.insert(info.code).second) << info.name;
    EXPECT_FALSE(info.title.empty());
    EXPECT_FALSE(info.advice.empty());
    EXPECT_NE(info.status, ExitStatus::kOk);
    EXPECT_EQ(FindErrorInfo(CodeName(info.code))->name, info.name);
  }
  EXPECT_EQ(FindErrorInfo("tp-1001")->code, ErrorCode::kFileNotFound);
  EXPECT_FALSE(FindErrorInfo("TP-").has_value());
  EXPECT_FALSE(FindErrorInfo("TP-9999").has_value());
  EXPECT_FALSE(FindErrorInfo("1001x").has_value());
}

TEST(CheckedMathTest, NoticesOverflow) {
  EXPECT_EQ(CheckedAdd<uint64_t>(1, 2), 3U);
  EXPECT_FALSE(CheckedAdd<uint64_t>(~0ULL, 1).has_value());
  EXPECT_FALSE(CheckedMul<int64_t>(1LL << 62, 2).has_value());
  EXPECT_EQ(CheckedAlignUp(65, 64), 128U);
  EXPECT_FALSE(CheckedAlignUp(~0ULL, 64).has_value());
  EXPECT_TRUE(RangeInside(4, 4, 8));
  EXPECT_FALSE(RangeInside(4, 5, 8));
  EXPECT_FALSE(RangeInside(~0ULL, 2, 8));
}

TEST(HalfTest, Bf16RoundTripsAllBitPatterns) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(value))));
    } else {
      EXPECT_EQ(FloatToBf16(value), bits);
    }
  }
}

TEST(HalfTest, F16AgreesWithTheCompilerOnAllBitPatterns) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = std::bit_cast<_Float16>(static_cast<uint16_t>(bits));
    const float value = F16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(half)));
      continue;
    }
    EXPECT_EQ(value, static_cast<float>(half));
    EXPECT_EQ(FloatToF16(value), bits);
    // Between two neighbours and exactly half way: rounding must agree too.
    for (const float nudge : {1.0F + 0x1p-12F, 1.0F + 0x1p-11F, 1.0F + 0x1.8p-11F, 1.0F - 0x1p-12F}) {
      const float other = value * nudge;
      EXPECT_EQ(FloatToF16(other), std::bit_cast<uint16_t>(static_cast<_Float16>(other))) << other;
    }
  }
}

TEST(HashTest, KnowsPublishedVectors) {
  EXPECT_EQ(Sha256Hex(AsBytes("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Crc32(0, AsBytes("123456789")), 0xcbf43926U);
  const uint32_t whole = Crc32(0, AsBytes("hello world"));
  EXPECT_EQ(Crc32Combine(Crc32(0, AsBytes("hello ")), Crc32(0, AsBytes("world")), 5), whole);
  const std::string zeros(10000, '\0');
  EXPECT_EQ(Crc32Zeros(Crc32(0, AsBytes("x")), zeros.size()), Crc32(Crc32(0, AsBytes("x")), AsBytes(zeros)));
}

TEST(ShapeTest, SizesAreCheckedProducts) {
  EXPECT_EQ(NumElements({2, 3, 5}), 30);
  EXPECT_EQ(NumElements({}), 1);
  EXPECT_FALSE(NumElements({-1, 2}).has_value());
  EXPECT_FALSE(NumElements({1LL << 40, 1LL << 40}).has_value());
  EXPECT_EQ(NumBytes(DType::kI4, {3}), 2U);
  EXPECT_EQ(NumBytes(DType::kBF16, {4, 4}), 32U);
  EXPECT_FALSE(NumBytes(DType::kF64, {1LL << 61}).has_value());
  EXPECT_EQ(ToString(Shape{1, 2}), "[1,2]");
}

TEST(DTypeTest, TableFollowsTheEnum) {
  int index = 0;
  for (const DTypeInfo& info : AllDTypes()) {
    EXPECT_EQ(static_cast<int>(info.type), index++);
    if (!info.safetensors.empty()) {
      EXPECT_EQ(DTypeFromSafetensors(info.safetensors), info.type);
    }
    EXPECT_EQ(DTypeFromTflite(info.tflite), info.type);
  }
  EXPECT_FALSE(DTypeFromSafetensors("F8_E4M3").has_value());
}

TEST_F(FolderTest, OutputAppearsOnlyOnCommit) {
  const std::filesystem::path path = folder_ / "out.bin";
  {
    Result<OutputFile> file = OutputFile::Create(path, 8);
    ASSERT_TRUE(file.has_value());
    ASSERT_TRUE(file->WriteAt(0, AsBytes("abcd")).has_value());
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_TRUE(std::filesystem::exists(file->part_path()));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  ASSERT_TRUE(WriteWholeFile(path, AsBytes("abcd")).has_value());
  EXPECT_EQ(MappedFile::Open(path).value()->size(), 4U);
  EXPECT_EQ(WriteWholeFile(path, AsBytes("x")).error().code, ErrorCode::kOutputExists);
  EXPECT_TRUE(WriteWholeFile(path, AsBytes("x"), {.replace = true}).has_value());
  EXPECT_EQ(MappedFile::Open(path).value()->size(), 1U);
}

// A process that does `work` over and over until a signal, as the command line's second one, discards its parts and ends it.
pid_t SpawnUntilSignal(const std::function<void()>& work) {
  std::array<int, 2> ready{};
  EXPECT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    struct sigaction action = {};
    action.sa_handler = [](int) {
      DiscardOpenOutputsFromSignalHandler();
      _Exit(0);
    };
    sigaction(SIGTERM, &action, nullptr);
    for (bool first = true;; first = false) {
      work();
      if (first && write(ready[1], "!", 1) != 1) _Exit(1);
    }
  }
  char said = 0;
  EXPECT_EQ(read(ready[0], &said, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return child;
}

// Ends such processes at moments spread over a millisecond.
template <typename Check>
void EndAtEveryMoment(const std::function<void()>& work, Check check) {
  constexpr int kMoments = 400;
  for (int moment = 0; moment < kMoments; ++moment) {
    const pid_t child = SpawnUntilSignal(work);
    std::this_thread::sleep_for(std::chrono::nanoseconds(2500 * moment));
    kill(child, SIGTERM);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    check(moment);
  }
}

TEST_F(FolderTest, ASignalAtAnyMomentLeavesNoPart) {
  const std::filesystem::path path = folder_ / "out.bin";
  EndAtEveryMoment([&] { static_cast<void>(OutputFile::Create(path, 0)); },
                   [&](int moment) { ASSERT_TRUE(std::filesystem::is_empty(folder_)) << moment; });
}

TEST_F(FolderTest, ASignalAtAnyMomentLeavesThePartOfAnotherProcess) {
  const std::filesystem::path path = folder_ / "out.bin";
  // Not an OutputFile: the children would inherit the knowledge that it is theirs.
  const int part = open((path.string() + ".part").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(flock(part, LOCK_EX | LOCK_NB), 0);
  EndAtEveryMoment([&] { EXPECT_EQ(OutputFile::Create(path, 8).error().code, ErrorCode::kOutputExists); },
                   [&](int moment) { ASSERT_TRUE(std::filesystem::exists(path.string() + ".part")) << moment; });
  close(part);
}

// The other writer commits after we have opened its part and before we have locked it: what we hold then is its finished output.
TEST_F(FolderTest, AnOutputFinishedByAnotherProcessMeanwhileIsNotWrittenOver) {
  const std::filesystem::path path = folder_ / "out.bin";
  const std::filesystem::path part = folder_ / "out.bin.part";
  ASSERT_TRUE(WriteWholeFile(part, AsBytes("whole")).has_value());
  before_lock = [&] { std::filesystem::rename(part, path); };
  Result<OutputFile> file = OutputFile::Create(path, 4, {.replace = true});
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(AsText(MappedFile::Open(path).value()->bytes()), "whole");
  ASSERT_TRUE(file->WriteAt(0, AsBytes("anew")).has_value());
  ASSERT_TRUE(file->Commit().has_value());
  EXPECT_EQ(AsText(MappedFile::Open(path).value()->bytes()), "anew");
  EXPECT_FALSE(std::filesystem::exists(part));
}

TEST_F(FolderTest, AFullDiskIsNoticedBeforeWriting) {
  const Result<OutputFile> file = OutputFile::Create(folder_ / "huge.bin", 1ULL << 60);
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().code, ErrorCode::kWriteFailed);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(FolderTest, ATruncatedInputIsNoticed) {
  const std::filesystem::path path = folder_ / "in.bin";
  ASSERT_TRUE(WriteWholeFile(path, AsBytes("0123456789")).has_value());
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path).value();
  const SharedBytes source = MakeMappedSource(file, 2, 4).value();
  std::array<std::byte, 4> out{};
  ASSERT_TRUE(source->Read(0, out).has_value());
  EXPECT_EQ(AsText(out), "2345");
  EXPECT_FALSE(source->Read(1, out).has_value());
  EXPECT_FALSE(MakeMappedSource(file, 8, 4).has_value());
  std::filesystem::resize_file(path, 3);
  EXPECT_EQ(source->Read(0, out).error().code, ErrorCode::kFileChanged);
}

// The pages are gone when they are touched, which would end the process.
TEST_F(FolderTest, AMappingWhoseFileShrinksReadsZerosAndSaysSo) {
  const std::filesystem::path path = folder_ / "shrinking";
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::ofstream(path) << std::string(4 * page, 'x');
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path).value();
  const std::shared_ptr<const MappedFile> other = MappedFile::Open(path).value();
  std::filesystem::resize_file(path, page);
  EXPECT_EQ(file->bytes()[page - 1], std::byte{'x'});
  EXPECT_EQ(file->bytes()[2 * page], std::byte{0});
  EXPECT_EQ(file->bytes()[4 * page - 1], std::byte{0});
  EXPECT_EQ(file->CheckUnchanged().error().code, ErrorCode::kFileChanged);
  EXPECT_TRUE(AnyPagesLost());
  // Grown back, the file looks as before; what was read is wrong all the same. A mapping that was not read is not concerned.
  std::filesystem::resize_file(path, 4 * page);
  EXPECT_EQ(file->CheckUnchanged().error().code, ErrorCode::kFileChanged);
  EXPECT_TRUE(other->CheckUnchanged().has_value());
}

TEST_F(FolderTest, PagesLostInSeveralThreadsAtOnceAreNoCrash) {
  const std::filesystem::path path = folder_ / "shrinking";
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::ofstream(path) << std::string(256 * page, 'x');
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path).value();
  std::filesystem::resize_file(path, 0);
  std::atomic<int> sum = 0;
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = 0; i < 256; ++i) sum += static_cast<int>(file->bytes()[(t % 2 == 0 ? i : 255 - i) * page]);
      });
    }
  }
  EXPECT_EQ(sum, 0);
}

// Somebody else's SIGBUS ends the process as it always did.
TEST_F(FolderTest, PagesThatAreNotOursStillEndTheProcess) {
  const std::filesystem::path path = folder_ / "foreign";
  std::ofstream(path) << "guard";
  const std::shared_ptr<const MappedFile> guarded = MappedFile::Open(path).value();
  EXPECT_DEATH(
      {
        const int descriptor = open(path.c_str(), O_RDONLY);
        const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        void* address = mmap(nullptr, 2 * page, PROT_READ, MAP_SHARED, descriptor, 0);
        const volatile char* beyond = static_cast<const char*>(address) + page;
        std::exit(beyond[0]);
      },
      "");
}

TEST_F(FolderTest, OnlyRegularFilesAreMapped) {
  EXPECT_EQ(MappedFile::Open(folder_).error().code, ErrorCode::kNotRegularFile);
  EXPECT_EQ(MappedFile::Open(folder_ / "none").error().code, ErrorCode::kFileNotFound);
}

TEST(JsonTest, RefusesWhatStrictReadersRefuse) {
  EXPECT_EQ(ParseJson(AsBytes(R"({"a": [1, 2.5, "x"]})")).value()["a"][0], 1);
  for (const char* lie : {R"({"a":1,"a":2})", "{", "", "[1,]", "{'a':1}", "\"\xff\"", "nan", "{} x", "[1] [2]"}) {
    const Result<Json> json = ParseJson(AsBytes(lie));
    ASSERT_FALSE(json.has_value()) << lie;
    EXPECT_EQ(json.error().code, ErrorCode::kBadJson);
  }
  const std::string deep = std::string(65, '[') + std::string(65, ']');
  EXPECT_FALSE(ParseJson(AsBytes(deep)).has_value());
  EXPECT_TRUE(ParseJson(AsBytes(deep.substr(1, 128))).has_value());
  EXPECT_FALSE(ParseJson(AsBytes("[1,2,3]"), {.max_bytes = 3}).has_value());
}

}  // namespace
}  // namespace taskpress
