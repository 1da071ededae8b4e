#include "schema/shape.h"

#include <format>

#include "schema/base/checked_math.h"
#include "schema/base/error.h"

namespace taskpress {

std::optional<int64_t> NumElements(const Shape& shape) {
  int64_t product = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    const std::optional<int64_t> next = CheckedMul(product, dimension);
    if (!next) return std::nullopt;
    product = *next;
  }
  return product;
}

std::optional<uint64_t> NumBytes(DType type, const Shape& shape) {
  const std::optional<int64_t> elements = NumElements(shape);
  if (!elements) return std::nullopt;
  const std::optional<uint64_t> bits = CheckedMul(static_cast<uint64_t>(*elements), static_cast<uint64_t>(InfoOf(type).bits));
  if (!bits) return std::nullopt;
  return *bits / 8 + (*bits % 8 != 0 ? 1 : 0);
}

std::string ToString(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += Format("{}{}", i == 0 ? "" : ",", shape[i]);
  return text + "]";
}

}  // namespace taskpress
