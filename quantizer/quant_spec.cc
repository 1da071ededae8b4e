#include "quantizer/quant_spec.h"

#include <array>

namespace taskpress {
namespace {

struct SpecName {
  std::string_view name;
  DType type;
};
constexpr auto kNames = std::to_array<SpecName>({
    {"f32", DType::kF32},
    {"f16", DType::kF16},
    {"int8", DType::kI8},
    {"int4", DType::kI4},
});

}  // namespace

std::optional<QuantSpec> QuantSpecFromName(std::string_view name) {
  for (const SpecName& known : kNames) {
    if (known.name == name) return QuantSpec{.type = known.type};
  }
  return std::nullopt;
}

std::string NameOf(const QuantSpec& spec) {
  for (const SpecName& known : kNames) {
    if (known.type == spec.type) return std::string(known.name);
  }
  return std::string(NameOf(spec.type));
}

}  // namespace taskpress
