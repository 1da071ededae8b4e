#include "runtime/executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "runtime/kernels/native/in_place_fully_connected.h"
#include "runtime/kernels/native/narrow_matmul.h"
#include "runtime/kernels/native/native.h"
#include "runtime/kernels/native/packed_fully_connected.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"
#include "runtime/passes/fit_storages.h"
#include "runtime/passes/step_groups.h"
#include "runtime/row_region.h"
#include "runtime/sparse_feed_forward.h"
#include "runtime/step_profile.h"
#include "runtime/xnnpack_kernels.h"

namespace taskpress {

std::string_view NameOf(KernelKind kind) {
  switch (kind) {
    case KernelKind::kReference:
      return "reference";
    case KernelKind::kXnnpack:
      return "xnnpack";
    case KernelKind::kNative:
      return "native";
  }
  return "unknown";
}

// Create() in stages: plan, memory, tensors, steps.
class ExecutorBuilder {
 public:
  ExecutorBuilder(const Graph& graph, int32_t subgraph, SharedRuntime& shared, std::span<const ExternalBuffer> externals,
                  const ArenaMaker& make_arena)
      : graph_(graph),
        subgraph_(graph.subgraphs[static_cast<size_t>(subgraph)]),
        shared_(shared),
        externals_(externals),
        make_arena_(make_arena) {}

  Result<Executor> Build(Plan plan) {
    plan_ = std::move(plan);
    TRY(GroupAndAllocate());
    TRY(BindTensors());
    // Views have no step, but their shapes must be right all the same.
    for (const int32_t op : plan_.elided) TRY(MakeReferenceStep(ContextOf(op)));
    for (const StepGroup& group : groups_) TRY(AddGroup(group));
    TRY(BindWorkspace());
    for (const Plan::CopyBack& copy : plan_.copy_backs) {
      const ByteSpan bytes = externals_[static_cast<size_t>(copy.external)].bytes;
      executor_.copy_backs_.push_back({.from = TensorAt(copy.tensor).data, .to = bytes.data(), .bytes = bytes.size()});
    }
    return std::move(executor_);
  }

 private:
  BoundTensor& TensorAt(TensorId id) { return executor_.tensors_[static_cast<size_t>(id)]; }
  bool fast() const { return shared_.kernels() != Kernels::kReference; }
  bool fuses() const { return shared_.kernels() == Kernels::kFast; }
  bool packs() const { return fast() && shared_.kernels() != Kernels::kInPlace; }

  Status GroupAndAllocate();
  Status AllocateArena(const std::vector<Storage>& copies);
  std::vector<bool> FindConstantsReadByVectorLoops() const;
  bool ReadsHalves(const Op& op, size_t input) const;
  const RowSource* StreamedRows(const Op& op, size_t input) const;
  std::vector<bool> FindUsedTensors() const;
  Status BindTensors();
  Status BindTensor(TensorId id, bool padded);
  OpContext ContextOf(int32_t op);
  Status AddGroup(const StepGroup& group);
  Status AddAttention(const StepGroup& group, const AttentionGroup& attention);
  Result<StepPtr> MakeRows(std::span<const int32_t> ops, const RowGroup& rows);
  Status AddRows(std::span<const int32_t> ops, const RowGroup& rows);
  Status AddSparse(const SparseGroup& sparse);
  Status AddQuantizedInput(const OpContext& context);
  Status AddSteps(int32_t op);
  Result<StepPtr> MakeOpStep(const OpContext& context, KernelKind& kind) const;
  void AddStep(StepPtr step, StepInfo info);
  Status BindWorkspace();

