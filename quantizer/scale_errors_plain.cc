#include <algorithm>
#include <cmath>

#include "quantizer/scale_errors.h"

namespace taskpress {

void MeasureScalesPlainly(const RowToScale& row, const ScaleErrors& out) {
  for (size_t k = 0; k < out.scales.size(); ++k) {
    const float scale = out.scales[k];
    const float inverse = 1.0F / scale;
    double errors = 0;
    double squares = 0;
    for (size_t begin = 0; begin < row.magnitudes.size(); begin += kValuesPerSum) {
      float error = 0;
      float square = 0;
      for (size_t j = begin; j < std::min(begin + kValuesPerSum, row.magnitudes.size()); ++j) {
        const float code = std::nearbyint(std::min(row.magnitudes[j] * inverse, row.limits[j]));
        const float rest = row.magnitudes[j] - scale * code;
        const float weight = row.importance.empty() ? 1.0F : row.importance[j];
        error += rest * rest * weight;
        square += code * code * weight;
      }
      errors += static_cast<double>(error);
      squares += static_cast<double>(square);
    }
    out.errors[k] = errors;
    out.squared_codes[k] = squares;
  }
}

}  // namespace taskpress
