#include "converter/blocks/rms_norm.h"

namespace taskpress {

Value RmsNorm(BlockContext& c, Value x) {
  GraphBuilder& b = c.b;
  const Value mean = b.MeanOfLast(b.Square(x));
  return b.Mul(x, b.Rsqrt(b.Add(mean, b.Float(static_cast<float>(c.config.rms_norm_eps)))));
}

Value RmsNorm(BlockContext& c, Value x, Value gain) { return c.b.Mul(RmsNorm(c, x), gain); }

Value RootMeanSquare(BlockContext& c, Value x) { return c.b.Sqrt(c.b.MeanOfLast(c.b.Square(x))); }

Value MatchMagnitude(BlockContext& c, Value z, Value rms_of_like) {
  GraphBuilder& b = c.b;
  constexpr float kFloor = 1e-5F;  // as transformers
  const Value inverse = b.Rsqrt(b.Maximum(b.MeanOfLast(b.Square(z)), b.Float(kFloor)));
  return b.Mul(z, b.Mul(rms_of_like, inverse));
}

}  // namespace taskpress