  const Graph& graph_;
  const Subgraph& subgraph_;
  SharedRuntime& shared_;
  std::span<const ExternalBuffer> externals_;
  const ArenaMaker& make_arena_;
  Plan plan_;
  std::vector<StepGroup> groups_;
  std::vector<bool> local_storages_;  // [storages] in the scratch memory of a row region
  std::map<TensorId, MaskRanges*> ranges_of_mask_;
  std::vector<QuantizedInputPlan> quantized_plans_;
  std::vector<bool> filled_by_region_;  // [quantized_plans_]
  std::vector<QuantizedInput> quantized_;
  std::vector<int32_t> quantized_of_op_;  // [ops] index into quantized_, kNone
  ArenaLayout layout_;
  Executor executor_;
};

Status ExecutorBuilder::GroupAndAllocate() {
  if (packs()) quantized_plans_ = PlanQuantizedInputs(subgraph_, plan_, fuses());
  quantized_of_op_.assign(subgraph_.ops.size(), kNone);
  for (size_t i = 0; i < quantized_plans_.size(); ++i) {
    for (const int32_t op : quantized_plans_[i].ops) quantized_of_op_[static_cast<size_t>(op)] = static_cast<int32_t>(i);
  }
  std::vector<Storage> copies;
  for (const QuantizedInputPlan& input : quantized_plans_) {
    copies.push_back({.bytes = QuantizedInputBytes(input), .first = input.ops.front(), .last = input.ops.back()});
  }
  filled_by_region_.assign(quantized_plans_.size(), false);
  if (fuses()) {
    const std::vector<bool> reads_codes = OpsThatReadCodes(graph_, subgraph_, quantized_plans_);
    groups_ = GroupSteps(graph_, subgraph_, plan_, quantized_plans_, reads_codes, shared_.disabled_passes());
    for (const StepGroup& group : groups_) {
      if (const auto* sparse = std::get_if<SparseGroup>(&group.fused)) {
        filled_by_region_[static_cast<size_t>(sparse->down_input)] = true;
        copies[static_cast<size_t>(sparse->down_input)].first = group.ops.front();
      }
      const RowGroup* rows = std::get_if<RowGroup>(&group.fused);
      for (const int32_t copy : rows == nullptr ? std::span<const int32_t>() : std::span(rows->quantized_inputs)) {
        filled_by_region_[static_cast<size_t>(copy)] = true;
        copies[static_cast<size_t>(copy)].first = group.ops.front();
      }
    }
    local_storages_ = FitStorages(subgraph_, groups_, quantized_plans_, reads_codes, plan_);
  } else {
    for (const int32_t op : plan_.ops) groups_.push_back({.ops = {op}, .fused = {}});
    local_storages_.assign(plan_.storages.size(), false);
  }
  return AllocateArena(copies);
}

Status ExecutorBuilder::AllocateArena(const std::vector<Storage>& copies) {
  const size_t first_copy = plan_.storages.size();
  plan_.storages.insert(plan_.storages.end(), copies.begin(), copies.end());
  layout_ = TRY(LayOutArena(plan_.storages));
  if (make_arena_) {
    executor_.arena_ = TRY(make_arena_(layout_.bytes));
  } else {
    executor_.own_arena_ = TRY(TensorBuffer::Make(layout_.bytes));
    executor_.arena_ = executor_.own_arena_.bytes();
  }
  for (size_t i = 0; i < quantized_plans_.size(); ++i) {
    const QuantizedInputPlan& input = quantized_plans_[i];
    quantized_.push_back({.memory = executor_.arena_.data() + layout_.offsets[first_copy + i],
                          .rows = input.rows,
                          .columns = input.columns,
                          .packed = input.packed});
  }
  return {};
}

// Weights are packed, or read in place by loops of ours that keep inside; tables are read row by row. Everything else constant is an
// operand of XNNPACK's vector loops.
std::vector<bool> ExecutorBuilder::FindConstantsReadByVectorLoops() const {
  std::vector<bool> found(subgraph_.tensors.size());
  if (!fast()) return found;
  for (const int32_t index : plan_.ops) {
    const Op& op = subgraph_.ops[static_cast<size_t>(index)];
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      const bool exact = (op.kind == OpKind::kFullyConnected && i >= 1) || (op.kind == OpKind::kEmbeddingLookup && i == 1) ||
                         (op.kind == OpKind::kGather && i == 0);
      if (op.inputs[i] == kNone || exact) continue;
      const Placement& placement = plan_.placements[static_cast<size_t>(op.inputs[i])];
      if (placement.kind == Placement::Kind::kConstant) found[static_cast<size_t>(placement.index)] = true;
    }
  }
  return found;
}

