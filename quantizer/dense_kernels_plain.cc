#include <algorithm>
#include <cmath>

#include "quantizer/dense_kernels.h"

namespace taskpress {
namespace {

void Multiply(const float* a, const float* b, int64_t depth, float* c, int64_t c_stride, Accumulate how) {
  for (int64_t i = 0; i < kPanelWidth; ++i) {
    for (int64_t j = 0; j < kPanelWidth; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < depth; ++k) sum = std::fma(a[k * kPanelWidth + i], b[k * kPanelWidth + j], sum);
      float& out = c[i * c_stride + j];
      out = how == Accumulate::kAdd ? out + sum : out - sum;
    }
  }
}

void MultiplySparse(const float* values, const uint16_t* at, int64_t count, const float* b, float* c) {
  for (int64_t j = 0; j < kPanelWidth; ++j) {
    float sum = 0;
    for (int64_t n = 0; n < count; ++n) sum = std::fma(values[n], b[at[n] * kPanelWidth + j], sum);
    c[j] += sum;
  }
}

void Solve(const float* l, int64_t l_stride, int64_t n, float* x) {
  for (int64_t i = 0; i < kPanelWidth; ++i) {
    for (int64_t column = 0; column < n; ++column) {
      float rest = x[column * kPanelWidth + i];
      for (int64_t k = 0; k < column; ++k) rest = std::fma(-l[column * l_stride + k], x[k * kPanelWidth + i], rest);
      x[column * kPanelWidth + i] = rest / l[column * l_stride + column];
    }
  }
}

void OuterAdd(const float* l, const float* e, int64_t n, float* f) {
  for (int64_t c = 0; c < n; ++c) {
    for (int64_t i = 0; i < kPanelWidth; ++i) f[c * kPanelWidth + i] = std::fma(l[c], e[i], f[c * kPanelWidth + i]);
  }
}

void Round(const float* values, const float* scales, float lo, float hi, float* codes) {
  // nearbyint rounds halves to even in the default rounding mode, which nothing here changes.
  for (int64_t i = 0; i < kPanelWidth; ++i) codes[i] = std::clamp(std::nearbyint(values[i] / scales[i]), lo, hi);
}

}  // namespace

const DenseKernels& PlainDenseKernels() {
  static constexpr DenseKernels kKernels = {Multiply, MultiplySparse, Solve, OuterAdd, Round};
  return kKernels;
}

}  // namespace taskpress
