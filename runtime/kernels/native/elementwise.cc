#include "runtime/kernels/native/elementwise.h"

#include <limits>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/elementwise.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// c[0] + c[1] t + c[2] t^2 + ..., highest power first, one rounding per step.
template <typename D, typename V = hn::Vec<D>, size_t kCount>
V Polynomial(D d, V t, const float (&c)[kCount]) {
  V sum = hn::Set(d, c[kCount - 1]);
  for (size_t i = kCount - 1; i-- > 0;) sum = hn::MulAdd(t, sum, hn::Set(d, c[i]));
  return sum;
}

// An odd function as x p(x^2) / q(x^2).
template <typename D, typename V = hn::Vec<D>, size_t kUpper, size_t kLower>
V OddRational(D d, V x, const float (&p)[kUpper], const float (&q)[kLower]) {
  const V square = hn::Mul(x, x);
  return hn::Div(hn::Mul(x, Polynomial(d, square, p)), Polynomial(d, square, q));
}

template <typename D, typename V = hn::Vec<D>>
V ClampTo(D d, V x, float limit) {
  return hn::Max(hn::Set(d, -limit), hn::Min(hn::Set(d, limit), x));
}

// The coefficients below are the minimax approximations of XNNPACK; each limit is where its fraction reaches 1.

// XNNPACK, f32-vapproxgelu, rational 12/10: 0.5 x (1 + r(x)), r(x) = tanh(sqrt(2/pi) (x + 0.044715 x^3)).
struct GeluTanhFunction {
  template <typename D, typename V = hn::Vec<D>>
  V operator()(D d, V x) const {
    constexpr float kUpper[] = {7.9788458347e-01F, 6.0803253204e-02F, 7.2898347862e-03F,
                                2.6887017884e-04F, 1.4302649106e-05F, 4.9544411240e-08F};
    constexpr float kLower[] = {1.0F, 2.4369759858e-01F, 2.4381054565e-02F, 1.3060354395e-03F, 7.6477612311e-05F, 1.3433452750e-06F};
    const V r = OddRational(d, ClampTo(d, x, 4.84974098F), kUpper, kLower);
    return hn::Mul(hn::Mul(x, hn::Set(d, 0.5F)), hn::Add(r, hn::Set(d, 1.0F)));
  }
};

// XNNPACK, f32-vtanh, rational 9/8.
struct TanhFunction {
  template <typename D, typename V = hn::Vec<D>>
  V operator()(D d, V x) const {
    constexpr float kUpper[] = {1.0F, 1.3412411511e-01F, 3.5330520477e-03F, 2.1235626264e-05F, 1.4248920266e-08F};
    constexpr float kLower[] = {1.0F, 4.6745735407e-01F, 2.6018999517e-02F, 3.3472978976e-04F, 8.1365948290e-07F};
    return OddRational(d, ClampTo(d, x, 7.9807181358F), kUpper, kLower);
  }
};

// XNNPACK, f32-vsin, rational 5/4, for |x| <= pi / 2.
template <typename D, typename V = hn::Vec<D>>
V SineOfQuarter(D d, V x) {
  constexpr float kUpper[] = {1.0F, -1.3314664364e-01F, 3.2340581529e-03F};
  constexpr float kLower[] = {1.0F, 3.3519912511e-02F, 4.8770775902e-04F};
  return OddRational(d, x, kUpper, kLower);
}

// x - 2 pi n, nearest to 0. 2 pi in two parts: the first has so few bits that its multiples are exact.
template <typename D, typename V = hn::Vec<D>>
V RemoveTurns(D d, V x) {
  const V turns = hn::Round(hn::Mul(x, hn::Set(d, 0.15915494F)));  // 1 / 2 pi
  return hn::NegMulAdd(turns, hn::Set(d, 1.9353072e-3F), hn::NegMulAdd(turns, hn::Set(d, 6.28125F), x));
}

// Into [-pi/2, pi/2] by sin(x) = sin(pi - x) = sin(-pi - x).
template <typename D, typename V = hn::Vec<D>>
V FoldToQuarter(D d, V x) {
  const V pi = hn::Set(d, 3.1415927F);
  x = hn::Min(x, hn::Sub(pi, x));
  x = hn::Max(x, hn::Sub(hn::Neg(pi), x));
  return hn::Min(x, hn::Sub(pi, x));
}

