#include "schema/dtype.h"

#include <array>
#include <utility>

namespace taskpress {
namespace {

constexpr auto kTypes = std::to_array<DTypeInfo>({
    {DType::kF64, "f64", 64, "F64", 10},
    {DType::kF32, "f32", 32, "F32", 0},
    {DType::kF16, "f16", 16, "F16", 1},
    {DType::kBF16, "bf16", 16, "BF16", 18},
    {DType::kI64, "i64", 64, "I64", 4},
    {DType::kI32, "i32", 32, "I32", 2},
    {DType::kI16, "i16", 16, "I16", 7},
    {DType::kI8, "i8", 8, "I8", 9},
    {DType::kU8, "u8", 8, "U8", 3},
    {DType::kBool, "bool", 8, "BOOL", 6},
    {DType::kI4, "i4", 4, "", 17},
});

}  // namespace

std::span<const DTypeInfo> AllDTypes() { return kTypes; }

const DTypeInfo& InfoOf(DType type) { return kTypes[std::to_underlying(type)]; }

std::optional<DType> DTypeFromSafetensors(std::string_view tag) {
  for (const DTypeInfo& info : kTypes) {
    if (!info.safetensors.empty() && info.safetensors == tag) return info.type;
  }
  return std::nullopt;
}

std::optional<DType> DTypeFromTflite(int code) {
  for (const DTypeInfo& info : kTypes) {
    if (info.tflite == code) return info.type;
  }
  return std::nullopt;
}

}  // namespace taskpress
