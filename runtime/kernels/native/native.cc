#include "runtime/kernels/native/native.h"

#include <algorithm>
#include <cstring>

#include "runtime/kernels/native/elementwise.h"
#include "runtime/kernels/native/narrow_matmul.h"
#include "runtime/kernels/native/row_means.h"
#include "runtime/kernels/native/strided_copy.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/packed_int4.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_packed_weights.h"
#include "schema/byte_source.h"

namespace taskpress {
namespace {

using ElementwiseFunction = void (*)(const float* x, float* out, int64_t count);

ElementwiseFunction FunctionOf(OpKind kind) {
  if (kind == OpKind::kSqrt) return SquareRoot;
  if (kind == OpKind::kRsqrt) return ReciprocalSquareRoot;
  if (kind == OpKind::kTanh) return Tanh;
  if (kind == OpKind::kCos) return Cosine;
  return kind == OpKind::kSin ? Sine : GeluTanh;
}

Result<StepPtr> MakeElementwise(const OpContext& context) {
  TRY(CheckUnary(context));
  if (context.op.kind == OpKind::kGelu && !context.attributes<GeluAttributes>().approximate) return nullptr;
  return MakeStep([function = FunctionOf(context.op.kind), count = context.in(0).elements, x = context.in(0).as<float>(),
                   out = context.out().out<float>(), threads = &context.threads] {
    threads->ForEachBlock(count, 1, [=](int64_t first, int64_t size) { function(x + first, out + first, size); });
  });
}

Result<StepPtr> MakeMean(const OpContext& context) {
  const MeanShape mean = TRY(CheckMean(context));
  if (!mean.last_axis) return nullptr;
  return MakeStep([means = context.mean_of_squares ? MeansOfSquaresOfRows : MeansOfRows, rows = context.out().elements,
                   columns = mean.count, x = context.in(0).as<float>(), out = context.out().out<float>(), threads = &context.threads] {
    threads->ForEachBlock(rows, columns, [=](int64_t first, int64_t size) { means(x + first * columns, out + first, size, columns); });
  });
}

// Wide matrices and those of integers are XNNPACK's.
Result<StepPtr> MakeNarrowFullyConnected(const OpContext& context) {
  const FullyConnectedShape shape = TRY(CheckFullyConnected(context));
  const BoundTensor& weights = context.in(1);
  if (shape.integer_weights || shape.out >= kNarrow || !weights.is_constant() || context.packed_weights == nullptr) return nullptr;
  const float* transposed = TRY(context.packed_weights->Transposed(weights.as<float>(), shape.out, shape.in));
  const float* bias = context.has_input(2) ? context.in(2).as<float>() : nullptr;
  return MakeStep([shape, transposed, bias, x = context.in(0).as<float>(), out = context.out().out<float>(), threads = &context.threads] {
    threads->ForEachBlock(shape.rows, shape.in, [=](int64_t first, int64_t size) {
      NarrowMatMul({.rows = size, .in = shape.in, .out = shape.out}, x + first * shape.in, transposed, bias, out + first * shape.out);
    });
  });
}

Result<StepPtr> MakeSlice(const OpContext& context) {
  const SliceShape shape = TRY(CheckSlice(context));
  if (!context.in(1).is_constant()) return nullptr;
  const size_t bytes = TRY(ElementBytes(context, context.in(0)));
  int64_t first = 0;
  for (size_t i = 0; i < shape.size.size(); ++i) first += context.in(1).as<int32_t>()[i] * shape.in_strides[i];
  const StridedCopy copy(shape.size, shape.in_strides, DenseStrides(shape.size), bytes);
  return MakeStep(
      [copy, from = context.in(0).data + static_cast<size_t>(first) * bytes, to = context.out().writable] { copy.Run(from, to); });
}

Result<StepPtr> MakeDynamicUpdateSlice(const OpContext& context) {
  TRY(CheckDynamicUpdateSlice(context));
  const BoundTensor& operand = context.in(0);
  const BoundTensor& update = context.in(1);
  const size_t bytes = TRY(ElementBytes(context, operand));
  const std::vector<int64_t> strides = DenseStrides(operand.shape);
  const StridedCopy copy(update.shape, DenseStrides(update.shape), strides, bytes);
  std::vector<int64_t> room(operand.shape.size());  // the last start that fits
  for (size_t i = 0; i < room.size(); ++i) room[i] = operand.shape[i] - update.shape[i];
  const size_t total = static_cast<size_t>(operand.elements) * bytes;
  return MakeStep([copy, strides, room, bytes, total, operand = operand.data, update = update.data, start = context.in(2).as<int32_t>(),
                   out = context.out().writable] {
    if (out != operand) std::memcpy(out, operand, total);
    int64_t first = 0;
    for (size_t i = 0; i < room.size(); ++i) first += std::clamp<int64_t>(start[i], 0, room[i]) * strides[i];
    copy.Run(update, out + static_cast<size_t>(first) * bytes);
  });
}

// A row of i8, or of i4 with an even number of columns: `packed` is where it begins.
void DequantizeRow(DType type, const std::byte* packed, float scale, int64_t columns, float* out) {
  if (type == DType::kI8) {
    const auto* codes = reinterpret_cast<const int8_t*>(packed);
    for (int64_t i = 0; i < columns; ++i) out[i] = static_cast<float>(codes[i]) * scale;
    return;
  }
  for (int64_t i = 0; i < columns / 2; ++i) {
    out[2 * i] = static_cast<float>(Int4At(packed + i, 0)) * scale;
    out[2 * i + 1] = static_cast<float>(Int4At(packed + i, 1)) * scale;
  }
}

// Rows of a table. Those of a mapped file are read from the file.
class LookupStep final : public Step {
 public:
  LookupStep(const EmbeddingLookupShape& shape, const OpContext& context)
      : shape_(shape), ids_(context.in(0).as<int32_t>()), table_(context.in(1)), out_(context.out().out<float>()) {
    const bool whole_bytes = table_.type != DType::kI4 || shape.columns % 2 == 0;
    if (whole_bytes) row_bytes_ = static_cast<uint64_t>(shape.columns) * static_cast<uint64_t>(InfoOf(table_.type).bits) / 8;
    const SourceReader* reader = context.packed_weights == nullptr ? nullptr : context.packed_weights->source_reader();
    if (whole_bytes && reader != nullptr && reader->Covers({table_.data, static_cast<size_t>(shape.rows) * row_bytes_})) {
      reader_ = reader;
      row_.resize(row_bytes_);
    }
  }

