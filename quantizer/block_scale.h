// The scales that a block may have: LiteRT stores them as float16, and XNNPACK multiplies by bfloat16. Numbers that are both, normal in
// both, have 8 significant bits and an exponent from -14 to 15: they mean the same to every reader.
#ifndef TASKPRESS_QUANTIZER_BLOCK_SCALE_H_
#define TASKPRESS_QUANTIZER_BLOCK_SCALE_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "schema/base/half.h"

namespace taskpress {

inline constexpr float kMinBlockScale = 0x1p-14F;
inline constexpr float kMaxBlockScale = 65280.0F;  // 255 * 2^8

[[nodiscard]] constexpr bool IsBlockScale(float scale) {
  return scale >= kMinBlockScale && scale <= kMaxBlockScale && (std::bit_cast<uint32_t>(scale) & 0xffffU) == 0;
}
// The nearest one. scale: finite, >= 0.
[[nodiscard]] constexpr float NearestBlockScale(float scale) {
  return std::clamp(Bf16ToFloat(FloatToBf16(scale)), kMinBlockScale, kMaxBlockScale);
}
// The largest one that is not above `scale`, the smallest of all when there is none.
[[nodiscard]] constexpr float BlockScaleBelow(float scale) {
  return std::clamp(std::bit_cast<float>(std::bit_cast<uint32_t>(scale) & 0xffff0000U), kMinBlockScale, kMaxBlockScale);
}
// The next larger one; of kMaxBlockScale a number above all of them.
[[nodiscard]] constexpr float NextBlockScale(float scale) { return std::bit_cast<float>(std::bit_cast<uint32_t>(scale) + 0x10000U); }

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_BLOCK_SCALE_H_
