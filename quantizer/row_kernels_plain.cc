#include <algorithm>
#include <bit>
#include <cmath>

#include "quantizer/row_kernels.h"
#include "schema/int_packing.h"

namespace taskpress {
namespace {

uint32_t MaxMagnitudeBits(std::span<const float> values) {
  uint32_t bits = 0;
  for (const float value : values) bits = std::max(bits, std::bit_cast<uint32_t>(value) & 0x7fffffffU);
  return bits;
}

int8_t Encode(float value, float scale, int lowest, int highest) {
  // nearbyint rounds halves to even in the default rounding mode, which nothing here changes.
  return static_cast<int8_t>(std::clamp(std::nearbyint(value / scale), static_cast<float>(lowest), static_cast<float>(highest)));
}

void EncodeInt8(std::span<const float> values, float scale, ByteSpan packed) {
  for (size_t i = 0; i < values.size(); ++i) packed[i] = static_cast<std::byte>(Encode(values[i], scale, -kInt8Limit, kInt8Limit));
}

void EncodeInt4(std::span<const float> values, float scale, ByteSpan packed) {
  for (size_t i = 0; i < packed.size(); ++i) {
    packed[i] =
        PackInt4Pair(Encode(values[2 * i], scale, kInt4Lowest, kInt4Limit), Encode(values[2 * i + 1], scale, kInt4Lowest, kInt4Limit));
  }
}

}  // namespace

const RowKernels& PlainRowKernels() {
  static constexpr RowKernels kKernels = {MaxMagnitudeBits, EncodeInt8, EncodeInt4};
  return kKernels;
}

}  // namespace taskpress
