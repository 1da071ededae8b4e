// GGUF version 3: typed metadata and tensors in one file, as llama.cpp's tools write it. Read only; FORMATS, GGUF, U1..U14.
#ifndef TASKPRESS_SCHEMA_GGUF_H_
#define TASKPRESS_SCHEMA_GGUF_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/shape.h"

namespace taskpress {

// How a tensor's values are stored, numbered as in the file. Quantized types pack a block of a row's values together with their scales.
enum class GgmlType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ5_0 = 6, kQ8_0 = 8, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kBF16 = 30 };

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;  // "Q4_K"
  int64_t block_values;
  int64_t block_bytes;
};
std::span<const GgmlTypeInfo> AllGgmlTypes();
const GgmlTypeInfo& InfoOf(GgmlType type);

// Texts are views into the file.
struct GgufValue;
using GgufArray = std::vector<GgufValue>;
struct GgufValue : std::variant<bool, int64_t, uint64_t, double, std::string_view, GgufArray> {
  using variant::variant;
};

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  Shape shape;     // outermost first; the file has it the other way round
  ByteView bytes;  // rows of the last dimension, whole blocks each
};

struct GgufFile {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;  // sorted by name

  // Null when the key is absent.
  [[nodiscard]] const GgufValue* Find(std::string_view key) const;
  // Null when it is absent or holds another type.
  template <typename T>
  [[nodiscard]] const T* FindAs(std::string_view key) const {
    const GgufValue* value = Find(key);
    return value == nullptr ? nullptr : std::get_if<T>(value);
  }
  // Null when there is no such tensor.
  [[nodiscard]] const GgufTensor* FindTensor(std::string_view name) const;
};

// Every rule checked; nothing is copied but names and metadata. kGgufHeader, kGgufTensor, kGgufUnsupported.
Result<GgufFile> ParseGguf(ByteView file);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_GGUF_H_
