// EMBEDDING_LOOKUP in f32, i8 and i4 tables.
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/packed_int4.h"
#include "runtime/kernels/reference/reference.h"

namespace taskpress::reference {
namespace {

float ValueAt(const BoundTensor& table, int64_t element) {
  if (table.type == DType::kF32) return table.as<float>()[element];
  return static_cast<float>(table.type == DType::kI8 ? table.as<int8_t>()[element] : Int4At(table.data, element));
}

}  // namespace

Result<StepPtr> MakeEmbeddingLookup(const OpContext& context) {
  const EmbeddingLookupShape shape = TRY(CheckEmbeddingLookup(context));
  return MakeStep([shape, ids = context.in(0).as<int32_t>(), table = &context.in(1), out = context.out().out<float>()]() -> Status {
    for (int64_t i = 0; i < shape.ids; ++i) {
      const int64_t row = ids[i];
      if (row < 0 || row >= shape.rows) {
        return Fail(ErrorCode::kRuntimeIndex, "EMBEDDING_LOOKUP {}: id {} is outside [0, {})", table->name, row, shape.rows);
      }
      const float scale = table->scales.empty() ? 1.0F : table->scales[table->scales.size() == 1 ? 0 : static_cast<size_t>(row)];
      for (int64_t column = 0; column < shape.columns; ++column) {
        out[i * shape.columns + column] = ValueAt(*table, row * shape.columns + column) * scale;
      }
    }
    return {};
  });
}

}  // namespace taskpress::reference
