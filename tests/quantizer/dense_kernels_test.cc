#include "quantizer/dense_kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "tests/testing/every_target.h"

namespace taskpress {
namespace {

std::vector<float> Normal(int64_t count, uint32_t seed, float zeros = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform;
  std::vector<float> values(static_cast<size_t>(count));
  // Spread over 40 binary orders: sums cancel, absorb and round at every place.
  for (float& value : values) value = uniform(random) < zeros ? 0.0F : std::ldexp(normal(random), static_cast<int>(random() % 41) - 20);
  return values;
}

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

TEST(DenseKernels, ProductsHaveThePlainBitsOnEveryInstructionSet) {
  for (const int64_t depth : {0, 1, 2, 37, 256}) {
    const std::vector<float> a = Normal(depth * kPanelWidth, 1);
    const std::vector<float> b = Normal(depth * kPanelWidth, 2);
    constexpr int64_t kStride = 45;
    for (const Accumulate how : {Accumulate::kAdd, Accumulate::kSubtract}) {
      std::vector<float> plain = Normal(kPanelWidth * kStride, 3);
      const std::vector<float> before = plain;
      PlainDenseKernels().multiply(a.data(), b.data(), depth, plain.data(), kStride, how);
      ForEachTarget([&] {
        std::vector<float> fast = before;
        VectorDenseKernels().multiply(a.data(), b.data(), depth, fast.data(), kStride, how);
        EXPECT_EQ(Bits(fast), Bits(plain)) << depth;
      });
    }
  }
}

// Sums that fall on or beside the middle between two floats: an emulated fused multiply-add that rounds twice gets these wrong.
TEST(DenseKernels, FusedSumsBesideHalfwayPointsRoundOnce) {
  std::mt19937 random(7);
  std::vector<float> a(kPanelWidth);
  std::vector<float> b(kPanelWidth);
  std::vector<float> c(kPanelWidth * kPanelWidth);
  int halfway = 0;
  for (int round = 0; round < 50; ++round) {
    for (float& value : a)
      value = std::ldexp(1.0F + std::ldexp(static_cast<float>(random() % 4), -23), static_cast<int>(random() % 3) - 25);
    // (1 + x)(1 - x) = 1 - x^2, and x^2 is below the last bit of a double beside c.
    for (float& value : b) value = (random() % 2 == 0 ? 1.0F : -1.0F) * (1.0F - std::ldexp(static_cast<float>(random() % 4), -23));
    for (float& value : c) value = (random() % 2 == 0 ? 1.0F : -1.0F) * (1.0F + std::ldexp(static_cast<float>(random() % 4), -23));
    std::vector<float> plain = c;
    // f += l * e is the one place where the chain does not start from zero.
    for (int64_t i = 0; i < kPanelWidth; ++i)
      PlainDenseKernels().outer_add(&a[static_cast<size_t>(i)], b.data(), 1, &plain[static_cast<size_t>(i * kPanelWidth)]);
    for (size_t i = 0; i < c.size(); ++i) {
      const double exact = static_cast<double>(a[i / kPanelWidth]) * static_cast<double>(b[i % kPanelWidth]) + static_cast<double>(c[i]);
      halfway += static_cast<float>(exact) != plain[i] ? 1 : 0;
    }
    ForEachTarget([&] {
      std::vector<float> fast = c;
      for (int64_t i = 0; i < kPanelWidth; ++i) {
        VectorDenseKernels().outer_add(&a[static_cast<size_t>(i)], b.data(), 1, &fast[static_cast<size_t>(i * kPanelWidth)]);
      }
      EXPECT_EQ(Bits(fast), Bits(plain));
    });
  }
  EXPECT_GT(halfway, 10) << "the values never provoke double rounding";
}

TEST(DenseKernels, SparseProductsHaveTheBitsOfDenseOnes) {
  constexpr int64_t kDepth = 256;
  const std::vector<float> a = Normal(kDepth * kPanelWidth, 4, 0.95F);
  const std::vector<float> b = Normal(kDepth * kPanelWidth, 5, 0.5F);
  std::vector<float> dense(kPanelWidth * kPanelWidth);
  PlainDenseKernels().multiply(a.data(), b.data(), kDepth, dense.data(), kPanelWidth, Accumulate::kAdd);
  const auto multiply = [&](const DenseKernels& kernels) {
    std::vector<float> sparse(dense.size());
    for (int64_t i = 0; i < kPanelWidth; ++i) {
      std::vector<float> values;
      std::vector<uint16_t> at;
      for (int64_t k = 0; k < kDepth; ++k) {
        const float value = a[static_cast<size_t>(k * kPanelWidth + i)];
        if (value == 0) continue;
        values.push_back(value);
        at.push_back(static_cast<uint16_t>(k));
      }
      kernels.multiply_sparse(values.data(), at.data(), std::ssize(values), b.data(), &sparse[static_cast<size_t>(i * kPanelWidth)]);
    }
    return Bits(sparse);
  };
  EXPECT_EQ(multiply(PlainDenseKernels()), Bits(dense));
  ForEachTarget([&] { EXPECT_EQ(multiply(VectorDenseKernels()), Bits(dense)); });
}

TEST(DenseKernels, SolvingHasThePlainBitsAndUndoesTheProduct) {
  constexpr int64_t kN = 19;
  constexpr int64_t kStride = 23;
  std::vector<float> l(kN * kStride);
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (float& value : l) value = normal(random);
  for (int64_t i = 0; i < kN; ++i) l[static_cast<size_t>(i * kStride + i)] = 4 + std::abs(normal(random));
  std::vector<float> x(kN * kPanelWidth);
  for (float& value : x) value = normal(random);
  // a = x l^T
  std::vector<float> a(x.size());
  for (int64_t c = 0; c < kN; ++c) {
    for (int64_t i = 0; i < kPanelWidth; ++i) {
      double sum = 0;
      for (int64_t k = 0; k <= c; ++k) {
        sum +=
            static_cast<double>(l[static_cast<size_t>(c * kStride + k)]) * static_cast<double>(x[static_cast<size_t>(k * kPanelWidth + i)]);
      }
      a[static_cast<size_t>(c * kPanelWidth + i)] = static_cast<float>(sum);
    }
  }
  std::vector<float> plain = a;
  PlainDenseKernels().solve(l.data(), kStride, kN, plain.data());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(plain[i], x[i], 1e-5) << i;
  ForEachTarget([&] {
    std::vector<float> fast = a;
    VectorDenseKernels().solve(l.data(), kStride, kN, fast.data());
    EXPECT_EQ(Bits(fast), Bits(plain));
  });
}

TEST(DenseKernels, RoundingIsHalfEvenAndClamped) {
  std::vector<float> values(kPanelWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.5F - 8.0F;
  values[31] = 1e30F;
  const std::vector<float> scales(kPanelWidth, 1.0F);
  std::vector<float> plain(kPanelWidth);
  PlainDenseKernels().round(values.data(), scales.data(), -7, 5, plain.data());
  EXPECT_EQ(plain[0], -7);   // -8
  EXPECT_EQ(plain[3], -6);   // -6.5
  EXPECT_EQ(plain[15], -0);  // -0.5
  EXPECT_EQ(plain[19], 2);   // 1.5
  EXPECT_EQ(plain[21], 2);   // 2.5
  EXPECT_EQ(plain[30], 5);   // 7
  EXPECT_EQ(plain[31], 5);
  ForEachTarget([&] {
    std::vector<float> fast(kPanelWidth);
    VectorDenseKernels().round(values.data(), scales.data(), -7, 5, fast.data());
    EXPECT_EQ(fast, plain);
  });
}

TEST(DenseKernels, ACornerLeavesWhatIsAroundItAlone) {
  constexpr int64_t kDepth = 11;
  const std::vector<float> a = Normal(kDepth * kPanelWidth, 8);
  const std::vector<float> b = Normal(kDepth * kPanelWidth, 9);
  std::vector<float> whole(kPanelWidth * kPanelWidth, 1.0F);
  PlainDenseKernels().multiply(a.data(), b.data(), kDepth, whole.data(), kPanelWidth, Accumulate::kSubtract);
  std::vector<float> corner(kPanelWidth * kPanelWidth, 1.0F);
  MultiplyCorner(VectorDenseKernels(), a.data(), b.data(), kDepth, corner.data(), kPanelWidth, 3, 5, Accumulate::kSubtract);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(corner[i], i / kPanelWidth < 3 && i % kPanelWidth < 5 ? whole[i] : 1.0F) << i;
}

}  // namespace
}  // namespace taskpress
