// Kernels made of XNNPACK operators. Only xnnpack_*.cc and thread_pool.cc see the library's headers.
#ifndef TASKPRESS_RUNTIME_XNNPACK_KERNELS_H_
#define TASKPRESS_RUNTIME_XNNPACK_KERNELS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/kernels/native/packed_product.h"
#include "runtime/kernels/native/row_program.h"
#include "runtime/kernels/step.h"
#include "runtime/plan.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// Call once before anything else; further calls are free. kXnnpackFailed on a CPU it does not support.
Status InitializeXnnpack();

// Identifies the library's kernels, and so what they expect of packed weights: a digest in hexadecimal.
std::string XnnpackBuild();

// A step that runs an XNNPACK operator, or null when XNNPACK has none for these types and shapes. kGraphShape, kXnnpackFailed.
Result<StepPtr> MakeXnnpackStep(const OpContext& context);

// FULLY_CONNECTED whose f32 weights are read when the step runs (OpContext::streamed_rows). The same numbers as with packed weights.
// kGraphShape.
Result<StepPtr> MakeStreamedFullyConnected(const OpContext& context);

// The int8 copy of a tensor that FULLY_CONNECTED ops with integer weights read. All of them (q, k, v; gate, up) share one.
struct QuantizedInputPlan {
  TensorId value = kNone;  // Plan::values of the input
  int64_t rows = 0;
  int64_t columns = 0;
  bool packed = false;       // has a second copy, in the order of packed_product.h
  std::vector<int32_t> ops;  // that read it, ascending; it is made right before the first
};
std::vector<QuantizedInputPlan> PlanQuantizedInputs(const Subgraph& subgraph, const Plan& plan, bool packed);
// Memory for such a copy and the scales of its rows.
uint64_t QuantizedInputBytes(const QuantizedInputPlan& input);

struct QuantizedInput {
  std::byte* memory = nullptr;  // QuantizedInputBytes()
  int64_t rows = 0;
  int64_t columns = 0;
  bool packed = false;
};
// Its parts, for whoever fills it row by row.
struct CodeRows {
  int8_t* codes = nullptr;              // [rows, columns]
  RowParameters* parameters = nullptr;  // [rows]
};
CodeRows RowsOf(const QuantizedInput& input);
// The second copy of rows that are filled: a tile (kTileRows) that starts at `first`. Nothing when there is none.
void PackTile(const QuantizedInput& input, int64_t first);
// XNNPACK reads some parameters past the last row; they repeat it.
void FillParametersBehind(const QuantizedInput& input);

// The second copy: PackedProduct::row and codes.
PackedRow* PackedRowsOf(const QuantizedInput& input);
int8_t* PackedCodesOf(const QuantizedInput& input);

// The step that fills it from `x`.
Result<StepPtr> MakeQuantizeRows(const OpContext& context, const QuantizedInput& input);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_XNNPACK_KERNELS_H_
