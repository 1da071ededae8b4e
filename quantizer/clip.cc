#include "quantizer/clip.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>

#include "quantizer/block_scale.h"

namespace taskpress {
namespace {

// Half to even, inlined: |value| below 2^51.
double Round(double value) {
  constexpr double kShift = 0x1.8p52;
  return (value + kShift) - kShift;
}

// What the float32 sums may be off: of errors, of the products that are subtracted (total: the sum of w x^2).
double Slack(double error, double total) { return 2e-5 * error + 2.4e-7 * std::sqrt(error * total) + 1e-13 * total; }

}  // namespace

bool ClipSearch::Load(std::span<const float> values, std::span<const float> importance, CodeLimits limits) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  if (largest < kLeastClippedMagnitude) return false;
  unit_ = std::bit_cast<float>(std::bit_cast<uint32_t>(largest) & 0x7f800000U);
  const float inverse = 1 / unit_;
  largest_ = static_cast<double>(largest * inverse);
  magnitudes_.resize(values.size());
  limits_.resize(values.size());
  for (size_t j = 0; j < values.size(); ++j) {
    magnitudes_[j] = std::abs(values[j]) * inverse;
    limits_[j] = std::signbit(values[j]) ? limits.negative : limits.positive;
  }
  importance_.assign(importance.begin(), importance.end());
  if (importance.empty()) return true;
  const float most = std::ranges::max(importance);
  if (most <= 0) return false;
  double counted = 0;
  for (size_t j = 0; j < importance_.size(); ++j) {
    importance_[j] /= most;
    counted += static_cast<double>(importance_[j] * magnitudes_[j]);
  }
  return counted > 0;
}

void ClipSearch::KeepBest(const Point& point) {
  if (point.error < best_.error) best_ = point;
}

void ClipSearch::Measure() {
  const size_t count = new_scales_.size();
  if (count == 0) return;
  new_scales_.resize((count + kScaleLanes - 1) / kScaleLanes * kScaleLanes, new_scales_.back());
  errors_.resize(new_scales_.size());
  squares_.resize(new_scales_.size());
  kernel_(row(), {.scales = new_scales_, .errors = errors_, .squared_codes = squares_});
  for (size_t k = 0; k < count; ++k) {
    measured_.push_back({.scale = static_cast<double>(new_scales_[k]), .error = errors_[k], .squared_codes = squares_[k]});
    KeepBest(measured_.back());
  }
  new_scales_.clear();
}

// Between two scales a < b a value's error is a parabola in s, x^2 - 2 s x q + s^2 q^2, or jumps to a lower one where its code changes; all
// of these codes are at most |q(a)|. A parabola lies below its chord by q^2 (s - a)(b - s), and f(b) is not above the parabola that ends
// there, so with t = (s - a) / (b - a), for every s: F(s) >= (1 - t) F(a) + t F(b) - t (1 - t) (b - a)^2 sum w q(a)^2.
bool ClipSearch::MayHoldBest(const Interval& interval) const {
  const auto& [low, high] = interval;
  const double width = high.scale - low.scale;
  const double sag = width * width * low.squared_codes;
  const double least = std::min(low.error, high.error);
  if (least <= threshold_) return true;
  if (least - sag / 4 > threshold_) return false;  // t (1 - t) is 1/4 at most
  const double t = sag > 0 ? std::clamp((sag - (high.error - low.error)) / (2 * sag), 0.0, 1.0) : (high.error < low.error ? 1.0 : 0.0);
  const double bound = low.error + t * (high.error - low.error) - t * (1 - t) * sag;
  return bound <= threshold_;
}

// However small the scale, what lies beyond the largest code is lost.
double ClipSearch::LeastErrorBelow(double scale) const {
  double lost = 0;
  for (size_t j = 0; j < magnitudes_.size(); ++j) {
    const double beyond = std::max(0.0, static_cast<double>(magnitudes_[j]) - static_cast<double>(limits_[j]) * scale);
    lost += beyond * beyond * (importance_.empty() ? 1.0 : static_cast<double>(importance_[j]));
  }
  return lost;
}

