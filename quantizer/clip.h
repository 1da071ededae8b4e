// The scale of the least squared error ("clip"): sum of w (x - s clamp(round(x / s)))^2, where w is a column's importance.
//
// Equal importance is a poor guess where a few inputs are far larger than the others: the weights that saturate may be those that count
// (feed-forward matrices of Gemma 3 270M per channel: KL to the floats 3.31 instead of absmax's 2.66). The squared gain of the norm in
// front is no better guess (3.38): norms have small gains just where inputs are large.
//
// Everything is float64 or has the same bits on every machine, so the scale does not depend on CPU or threads.
#ifndef TASKPRESS_QUANTIZER_CLIP_H_
#define TASKPRESS_QUANTIZER_CLIP_H_

#include <span>
#include <vector>

#include "quantizer/scale_errors.h"

namespace taskpress {

// int4 uses -8, whose magnitude positive values do not reach; int8 stays symmetric, as readers expect of weights.
struct CodeLimits {
  float positive = 7;
  float negative = 8;
};
inline constexpr CodeLimits kInt4Codes{.positive = 7, .negative = 8};
inline constexpr CodeLimits kInt8Codes{.positive = 127, .negative = 127};

// Rows whose largest magnitude is below have no room for a search and keep the absmax scale.
inline constexpr float kLeastClippedMagnitude = 0x1p-90F;

// Holds scratch memory: one per thread. Values are finite; importance [values], finite and not negative, or empty.
class ClipSearch {
 public:
  explicit ClipSearch(ScaleErrorKernel kernel = &MeasureScales) : kernel_(kernel) {}

  // int4, any scale. No scale is better, but for the last bits: what is left out is left out by a proof (MayHoldBest), what is
  // left is walked from breakpoint to breakpoint. 0 when nothing is to be searched: no value counts, or all are too small.
  float Find(std::span<const float> values, std::span<const float> importance);
  // int4, the best of the scales that a block may have (block_scale.h). 0 as above.
  float FindForBlock(std::span<const float> values, std::span<const float> importance);
  // int8: the best of 32 scales from absmax / 127 down to half of it, refitted to its codes. 0 as above.
  float FindForInt8(std::span<const float> values, std::span<const float> importance);

 private:
  struct Point {
    double scale = 0;
    double error = 0;
    double squared_codes = 0;
  };
  struct Interval {
    Point low;
    Point high;
  };
  struct Event {
    double scale;  // where a code grows by one
    double weight;
    double magnitude;
    double code;  // the smaller one
  };
  struct Fit {
    double products = 0;  // sum w x q
    double squares = 0;   // sum w q^2
    [[nodiscard]] double gain() const { return squares > 0 ? products * products / squares : 0; }
  };

  bool Load(std::span<const float> values, std::span<const float> importance, CodeLimits limits);
  [[nodiscard]] RowToScale row() const { return {.magnitudes = magnitudes_, .limits = limits_, .importance = importance_}; }
  // Adds the errors of new_scales_ to measured_, in order.
  void Measure();
  void KeepBest(const Point& point);
  [[nodiscard]] bool MayHoldBest(const Interval& interval) const;
  [[nodiscard]] double LeastErrorBelow(double scale) const;
  void Survey();
  void Divide(double ratio);
  // `scale`, or the nearest one that a block may have.
  [[nodiscard]] float Allowed(double scale) const;
  [[nodiscard]] Fit FitAt(double scale) const;
  [[nodiscard]] double ErrorAt(double scale) const;
  void Walk(double low, double high, Fit& best);

  ScaleErrorKernel kernel_;
  float unit_ = 1;  // a power of two: magnitudes_ are |values| / unit_, the largest in [1, 2)
  bool block_ = false;
  double largest_ = 0;
  double total_ = 0;      // sum of w x^2
  double threshold_ = 0;  // what is certainly above is worse than the best
  std::vector<float> magnitudes_;
  std::vector<float> limits_;
  std::vector<float> importance_;
  std::vector<float> new_scales_;
  std::vector<double> errors_;
  std::vector<double> squares_;
  std::vector<Point> measured_;
  std::vector<Interval> intervals_;
  std::vector<Interval> parts_;
  std::vector<Event> events_;
  Point best_;
};

// The plain twin of Find: every breakpoint of the row, in order.
float FindClipScalePlainly(std::span<const float> values, std::span<const float> importance);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_CLIP_H_
