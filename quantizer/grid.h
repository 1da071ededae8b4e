// Rows that lie on a 4-bit grid already, as checkpoints of quantization-aware training and dequantized files do.
#ifndef TASKPRESS_QUANTIZER_GRID_H_
#define TASKPRESS_QUANTIZER_GRID_H_

#include <optional>
#include <span>

namespace taskpress {

// The largest s with every value k s, k an integer from -8 to 7, but for the rounding of values and s to bfloat16: |x - k s| <= 2^-7 |x|,
// about. So whatever is taken for a grid is kept to 0.8 % of each value, 42 dB and more, where other rows are left with 20 dB. Nothing for
// fewer than kLeastGridValues values, which prove nothing, and where fewer than two magnitudes occur, which every method keeps.
inline constexpr size_t kLeastGridValues = 32;
std::optional<float> FindGridScale(std::span<const float> values);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_GRID_H_
