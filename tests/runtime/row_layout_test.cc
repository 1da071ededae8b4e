// Shapes as tokens, rows and columns.
#include "runtime/passes/row_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace taskpress {
namespace {

using ::testing::ElementsAre;

RowLayout Layout(int64_t tokens, const Shape& out, const std::vector<Shape>& operands) {
  const std::optional<RowLayout> layout = BroadcastLayout(tokens, out, operands);
  EXPECT_TRUE(layout.has_value());
  return layout.value_or(RowLayout{});
}

TEST(RowLayoutTest, ValuesOfOneShapeAreOneRow) {
  const RowLayout layout = Layout(7, {1, 7, 4, 8}, {{1, 7, 4, 8}});
  EXPECT_EQ(layout.rows, 1);
  EXPECT_EQ(layout.columns, 32);
  EXPECT_THAT(layout.operands,
              ElementsAre(RowStrides{.token = 32, .row = 32, .column = 1}, RowStrides{.token = 32, .row = 32, .column = 1}));
}

TEST(RowLayoutTest, GainsRepeatForEveryRowAndMeansForEveryColumn) {
  const RowLayout layout = Layout(7, {1, 7, 4, 8}, {{8}, {1, 7, 4, 1}, {1, 7, 1, 1}, {1}});
  EXPECT_EQ(layout.rows, 4);
  EXPECT_EQ(layout.columns, 8);
  EXPECT_EQ(layout.operands[1], (RowStrides{.token = 0, .row = 0, .column = 1}));
  EXPECT_EQ(layout.operands[2], (RowStrides{.token = 4, .row = 1, .column = 0}));
  EXPECT_EQ(layout.operands[3], (RowStrides{.token = 1, .row = 0, .column = 0}));
  EXPECT_EQ(layout.operands[4], (RowStrides{.token = 0, .row = 0, .column = 0}));
}

TEST(RowLayoutTest, ARotationIsSharedByTheHeadsOfItsToken) {
  const RowLayout layout = Layout(7, {1, 7, 4, 8}, {{1, 7, 1, 8}});
  EXPECT_EQ(layout.operands[1], (RowStrides{.token = 8, .row = 0, .column = 1}));
}

TEST(RowLayoutTest, OneTokenHasAnyShape) {
  EXPECT_EQ(Layout(1, {1, 1, 64}, {{1, 1, 64}, {1, 1, 1}}).columns, 64);
  EXPECT_EQ(Layout(1, {4, 8}, {{4, 1}, {8}}).rows, 4);
}

TEST(RowLayoutTest, RefusesTokensThatAreNoLeadingDimensionAndThirdDimensions) {
  EXPECT_FALSE(BroadcastLayout(7, {1, 8, 7}, {}).has_value());
  EXPECT_FALSE(BroadcastLayout(7, {1, 7, 2, 3, 4}, std::vector<Shape>{{1, 7, 1, 3, 1}}).has_value());
  // An operand of other tokens than the result's.
  EXPECT_FALSE(BroadcastLayout(7, {7, 8}, std::vector<Shape>{{2, 8}}).has_value());
}

TEST(RowLayoutTest, ASliceKeepsTheDistancesOfWhatItIsTakenFrom) {
  const std::optional<SliceLayout> slice = LayoutOfSlice(7, {1, 7, 1, 8}, {1, 7, 5, 8}, std::array<int32_t, 4>{0, 0, 3, 0});
  ASSERT_TRUE(slice.has_value());
  EXPECT_EQ(slice->offset, 24);
  EXPECT_EQ(slice->layout.columns, 8);
  EXPECT_EQ(slice->layout.operands[1].token, 40);
  const std::optional<SliceLayout> half = LayoutOfSlice(7, {1, 7, 5, 4}, {1, 7, 5, 8}, std::array<int32_t, 4>{0, 0, 0, 4});
  ASSERT_TRUE(half.has_value());
  EXPECT_EQ(half->offset, 4);
  EXPECT_EQ(half->layout.rows, 5);
  EXPECT_EQ(half->layout.operands[1], (RowStrides{.token = 40, .row = 8, .column = 1}));
}

TEST(RowLayoutTest, ASliceOfTokensIsNoRowOperator) {
  EXPECT_FALSE(LayoutOfSlice(3, {1, 3, 8}, {1, 7, 8}, std::array<int32_t, 3>{0, 2, 0}).has_value());
  EXPECT_FALSE(LayoutOfSlice(7, {1, 7, 4}, {1, 7, 8}, std::array<int32_t, 3>{0, 0, 6}).has_value());
}

TEST(RowLayoutTest, RowsAreTheLastDimension) {
  EXPECT_EQ(DenseRows(7, {1, 7, 4, 8}).value().rows, 4);
  EXPECT_EQ(DenseRows(7, {7, 8}).value().rows, 1);
  EXPECT_FALSE(DenseRows(7, {1, 7}).has_value());
  EXPECT_FALSE(DenseRows(7, {4, 8}).has_value());
}

}  // namespace
}  // namespace taskpress
