#include "runtime/switched_memory.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/tensor_buffer.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

TEST(SwitchedMemoryTest, EveryVersionKeepsItsContentsUnderOneAddress) {
  const TempFolder folder;
  Result<SwitchedMemory> memory = SwitchedMemory::Make(10000, 3, folder.path());
  ASSERT_TRUE(memory.has_value()) << memory.error().message;
  const std::byte* address = memory->bytes().data();
  for (int64_t version = 0; version < 3; ++version) {
    ASSERT_TRUE(memory->Select(version).has_value());
    ASSERT_EQ(memory->bytes().data(), address);
    EXPECT_TRUE(std::ranges::all_of(memory->bytes(), [](std::byte b) { return b == std::byte{0}; })) << version;
    std::ranges::fill(memory->bytes(), static_cast<std::byte>(version + 1));
  }
  SwitchedMemory moved = *std::move(memory);
  for (int64_t version = 2; version >= 0; --version) {
    ASSERT_TRUE(moved.Select(version).has_value());
    EXPECT_TRUE(std::ranges::all_of(moved.bytes(), [&](std::byte b) { return b == static_cast<std::byte>(version + 1); })) << version;
  }
  EXPECT_GE(moved.file_bytes(), 3 * 10000U);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "the file has no name";
}

TEST(SwitchedMemoryTest, AFolderThatIsNotThereIsAnError) {
  const TempFolder folder;
  EXPECT_FALSE(SwitchedMemory::Make(100, 2, folder.path() / "missing").has_value());
}

}  // namespace
}  // namespace taskpress
