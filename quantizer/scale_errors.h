// The inner loop of the search for scales: how wrong a row becomes at many scales at once. Once for the machine's vector unit (Highway
// picks it when the program runs), once plainly. A lane is a scale and walks the values in order, so the sums have the same bits on every
// machine.
#ifndef TASKPRESS_QUANTIZER_SCALE_ERRORS_H_
#define TASKPRESS_QUANTIZER_SCALE_ERRORS_H_

#include <cstddef>
#include <span>

namespace taskpress {

// A row as the search sees it. magnitudes: |x|; limits: the largest code that its sign allows, 7 or 8, 127; importance: the weight of its
// squared error, or empty, which is 1 each.
struct RowToScale {
  std::span<const float> magnitudes;
  std::span<const float> limits;      // [magnitudes]
  std::span<const float> importance;  // [magnitudes] or empty
};

struct ScaleErrors {
  std::span<const float> scales;    // positive; a multiple of kScaleLanes of them
  std::span<double> errors;         // [scales] sum of w (|x| - s q)^2, q = min(round(|x| / s), limit)
  std::span<double> squared_codes;  // [scales] sum of w q^2
};

inline constexpr size_t kScaleLanes = 16;
// Values whose errors are added up in float32 before they go into the float64 sums.
inline constexpr size_t kValuesPerSum = 256;

using ScaleErrorKernel = void (*)(const RowToScale& row, const ScaleErrors& out);

void MeasureScales(const RowToScale& row, const ScaleErrors& out);
void MeasureScalesPlainly(const RowToScale& row, const ScaleErrors& out);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_SCALE_ERRORS_H_
