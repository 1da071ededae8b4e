#include "tests/reference/plain_math.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace taskpress::oracle {

double Dot(std::span<const float> a, std::span<const float> b) {
  std::array<double, 8> lanes{};  // independent sums, so that the compiler may use vector registers
  const size_t whole = a.size() / lanes.size() * lanes.size();
  for (size_t i = 0; i < whole; i += lanes.size()) {
    for (size_t lane = 0; lane < lanes.size(); ++lane) lanes[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
  }
  double sum = 0;
  for (size_t i = whole; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (const double lane : lanes) sum += lane;
  return sum;
}

double MeanSquare(std::span<const float> x) { return Dot(x, x) / static_cast<double>(x.size()); }

Matrix Linear(const Matrix& x, const Weight& w) {
  Matrix y(x.rows, w.rows);
  std::vector<float> row(static_cast<size_t>(w.columns));
  for (int64_t out = 0; out < w.rows; ++out) {
    w.stored->ReadRow(out, 0, row);
    for (int64_t t = 0; t < x.rows; ++t) y[t][static_cast<size_t>(out)] = static_cast<float>(Dot(row, x[t]));
  }
  return y;
}

void RmsNormInPlace(std::span<float> x, std::span<const float> w, double eps) {
  const double scale = 1 / std::sqrt(MeanSquare(x) + eps);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(x[i] * scale * (w.empty() ? 1.0 : static_cast<double>(w[i])));
}

Matrix RmsNorm(Matrix x, std::span<const float> w, double eps) {
  for (int64_t t = 0; t < x.rows; ++t) RmsNormInPlace(x[t], w, eps);
  return x;
}

float Gelu(float value) {
  const auto x = static_cast<double>(value);
  return static_cast<float>(0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x))));
}

// Bisection of the distribution function: slow and hard to get wrong.
double NormalQuantile(double probability) {
  double low = -10;
  double high = 10;
  for (int i = 0; i < 100; ++i) {
    const double z = (low + high) / 2;
    (0.5 * std::erfc(-z / std::numbers::sqrt2) < probability ? low : high) = z;
  }
  return low;
}

Matrix Add(Matrix a, const Matrix& b, float factor) {
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] = (a.values[i] + b.values[i]) * factor;
  return a;
}

Matrix MatchMagnitude(Matrix z, const Matrix& x) {
  for (int64_t t = 0; t < z.rows; ++t) {
    const double scale = std::sqrt(MeanSquare(x[t])) / std::sqrt(std::max(MeanSquare(z[t]), 1e-5));
    for (float& value : z[t]) value = static_cast<float>(value * scale);
  }
  return z;
}

// Frequencies and angles are rounded to float32, as the original model rounds them.
void RotateInPlace(std::span<float> head, int64_t position, double theta) {
  const size_t half = head.size() / 2;
  for (size_t j = 0; j < half; ++j) {
    const auto frequency = static_cast<float>(1 / std::pow(theta, static_cast<double>(2 * j) / static_cast<double>(head.size())));
    const float angle = static_cast<float>(position) * frequency;
    const float cosine = std::cos(angle);
    const float sine = std::sin(angle);
    const float x1 = head[j];
    const float x2 = head[j + half];
    head[j] = x1 * cosine - x2 * sine;
    head[j + half] = x2 * cosine + x1 * sine;
  }
}

void SoftmaxInPlace(std::span<double> scores) {
  const double largest = *std::ranges::max_element(scores);
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (double& score : scores) score /= sum;
}

}  // namespace taskpress::oracle
