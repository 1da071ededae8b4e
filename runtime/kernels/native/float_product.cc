#include "runtime/kernels/native/float_product.h"

#include <limits>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/float_product.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Doubles = hn::RepartitionToWide<Floats>;
using Halves = hn::Rebind<hwy::float16_t, Floats>;

// Exact; what is not finite stays so.
hn::Vec<Floats> Widen(hn::Vec<hn::Rebind<uint16_t, Floats>> bits) {
  const Floats d;
  const auto value = hn::PromoteTo(d, hn::BitCast(Halves(), bits));
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
  // Without F16C Highway widens infinity as if it were the number 65536.
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::Ge(hn::Abs(value), hn::Set(d, 65536.0F)), hn::CopySign(infinity, value), value);
#else
  return value;
#endif
}

// `count` values, zeros behind them.
hn::Vec<Floats> Load(const float* from, size_t count) { return hn::LoadN(Floats(), from, count); }
hn::Vec<Floats> Load(const float* from) { return hn::LoadU(Floats(), from); }
hn::Vec<Floats> Load(const uint16_t* from, size_t count) { return Widen(hn::LoadN(hn::Rebind<uint16_t, Floats>(), from, count)); }
hn::Vec<Floats> Load(const uint16_t* from) { return Widen(hn::LoadU(hn::Rebind<uint16_t, Floats>(), from)); }

// One row of activations and one of weights. Two chains of additions are under way.
template <typename Weight>
double Dot(const float* x, const Weight* weights, int64_t in) {
  const Doubles d64;
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  auto lower = hn::Zero(d64);
  auto upper = hn::Zero(d64);
  const auto add = [&](auto a, auto b) HWY_ATTR {
    lower = hn::MulAdd(hn::PromoteLowerTo(d64, a), hn::PromoteLowerTo(d64, b), lower);
    upper = hn::MulAdd(hn::PromoteUpperTo(d64, a), hn::PromoteUpperTo(d64, b), upper);
  };
  int64_t i = 0;
  for (; i + lanes <= in; i += lanes) add(Load(x + i), Load(weights + i));
  const auto rest = static_cast<size_t>(in - i);
  if (rest != 0) add(Load(x + i, rest), Load(weights + i, rest));
  return hn::ReduceSum(d64, hn::Add(lower, upper));
}

template <typename Weight>
void MultiplyWith(const Weight* weights, const FloatProduct& product, int64_t first, int64_t count) {
  for (int64_t channel = first; channel < first + count; ++channel) {
    const double bias = product.bias == nullptr ? 0.0 : static_cast<double>(product.bias[channel]);
    // The weights come from memory once: for further rows they are in the cache.
    for (int64_t row = 0; row < product.rows; ++row) {
      const double sum = Dot(product.x + row * product.in, weights + channel * product.in, product.in);
      product.result[row * product.out + channel] = static_cast<float>(bias + sum);
    }
  }
}

void MultiplyFloats(const FloatProduct& product, int64_t first, int64_t count) {
  if (product.floats != nullptr) {
    MultiplyWith(product.floats, product, first, count);
  } else {
    MultiplyWith(product.halves, product, first, count);
  }
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(MultiplyFloats);

void MultiplyChannels(const FloatProduct& product, int64_t first, int64_t count) {
  HWY_DYNAMIC_DISPATCH(MultiplyFloats)(product, first, count);
}

}  // namespace taskpress
#endif  // HWY_ONCE
