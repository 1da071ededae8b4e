#include "quantizer/parallel_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <oneapi/tbb/global_control.h>

#include <mutex>
#include <new>
#include <set>
#include <thread>

#include "schema/base/hash.h"
#include "tests/quantizer/matrices.h"

namespace taskpress {
namespace {

using testing::HasSubstr;

class ParallelRowsTest : public testing::Test {
 private:
  // TBB grants no more threads than the machine has; the races we look for need four anywhere.
  tbb::global_control four_threads_{tbb::global_control::max_allowed_parallelism, 4};
};

QuantizedRowsInput WideInput(const std::vector<float>& values, int64_t rows, int64_t columns) {
  return {.name = "w", .spec = {.type = DType::kI4}, .num_rows = rows, .columns = columns, .reader = ReaderOf(values, columns)};
}

// Packed rows in blocks of about 512 KiB, over threads.
Status ProduceRows(const RowSource& source, const RowWork& work,
                   const std::function<Status(int64_t first_row, int64_t count, ByteView packed, std::span<const float> scales)>& consume) {
  const auto rows_per_block = static_cast<int64_t>((512U << 10) / source.row_bytes());
  return ForEachRowBlock(source.num_rows(), rows_per_block, work, [&](const RowRange& range) -> Status {
    std::vector<std::byte> packed(static_cast<size_t>(range.count) * source.row_bytes());
    std::vector<float> scales(static_cast<size_t>(range.count * source.scales_per_row()));
    TRY(source.ReadRows(range.first_row, range.count, packed, scales));
    return consume(range.first_row, range.count, packed, scales);
  });
}

TEST_F(ParallelRowsTest, BytesAndScalesAreTheSameForEveryNumberOfThreads) {
  constexpr int64_t kRows = 2100;  // three blocks, the last one short
  constexpr int64_t kColumns = 1100;
  const std::vector<float> values = RandomMatrix(kRows, kColumns, 1);
  const auto source = QuantizedRows::Make(WideInput(values, kRows, kColumns));
  ASSERT_TRUE(source.has_value());
  std::vector<std::byte> expected((*source)->size());
  std::vector<float> expected_scales(kRows);
  ASSERT_TRUE((*source)->ReadRows(0, kRows, expected, expected_scales).has_value());
  for (const int threads : {0, 1, 2, 4, 64}) {
    std::vector<std::byte> packed((*source)->size());
    std::vector<float> scales(kRows);
    std::atomic<int> calls = 0;
    const Status done = ProduceRows(**source, {.threads = threads},
                                    [&](int64_t first_row, int64_t count, ByteView block, std::span<const float> block_scales) -> Status {
                                      ++calls;
                                      EXPECT_EQ(block.size(), static_cast<size_t>(count) * (*source)->row_bytes());
                                      EXPECT_LE(block.size(), 512U << 10);
                                      std::ranges::copy(block, packed.begin() + first_row * static_cast<int64_t>((*source)->row_bytes()));
                                      std::ranges::copy(block_scales, scales.begin() + first_row);
                                      return {};
                                    });
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(calls.load(), 3);
    EXPECT_EQ(Sha256Hex(packed), Sha256Hex(expected)) << threads;
    EXPECT_EQ(scales, expected_scales) << threads;
  }
}

TEST_F(ParallelRowsTest, BlocksCoverEveryRowOnceWhateverTheSizes) {
  for (int64_t rows = 0; rows <= 20; ++rows) {
    for (int64_t per_block = 1; per_block <= 21; ++per_block) {
      for (const int threads : {1, 2, 4}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(rows));
        const Status done = ForEachRowBlock(rows, per_block, {.threads = threads}, [&](const RowRange& range) -> Status {
          EXPECT_LT(range.worker, RowWorkers(rows, per_block, {.threads = threads}));
          EXPECT_LE(range.count, per_block);
          for (int64_t row = range.first_row; row < range.first_row + range.count; ++row) ++seen[static_cast<size_t>(row)];
          return {};
        });
        ASSERT_TRUE(done.has_value());
        for (const std::atomic<int>& count : seen) ASSERT_EQ(count.load(), 1);
      }
    }
  }
}

TEST_F(ParallelRowsTest, OneWorkerIsNeverInTwoBlocksAtOnce) {
  std::array<std::atomic<int>, 4> inside{};
  const Status done = ForEachRowBlock(500, 1, {.threads = 4}, [&](const RowRange& range) -> Status {
    std::atomic<int>& mine = inside[static_cast<size_t>(range.worker)];
    EXPECT_EQ(mine.fetch_add(1), 0);
    std::this_thread::yield();
    mine.fetch_sub(1);
    return {};
  });
  EXPECT_TRUE(done.has_value());
}

TEST_F(ParallelRowsTest, SeveralThreadsReallyWork) {
  std::mutex mutex;
  std::set<std::thread::id> ids;
  const Status done = ForEachRowBlock(200, 1, {.threads = 4}, [&](const RowRange&) -> Status {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::scoped_lock lock(mutex);
    ids.insert(std::this_thread::get_id());
    return {};
  });
  EXPECT_TRUE(done.has_value());
  EXPECT_GT(ids.size(), 1U);
}

TEST_F(ParallelRowsTest, TheErrorOfTheLowestBlockIsReturnedHoweverLateItComes) {
  for (const int threads : {1, 2, 4}) {
    for (int round = 0; round < 20; ++round) {
      const Status done = ForEachRowBlock(100, 1, {.threads = threads}, [&](const RowRange& range) -> Status {
        if (range.first_row < 7) return {};
        if (range.first_row == 7) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        return Fail(ErrorCode::kQuantValue, "row {}", range.first_row);
      });
      ASSERT_FALSE(done.has_value());
      ASSERT_EQ(done.error().message, "row 7") << threads;
    }
  }
}

TEST_F(ParallelRowsTest, TheFirstBadRowOfTheMatrixIsNamedForEveryNumberOfThreads) {
  constexpr int64_t kRows = 2100;
  constexpr int64_t kColumns = 1100;
  std::vector<float> values = RandomMatrix(kRows, kColumns, 2);
  for (const int64_t row : {1999, 951, 950, 1500}) values[static_cast<size_t>(row * kColumns + 5)] = std::nanf("");
  const auto source = QuantizedRows::Make(WideInput(values, kRows, kColumns));
  ASSERT_TRUE(source.has_value());
  for (const int threads : {1, 2, 4}) {
    const Status done =
        ProduceRows(**source, {.threads = threads}, [](int64_t, int64_t, ByteView, std::span<const float>) -> Status { return {}; });
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, ErrorCode::kQuantValue);
    EXPECT_THAT(done.error().message, HasSubstr("w: row 950, column 5:"));
  }
}

