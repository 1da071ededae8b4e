// The element types of tensors: one table row each. Checkpoints (safetensors tag) and bundles (TFLite code) speak of the same types.
#ifndef TASKPRESS_SCHEMA_DTYPE_H_
#define TASKPRESS_SCHEMA_DTYPE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace taskpress {

enum class DType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool, kI4 };

struct DTypeInfo {
  DType type;
  std::string_view name;         // "f32"
  int bits;                      // per element
  std::string_view safetensors;  // "F32", empty when safetensors has no such type
  int tflite;                    // TensorType code, -1 when TFLite has no such type we use
};

std::span<const DTypeInfo> AllDTypes();
const DTypeInfo& InfoOf(DType type);
std::optional<DType> DTypeFromSafetensors(std::string_view tag);
std::optional<DType> DTypeFromTflite(int code);
[[nodiscard]] inline std::string_view NameOf(DType type) { return InfoOf(type).name; }

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_DTYPE_H_
