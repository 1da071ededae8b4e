// ADD, SUB, MUL, MINIMUM, MAXIMUM with broadcasting.
#include <algorithm>

#include "runtime/kernels/reference/odometer.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {
namespace {

// Integers wrap around as TFLite's do, without signed overflow in our code.
int32_t Wrap(uint32_t value) { return static_cast<int32_t>(value); }

float Apply(OpKind kind, float a, float b) {
  if (kind == OpKind::kAdd) return a + b;
  if (kind == OpKind::kSub) return a - b;
  if (kind == OpKind::kMul) return a * b;
  return kind == OpKind::kMinimum ? std::min(a, b) : std::max(a, b);
}

int32_t Apply(OpKind kind, int32_t a, int32_t b) {
  const auto ua = static_cast<uint32_t>(a);
  const auto ub = static_cast<uint32_t>(b);
  if (kind == OpKind::kAdd) return Wrap(ua + ub);
  if (kind == OpKind::kSub) return Wrap(ua - ub);
  if (kind == OpKind::kMul) return Wrap(ua * ub);
  return kind == OpKind::kMinimum ? std::min(a, b) : std::max(a, b);
}

template <typename T>
StepPtr MakeTyped(const OpContext& context, const BroadcastShape& shape) {
  return MakeStep([kind = context.op.kind, shape, a = context.in(0).as<T>(), b = context.in(1).as<T>(), out = context.out().out<T>()] {
    T* next = out;
    ForEachIndex(shape.out, [&](std::span<const int64_t> index) {
      *next++ = Apply(kind, a[OffsetOf(index, shape.a_strides)], b[OffsetOf(index, shape.b_strides)]);
    });
  });
}

}  // namespace

Result<StepPtr> MakeBinary(const OpContext& context) {
  const BroadcastShape shape = TRY(CheckBroadcast(context));
  return context.out().type == DType::kF32 ? MakeTyped<float>(context, shape) : MakeTyped<int32_t>(context, shape);
}

}  // namespace taskpress::reference