// Weights that the graph dequantizes from f16 are read as they are, not as a copy of twice the size.
bool ExecutorBuilder::ReadsHalves(const Op& op, size_t input) const {
  if (shared_.kernels() != Kernels::kInPlace || op.kind != OpKind::kFullyConnected || input != 1) return false;
  const Placement& placement = plan_.placements[static_cast<size_t>(op.inputs[1])];
  return placement.kind == Placement::Kind::kDequantized && placement.offset == 0 &&
         subgraph_.tensors[static_cast<size_t>(placement.index)].type == DType::kF16;
}

// Matrices and tables of floats that are made when somebody asks: read when a step runs, and not kept.
const RowSource* ExecutorBuilder::StreamedRows(const Op& op, size_t input) const {
  const bool streams = op.kind == OpKind::kFullyConnected || op.kind == OpKind::kEmbeddingLookup;
  if (shared_.kernels() != Kernels::kStreamed || !streams || input != 1) return nullptr;
  const Placement& placement = plan_.placements[static_cast<size_t>(op.inputs[1])];
  if (placement.kind != Placement::Kind::kConstant || placement.index != op.inputs[1]) return nullptr;
  const Tensor& tensor = subgraph_.tensors[static_cast<size_t>(placement.index)];
  const SharedBytes& bytes = graph_.buffers[static_cast<size_t>(tensor.buffer)].bytes;
  const RowSource* rows = bytes != nullptr && bytes->view().empty() ? bytes->rows() : nullptr;
  if (rows == nullptr || tensor.type != DType::kF32 || tensor.shape.size() != 2 || rows->scales_per_row() != 0) return nullptr;
  if (rows->num_rows() != tensor.shape[0] || rows->size() != NumBytes(tensor.type, tensor.shape)) return nullptr;
  if (op.kind == OpKind::kFullyConnected && tensor.shape[0] < kNarrow) return nullptr;  // small, and a kernel of our own adds up otherwise
  return rows;
}

// Constants that no live op touches stay unread.
std::vector<bool> ExecutorBuilder::FindUsedTensors() const {
  std::vector<bool> used(subgraph_.tensors.size());
  for (const std::vector<int32_t>* ops : {&plan_.ops, &plan_.elided}) {
    for (const int32_t index : *ops) {
      const Op& op = subgraph_.ops[static_cast<size_t>(index)];
      for (size_t i = 0; i < op.inputs.size(); ++i) {
        if (op.inputs[i] != kNone && !ReadsHalves(op, i) && StreamedRows(op, i) == nullptr) used[static_cast<size_t>(op.inputs[i])] = true;
      }
    }
  }
  for (const TensorId input : plan_.squared_inputs) {
    if (input != kNone) used[static_cast<size_t>(input)] = true;
  }
  for (const TensorId output : subgraph_.outputs) used[static_cast<size_t>(output)] = true;
  return used;
}

Status ExecutorBuilder::BindTensors() {
  const std::vector<bool> padded = FindConstantsReadByVectorLoops();
  const std::vector<bool> used = FindUsedTensors();
  executor_.tensors_.resize(subgraph_.tensors.size());
  for (size_t i = 0; i < used.size(); ++i) {
    const Tensor& tensor = subgraph_.tensors[i];
    BoundTensor& bound = executor_.tensors_[i];
    bound.name = tensor.name;
    bound.type = tensor.type;
    bound.shape = tensor.shape;
    bound.elements = NumElements(tensor.shape).value_or(0);
    const Placement& placement = plan_.placements[i];
    const bool constant = placement.kind == Placement::Kind::kConstant || placement.kind == Placement::Kind::kDequantized;
    if (constant && !used[i]) continue;
    TRY(BindTensor(static_cast<TensorId>(i), constant && padded[static_cast<size_t>(placement.index)]));
  }
  return {};
}

