// What the tensors of each operator must look like, checked once and shared by its reference kernel and its fast twin.
//
// Every function refuses with kGraphShape what contradicts TFLite's definition of the operator, and with kKernelUnsupported what TFLite
// would allow but no bundle uses. Sizes come back as plain numbers, so kernels do no shape arithmetic of their own. Dimensions are at least
// 1 and their product fits (the Executor refuses other tensors), so products of some of them fit as well.
#ifndef TASKPRESS_RUNTIME_KERNELS_OP_SHAPES_H_
#define TASKPRESS_RUNTIME_KERNELS_OP_SHAPES_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/kernels/step.h"

namespace taskpress {

// Broadcasting and reductions walk at most this many dimensions (XNNPACK's limit too).
inline constexpr size_t kMaxRank = 6;

// Distance in elements between neighbours along each dimension of a dense tensor.
std::vector<int64_t> DenseStrides(const Shape& shape);

// The values of an i32 constant such as axes, permutations or begins.
Result<std::span<const int32_t>> ConstantInts(const OpContext& context, size_t input);

// Input and output of one shape and one type, f32.
Status CheckUnary(const OpContext& context);

// Bytes of one element; kKernelUnsupported for packed types, which cannot be addressed.
Result<size_t> ElementBytes(const OpContext& context, const BoundTensor& tensor);

// a and b against the output, padded with leading ones to six dimensions; a stride of 0 repeats a value.
struct BroadcastShape {
  std::array<int64_t, kMaxRank> out{};
  std::array<int64_t, kMaxRank> a_strides{};
  std::array<int64_t, kMaxRank> b_strides{};
};
Result<BroadcastShape> CheckBroadcast(const OpContext& context);

struct MeanShape {
  std::array<bool, kMaxRank> reduced{};
  int64_t count = 0;       // elements per mean
  bool last_axis = false;  // only the last dimension is reduced
};
Result<MeanShape> CheckMean(const OpContext& context);

struct RowsShape {
  int64_t rows = 0;
  int64_t columns = 0;
};
Result<RowsShape> CheckSoftmax(const OpContext& context);

struct FullyConnectedShape {
  int64_t rows = 0;  // product of all dimensions of x but the last
  int64_t in = 0;
  int64_t out = 0;
  bool integer_weights = false;  // i8 or i4: x is quantized per row at run time
};
Result<FullyConnectedShape> CheckFullyConnected(const OpContext& context);

// 255 * 128 per product: integer sums of longer rows could leave int32.
inline constexpr int64_t kMaxIntegerColumns = 65536;

// FULLY_CONNECTED with such weights, and lookups in such tables, need scales.
bool HasIntegerWeights(DType weights);

struct BatchMatMulShape {
  int64_t m = 0;
  int64_t k = 0;
  int64_t n = 0;
  int64_t batch = 0;  // of the output
  std::vector<int64_t> batch_dims_a;
  std::vector<int64_t> batch_dims_b;  // as many as batch_dims_a
  std::vector<int64_t> a_index;       // [batch] which matrix of a
  std::vector<int64_t> b_index;       // [batch]
};
Result<BatchMatMulShape> CheckBatchMatMul(const OpContext& context);

struct SliceShape {
  std::vector<int64_t> in_strides;
  Shape size;
};
Result<SliceShape> CheckSlice(const OpContext& context);

Result<std::vector<size_t>> CheckTranspose(const OpContext& context);

// out[o] = the concatenation of x_i[o], each chunk_bytes[i] long.
struct ConcatenationShape {
  int64_t outer = 0;
  std::vector<size_t> chunk_bytes;
};
Result<ConcatenationShape> CheckConcatenation(const OpContext& context);

// x [outer, axis, inner] and indices [count] -> [outer, count, inner].
struct GatherShape {
  int64_t outer = 0;
  int64_t axis = 0;
  int64_t count = 0;
  size_t inner_bytes = 0;
};
Result<GatherShape> CheckGather(const OpContext& context);

// Shapes and types of operand, update and start agree.
Status CheckDynamicUpdateSlice(const OpContext& context);

struct EmbeddingLookupShape {
  int64_t ids = 0;
  int64_t rows = 0;
  int64_t columns = 0;
};
Result<EmbeddingLookupShape> CheckEmbeddingLookup(const OpContext& context);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_OP_SHAPES_H_