float ClipSearch::Allowed(double scale) const {
  const auto any = static_cast<float>(scale);
  return block_ ? NearestBlockScale(any * unit_) / unit_ : any;
}

// Scales from the one above which all codes are zero down to the one below which too much is lost.
void ClipSearch::Survey() {
  constexpr double kFar = 0.7;  // where codes are small, errors change slowly
  constexpr double kNear = 0.89;
  constexpr double kSmallest = 0x1p-30;
  measured_.clear();
  intervals_.clear();
  new_scales_.clear();
  best_ = {.scale = 0, .error = std::numeric_limits<double>::infinity(), .squared_codes = 0};
  total_ = LeastErrorBelow(0);
  double next = 2 * largest_;
  for (bool done = false; !done;) {
    for (size_t k = 0; k < kScaleLanes; ++k) {
      const float scale = Allowed(next);
      const auto last = !new_scales_.empty() ? new_scales_.back()
                        : measured_.empty()  ? HUGE_VALF
                                             : static_cast<float>(measured_.back().scale);
      if (scale < last) new_scales_.push_back(scale);
      next *= next > 1.3 * largest_ / 7 ? kFar : kNear;
    }
    done = new_scales_.empty();  // only the smallest block scale is left
    Measure();
    const double lowest = measured_.back().scale;
    done = done || lowest < kSmallest || LeastErrorBelow(lowest) > best_.error + Slack(best_.error, total_);
  }
  for (size_t i = 1; i < measured_.size(); ++i) intervals_.push_back({.low = measured_[i], .high = measured_[i - 1]});
}

// Cuts what may hold the best scale until high / low - 1 is below `ratio` everywhere, or no allowed scale lies between.
void ClipSearch::Divide(double ratio) {
  constexpr int kParts = 4;
  constexpr size_t kMost = 4096;
  for (bool wide = true; wide;) {
    threshold_ = best_.error + Slack(best_.error, total_);
    std::erase_if(intervals_, [this](const Interval& interval) { return !MayHoldBest(interval); });
    if (intervals_.size() > kMost) return;
    const size_t known = measured_.size();
    for (const auto& [low, high] : intervals_) {  // descending, as intervals_ are
      if (high.scale - low.scale < ratio * low.scale) continue;
      auto last = static_cast<float>(high.scale);
      for (int part = kParts - 1; part > 0; --part) {
        const float scale = Allowed(low.scale + (high.scale - low.scale) * part / kParts);
        if (scale >= last || static_cast<double>(scale) <= low.scale) continue;
        new_scales_.push_back(scale);
        last = scale;
      }
    }
    wide = !new_scales_.empty();
    Measure();
    parts_.clear();
    size_t at = known;
    for (const auto& [low, high] : intervals_) {
      Point above = high;
      for (; at < measured_.size() && measured_[at].scale > low.scale; ++at) {
        parts_.push_back({.low = measured_[at], .high = above});
        above = measured_[at];
      }
      parts_.push_back({.low = low, .high = above});
    }
    intervals_.swap(parts_);
  }
}

ClipSearch::Fit ClipSearch::FitAt(double scale) const {
  const double inverse = 1 / scale;
  Fit fit;
  for (size_t j = 0; j < magnitudes_.size(); ++j) {
    const auto magnitude = static_cast<double>(magnitudes_[j]);
    const double code = Round(std::min(magnitude * inverse, static_cast<double>(limits_[j])));
    const double weighted = importance_.empty() ? code : code * static_cast<double>(importance_[j]);
    fit.products += weighted * magnitude;
    fit.squares += weighted * code;
  }
  return fit;
}

double ClipSearch::ErrorAt(double scale) const {
  const double inverse = 1 / scale;
  double error = 0;
  for (size_t j = 0; j < magnitudes_.size(); ++j) {
    const auto magnitude = static_cast<double>(magnitudes_[j]);
    const double rest = magnitude - scale * Round(std::min(magnitude * inverse, static_cast<double>(limits_[j])));
    error += rest * rest * (importance_.empty() ? 1.0 : static_cast<double>(importance_[j]));
  }
  return error;
}

