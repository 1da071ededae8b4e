#include <algorithm>
#include <cmath>
#include <vector>

#include "quantizer/clip.h"

namespace taskpress {

float FindClipScalePlainly(std::span<const float> values, std::span<const float> importance) {
  struct Breakpoint {
    double scale;
    size_t column;
    int code;  // above the breakpoint; one more below
  };
  std::vector<Breakpoint> breakpoints;
  for (size_t j = 0; j < values.size(); ++j) {
    const int limit = std::signbit(values[j]) ? 8 : 7;
    const double magnitude = std::abs(static_cast<double>(values[j]));
    for (int code = 0; code < limit && magnitude > 0; ++code) breakpoints.push_back({magnitude / (code + 0.5), j, code});
  }
  std::ranges::stable_sort(breakpoints, std::ranges::greater(), &Breakpoint::scale);
  double products = 0;
  double squares = 0;
  double best_gain = 0;
  double best_scale = 0;
  for (const auto& [scale, column, code] : breakpoints) {
    const double weight = importance.empty() ? 1 : static_cast<double>(importance[column]);
    products += weight * std::abs(static_cast<double>(values[column]));
    squares += weight * (2 * code + 1);
    if (squares <= 0 || products * products / squares <= best_gain) continue;
    best_gain = products * products / squares;
    best_scale = products / squares;
  }
  return static_cast<float>(best_scale);
}

}  // namespace taskpress
