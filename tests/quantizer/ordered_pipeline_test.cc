#include "quantizer/ordered_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <set>
#include <thread>
#include <vector>

namespace taskpress {
namespace {

// Work that takes longer for some items, so that they finish out of order.
void Dawdle(uint64_t item) { std::this_thread::sleep_for(std::chrono::microseconds(item % 7 == 0 ? 300 : 10)); }

TEST(OrderedPipelineTest, ConsumesEveryItemOnceInOrder) {
  for (const int threads : {1, 2, 4}) {
    for (const size_t slots : {1U, 2U, 5U}) {
      std::vector<uint64_t> made(slots);
      std::vector<uint64_t> consumed;
      const Status done = RunOrdered(
          3, 203, slots, {.threads = threads},
          [&](uint64_t item, size_t slot) -> Status {
            Dawdle(item);
            made[slot] = item * item;
            return {};
          },
          [&](uint64_t item, size_t slot) -> Status {
            EXPECT_EQ(made[slot], item * item);
            consumed.push_back(item);
            return {};
          });
      ASSERT_TRUE(done.has_value());
      ASSERT_EQ(consumed.size(), 200U);
      for (size_t i = 0; i < consumed.size(); ++i) EXPECT_EQ(consumed[i], i + 3);
    }
  }
}

TEST(OrderedPipelineTest, NeverHasMoreItemsUnderWayThanSlots) {
  constexpr size_t kSlots = 3;
  std::array<std::atomic<int>, kSlots> users{};
  std::atomic<int> under_way = 0;
  std::atomic<int> most = 0;
  const Status done = RunOrdered(
      0, 300, kSlots, {.threads = 4},
      [&](uint64_t item, size_t slot) -> Status {
        EXPECT_EQ(++users[slot], 1);
        const int now = ++under_way;
        int seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        Dawdle(item);
        return {};
      },
      [&](uint64_t, size_t slot) -> Status {
        --under_way;
        --users[slot];
        return {};
      });
  ASSERT_TRUE(done.has_value());
  EXPECT_LE(most.load(), static_cast<int>(kSlots));
}

TEST(OrderedPipelineTest, TheLowestFailureIsToldAndEverythingBelowItIsConsumed) {
  for (const int threads : {1, 2, 4}) {
    uint64_t consumed = 0;
    const Status done = RunOrdered(
        0, 100, 8, {.threads = threads},
        [&](uint64_t item, size_t) -> Status {
          Dawdle(item);
          if (item >= 42) return Fail(ErrorCode::kReadFailed, "item {}", item);
          return {};
        },
        [&](uint64_t, size_t) -> Status {
          ++consumed;
          return {};
        });
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().message, "item 42");
    EXPECT_EQ(consumed, 42U);
  }
}

TEST(OrderedPipelineTest, AFailureWhileConsumingEndsIt) {
  const Status done = RunOrdered(
      0, 100, 4, {.threads = 2}, [](uint64_t, size_t) -> Status { return {}; },
      [](uint64_t item, size_t) -> Status {
        if (item == 17) return Fail(ErrorCode::kWriteFailed, "disk");
        EXPECT_LT(item, 17U);
        return {};
      });
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().code, ErrorCode::kWriteFailed);
}

TEST(OrderedPipelineTest, AStopEndsItAndExceptionsAreErrors) {
  std::atomic<bool> stop = false;
  const Status stopped = RunOrdered(
      0, 1000, 4, {.threads = 2, .stop = &stop}, [](uint64_t, size_t) -> Status { return {}; },
      [&](uint64_t item, size_t) -> Status {
        if (item == 20) stop = true;
        return {};
      });
  ASSERT_FALSE(stopped.has_value());
  EXPECT_EQ(stopped.error().code, ErrorCode::kInterrupted);
  const Status thrown = RunOrdered(
      0, 10, 4, {.threads = 2}, [](uint64_t, size_t) -> Status { throw std::bad_alloc(); }, [](uint64_t, size_t) -> Status { return {}; });
  ASSERT_FALSE(thrown.has_value());
  EXPECT_EQ(thrown.error().code, ErrorCode::kOutOfMemory);
}

TEST(OrderedPipelineTest, NothingToDoIsDone) {
  const auto never = [](uint64_t, size_t) -> Status { return Fail(ErrorCode::kReadFailed, "called"); };
  EXPECT_TRUE(RunOrdered(5, 5, 2, {.threads = 2}, never, never).has_value());
}

}  // namespace
}  // namespace taskpress