// Codes change at breakpoints only, and between two of them the best scale for the codes is products / squares, with an error of total -
// gain. Where that scale lies beyond the breakpoints other codes are better still, so the largest gain of all is that of the best scale.
void ClipSearch::Walk(double low, double high, Fit& best) {
  events_.clear();
  Fit fit;
  const double inverse_low = 1 / low;
  const double inverse_high = 1 / high;
  for (size_t j = 0; j < magnitudes_.size(); ++j) {
    const auto magnitude = static_cast<double>(magnitudes_[j]);
    const double limit = static_cast<double>(limits_[j]);
    const double weight = importance_.empty() ? 1.0 : static_cast<double>(importance_[j]);
    double code = Round(std::min(magnitude * inverse_high, limit));
    fit.products += weight * magnitude * code;
    fit.squares += weight * code * code;
    for (; code < limit && magnitude * inverse_low > code + 0.5; ++code) {
      events_.push_back({.scale = magnitude / (code + 0.5), .weight = weight, .magnitude = magnitude, .code = code});
    }
  }
  std::ranges::sort(events_, std::ranges::greater(),
                    [](const Event& event) { return std::tuple(event.scale, event.magnitude, event.code, event.weight); });
  if (fit.gain() > best.gain()) best = fit;
  for (const Event& event : events_) {
    fit.products += event.weight * event.magnitude;
    fit.squares += event.weight * (2 * event.code + 1);
    if (fit.products * fit.products * best.squares > best.products * best.products * fit.squares || best.squares == 0) best = fit;
  }
}

float ClipSearch::Find(std::span<const float> values, std::span<const float> importance) {
  constexpr double kNarrow = 0.004;
  block_ = false;
  if (!Load(values, importance, kInt4Codes)) return 0;
  Survey();
  Divide(kNarrow);
  Fit best;
  for (size_t i = 0; i < intervals_.size();) {
    const double high = intervals_[i].high.scale;
    double low = intervals_[i].low.scale;
    for (++i; i < intervals_.size() && intervals_[i].high.scale == low; ++i) low = intervals_[i].low.scale;
    Walk(low, high, best);
  }
  return static_cast<float>(best.products / best.squares) * unit_;
}

float ClipSearch::FindForBlock(std::span<const float> values, std::span<const float> importance) {
  block_ = true;
  if (!Load(values, importance, kInt4Codes)) return 0;
  Survey();
  Divide(0);
  double least = std::numeric_limits<double>::infinity();
  double scale = 0;
  const double close = best_.error + Slack(best_.error, total_);
  for (const Point& point : measured_) {
    if (point.error > close) continue;
    const double error = ErrorAt(point.scale);
    if (error > least || (error == least && point.scale <= scale)) continue;
    least = error;
    scale = point.scale;
  }
  return static_cast<float>(scale) * unit_;
}

float ClipSearch::FindForInt8(std::span<const float> values, std::span<const float> importance) {
  constexpr int kScales = 32;
  block_ = false;
  if (!Load(values, importance, kInt8Codes)) return 0;
  measured_.clear();
  new_scales_.clear();
  best_ = {.scale = 0, .error = std::numeric_limits<double>::infinity(), .squared_codes = 0};
  const double absmax = largest_ / static_cast<double>(kInt8Codes.positive);
  for (int k = 0; k < kScales; ++k) new_scales_.push_back(static_cast<float>(absmax * (1 - 0.5 * k / kScales)));
  Measure();
  const Fit fit = FitAt(best_.scale);
  const double refitted = fit.products / fit.squares;
  const double scale = fit.squares > 0 && ErrorAt(refitted) < ErrorAt(best_.scale) ? refitted : best_.scale;
  return static_cast<float>(scale) * unit_;
}

}  // namespace taskpress
