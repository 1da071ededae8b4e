#include "schema/int_packing.h"

namespace taskpress {

void PackInt4(std::span<const int8_t> values, ByteSpan packed) {
  const size_t pairs = values.size() / 2;
  for (size_t i = 0; i < pairs; ++i) packed[i] = PackInt4Pair(values[2 * i], values[2 * i + 1]);
  if (values.size() % 2 != 0) packed[pairs] = PackInt4Pair(values.back(), 0);
}

void UnpackInt4(ByteView packed, std::span<int8_t> values) {
  const size_t pairs = values.size() / 2;
  for (size_t i = 0; i < pairs; ++i) {
    values[2 * i] = EvenInt4(packed[i]);
    values[2 * i + 1] = OddInt4(packed[i]);
  }
  if (values.size() % 2 != 0) values.back() = EvenInt4(packed[pairs]);
}

}  // namespace taskpress
