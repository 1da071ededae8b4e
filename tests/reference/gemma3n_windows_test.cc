// All 48 windows of every size: a quarter of a minute each when optimised, minutes with sanitizers.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/reference/golden_windows.h"

namespace taskpress::oracle {
namespace {

class Gemma3nWindowsTest : public testing::TestWithParam<const char*> {};

TEST_P(Gemma3nWindowsTest, PerplexityOfAllWindowsIsThatOfTransformers) {
  const double expected = ReadGoldenJson("goldens.json").at("models").at(GetParam()).at("ppl");
  EXPECT_NEAR(std::exp(CompareGoldenWindows(GetParam(), GoldenWindows().size())), expected, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Gemma3nWindowsTest, testing::Values("e4b", "e2b", "mixed"),
                         [](const auto& size) { return std::string(size.param); });

}  // namespace
}  // namespace taskpress::oracle
