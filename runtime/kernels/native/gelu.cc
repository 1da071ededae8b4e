#include "runtime/kernels/native/gelu.h"

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/gelu.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): one exponential, and no cancellation for negative x.
template <typename D, typename V = hn::Vec<D>>
V Gelu(D d, V x) {
  const V minus_two_root = hn::Set(d, -1.5957691216057308F);  // -2 sqrt(2/pi)
  const V cubic = hn::Set(d, 0.044715F);
  const V largest_exponent = hn::Set(d, 88.0F);  // exp stays finite; beyond, the result is 0 in float32 anyway
  const V u = hn::Mul(minus_two_root, hn::MulAdd(hn::Mul(cubic, hn::Mul(x, x)), x, x));
  const V denominator = hn::Add(hn::Set(d, 1.0F), hn::Exp(d, hn::Min(u, largest_exponent)));
  return hn::Div(x, denominator);
}

void GeluTanhImpl(const float* x, float* out, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(Gelu(d, hn::LoadU(d, x + i)), d, out + i);
  const auto rest = static_cast<size_t>(count - i);
  if (rest != 0) hn::StoreN(Gelu(d, hn::LoadN(d, x + i, rest)), d, out + i, rest);
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(GeluTanhImpl);

void GeluTanh(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(GeluTanhImpl)(x, out, count); }

}  // namespace taskpress
#endif  // HWY_ONCE
