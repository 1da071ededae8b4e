// Arithmetic on sizes that come from a file: every sum and product may overflow, so every one is checked.
#ifndef TASKPRESS_SCHEMA_BASE_CHECKED_MATH_H_
#define TASKPRESS_SCHEMA_BASE_CHECKED_MATH_H_

#include <concepts>
#include <cstdint>
#include <optional>

namespace taskpress {

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> CheckedAdd(T a, T b) {
  T out;
  if (__builtin_add_overflow(a, b, &out)) return std::nullopt;
  return out;
}

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> CheckedMul(T a, T b) {
  T out;
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

// Smallest multiple of `alignment` (a power of two) that is >= value.
[[nodiscard]] constexpr std::optional<uint64_t> CheckedAlignUp(uint64_t value, uint64_t alignment) {
  const std::optional<uint64_t> sum = CheckedAdd<uint64_t>(value, alignment - 1);
  if (!sum) return std::nullopt;
  return *sum & ~(alignment - 1);
}

// For sizes we computed ourselves.
[[nodiscard]] constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }

// True when [offset, offset + length) lies inside [0, size).
[[nodiscard]] constexpr bool RangeInside(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_CHECKED_MATH_H_
