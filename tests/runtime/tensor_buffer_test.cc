#include "runtime/tensor_buffer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

namespace taskpress {
namespace {

constexpr uint64_t kLarge = (uint64_t{16} << 20) + 4096 + 13;

// Pages of the buffer that are in memory.
int64_t ResidentPages(const TensorBuffer& buffer) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident((buffer.size() + page - 1) / page);
  EXPECT_EQ(mincore(buffer.data(), buffer.size(), resident.data()), 0);
  return std::ranges::count_if(resident, [](unsigned char flags) { return (flags & 1U) != 0; });
}

TEST(TensorBufferTest, ZerosReplaceWhatWasWritten) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{4096}, uint64_t{2} << 20, kLarge}) {
    for (const Pages pages : {Pages::kHuge, Pages::kSmall}) {
      TensorBuffer buffer = TensorBuffer::Make(size, pages).value();
      std::memset(buffer.data(), 0xA5, size);
      buffer.Zero();
      EXPECT_TRUE(std::ranges::all_of(buffer.bytes(), [](std::byte byte) { return byte == std::byte{0}; })) << size;
    }
  }
}

TEST(TensorBufferTest, OnlyWhatIsWrittenTakesMemory) {
  TensorBuffer buffer = TensorBuffer::Make(kLarge, Pages::kSmall).value();
  buffer.Zero();
  EXPECT_LE(ResidentPages(buffer), 2);  // the end that is not a whole page
  buffer.data()[kLarge / 2] = std::byte{1};
  EXPECT_LE(ResidentPages(buffer), 3);
  std::memset(buffer.data(), 1, kLarge);
  EXPECT_GT(ResidentPages(buffer), 4000);
  buffer.Zero();
  EXPECT_LE(ResidentPages(buffer), 2);
}

TEST(TensorBufferTest, MoreThanCanBeAddressedIsRefused) {
  for (const Pages pages : {Pages::kHuge, Pages::kSmall}) {
    EXPECT_EQ(TensorBuffer::Make(std::numeric_limits<uint64_t>::max() - 5, pages).error().code, ErrorCode::kOutOfMemory);
  }
}

}  // namespace
}  // namespace taskpress
