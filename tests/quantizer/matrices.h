// Weight matrices for the quantizer's tests.
#ifndef TASKPRESS_TESTS_QUANTIZER_MATRICES_H_
#define TASKPRESS_TESTS_QUANTIZER_MATRICES_H_

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "quantizer/quantized_source.h"

namespace taskpress {

// Independent, of one size.
inline std::vector<float> NormalValues(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// Gaussian weights with outliers, rows of very different size. [rows, columns]
inline std::vector<float> RandomMatrix(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values;
  for (int64_t row = 0; row < rows; ++row) {
    const float size = std::exp2(4 * normal(random));
    for (int64_t column = 0; column < columns; ++column) {
      const float outlier = random() % 64 == 0 ? 10.0F : 1.0F;
      values.push_back(size * outlier * normal(random));
    }
  }
  return values;
}

inline FloatRowReader ReaderOf(const std::vector<float>& values, int64_t columns) {
  return [&values, columns](int64_t first_row, int64_t count, std::span<float> out) -> Status {
    const auto whole = std::span(values).subspan(static_cast<size_t>(first_row * columns), static_cast<size_t>(count * columns));
    std::ranges::copy(whole, out.begin());
    return {};
  };
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_QUANTIZER_MATRICES_H_
