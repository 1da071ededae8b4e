// What is done to one weight matrix.
#ifndef TASKPRESS_QUANTIZER_QUANT_SPEC_H_
#define TASKPRESS_QUANTIZER_QUANT_SPEC_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "schema/dtype.h"

namespace taskpress {

// How values of integer types are rounded.
enum class QuantMethod : uint8_t {
  kAbsmax,  // the largest magnitude gets the largest code
  kClip,    // the least squared error: large values may saturate
  kGptq,    // errors made up for in other columns, as calibration knows their inputs (quantizer/gptq.h); QuantizeRows takes it for kClip
};

struct QuantSpec {
  DType type = DType::kI4;  // kF32, kF16: stored as floats; kI8, kI4: symmetric integers
  QuantMethod method = QuantMethod::kAbsmax;
  int64_t block_size = 0;  // kI4: columns that share a scale, one of kBlockSizes; 0: a row (output channel) has one
  // Of integers: inputs x are multiplied as two rows a + b, each with a scale of its own. a is x limited to +-kTermLimit root mean squares
  // of its token, b what is left, almost all zeros.
  bool two_terms = false;
  [[nodiscard]] bool is_quantized() const { return type == DType::kI8 || type == DType::kI4; }
  // Of rows of `columns` values; 0 for float types.
  [[nodiscard]] int64_t ScalesPerRow(int64_t columns) const { return !is_quantized() ? 0 : block_size == 0 ? 1 : columns / block_size; }
  bool operator==(const QuantSpec&) const = default;
};

inline constexpr std::array<int64_t, 3> kBlockSizes = {32, 64, 128};
inline constexpr float kTermLimit = 2.0F;

// "f32", "f16", "int8", "int4", "int4_block32", "int4_block64", "int4_block128" and back: the type names of --tensor-type and of recipes.
// Integers may end in "_two_terms".
std::optional<QuantSpec> QuantSpecFromName(std::string_view name);
std::string NameOf(const QuantSpec& spec);
// All of them, "f32, f16, ..."
std::string QuantSpecNames();

// "absmax", "clip", "gptq" and back: the names of --method.
std::optional<QuantMethod> QuantMethodFromName(std::string_view name);
std::string_view NameOf(QuantMethod method);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_QUANT_SPEC_H_
