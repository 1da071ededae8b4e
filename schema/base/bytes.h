// Views over raw bytes, and little-endian loads and stores that never assume alignment.
#ifndef TASKPRESS_SCHEMA_BASE_BYTES_H_
#define TASKPRESS_SCHEMA_BASE_BYTES_H_

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace taskpress {

static_assert(std::endian::native == std::endian::little, "files are little-endian and read in place");

using ByteView = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;

template <typename T>
  requires std::is_trivially_copyable_v<T>
[[nodiscard]] T LoadLittle(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
  requires std::is_trivially_copyable_v<T>
void StoreLittle(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

inline ByteView AsBytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

inline std::string_view AsText(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

template <typename T>
[[nodiscard]] bool IsAligned(ByteView bytes) {
  return reinterpret_cast<uintptr_t>(bytes.data()) % alignof(T) == 0;
}

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_BYTES_H_
