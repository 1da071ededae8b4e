#include "runtime/kernels/native/native.h"

#include <algorithm>
#include <cstring>

#include "runtime/kernels/native/gelu.h"
#include "runtime/kernels/native/strided_copy.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/packed_int4.h"
#include "runtime/thread_pool.h"

namespace taskpress {
namespace {

// Elements that one task computes.
constexpr int64_t kBlock = 8192;

Result<StepPtr> MakeGelu(const OpContext& context) {
  TRY(CheckUnary(context));
  if (!context.attributes<GeluAttributes>().approximate) return nullptr;
  return MakeStep(
      [count = context.in(0).elements, x = context.in(0).as<float>(), out = context.out().out<float>(), threads = &context.threads] {
        if (count < 2 * kBlock) return GeluTanh(x, out, count);
        threads->ForEach((count + kBlock - 1) / kBlock, [=](int64_t block) {
          const int64_t first = block * kBlock;
          GeluTanh(x + first, out + first, std::min(kBlock, count - first));
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

void DequantizeRow(const BoundTensor& table, int64_t row, int64_t columns, float* out) {
  const float scale = table.scales.empty() ? 1.0F : table.scales[table.scales.size() == 1 ? 0 : static_cast<size_t>(row)];
  if (table.type == DType::kI8) {
    const int8_t* codes = table.as<int8_t>() + row * columns;
    for (int64_t i = 0; i < columns; ++i) out[i] = static_cast<float>(codes[i]) * scale;
  } else if (table.type == DType::kI4 && columns % 2 == 0) {
    const std::byte* packed = table.data + row * columns / 2;
    for (int64_t i = 0; i < columns / 2; ++i) {
      out[2 * i] = static_cast<float>(Int4At(packed + i, 0)) * scale;
      out[2 * i + 1] = static_cast<float>(Int4At(packed + i, 1)) * scale;
    }
  } else {
    for (int64_t i = 0; i < columns; ++i) out[i] = static_cast<float>(Int4At(table.data, row * columns + i)) * scale;
  }
}

Result<StepPtr> MakeEmbeddingLookup(const OpContext& context) {
  const EmbeddingLookupShape shape = TRY(CheckEmbeddingLookup(context));
  return MakeStep([shape, ids = context.in(0).as<int32_t>(), table = &context.in(1), out = context.out().out<float>()]() -> Status {
    for (int64_t i = 0; i < shape.ids; ++i) {
      const int64_t row = ids[i];
      if (row < 0 || row >= shape.rows) {
        return Fail(ErrorCode::kRuntimeIndex, "EMBEDDING_LOOKUP {}: id {} is outside [0, {})", table->name, row, shape.rows);
      }
      float* to = out + i * shape.columns;
      if (table->type == DType::kF32) {
        std::memcpy(to, table->as<float>() + row * shape.columns, static_cast<size_t>(shape.columns) * sizeof(float));
      } else {
        DequantizeRow(*table, row, shape.columns, to);
      }
    }
    return {};
  });
}

}  // namespace

Result<StepPtr> MakeNativeStep(const OpContext& context) {
  if (context.op.kind == OpKind::kGelu) return MakeGelu(context);
  if (context.op.kind == OpKind::kSlice) return MakeSlice(context);
  if (context.op.kind == OpKind::kDynamicUpdateSlice) return MakeDynamicUpdateSlice(context);
  if (context.op.kind == OpKind::kEmbeddingLookup) return MakeEmbeddingLookup(context);
  return nullptr;
}

}  // namespace taskpress