  Status Run() override {
    for (int64_t i = 0; i < shape_.ids; ++i) {
      const int64_t row = ids_[i];
      if (row < 0 || row >= shape_.rows) {
        return Fail(ErrorCode::kRuntimeIndex, "EMBEDDING_LOOKUP {}: id {} is outside [0, {})", table_.name, row, shape_.rows);
      }
      TRY(Look(row, out_ + i * shape_.columns));
    }
    return {};
  }

 private:
  Status Look(int64_t row, float* out) {
    const float scale = table_.scales.empty() ? 1.0F : table_.scales[table_.scales.size() == 1 ? 0 : static_cast<size_t>(row)];
    if (row_bytes_ == 0) {
      for (int64_t i = 0; i < shape_.columns; ++i) out[i] = static_cast<float>(Int4At(table_.data, row * shape_.columns + i)) * scale;
      return {};
    }
    const std::byte* bytes = table_.data + static_cast<uint64_t>(row) * row_bytes_;
    if (reader_ != nullptr) {
      TRY(reader_->Read(bytes, row_));
      bytes = row_.data();
    }
    if (table_.type == DType::kF32) {
      std::memcpy(out, bytes, row_bytes_);
    } else {
      DequantizeRow(table_.type, bytes, scale, shape_.columns, out);
    }
    return {};
  }

  EmbeddingLookupShape shape_;
  const int32_t* ids_;
  const BoundTensor& table_;
  float* out_;
  uint64_t row_bytes_ = 0;  // 0: rows do not begin at whole bytes
  const SourceReader* reader_ = nullptr;
  std::vector<std::byte> row_;
};

Result<StepPtr> MakeEmbeddingLookup(const OpContext& context) {
  return std::make_unique<LookupStep>(TRY(CheckEmbeddingLookup(context)), context);
}

}  // namespace

Result<StepPtr> MakeStreamedLookup(const OpContext& context) {
  const EmbeddingLookupShape shape = TRY(CheckEmbeddingLookup(context));
  return MakeStep([shape, ids = context.in(0).as<int32_t>(), name = context.in(1).name, table = context.streamed_rows,
                   out = context.out().writable]() -> Status {
    const uint64_t row_bytes = table->row_bytes();
    for (int64_t i = 0; i < shape.ids; ++i) {
      const int64_t row = ids[i];
      if (row < 0 || row >= shape.rows) {
        return Fail(ErrorCode::kRuntimeIndex, "EMBEDDING_LOOKUP {}: id {} is outside [0, {})", name, row, shape.rows);
      }
      TRY(table->ReadRows(row, 1, {out + static_cast<uint64_t>(i) * row_bytes, row_bytes}, {}));
    }
    return {};
  });
}

Result<StepPtr> MakeNativeStep(const OpContext& context) {
  switch (context.op.kind) {
    case OpKind::kGelu:
    case OpKind::kSqrt:
    case OpKind::kRsqrt:
    case OpKind::kTanh:
    case OpKind::kCos:
    case OpKind::kSin:
      return MakeElementwise(context);
    case OpKind::kMean:
      return MakeMean(context);
    case OpKind::kFullyConnected:
      return MakeNarrowFullyConnected(context);
    case OpKind::kSlice:
      return MakeSlice(context);
    case OpKind::kDynamicUpdateSlice:
      return MakeDynamicUpdateSlice(context);
    case OpKind::kEmbeddingLookup:
      return MakeEmbeddingLookup(context);
    case OpKind::kAdd:
    case OpKind::kSub:
    case OpKind::kMul:
    case OpKind::kMinimum:
    case OpKind::kMaximum:
    case OpKind::kSquare:
    case OpKind::kRelu:
    case OpKind::kCast:
    case OpKind::kSoftmax:
    case OpKind::kReshape:
    case OpKind::kTranspose:
    case OpKind::kConcatenation:
    case OpKind::kGather:
    case OpKind::kBatchMatMul:
    case OpKind::kDequantize:
      return nullptr;
  }
  return nullptr;
}

}  // namespace taskpress
