// E10: where roots and constants of several graphs lie, and that each root is a member of its own.
#include "schema/member_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "schema/base/half.h"
#include "tests/testing/graph_samples.h"
#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using testing::EveryOpGraph;
using testing::LookupGraph;
using testing::PatternRows;
using testing::SmallGraph;

TEST(MemberImageTest, OneRootIsThePlainMember) {
  const Graph graph = EveryOpGraph();
  const TfliteImage plain = BuildTfliteImage(graph).value();
  const std::array<const Graph*, 1> one{&graph};
  for (const MemberImage& image : {BuildMemberImage(graph).value(), BuildMemberImage(one).value()}) {
    ASSERT_EQ(image.roots.size(), 1U);
    EXPECT_EQ(image.roots[0].offset, 0U);
    EXPECT_EQ(image.roots[0].image.root.size(), plain.root.size());
    EXPECT_LE(image.size, plain.size);  // equal constants are stored once
  }
  EXPECT_EQ(BuildMemberImage(graph)->roots[0].image.root, plain.root);
}

TEST(MemberImageTest, RootsLieInFrontOnBlocksWithRoomForAHeader) {
  const auto rows = std::make_shared<PatternRows>(9000, 16);
  const Graph big = LookupGraph(DType::kI8, {9000, 16}, rows);  // its scales alone are longer than a block
  const Graph small = LookupGraph(DType::kI8, {100, 16}, MakeFirstRows(rows, 100).value());
  const std::array<const Graph*, 3> graphs{&big, &small, &small};
  const MemberImage image = BuildMemberImage(graphs).value();
  ASSERT_EQ(image.roots.size(), 3U);
  uint64_t end = 0;
  for (const MemberRoot& root : image.roots) {
    EXPECT_EQ(root.offset % 16384, 0U);
    EXPECT_TRUE(root.offset == 0 || root.offset >= end + 128);
    EXPECT_LT(root.offset, end + 128 + 16384);
    end = root.offset + root.image.root.size();
    EXPECT_EQ(root.image.size, image.size - root.offset);
  }
  const std::vector<SharedConstant> constants = SharedConstants(image);
  ASSERT_EQ(constants.size(), 1U);
  EXPECT_GE(constants[0].begin, end);
  EXPECT_EQ(constants[0].begin % 64, 0U);
  EXPECT_EQ(constants[0].end - constants[0].begin, 9000U * 16U);
  EXPECT_EQ(constants[0].end, image.size);
  ASSERT_EQ(constants[0].uses.size(), 3U);
  EXPECT_EQ(constants[0].uses[0].root, 0U) << "the longest is written";
  for (const MemberRoot& root : image.roots) EXPECT_EQ(root.offset + root.image.placements[0].offset, constants[0].begin);
}

// The order of the graphs does not matter: a place is as long as the longest that has it.
TEST(MemberImageTest, APrefixMayComeFirst) {
  const auto rows = std::make_shared<PatternRows>(300, 16);
  const Graph big = LookupGraph(DType::kI8, {300, 16}, rows);
  const Graph small = LookupGraph(DType::kI8, {100, 16}, MakeFirstRows(rows, 100).value());
  const std::array<const Graph*, 2> graphs{&small, &big};
  const std::vector<SharedConstant> constants = SharedConstants(BuildMemberImage(graphs).value());
  ASSERT_EQ(constants.size(), 1U);
  EXPECT_EQ(constants[0].end - constants[0].begin, 300U * 16U);
  EXPECT_EQ(constants[0].uses[0].root, 1U);
}

TEST(MemberImageTest, DifferentMatricesOfOneShapeAreTwo) {
  const Graph a = LookupGraph(DType::kI8, {300, 16}, std::make_shared<PatternRows>(300, 16));
  const Graph b = LookupGraph(DType::kI8, {300, 16}, std::make_shared<PatternRows>(300, 16));
  const std::array<const Graph*, 2> graphs{&a, &b};
  EXPECT_EQ(SharedConstants(BuildMemberImage(graphs).value()).size(), 2U);
}

TEST(MemberImageTest, ConstantsOfEqualBytesAreOne) {
  const auto graph = [](float value) {
    testing::ToyGraph toy;
    toy.Begin("main");
    const TensorId x = toy.Input("x", DType::kF32, {1, 400});
    toy.Output("y", toy.Op(OpKind::kAdd, {x, toy.Floats({400}, std::vector<float>(400, value))}, {1, 400}));
    return toy.Take();
  };
  const Graph a = graph(1.0F);
  const Graph b = graph(1.0F);
  const Graph c = graph(2.0F);
  const std::array<const Graph*, 3> graphs{&a, &b, &c};
  EXPECT_EQ(SharedConstants(BuildMemberImage(graphs).value()).size(), 2U);
}

TEST(BlockScalesTest, AreTheScalesOfTheirRowsAsHalves) {
  const auto rows = std::make_shared<PatternRows>(10, 16, 3);  // of row r: (r + 1) / 16 three times
  const std::shared_ptr<const RowSource> scales = MakeBlockScales(rows);
  EXPECT_EQ(scales->num_rows(), 10);
  EXPECT_EQ(scales->row_bytes(), 6U);
  EXPECT_EQ(scales->scales_per_row(), 0);
  EXPECT_EQ(scales->scales_of(), rows.get());
  EXPECT_EQ(scales->origin(), rows->origin());
  std::vector<std::byte> bytes(4 * 6);
  ASSERT_TRUE(scales->ReadRows(3, 4, bytes, {}).has_value());
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(F16ToFloat(LoadLittle<uint16_t>(bytes.data() + 2 * i)), static_cast<float>(3 + i / 3 + 1) / 16.0F) << i;
  }
  std::vector<std::byte> all(60);
  ASSERT_TRUE(scales->Read(0, all).has_value());
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), all.begin() + 18));
  EXPECT_EQ(scales->ReadRows(8, 3, std::span(bytes).first(18), {}).error().code, ErrorCode::kReadFailed);
  const SharedBytes first = MakeFirstRows(scales, 4).value();
  EXPECT_EQ(&first->storage(), scales.get());
  EXPECT_EQ(first->size(), 24U);
}

TEST(FirstRowsTest, AreAViewOfTheWhole) {
  const auto whole = std::make_shared<PatternRows>(9, 4);
  const SharedBytes first = MakeFirstRows(whole, 3).value();
  EXPECT_EQ(first->size(), 12U);
  EXPECT_EQ(&first->storage(), whole.get());
  EXPECT_EQ(&whole->storage(), whole.get());
  std::vector<std::byte> expected(12);
  std::vector<std::byte> found(12);
  EXPECT_TRUE(whole->Read(0, expected).has_value());
  EXPECT_TRUE(first->Read(0, found).has_value());
  EXPECT_EQ(found, expected);
  std::vector<float> scales(4);
  std::vector<std::byte> rows(16);
  EXPECT_EQ(first->rows()->ReadRows(0, 4, rows, scales).error().code, ErrorCode::kReadFailed);
  EXPECT_EQ(MakeFirstRows(whole, 10).error().code, ErrorCode::kReadFailed);
  EXPECT_EQ(MakeFirstRows(whole, 0).error().code, ErrorCode::kReadFailed);
}

}  // namespace
}  // namespace taskpress