struct SineFunction {
  template <typename D, typename V = hn::Vec<D>>
  V operator()(D d, V x) const {
    return SineOfQuarter(d, FoldToQuarter(d, RemoveTurns(d, x)));
  }
};

// cos(x) = sin(pi/2 - x), pi/2 in two parts.
struct CosineFunction {
  template <typename D, typename V = hn::Vec<D>>
  V operator()(D d, V x) const {
    const V complement = hn::Add(hn::Sub(hn::Set(d, 1.5707963705F), RemoveTurns(d, x)), hn::Set(d, -4.3711388e-08F));
    return SineOfQuarter(d, FoldToQuarter(d, complement));
  }
};

// One Newton step y - (y/2) (x y^2 - 1) from the CPU's estimate y of 1/sqrt(x), each operation rounded. For 0 and infinity the step gives
// NaN.
template <typename D, typename V = hn::Vec<D>>
V RefinedReciprocalSquareRoot(D d, V x) {
  const V estimate = hn::ApproximateReciprocalSqrt(x);
  const V error = hn::Sub(hn::Mul(x, hn::Mul(estimate, estimate)), hn::Set(d, 1.0F));
  return hn::Sub(estimate, hn::Mul(error, hn::Mul(hn::Set(d, 0.5F), estimate)));
}

struct ReciprocalSquareRootFunction {
  template <typename D, typename V = hn::Vec<D>>
  V operator()(D d, V x) const {
    const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
    const V ordinary = hn::IfThenZeroElse(hn::Eq(x, infinity), RefinedReciprocalSquareRoot(d, x));
    return hn::IfThenElse(hn::Eq(x, hn::Zero(d)), infinity, ordinary);
  }
};

struct SquareRootFunction {
  template <typename D, typename V = hn::Vec<D>>
  V operator()(D d, V x) const {
    const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
    const auto own_root = hn::Or(hn::Eq(x, hn::Zero(d)), hn::Eq(x, infinity));
    return hn::IfThenElse(own_root, x, hn::Mul(x, RefinedReciprocalSquareRoot(d, x)));
  }
};

template <typename Function>
HWY_INLINE void Map(const float* x, float* out, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(Function()(d, hn::LoadU(d, x + i)), d, out + i);
  // The rest on whole vectors as well: on part of one, the CPU's estimates may be others.
  const auto rest = static_cast<size_t>(count - i);
  if (rest != 0) hn::StoreN(Function()(d, hn::LoadN(d, x + i, rest)), d, out + i, rest);
}

void GeluTanhImpl(const float* x, float* out, int64_t count) { Map<GeluTanhFunction>(x, out, count); }
void TanhImpl(const float* x, float* out, int64_t count) { Map<TanhFunction>(x, out, count); }
void SquareRootImpl(const float* x, float* out, int64_t count) { Map<SquareRootFunction>(x, out, count); }
void ReciprocalSquareRootImpl(const float* x, float* out, int64_t count) { Map<ReciprocalSquareRootFunction>(x, out, count); }
void SineImpl(const float* x, float* out, int64_t count) { Map<SineFunction>(x, out, count); }
void CosineImpl(const float* x, float* out, int64_t count) { Map<CosineFunction>(x, out, count); }

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(GeluTanhImpl);
HWY_EXPORT(TanhImpl);
HWY_EXPORT(SquareRootImpl);
HWY_EXPORT(ReciprocalSquareRootImpl);
HWY_EXPORT(SineImpl);
HWY_EXPORT(CosineImpl);

void GeluTanh(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(GeluTanhImpl)(x, out, count); }
void Tanh(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(TanhImpl)(x, out, count); }
void SquareRoot(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(SquareRootImpl)(x, out, count); }
void ReciprocalSquareRoot(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(ReciprocalSquareRootImpl)(x, out, count); }
void Sine(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(SineImpl)(x, out, count); }
void Cosine(const float* x, float* out, int64_t count) { HWY_DYNAMIC_DISPATCH(CosineImpl)(x, out, count); }

}  // namespace taskpress
#endif  // HWY_ONCE
