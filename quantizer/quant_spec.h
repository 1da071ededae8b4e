// What is done to one weight matrix.
#ifndef TASKPRESS_QUANTIZER_QUANT_SPEC_H_
#define TASKPRESS_QUANTIZER_QUANT_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "schema/dtype.h"

namespace taskpress {

// How scales are chosen. Calibrated methods join here.
enum class QuantMethod : uint8_t { kAbsmax };

struct QuantSpec {
  DType type = DType::kI4;  // kF32, kF16: stored as floats; kI8, kI4: symmetric integers, one scale per row (output channel)
  QuantMethod method = QuantMethod::kAbsmax;
  [[nodiscard]] bool is_quantized() const { return type == DType::kI8 || type == DType::kI4; }
  bool operator==(const QuantSpec&) const = default;
};

// "f32", "f16", "int8", "int4" and back: the type names of --tensor-type and of recipes.
std::optional<QuantSpec> QuantSpecFromName(std::string_view name);
std::string NameOf(const QuantSpec& spec);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_QUANT_SPEC_H_