Status ExecutorBuilder::BindTensor(TensorId id, bool padded) {
  BoundTensor& bound = TensorAt(id);
  const Placement& placement = plan_.placements[static_cast<size_t>(id)];
  switch (placement.kind) {
    case Placement::Kind::kUnused:
      return {};
    case Placement::Kind::kConstant: {
      const Tensor& root = subgraph_.tensors[static_cast<size_t>(placement.index)];
      const auto access = padded ? ConstantStore::Access::kPadded : ConstantStore::Access::kExact;
      const ConstantStore::Constant constant = TRY(shared_.constants().Get(graph_, root, access));
      bound.data = constant.data + placement.offset;
      if (placement.index == id) bound.scales = constant.scales;
      if (placement.index == id && root.block_scales != kNone) {
        bound.scales = TRY(shared_.constants().GetBlockScales(graph_, subgraph_.tensors[static_cast<size_t>(root.block_scales)]));
        bound.block_size = BlockSizeOf(subgraph_, root);
      }
      bound.quantized_axis = constant.quantized_axis;
      return {};
    }
    case Placement::Kind::kDequantized: {
      const Tensor& root = subgraph_.tensors[static_cast<size_t>(placement.index)];
      bound.data = TRY(shared_.constants().GetDequantized(graph_, root)) + placement.offset;
      return {};
    }
    case Placement::Kind::kArena:
      if (local_storages_[static_cast<size_t>(placement.index)]) {
        bound.local_storage = placement.index;
        bound.local_offset = static_cast<int64_t>(placement.offset / sizeof(float));
      }
      bound.writable = executor_.arena_.data() + layout_.offsets[static_cast<size_t>(placement.index)] + placement.offset;
      break;
    case Placement::Kind::kExternal:
      bound.writable = externals_[static_cast<size_t>(placement.index)].bytes.data() + placement.offset;
      break;
  }
  bound.data = bound.writable;
  return {};
}

OpContext ExecutorBuilder::ContextOf(int32_t index) {
  const Op& op = subgraph_.ops[static_cast<size_t>(index)];
  OpContext context{.op = op, .index = index, .subgraph = subgraph_.name, .inputs = {}, .outputs = {}, .threads = shared_.threads()};
  for (const TensorId input : op.inputs) context.inputs.push_back(input == kNone ? nullptr : &TensorAt(input));
  const TensorId squared = plan_.squared_inputs[static_cast<size_t>(index)];
  if (squared != kNone) {
    context.inputs[0] = &TensorAt(squared);
    context.mean_of_squares = true;
  }
  for (const TensorId output : op.outputs) context.outputs.push_back(&TensorAt(output));
  if (ReadsHalves(op, 1)) context.halves = &TensorAt(plan_.placements[static_cast<size_t>(op.inputs[1])].index);
  if (packs()) context.packed_weights = &shared_.packed_weights();
  context.streamed_rows = op.inputs.size() > 1 && op.inputs[1] != kNone ? StreamedRows(op, 1) : nullptr;
  context.streamed_weights = &shared_.streamed_weights();
  const int32_t quantized = quantized_of_op_[static_cast<size_t>(index)];
  if (quantized != kNone) context.quantized_input = &quantized_[static_cast<size_t>(quantized)];
  return context;
}

Status ExecutorBuilder::AddGroup(const StepGroup& group) {
  if (const auto* attention = std::get_if<AttentionGroup>(&group.fused)) return AddAttention(group, *attention);
  if (const auto* rows = std::get_if<RowGroup>(&group.fused)) return AddRows(group.ops, *rows);
  if (const auto* sparse = std::get_if<SparseGroup>(&group.fused)) return AddSparse(*sparse);
  return AddSteps(group.ops.front());
}

