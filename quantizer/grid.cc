#include "quantizer/grid.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "schema/base/half.h"

namespace taskpress {
namespace {

constexpr size_t kMostMagnitudes = 8;
// Rounding to bfloat16 moves a number by 2^-8 of it at most: the value, and the largest one, which the scale is taken from; a little more
// for the product of both.
constexpr double kTolerance = 0x1.02p-7;

struct Magnitude {
  float value = 0;
  bool positive = false;  // occurs with a positive sign, whose largest code is 7
  double code = 0;
};

// The magnitudes that occur, zero left out. A grid has at most eight: almost every other row is known after nine or ten values.
class Magnitudes {
 public:
  // False when there are too many.
  bool Collect(std::span<const float> values) {
    for (const float value : values) {
      const float magnitude = std::abs(value);
      if (magnitude == 0) continue;
      auto* found = std::find_if(all_.data(), end(), [=](const Magnitude& one) { return one.value == magnitude; });
      if (found == end()) {
        if (count_ == kMostMagnitudes) return false;
        found->value = magnitude;
        ++count_;
      }
      found->positive = found->positive || value > 0;
    }
    return true;
  }

  // Gives every magnitude its code, if the largest one has `largest_code`.
  bool Fit(int largest_code) {
    const double scale = static_cast<double>(std::max_element(all_.data(), end(), Smaller)->value) / largest_code;
    for (Magnitude& one : std::span(all_).first(count_)) {
      const auto value = static_cast<double>(one.value);
      one.code = std::nearbyint(value / scale);
      if (one.code < 1 || one.code > (one.positive ? 7 : 8) || std::abs(value - one.code * scale) > kTolerance * value) return false;
    }
    for (size_t i = 0; i < count_; ++i) {
      for (size_t k = 0; k < i; ++k) {
        if (all_[i].code == all_[k].code) return false;
      }
    }
    return true;
  }

  // The scale whose products are the values themselves, in float32 or rounded to bfloat16; else the least squares.
  [[nodiscard]] float Scale() const {
    double products = 0;
    double squares = 0;
    for (const Magnitude& one : all()) {
      products += static_cast<double>(one.value) * one.code;
      squares += one.code * one.code;
    }
    const auto fitted = static_cast<float>(products / squares);
    if (std::ranges::all_of(all(), [=](const Magnitude& one) { return one.value == Product(fitted, one); })) return fitted;
    if (const float rounded = Bf16ToFloat(FloatToBf16(fitted)); MakesRounded(rounded)) return rounded;
    for (const Magnitude& one : all()) {
      if (const auto scale = static_cast<float>(static_cast<double>(one.value) / one.code); MakesRounded(scale)) return scale;
    }
    return fitted;
  }

  [[nodiscard]] size_t size() const { return count_; }

 private:
  static bool Smaller(const Magnitude& a, const Magnitude& b) { return a.value < b.value; }
  [[nodiscard]] Magnitude* end() { return all_.data() + count_; }
  [[nodiscard]] std::span<const Magnitude> all() const { return std::span(all_).first(count_); }
  static float Product(float scale, const Magnitude& one) { return scale * static_cast<float>(one.code); }
  [[nodiscard]] bool MakesRounded(float scale) const {
    return std::ranges::all_of(all(), [=](const Magnitude& one) { return one.value == Bf16ToFloat(FloatToBf16(Product(scale, one))); });
  }

  std::array<Magnitude, kMostMagnitudes + 1> all_;
  size_t count_ = 0;
};

}  // namespace

std::optional<float> FindGridScale(std::span<const float> values) {
  if (values.size() < kLeastGridValues) return std::nullopt;
  Magnitudes magnitudes;
  if (!magnitudes.Collect(values) || magnitudes.size() < 2) return std::nullopt;
  for (int largest_code = 2; largest_code <= 8; ++largest_code) {
    if (!magnitudes.Fit(largest_code)) continue;
    const float scale = magnitudes.Scale();
    return std::isnormal(scale) ? std::optional(scale) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace taskpress
