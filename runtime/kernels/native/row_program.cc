#include "runtime/kernels/native/row_program.h"

#include "runtime/kernels/native/elementwise.h"
#include "runtime/kernels/native/narrow_matmul.h"
#include "runtime/kernels/native/quantize_row.h"
#include "runtime/kernels/native/row_means.h"

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/row_program.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;

struct Add {
  template <typename V>
  V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};
struct Sub {
  template <typename V>
  V operator()(V a, V b) const {
    return hn::Sub(a, b);
  }
};
struct Mul {
  template <typename V>
  V operator()(V a, V b) const {
    return hn::Mul(a, b);
  }
};
struct Minimum {
  template <typename V>
  V operator()(V a, V b) const {
    return hn::Min(a, b);
  }
};
struct Maximum {
  template <typename V>
  V operator()(V a, V b) const {
    return hn::Max(a, b);
  }
};

// One of the operands may be a single value.
template <typename Function>
void Combine(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t count) {
  const Floats d;
  const Function f;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto run = [&](auto load_a, auto load_b) HWY_ATTR {
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) hn::StoreU(f(load_a(i, size_t{0}), load_b(i, size_t{0})), d, out + i);
    const auto rest = static_cast<size_t>(count - i);
    if (rest != 0) hn::StoreN(f(load_a(i, rest), load_b(i, rest)), d, out + i, rest);
  };
  const auto many = [&](const float* from) HWY_ATTR {
    return [=](int64_t i, size_t rest) HWY_ATTR { return rest == 0 ? hn::LoadU(d, from + i) : hn::LoadN(d, from + i, rest); };
  };
  const auto one = [&](const float* from) HWY_ATTR { return [=](int64_t, size_t) HWY_ATTR { return hn::Set(d, *from); }; };
  if (a_stride != 0 && b_stride != 0) return run(many(a), many(b));
  if (a_stride != 0) return run(many(a), one(b));
  if (b_stride != 0) return run(one(a), many(b));
  run(one(a), one(b));
}

struct AddProduct {
  template <typename V>
  V operator()(V product, V c) const {
    return hn::Add(c, product);
  }
};
struct SubProduct {
  template <typename V>
  V operator()(V product, V c) const {
    return hn::Sub(c, product);
  }
};
struct ProductLess {
  template <typename V>
  V operator()(V product, V c) const {
    return hn::Sub(product, c);
  }
};

// b may be a single value. The compiler must not contract the two operations: -ffp-contract=off.
template <typename Function>
void CombineProduct(const float* a, const float* b, int64_t b_stride, const float* c, float* out, int64_t count) {
  const Floats d;
  const Function f;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto run = [&](auto load_b) HWY_ATTR {
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      hn::StoreU(f(hn::Mul(hn::LoadU(d, a + i), load_b(i, size_t{0})), hn::LoadU(d, c + i)), d, out + i);
    }
    const auto rest = static_cast<size_t>(count - i);
    if (rest != 0) hn::StoreN(f(hn::Mul(hn::LoadN(d, a + i, rest), load_b(i, rest)), hn::LoadN(d, c + i, rest)), d, out + i, rest);
  };
  if (b_stride != 0) {
    return run([=](int64_t i, size_t rest) HWY_ATTR { return rest == 0 ? hn::LoadU(d, b + i) : hn::LoadN(d, b + i, rest); });
  }
  const auto one = hn::Set(d, *b);
  run([=](int64_t, size_t) HWY_ATTR { return one; });
}

template <typename Function>
void Map(const float* x, float* out, int64_t count, Function f) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(f(hn::LoadU(d, x + i)), d, out + i);
  const auto rest = static_cast<size_t>(count - i);
  if (rest != 0) hn::StoreN(f(hn::LoadN(d, x + i, rest)), d, out + i, rest);
}

void CombineImpl(RowCode code, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t count) {
  if (code == RowCode::kAdd) return Combine<Add>(a, a_stride, b, b_stride, out, count);
  if (code == RowCode::kSub) return Combine<Sub>(a, a_stride, b, b_stride, out, count);
  if (code == RowCode::kMul) return Combine<Mul>(a, a_stride, b, b_stride, out, count);
  if (code == RowCode::kMinimum) return Combine<Minimum>(a, a_stride, b, b_stride, out, count);
  Combine<Maximum>(a, a_stride, b, b_stride, out, count);
}