Status ExecutorBuilder::AddAttention(const StepGroup& group, const AttentionGroup& attention) {
  for (const int32_t op : group.ops) TRY(MakeReferenceStep(ContextOf(op)));  // checks the shapes
  MaskRanges*& ranges = ranges_of_mask_[plan_.values[static_cast<size_t>(attention.mask)]];
  if (ranges == nullptr) {
    ranges = executor_.mask_ranges_.emplace_back(std::make_unique<MaskRanges>()).get();
    AddStep(MakeMaskRanges(attention, TensorAt(attention.mask), *ranges),
            {.op = group.ops.front(), .name = "MASK_RANGES", .kernel = KernelKind::kNative});
  }
  const AttentionTensors tensors{.queries = &TensorAt(attention.queries),
                                 .keys = &TensorAt(attention.keys),
                                 .values = &TensorAt(attention.values),
                                 .positions = attention.positions == kNone ? nullptr : &TensorAt(attention.positions),
                                 .mask = &TensorAt(attention.mask),
                                 .out = &TensorAt(attention.out)};
  AddStep(MakeAttention(attention, tensors, *ranges, shared_.threads()),
          {.op = group.ops.front(), .name = "ATTENTION", .kernel = KernelKind::kNative});
  return {};
}

Result<StepPtr> ExecutorBuilder::MakeRows(std::span<const int32_t> ops, const RowGroup& rows) {
  std::vector<OpContext> contexts;
  for (const int32_t op : ops) contexts.push_back(ContextOf(op));
  std::vector<RegionCopy> copies;
  for (const int32_t i : rows.quantized_inputs) {
    const auto index = static_cast<size_t>(i);
    copies.push_back({.value = &TensorAt(quantized_plans_[index].value), .copy = &quantized_[index]});
  }
  return MakeRowRegion(contexts, copies, rows.tokens, shared_.threads());
}

Status ExecutorBuilder::AddRows(std::span<const int32_t> ops, const RowGroup& rows) {
  AddStep(TRY(MakeRows(ops, rows)), {.op = ops.front(), .name = "ROW_REGION", .kernel = KernelKind::kNative});
  return {};
}

Status ExecutorBuilder::AddSparse(const SparseGroup& sparse) {
  OpContext up = ContextOf(sparse.up);
  OpContext down = ContextOf(sparse.down);
  up.seldom = down.seldom = true;
  TRY(AddQuantizedInput(up));
  if (!sparse.rows.empty()) TRY(AddRows(sparse.rows, {.tokens = sparse.tokens, .quantized_inputs = {}}));
  TRY(MakeReferenceStep(ContextOf(sparse.mul)));  // checks the shapes
  SparseFeedForward parts{.up = up, .down = down, .gate = TensorAt(sparse.gate), .tokens = sparse.tokens, .dense = {}};
  if (sparse.tokens > 1) {
    KernelKind kind = KernelKind::kReference;
    parts.dense.push_back(TRY(MakeOpStep(up, kind)));
    parts.dense.push_back(TRY(MakeRows(std::span(&sparse.mul, 1), {.tokens = sparse.tokens, .quantized_inputs = {sparse.down_input}})));
    parts.dense.push_back(TRY(MakeOpStep(down, kind)));
  }
  AddStep(TRY(MakeSparseFeedForward(std::move(parts))), {.op = sparse.up, .name = "SPARSE_FFN", .kernel = KernelKind::kNative});
  return {};
}

// The int8 copy of a FULLY_CONNECTED's input, before the first operator that reads it.
Status ExecutorBuilder::AddQuantizedInput(const OpContext& context) {
  const int32_t quantized = quantized_of_op_[static_cast<size_t>(context.index)];
  if (quantized == kNone || filled_by_region_[static_cast<size_t>(quantized)]) return {};
  if (quantized_plans_[static_cast<size_t>(quantized)].ops.front() != context.index) return {};
  AddStep(TRY(MakeQuantizeRows(context, quantized_[static_cast<size_t>(quantized)])),
          {.op = context.index, .name = "QUANTIZE_ROWS", .kernel = KernelKind::kNative});
  return {};
}

Status ExecutorBuilder::AddSteps(int32_t index) {
  const OpContext context = ContextOf(index);
  TRY(AddQuantizedInput(context));
  KernelKind kind = KernelKind::kReference;
  StepPtr step = TRY(MakeOpStep(context, kind));
  AddStep(std::move(step), {.op = index, .name = NameOf(context.op.kind), .kernel = kind});
  return {};
}

