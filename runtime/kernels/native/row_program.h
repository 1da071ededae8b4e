// A run of operators that work row by row, as one list of instructions that is walked for a few tokens at a time: what one instruction
// leaves is still in the cache when the next one reads it, and values that nobody else reads never leave it.
//
// Every value is seen as [tokens, rows, columns]. The instructions compute what the kernels of the single operators compute, bit for bit:
// the same functions, in the same order of operations.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_ROW_PROGRAM_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_ROW_PROGRAM_H_

#include <cstdint>
#include <vector>

namespace taskpress {

enum class RowCode : uint8_t {
  kAdd,
  kSub,
  kMul,
  kMinimum,
  kMaximum,
  kAddProduct,   // c + a b, rounded twice: a MUL and the ADD of its result in one go
  kSubProduct,   // c - a b
  kProductLess,  // a b - c
  kSquare,
  kSqrt,
  kRsqrt,
  kTanh,
  kRelu,
  kGeluTanh,
  kCos,
  kSin,
  kMean,           // a [rows, columns] -> out [rows, 1]
  kMeanOfSquares,  // the same
  kCopy,
  kProduct,   // a [rows, columns] times `weights` [columns, out_columns] -> out [rows, out_columns]: a narrow f32 matrix
  kQuantize,  // a [rows, columns] -> int8 and its parameters row by row, as XNNPACK reads them
};

// Where a value lies. Distances are in floats.
struct RowOperand {
  const float* base = nullptr;  // of token 0; null: in scratch memory,
  int64_t offset = 0;           // and there the block's first token is so many floats from the start
  int32_t slot = -1;            // in scratch memory: which piece of it, for whoever lays it out
  int64_t token_stride = 0;     // 0: the same for all tokens
  int64_t row_stride = 0;       // 0: the same for all rows of a token
  int64_t column_stride = 1;    // 0: one value for all columns
};

// What the int8 copy of a row needs (xnn_quantization_params).
struct RowParameters {
  int32_t zero_point = 0;
  float scale = 0.0F;
};

struct RowInstruction {
  RowCode code = RowCode::kAdd;
  int64_t rows = 1;     // of a token
  int64_t columns = 0;  // of `a`
  RowOperand a;
  RowOperand b;  // of the binary ones and those of three operands
  RowOperand c;
  RowOperand out;  // columns lie side by side
  const float* weights = nullptr;
  const float* bias = nullptr;  // [out_columns] or null
  int64_t out_columns = 0;
  int8_t* codes = nullptr;              // [tokens, columns]
  RowParameters* parameters = nullptr;  // [tokens]
};

struct RowProgram {
  std::vector<RowInstruction> instructions;
  int64_t tokens = 0;
  int64_t tokens_per_block = 1;
  uint64_t scratch_bytes = 0;
};

// Tokens [first, first + count), count <= tokens_per_block. scratch: scratch_bytes, aligned to a cache line.
void RunRowProgram(const RowProgram& program, int64_t first, int64_t count, float* scratch);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_ROW_PROGRAM_H_
