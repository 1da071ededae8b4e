// SQUARE, SQRT, RSQRT, TANH, RELU, GELU, COS, SIN.
#include <cmath>
#include <numbers>

#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {
namespace {

double Square(double x) { return x * x; }
double Sqrt(double x) { return std::sqrt(x); }
double Rsqrt(double x) { return 1.0 / std::sqrt(x); }
double Tanh(double x) { return std::tanh(x); }
double Relu(double x) { return x > 0.0 ? x : (std::isnan(x) ? x : 0.0); }
double Cos(double x) { return std::cos(x); }
double Sin(double x) { return std::sin(x); }

// Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), section 2: x * Phi(x), and its tanh approximation.
double GeluErf(double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); }
double GeluTanh(double x) {
  const double root_two_over_pi = std::sqrt(2.0 / std::numbers::pi);
  return 0.5 * x * (1.0 + std::tanh(root_two_over_pi * (x + 0.044715 * x * x * x)));
}

template <double (*function)(double)>
StepPtr Map(const OpContext& context) {
  return MakeStep([count = context.in(0).elements, x = context.in(0).as<float>(), out = context.out().out<float>()] {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(function(static_cast<double>(x[i])));
  });
}

}  // namespace

Result<StepPtr> MakeUnary(const OpContext& context) {
  TRY(CheckUnary(context));
  const OpKind kind = context.op.kind;
  if (kind == OpKind::kSquare) return Map<Square>(context);
  if (kind == OpKind::kSqrt) return Map<Sqrt>(context);
  if (kind == OpKind::kRsqrt) return Map<Rsqrt>(context);
  if (kind == OpKind::kTanh) return Map<Tanh>(context);
  if (kind == OpKind::kRelu) return Map<Relu>(context);
  if (kind == OpKind::kCos) return Map<Cos>(context);
  if (kind == OpKind::kSin) return Map<Sin>(context);
  return context.attributes<GeluAttributes>().approximate ? Map<GeluTanh>(context) : Map<GeluErf>(context);
}

}  // namespace taskpress::reference