// Weights in place or products of our own if asked for, XNNPACK, then our loops, then the oracle; what was chosen shows in steps().
Result<StepPtr> ExecutorBuilder::MakeOpStep(const OpContext& context, KernelKind& kind) const {
  if (shared_.kernels() == Kernels::kInPlace) {
    kind = KernelKind::kNative;
    if (StepPtr step = TRY(MakeInPlaceFullyConnected(context))) return step;
  }
  if (context.streamed_rows != nullptr) {
    const bool lookup = context.op.kind == OpKind::kEmbeddingLookup;
    kind = lookup ? KernelKind::kNative : KernelKind::kXnnpack;
    return lookup ? MakeStreamedLookup(context) : MakeStreamedFullyConnected(context);
  }
  if (fuses()) {
    kind = KernelKind::kNative;
    if (StepPtr step = TRY(MakePackedFullyConnected(context))) return step;
  }
  if (fast()) {
    kind = KernelKind::kXnnpack;
    if (StepPtr step = TRY(MakeXnnpackStep(context))) return step;
    kind = KernelKind::kNative;
    if (StepPtr step = TRY(MakeNativeStep(context))) return step;
  }
  kind = KernelKind::kReference;
  return MakeReferenceStep(context);
}

void ExecutorBuilder::AddStep(StepPtr step, StepInfo info) {
  executor_.steps_.push_back(std::move(step));
  executor_.infos_.push_back(info);
}

Status ExecutorBuilder::BindWorkspace() {
  uint64_t bytes = 0;
  for (const StepPtr& step : executor_.steps_) bytes = std::max(bytes, step->workspace_bytes());
  executor_.workspace_ = TRY(TensorBuffer::Make(bytes));
  for (const StepPtr& step : executor_.steps_) TRY(step->Bind(executor_.workspace_.data()));
  return {};
}

Result<Executor> Executor::Create(const Graph& graph, int32_t subgraph, SharedRuntime& shared, std::span<const ExternalBuffer> externals,
                                  const ArenaMaker& make_arena) {
  TRY(ValidateGraph(graph));
  if (subgraph < 0 || static_cast<size_t>(subgraph) >= graph.subgraphs.size()) {
    return Fail(ErrorCode::kTfliteReference, "subgraph {} does not exist, the model has {}", subgraph, graph.subgraphs.size());
  }
  const PlanOptions options{.fuse_mean_of_squares = shared.kernels() != Kernels::kReference};
  Executor executor =
      TRY(ExecutorBuilder(graph, subgraph, shared, externals, make_arena).Build(TRY(MakePlan(graph, subgraph, externals, options))));
  executor.profile_ = shared.profile();
  if (executor.profile_ != nullptr) {
    executor.profile_number_ = executor.profile_->Register(graph.subgraphs[static_cast<size_t>(subgraph)], executor.infos_);
  }
  return executor;
}

Status Executor::Run() {
  TRY(RunSteps(0, steps_.size()));
  CopyStatesBack();
  return {};
}

Status Executor::RunStepsWatched(size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    const auto start = std::chrono::steady_clock::now();
    TRY(steps_[i]->Run());
    profile_->Add(profile_number_, i, start, std::chrono::steady_clock::now());
  }
  return {};
}

void Executor::CopyStatesBack() {
  for (const CopyBack& copy : copy_backs_) std::memcpy(copy.to, copy.from, copy.bytes);
}

Status Executor::RunSteps(size_t begin, size_t end) {
  if (profile_ != nullptr) return RunStepsWatched(begin, end);
  for (const StepPtr& step : std::span(steps_).subspan(begin, end - begin)) TRY(step->Run());
  return {};
}

uint64_t Executor::skipped_bytes() const {
  uint64_t bytes = 0;
  for (const StepPtr& step : steps_) bytes += step->skipped_bytes();
  return bytes;
}

ByteSpan Executor::Input(TensorId id) const {
  const BoundTensor& tensor = tensors_[static_cast<size_t>(id)];
  return {tensor.writable, NumBytes(tensor.type, tensor.shape).value_or(0)};
}

ByteView Executor::Output(TensorId id) const {
  const BoundTensor& tensor = tensors_[static_cast<size_t>(id)];
  return {tensor.data, NumBytes(tensor.type, tensor.shape).value_or(0)};
}

}  // namespace taskpress
