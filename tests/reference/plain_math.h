// The arithmetic of the reference model: matrices and the handful of formulas every transformer is written in. Slow on purpose of
// being read; values are float32, sums are double.
#ifndef TASKPRESS_TESTS_REFERENCE_PLAIN_MATH_H_
#define TASKPRESS_TESTS_REFERENCE_PLAIN_MATH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tests/reference/trusting_safetensors.h"

namespace taskpress::oracle {

// Row-major [rows, columns].
struct Matrix {
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), values(static_cast<size_t>(r * c)) {}
  std::span<float> operator[](int64_t row) { return std::span(values).subspan(Start(row), static_cast<size_t>(columns)); }
  std::span<const float> operator[](int64_t row) const { return std::span(values).subspan(Start(row), static_cast<size_t>(columns)); }
  [[nodiscard]] size_t Start(int64_t row) const { return static_cast<size_t>(row * columns); }

  int64_t rows;
  int64_t columns;
  std::vector<float> values;
};

// The first rows and columns of a stored matrix [out, in]: all of it, or what a MatFormer slice keeps.
struct Weight {
  const StoredTensor* stored = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
};

double Dot(std::span<const float> a, std::span<const float> b);
double MeanSquare(std::span<const float> x);
// y[t] = W x[t]; x [T, in], W [out, in] -> [T, out]
Matrix Linear(const Matrix& x, const Weight& w);
// (a + b) * factor
Matrix Add(Matrix a, const Matrix& b, float factor = 1);
// x / sqrt(mean(x^2) + eps) * w, with w itself and not 1 + w. An empty w is the norm without a weight.
void RmsNormInPlace(std::span<float> x, std::span<const float> w, double eps);
Matrix RmsNorm(Matrix x, std::span<const float> w, double eps);
// Gives every row of z the root mean square of the same row of x.
Matrix MatchMagnitude(Matrix z, const Matrix& x);
// The tanh form, everywhere in the text model.
float Gelu(float value);
void SoftmaxInPlace(std::span<double> scores);
// Rotary position: non-interleaved halves, [x1 cos - x2 sin, x2 cos + x1 sin], angle j = position * theta^(-2j/D).
void RotateInPlace(std::span<float> head, int64_t position, double theta);
// The z with Phi(z) = probability.
double NormalQuantile(double probability);

}  // namespace taskpress::oracle

#endif  // TASKPRESS_TESTS_REFERENCE_PLAIN_MATH_H_
