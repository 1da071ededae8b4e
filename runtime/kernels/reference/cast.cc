// CAST between i32 and f32.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {
namespace {

// Towards zero. What C++ leaves undefined is made definite: too large values saturate, NaN becomes 0.
int32_t Truncate(float value) {
  if (std::isnan(value)) return 0;
  constexpr double kLowest = -2147483648.0;
  constexpr double kLargest = 2147483647.0;
  return static_cast<int32_t>(std::clamp(static_cast<double>(value), kLowest, kLargest));
}

}  // namespace

Result<StepPtr> MakeCast(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  const BoundTensor& out = context.out();
  if (x.shape != out.shape) return context.Malformed("input and output differ in shape");
  const int64_t count = x.elements;
  if (x.type == DType::kI32 && out.type == DType::kF32) {
    return MakeStep([count, from = x.as<int32_t>(), to = out.out<float>()] {
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
    });
  }
  if (x.type == DType::kF32 && out.type == DType::kI32) {
    return MakeStep([count, from = x.as<float>(), to = out.out<int32_t>()] {
      for (int64_t i = 0; i < count; ++i) to[i] = Truncate(from[i]);
    });
  }
  if (x.type != out.type) return context.Unsupported("only i32 to f32 and f32 to i32");
  const size_t bytes = static_cast<size_t>(count) * TRY(ElementBytes(context, x));
  return MakeStep([bytes, from = x.data, to = out.writable] { std::memcpy(to, from, bytes); });
}

}  // namespace taskpress::reference