void CombineProductImpl(RowCode code, const float* a, const float* b, int64_t b_stride, const float* c, float* out, int64_t count) {
  if (code == RowCode::kAddProduct) return CombineProduct<AddProduct>(a, b, b_stride, c, out, count);
  if (code == RowCode::kSubProduct) return CombineProduct<SubProduct>(a, b, b_stride, c, out, count);
  CombineProduct<ProductLess>(a, b, b_stride, c, out, count);
}

void SquareImpl(const float* x, float* out, int64_t count) {
  Map(x, out, count, [](auto v) HWY_ATTR { return hn::Mul(v, v); });
}
void ReluImpl(const float* x, float* out, int64_t count) {
  Map(x, out, count, [](auto v) HWY_ATTR { return hn::Max(v, hn::Zero(Floats())); });
}
void CopyImpl(const float* x, float* out, int64_t count) {
  Map(x, out, count, [](auto v) HWY_ATTR { return v; });
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(CombineImpl);
HWY_EXPORT(CombineProductImpl);
HWY_EXPORT(SquareImpl);
HWY_EXPORT(ReluImpl);
HWY_EXPORT(CopyImpl);

namespace {

using UnaryFunction = void (*)(const float* x, float* out, int64_t count);

UnaryFunction FunctionOf(RowCode code) {
  switch (code) {
    case RowCode::kSquare:
      return HWY_DYNAMIC_POINTER(SquareImpl);
    case RowCode::kRelu:
      return HWY_DYNAMIC_POINTER(ReluImpl);
    case RowCode::kCopy:
      return HWY_DYNAMIC_POINTER(CopyImpl);
    case RowCode::kSqrt:
      return SquareRoot;
    case RowCode::kRsqrt:
      return ReciprocalSquareRoot;
    case RowCode::kTanh:
      return Tanh;
    case RowCode::kGeluTanh:
      return GeluTanh;
    case RowCode::kCos:
      return Cosine;
    case RowCode::kSin:
      return Sine;
    case RowCode::kAdd:
    case RowCode::kSub:
    case RowCode::kMul:
    case RowCode::kMinimum:
    case RowCode::kMaximum:
    case RowCode::kAddProduct:
    case RowCode::kSubProduct:
    case RowCode::kProductLess:
    case RowCode::kMean:
    case RowCode::kMeanOfSquares:
    case RowCode::kProduct:
    case RowCode::kQuantize:
      break;
  }
  return nullptr;
}

// One block of tokens; addresses of operands follow from where the block starts.
class BlockRun {
 public:
  BlockRun(int64_t first, int64_t count, float* scratch) : first_(first), count_(count), scratch_(scratch) {}

  void Execute(const RowInstruction& instruction) const {
    switch (instruction.code) {
      case RowCode::kAdd:
      case RowCode::kSub:
      case RowCode::kMul:
      case RowCode::kMinimum:
      case RowCode::kMaximum:
        return ExecuteBinary(instruction);
      case RowCode::kAddProduct:
      case RowCode::kSubProduct:
      case RowCode::kProductLess:
        return ExecuteProduct(instruction);
      case RowCode::kSquare:
      case RowCode::kSqrt:
      case RowCode::kRsqrt:
      case RowCode::kTanh:
      case RowCode::kRelu:
      case RowCode::kGeluTanh:
      case RowCode::kCos:
      case RowCode::kSin:
      case RowCode::kCopy:
        return ExecuteUnary(instruction);
      case RowCode::kMean:
      case RowCode::kMeanOfSquares:
      case RowCode::kProduct:
        return ExecuteRows(instruction);
      case RowCode::kQuantize:
        return ExecuteQuantize(instruction);
    }
  }

 private:
  [[nodiscard]] const float* Token(const RowOperand& operand, int64_t token) const {
    if (operand.base != nullptr) return operand.base + (first_ + token) * operand.token_stride;
    return scratch_ + operand.offset + token * operand.token_stride;
  }
  [[nodiscard]] float* Out(const RowInstruction& instruction, int64_t token) const {
    return const_cast<float*>(Token(instruction.out, token));  // outputs are never constants
  }

  // Whether the rows of all tokens of a block lie one behind the other.
  static bool IsDense(const RowOperand& operand, int64_t rows, int64_t columns) {
    return operand.column_stride == 1 && operand.token_stride == rows * columns && (rows == 1 || operand.row_stride == columns);
  }
  static bool IsOneValue(const RowOperand& operand) {
    return operand.column_stride == 0 && operand.row_stride == 0 && operand.token_stride == 0;
  }

  void ExecuteBinary(const RowInstruction& i) const {
    const auto ready = [&](const RowOperand& operand) { return IsDense(operand, i.rows, i.columns) || IsOneValue(operand); };
    const auto combine = HWY_DYNAMIC_POINTER(CombineImpl);
    if (ready(i.a) && ready(i.b) && IsDense(i.out, i.rows, i.columns)) {
      return combine(i.code, Token(i.a, 0), i.a.column_stride, Token(i.b, 0), i.b.column_stride, Out(i, 0), count_ * i.rows * i.columns);
    }
    for (int64_t token = 0; token < count_; ++token) {
      for (int64_t row = 0; row < i.rows; ++row) {
        combine(i.code, Token(i.a, token) + row * i.a.row_stride, i.a.column_stride, Token(i.b, token) + row * i.b.row_stride,
                i.b.column_stride, Out(i, token) + row * i.out.row_stride, i.columns);
      }
    }
  }

  // a and c have a value for every column.
  void ExecuteProduct(const RowInstruction& i) const {
    const auto combine = HWY_DYNAMIC_POINTER(CombineProductImpl);
    const bool dense = IsDense(i.a, i.rows, i.columns) && IsDense(i.c, i.rows, i.columns) && IsDense(i.out, i.rows, i.columns);
    if (dense && (IsDense(i.b, i.rows, i.columns) || IsOneValue(i.b))) {
      return combine(i.code, Token(i.a, 0), Token(i.b, 0), i.b.column_stride, Token(i.c, 0), Out(i, 0), count_ * i.rows * i.columns);
    }
    for (int64_t token = 0; token < count_; ++token) {
      for (int64_t row = 0; row < i.rows; ++row) {
        combine(i.code, Token(i.a, token) + row * i.a.row_stride, Token(i.b, token) + row * i.b.row_stride, i.b.column_stride,
                Token(i.c, token) + row * i.c.row_stride, Out(i, token) + row * i.out.row_stride, i.columns);
      }
    }
  }

  void ExecuteUnary(const RowInstruction& i) const {
    const UnaryFunction function = FunctionOf(i.code);
    if (IsDense(i.a, i.rows, i.columns) && IsDense(i.out, i.rows, i.columns)) {
      return function(Token(i.a, 0), Out(i, 0), count_ * i.rows * i.columns);
    }
    for (int64_t token = 0; token < count_; ++token) {
      for (int64_t row = 0; row < i.rows; ++row) {
        function(Token(i.a, token) + row * i.a.row_stride, Out(i, token) + row * i.out.row_stride, i.columns);
      }
    }
  }

  // Rows of a token lie one behind the other here, in and out.
  void ExecuteRows(const RowInstruction& i) const {
    for (int64_t token = 0; token < count_; ++token) {
      const float* x = Token(i.a, token);
      if (i.code == RowCode::kMean) MeansOfRows(x, Out(i, token), i.rows, i.columns);
      if (i.code == RowCode::kMeanOfSquares) MeansOfSquaresOfRows(x, Out(i, token), i.rows, i.columns);
      if (i.code == RowCode::kProduct) {
        NarrowMatMul({.rows = i.rows, .in = i.columns, .out = i.out_columns}, x, i.weights, i.bias, Out(i, token));
      }
    }
  }

  void ExecuteQuantize(const RowInstruction& i) const {
    for (int64_t token = 0; token < count_; ++token) {
      for (int64_t of_token = 0; of_token < i.rows; ++of_token) {
        const int64_t row = (first_ + token) * i.rows + of_token;
        const RowQuantization quantization =
            QuantizeRow(Token(i.a, token) + of_token * i.a.row_stride, i.columns, i.codes + row * i.columns);
        i.parameters[row] = {.zero_point = quantization.zero_point, .scale = quantization.scale};
      }
    }
  }

  int64_t first_;
  int64_t count_;
  float* scratch_;
};

}  // namespace

void RunRowProgram(const RowProgram& program, int64_t first, int64_t count, float* scratch) {
  const BlockRun run(first, count, scratch);
  for (const RowInstruction& instruction : program.instructions) run.Execute(instruction);
}

}  // namespace taskpress
#endif  // HWY_ONCE
