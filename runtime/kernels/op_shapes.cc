#include "runtime/kernels/op_shapes.h"

#include <algorithm>

namespace taskpress {
namespace {

bool IsNumber(DType type) { return type == DType::kF32 || type == DType::kI32; }

int64_t Product(std::span<const int64_t> dimensions) {
  int64_t product = 1;
  for (const int64_t dimension : dimensions) product *= dimension;
  return product;
}

// -1 counts from the back, as TFLite's axes do.
bool NormalizeAxis(int64_t axis, size_t rank, size_t& normalized) {
  const auto signed_rank = static_cast<int64_t>(rank);
  if (axis < -signed_rank || axis >= signed_rank) return false;
  normalized = static_cast<size_t>(axis < 0 ? axis + signed_rank : axis);
  return true;
}

// A shape with leading ones up to six dimensions.
std::array<int64_t, kMaxRank> PadShape(const Shape& shape) {
  std::array<int64_t, kMaxRank> padded;
  padded.fill(1);
  std::ranges::copy(shape, padded.end() - static_cast<std::ptrdiff_t>(shape.size()));
  return padded;
}

// Scales of a quantized weight or table: one, or one per row.
Status CheckRowScales(const OpContext& context, const BoundTensor& table) {
  if (table.type != DType::kI8 && table.type != DType::kI4) return {};
  const auto rows = static_cast<uint64_t>(table.shape[0]);
  if (table.block_size > 0) {
    const bool fits = table.shape.size() == 2 && table.shape[1] % table.block_size == 0;
    if (fits && table.scales.size() == rows * static_cast<uint64_t>(table.shape[1] / table.block_size)) return {};
    return context.Malformed("blocks need one scale each");
  }
  if (table.scales.size() != 1 && table.scales.size() != rows) return context.Malformed("quantized rows need one scale, or one each");
  if (table.scales.size() > 1 && table.quantized_axis != 0) return context.Malformed("the quantized dimension must be 0");
  return {};
}

}  // namespace

std::vector<int64_t> DenseStrides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

Result<std::span<const int32_t>> ConstantInts(const OpContext& context, size_t input) {
  const BoundTensor& tensor = context.in(input);
  if (tensor.type != DType::kI32) return context.Malformed("axes, begins, sizes and permutations are i32");
  if (!tensor.is_constant()) return context.Unsupported("axes, sizes and permutations must be constants");
  return std::span(tensor.as<int32_t>(), static_cast<size_t>(tensor.elements));
}

Status CheckUnary(const OpContext& context) {
  if (context.in(0).shape != context.out().shape) return context.Malformed("input and output differ in shape");
  if (context.in(0).type != DType::kF32 || context.out().type != DType::kF32) return context.Unsupported("only f32");
  return {};
}

Result<size_t> ElementBytes(const OpContext& context, const BoundTensor& tensor) {
  const int bits = InfoOf(tensor.type).bits;
  if (bits % 8 != 0) return context.Unsupported("elements smaller than a byte cannot be moved");
  return static_cast<size_t>(bits) / 8;
}

Result<BroadcastShape> CheckBroadcast(const OpContext& context) {
  const BoundTensor& a = context.in(0);
  const BoundTensor& b = context.in(1);
  const BoundTensor& out = context.out();
  if (a.type != b.type || a.type != out.type) return context.Malformed("operands differ in type");
  if (!IsNumber(a.type)) return context.Unsupported("only f32 and i32");
  if (std::max({a.shape.size(), b.shape.size(), out.shape.size()}) > kMaxRank) return context.Unsupported("at most six dimensions");
  if (out.shape.size() != std::max(a.shape.size(), b.shape.size())) return context.Malformed("the output has not the rank of its operands");
  const std::array<int64_t, kMaxRank> dims_a = PadShape(a.shape);
  const std::array<int64_t, kMaxRank> dims_b = PadShape(b.shape);
  BroadcastShape shape{.out = PadShape(out.shape)};
  int64_t stride_a = 1;
  int64_t stride_b = 1;
  for (size_t i = kMaxRank; i-- > 0;) {
    if (dims_a[i] != dims_b[i] && dims_a[i] != 1 && dims_b[i] != 1) return context.Malformed("operands do not broadcast");
    if (shape.out[i] != std::max(dims_a[i], dims_b[i])) return context.Malformed("the output is not the broadcast of its operands");
    shape.a_strides[i] = dims_a[i] == 1 ? 0 : stride_a;
    shape.b_strides[i] = dims_b[i] == 1 ? 0 : stride_b;
    stride_a *= dims_a[i];
    stride_b *= dims_b[i];
  }
  return shape;
}

Result<MeanShape> CheckMean(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  if (x.type != DType::kF32 || context.out().type != DType::kF32) return context.Unsupported("only f32");
  if (x.shape.size() > kMaxRank) return context.Unsupported("at most six dimensions");
  MeanShape mean;
  for (const int32_t axis : TRY(ConstantInts(context, 1))) {
    size_t normalized = 0;
    if (!NormalizeAxis(axis, x.shape.size(), normalized)) return context.Malformed("axis out of range");
    mean.reduced[normalized] = true;
  }
  Shape expected;
  mean.count = 1;
  for (size_t i = 0; i < x.shape.size(); ++i) {
    if (mean.reduced[i]) mean.count *= x.shape[i];
    if (!mean.reduced[i]) expected.push_back(x.shape[i]);
    if (mean.reduced[i] && context.attributes<MeanAttributes>().keep_dims) expected.push_back(1);
  }
  if (expected != context.out().shape) return context.Malformed("the output is not the input without the reduced axes");
  mean.last_axis = std::ranges::count(mean.reduced, true) == 1 && mean.reduced[x.shape.size() - 1];
  return mean;
}

Result<RowsShape> CheckSoftmax(const OpContext& context) {
  TRY(CheckUnary(context));
  const Shape& shape = context.in(0).shape;
  if (shape.empty()) return context.Malformed("softmax needs a last dimension");
  return RowsShape{.rows = context.in(0).elements / shape.back(), .columns = shape.back()};
}

bool HasIntegerWeights(DType weights) { return weights == DType::kI8 || weights == DType::kI4; }

Result<FullyConnectedShape> CheckFullyConnected(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  const BoundTensor& weights = context.in(1);
  const BoundTensor& out = context.out();
  if (x.type != DType::kF32 || out.type != DType::kF32) return context.Unsupported("input and output must be f32");
  if (weights.type != DType::kF32 && !HasIntegerWeights(weights.type)) return context.Unsupported("weights must be f32, i8 or i4");
  if (weights.shape.size() != 2) return context.Malformed("weights must be [out, in]");
  FullyConnectedShape shape{.in = weights.shape[1], .out = weights.shape[0], .integer_weights = HasIntegerWeights(weights.type)};
  if (x.shape.empty() || x.elements % shape.in != 0) return context.Malformed("the input does not consist of rows as long as the weights'");
  const bool keep = context.attributes<FullyConnectedAttributes>().keep_num_dims;
  Shape expected = {x.elements / shape.in, shape.out};
  if (keep) {
    expected = x.shape;
    expected.back() = shape.out;
    if (x.shape.back() != shape.in) return context.Malformed("the last dimension of the input is not that of the weights");
  }
  if (out.shape != expected) return context.Malformed("output shape");
  shape.rows = x.elements / shape.in;
  if (shape.integer_weights && !weights.is_constant()) return context.Unsupported("integer weights must be constant");
  TRY(CheckRowScales(context, weights));
  if (context.has_input(2)) {
    const BoundTensor& bias = context.in(2);
    if (bias.type != DType::kF32) return context.Unsupported("bias must be f32");
    if (bias.elements != shape.out) return context.Malformed("bias must have one value per output");
  }
  return shape;
}

Result<BatchMatMulShape> CheckBatchMatMul(const OpContext& context) {
  const BoundTensor& a = context.in(0);
  const BoundTensor& b = context.in(1);
  const BoundTensor& out = context.out();
  if (a.type != DType::kF32 || b.type != DType::kF32 || out.type != DType::kF32) return context.Unsupported("only f32");
  const size_t rank = out.shape.size();
  if (a.shape.size() < 2 || b.shape.size() < 2 || rank != std::max(a.shape.size(), b.shape.size())) return context.Malformed("ranks");
  const auto attributes = context.attributes<BatchMatMulAttributes>();
  BatchMatMulShape shape;
  const auto last = [](const Shape& s, size_t from_back) { return s[s.size() - from_back]; };
  shape.m = last(a.shape, attributes.adj_x ? 1 : 2);
  shape.k = last(a.shape, attributes.adj_x ? 2 : 1);
  shape.n = last(b.shape, attributes.adj_y ? 2 : 1);
  if (last(b.shape, attributes.adj_y ? 1 : 2) != shape.k) return context.Malformed("the inner dimensions of the matrices differ");
  if (last(out.shape, 2) != shape.m || last(out.shape, 1) != shape.n) return context.Malformed("output matrix shape");
  shape.batch_dims_a.assign(rank - a.shape.size(), 1);
  shape.batch_dims_b.assign(rank - b.shape.size(), 1);
  shape.batch_dims_a.insert(shape.batch_dims_a.end(), a.shape.begin(), a.shape.end() - 2);
  shape.batch_dims_b.insert(shape.batch_dims_b.end(), b.shape.begin(), b.shape.end() - 2);
  shape.batch = 1;
  for (size_t i = 0; i < rank - 2; ++i) {
    const int64_t da = shape.batch_dims_a[i];
    const int64_t db = shape.batch_dims_b[i];
    if (da != db && da != 1 && db != 1) return context.Malformed("batch dimensions do not broadcast");
    if (out.shape[i] != (da == 1 ? db : da)) return context.Malformed("output batch dimensions");
    shape.batch *= out.shape[i];
  }
  for (int64_t batch = 0; batch < shape.batch; ++batch) {
    int64_t rest = batch;
    int64_t index_a = 0;
    int64_t index_b = 0;
    int64_t stride_a = 1;
    int64_t stride_b = 1;
    for (size_t i = rank - 2; i-- > 0;) {
      const int64_t position = rest % out.shape[i];
      rest /= out.shape[i];
      if (shape.batch_dims_a[i] != 1) index_a += position * stride_a;
      if (shape.batch_dims_b[i] != 1) index_b += position * stride_b;
      stride_a *= shape.batch_dims_a[i];
      stride_b *= shape.batch_dims_b[i];
    }
    shape.a_index.push_back(index_a);
    shape.b_index.push_back(index_b);
  }
  return shape;
}

Result<SliceShape> CheckSlice(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  const size_t rank = x.shape.size();
  const std::span<const int32_t> sizes = TRY(ConstantInts(context, 2));
  const BoundTensor& begin = context.in(1);
  if (begin.type != DType::kI32) return context.Malformed("begins are i32");
  if (sizes.size() != rank || static_cast<size_t>(begin.elements) != rank)
    return context.Malformed("begin and size need one value per dimension");
  if (x.type != context.out().type) return context.Malformed("input and output differ in type");
  if (rank > kMaxRank) return context.Unsupported("at most six dimensions");
  SliceShape shape{.in_strides = DenseStrides(x.shape), .size = Shape(rank)};
  for (size_t i = 0; i < rank; ++i) {
    const int64_t first = begin.is_constant() ? begin.as<int32_t>()[i] : 0;
    if (first < 0 || first > x.shape[i]) return context.Malformed("begin outside the input");
    if (sizes[i] == -1 && !begin.is_constant()) return context.Unsupported("size -1 with a begin that is not constant");
    shape.size[i] = sizes[i] == -1 ? x.shape[i] - first : sizes[i];
    if (shape.size[i] < 0 || shape.size[i] > x.shape[i] - first) return context.Malformed("the slice ends outside the input");
  }
  if (shape.size != context.out().shape) return context.Malformed("output shape is not the slice's size");
  return shape;
}

Result<std::vector<size_t>> CheckTranspose(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  const size_t rank = x.shape.size();
  if (x.type != context.out().type) return context.Malformed("input and output differ in type");
  const std::span<const int32_t> values = TRY(ConstantInts(context, 1));
  if (values.size() != rank || context.out().shape.size() != rank)
    return context.Malformed("the permutation needs one value per dimension");
  if (rank > kMaxRank) return context.Unsupported("at most six dimensions");
  std::vector<size_t> permutation(rank);
  std::vector<bool> seen(rank);
  for (size_t i = 0; i < rank; ++i) {
    if (!NormalizeAxis(values[i], rank, permutation[i]) || seen[permutation[i]]) return context.Malformed("not a permutation");
    seen[permutation[i]] = true;
    if (context.out().shape[i] != x.shape[permutation[i]]) return context.Malformed("output shape");
  }
  return permutation;
}

Result<ConcatenationShape> CheckConcatenation(const OpContext& context) {
  const BoundTensor& out = context.out();
  size_t axis = 0;
  if (!NormalizeAxis(context.attributes<ConcatenationAttributes>().axis, out.shape.size(), axis))
    return context.Malformed("axis out of range");
  const size_t element = TRY(ElementBytes(context, out));
  const auto inner = static_cast<size_t>(Product(std::span(out.shape).subspan(axis + 1)));
  ConcatenationShape shape{.outer = Product(std::span(out.shape).first(axis)), .chunk_bytes = {}};
  int64_t total = 0;
  for (size_t i = 0; i < context.inputs.size(); ++i) {
    const BoundTensor& x = context.in(i);
    if (x.type != out.type) return context.Malformed("inputs differ in type");
    Shape expected = out.shape;
    if (x.shape.size() == expected.size()) expected[axis] = x.shape[axis];
    if (x.shape != expected) return context.Malformed("inputs may differ along the axis only");
    total += x.shape[axis];
    shape.chunk_bytes.push_back(static_cast<size_t>(x.shape[axis]) * inner * element);
  }
  if (total != out.shape[axis]) return context.Malformed("the inputs do not add up to the output");
  return shape;
}

Result<GatherShape> CheckGather(const OpContext& context) {
  const BoundTensor& x = context.in(0);
  const BoundTensor& indices = context.in(1);
  const auto attributes = context.attributes<GatherAttributes>();
  if (attributes.batch_dims != 0) return context.Unsupported("batch_dims must be 0");
  if (indices.type != DType::kI32) return context.Unsupported("indices must be i32");
  if (x.type != context.out().type) return context.Malformed("input and output differ in type");
  size_t axis = 0;
  if (!NormalizeAxis(attributes.axis, x.shape.size(), axis)) return context.Malformed("axis out of range");
  Shape expected(x.shape.begin(), x.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  expected.insert(expected.end(), indices.shape.begin(), indices.shape.end());
  expected.insert(expected.end(), x.shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.shape.end());
  if (context.out().shape != expected) return context.Malformed("output shape");
  return GatherShape{.outer = Product(std::span(x.shape).first(axis)),
                     .axis = x.shape[axis],
                     .count = indices.elements,
                     .inner_bytes = static_cast<size_t>(Product(std::span(x.shape).subspan(axis + 1))) * TRY(ElementBytes(context, x))};
}

Status CheckDynamicUpdateSlice(const OpContext& context) {
  const BoundTensor& operand = context.in(0);
  const BoundTensor& update = context.in(1);
  const BoundTensor& start = context.in(2);
  TRY(ElementBytes(context, operand));
  if (operand.type != update.type || operand.type != context.out().type) return context.Malformed("operands differ in type");
  if (operand.shape != context.out().shape) return context.Malformed("operand and output differ in shape");
  if (start.type != DType::kI32) return context.Unsupported("start must be i32");
  if (update.shape.size() != operand.shape.size() || static_cast<size_t>(start.elements) != operand.shape.size()) {
    return context.Malformed("update and start need one value per dimension of the operand");
  }
  if (operand.shape.size() > kMaxRank) return context.Unsupported("at most six dimensions");
  for (size_t i = 0; i < operand.shape.size(); ++i) {
    if (update.shape[i] > operand.shape[i]) return context.Malformed("the update is larger than the operand");
  }
  return {};
}

Result<EmbeddingLookupShape> CheckEmbeddingLookup(const OpContext& context) {
  const BoundTensor& ids = context.in(0);
  const BoundTensor& table = context.in(1);
  const BoundTensor& out = context.out();
  if (ids.type != DType::kI32 || ids.shape.size() != 1) return context.Malformed("ids must be i32 [n]");
  if (out.type != DType::kF32) return context.Unsupported("output must be f32");
  if (table.type != DType::kF32 && !HasIntegerWeights(table.type)) return context.Unsupported("the table must be f32, i8 or i4");
  if (table.shape.size() < 2) return context.Malformed("the table must be [rows, ...]");
  if (table.block_size > 0) return context.Unsupported("a table with scales of blocks; one scale per row is possible");
  if (HasIntegerWeights(table.type) && !table.is_constant()) return context.Unsupported("a quantized table must be constant");
  Shape expected = table.shape;
  expected[0] = ids.elements;
  if (out.shape != expected) return context.Malformed("output shape");
  TRY(CheckRowScales(context, table));
  return EmbeddingLookupShape{.ids = ids.elements, .rows = table.shape[0], .columns = table.elements / table.shape[0]};
}

}  // namespace taskpress
