#include "runtime/switched_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "runtime/tensor_buffer.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

TEST(SwitchedMemory, EveryVersionKeepsItsBytesUnderOneAddress) {
  const TempFolder folder;
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4096}, (uint64_t{3} << 20) + 13}) {
    SwitchedMemory memory = SwitchedMemory::Make(bytes, 3, folder.path()).value();
    const std::byte* const address = memory.bytes().data();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(address) % kTensorAlignment, 0U);
    ASSERT_EQ(memory.bytes().size(), bytes);
    for (int64_t version = 0; version < 3; ++version) {
      ASSERT_TRUE(memory.Select(version));
      EXPECT_TRUE(std::ranges::all_of(memory.bytes(), [](std::byte byte) { return byte == std::byte{0}; }));
      std::ranges::fill(memory.bytes(), static_cast<std::byte>(version + 1));
    }
    for (const int64_t version : {1, 0, 2, 1}) {
      ASSERT_TRUE(memory.Select(version));
      EXPECT_EQ(memory.bytes().data(), address);
      EXPECT_TRUE(std::ranges::all_of(memory.bytes(), [&](std::byte byte) { return byte == static_cast<std::byte>(version + 1); }));
    }
    const SwitchedMemory moved = std::move(memory);
    EXPECT_EQ(moved.bytes().data(), address);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "the file has no name";
}

TEST(SwitchedMemory, RefusesWhatCannotBe) {
  const TempFolder folder;
  EXPECT_EQ(SwitchedMemory::Make(std::numeric_limits<uint64_t>::max(), 1, folder.path()).error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(SwitchedMemory::Make(uint64_t{1} << 40, int64_t{1} << 40, folder.path()).error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(SwitchedMemory::Make(8, 0, folder.path()).error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(SwitchedMemory::Make(uint64_t{1} << 50, 1, folder.path()).error().code, ErrorCode::kWriteFailed);
  EXPECT_EQ(SwitchedMemory::Make(8, 1, folder.path() / "none").error().code, ErrorCode::kWriteFailed);
  SwitchedMemory memory = SwitchedMemory::Make(8, 2, folder.path()).value();
  EXPECT_FALSE(memory.Select(2));
  EXPECT_FALSE(memory.Select(-1));
}

}  // namespace
}  // namespace taskpress