TEST_F(ParallelRowsTest, AnErrorOfTheConsumerEndsTheWork) {
  const std::vector<float> values(1 << 20, 1.0F);
  const auto source = QuantizedRows::Make(WideInput(values, 1 << 20, 1));
  EXPECT_FALSE(source.has_value());  // odd columns
  const auto even = QuantizedRows::Make(WideInput(values, 1 << 19, 2));
  ASSERT_TRUE(even.has_value());
  const Status done = ProduceRows(
      **even, {}, [](int64_t, int64_t, ByteView, std::span<const float>) -> Status { return Fail(ErrorCode::kWriteFailed, "disk full"); });
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().code, ErrorCode::kWriteFailed);
}

TEST_F(ParallelRowsTest, AStopFlagInterruptsBetweenBlocks) {
  std::atomic<bool> stop = true;
  std::atomic<int64_t> rows_done = 0;
  const RowRangeBody body = [&](const RowRange& range) -> Status {
    if (++rows_done == 10) stop = true;
    return range.first_row < 0 ? Fail(ErrorCode::kQuantShape, "never") : Status();
  };
  const Status before = ForEachRowBlock(100, 1, {.threads = 2, .stop = &stop}, body);
  ASSERT_FALSE(before.has_value());
  EXPECT_EQ(before.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(rows_done.load(), 0);
  stop = false;
  const Status during = ForEachRowBlock(100, 1, {.threads = 2, .stop = &stop}, body);
  ASSERT_FALSE(during.has_value());
  EXPECT_EQ(during.error().code, ErrorCode::kInterrupted);
  EXPECT_GE(rows_done.load(), 10);
  EXPECT_LE(rows_done.load(), 11);  // at most the other thread's block was under way
}

TEST_F(ParallelRowsTest, AStopAfterTheLastBlockChangesNothing) {
  std::atomic<bool> stop = false;
  const Status done = ForEachRowBlock(5, 1, {.threads = 1, .stop = &stop}, [&](const RowRange& range) -> Status {
    if (range.first_row == 4) stop = true;
    return {};
  });
  EXPECT_TRUE(done.has_value());
}

TEST_F(ParallelRowsTest, ExceptionsOfLibrariesBecomeErrors) {
  for (const int threads : {1, 4}) {
    const Status done = ForEachRowBlock(100, 1, {.threads = threads}, [](const RowRange&) -> Status { throw std::bad_alloc(); });
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, ErrorCode::kOutOfMemory);
  }
}

}  // namespace
}  // namespace taskpress
