#include "runtime/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "runtime/kernels/op_shapes.h"
#include "runtime/tensor_buffer.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

constexpr int32_t kNever = -1;
constexpr int32_t kForever = std::numeric_limits<int32_t>::max();

auto& At(auto& values, int32_t index) { return values[static_cast<size_t>(index)]; }

class Planner {
 public:
  Planner(const Graph& graph, const Subgraph& subgraph, std::span<const ExternalBuffer> externals, PlanOptions options)
      : graph_(graph), subgraph_(subgraph), externals_(externals), options_(options) {}

  Result<Plan> Build() {
    TRY(CheckTensors());
    FindSquaredInputs();
    FindLiveOps();
    PlaceConstants();
    TRY(PlaceExternals());
    for (const TensorId input : subgraph_.inputs) {
      // An input keeps its value, so that the caller may set it once and run often.
      if (At(plan_.placements, input).kind == Placement::Kind::kUnused) PlaceInArena(input, 0, kForever);
    }
    for (const int32_t op : live_ops_) PlaceOp(op);
    TRY(PlanCopyBacks());
    return std::move(plan_);
  }

 private:
  const Tensor& TensorAt(TensorId id) const { return subgraph_.tensors[static_cast<size_t>(id)]; }
  const Op& OpAt(int32_t index) const { return subgraph_.ops[static_cast<size_t>(index)]; }

  Status CheckTensors() const;
  void FindSquaredInputs();
  void FindLiveOps();
  void PlaceConstants();
  Status PlaceExternals();
  void PlaceOp(int32_t index);
  Status PlanCopyBacks();

  void PlaceInArena(TensorId id, int32_t first, int32_t last);
  bool PlaceAsView(const Op& op);
  bool PlaceInOperand(const Op& op, int32_t index);
  // Where the output of a view starts in its input's bytes; nothing when the op moves bytes.
  std::optional<uint64_t> ViewOffset(const Op& op) const;
  std::optional<uint64_t> SliceOffset(const Op& op) const;
  bool TransposeKeepsOrder(const Op& op) const;
  std::vector<int32_t> SmallInts(TensorId id) const;
  bool MayShare(TensorId output, const Placement& with) const;

  bool IsMeanOfLast(const Op& op) const;

  const Graph& graph_;
  const Subgraph& subgraph_;
  std::span<const ExternalBuffer> externals_;
  PlanOptions options_;
  Plan plan_;
  std::vector<int32_t> live_ops_;
  std::vector<int32_t> last_read_;              // [tensors] the last live op that reads it; kForever for outputs
  std::vector<std::vector<TensorId>> sharers_;  // [tensors] every tensor that lies in the memory of this root
  std::vector<TensorId> root_;                  // [tensors]
};

Status Planner::CheckTensors() const {
  // Far beyond any model; keeps sums of sizes far from overflow.
  constexpr uint64_t kMaxTensorBytes = uint64_t{1} << 40;
  for (const Tensor& tensor : subgraph_.tensors) {
    const std::optional<uint64_t> bytes = NumBytes(tensor.type, tensor.shape);
    if (!bytes || *bytes == 0 || *bytes > kMaxTensorBytes) {
      return Fail(ErrorCode::kGraphShape, "{}: tensor {} {} has no elements, a dimension that is not fixed, or an absurd size",
                  subgraph_.name, tensor.name, ToString(tensor.shape));
    }
  }
  return {};
}

bool Planner::IsMeanOfLast(const Op& op) const {
  if (op.kind != OpKind::kMean) return false;
  const auto rank = static_cast<int32_t>(TensorAt(op.inputs[0]).shape.size());
  const std::vector<int32_t> axes = SmallInts(op.inputs[1]);
  return axes.size() == 1 && (axes[0] == -1 || axes[0] == rank - 1);
}

void Planner::FindSquaredInputs() {
  plan_.squared_inputs.assign(subgraph_.ops.size(), kNone);
  if (!options_.fuse_mean_of_squares) return;
  std::vector<TensorId> squared(subgraph_.tensors.size(), kNone);
  for (size_t i = 0; i < subgraph_.ops.size(); ++i) {
    const Op& op = subgraph_.ops[i];
    if (op.kind == OpKind::kSquare) {
      const Tensor& x = TensorAt(op.inputs[0]);
      const Tensor& y = TensorAt(op.outputs[0]);
      if (x.type == DType::kF32 && y.type == DType::kF32 && x.shape == y.shape) At(squared, op.outputs[0]) = op.inputs[0];
    } else if (IsMeanOfLast(op)) {
      plan_.squared_inputs[i] = At(squared, op.inputs[0]);
    }
  }
}

void Planner::FindLiveOps() {
  const size_t count = subgraph_.tensors.size();
  last_read_.assign(count, kNever);
  for (const TensorId output : subgraph_.outputs) At(last_read_, output) = kForever;
  for (size_t i = subgraph_.ops.size(); i-- > 0;) {
    const Op& op = subgraph_.ops[i];
    if (std::ranges::none_of(op.outputs, [&](TensorId output) { return At(last_read_, output) != kNever; })) continue;
    live_ops_.push_back(static_cast<int32_t>(i));
    for (TensorId input : op.inputs) {
      if (input == op.inputs[0] && plan_.squared_inputs[i] != kNone) input = plan_.squared_inputs[i];
      if (input != kNone) At(last_read_, input) = std::max(At(last_read_, input), static_cast<int32_t>(i));
    }
  }
  std::ranges::reverse(live_ops_);
  plan_.placements.resize(count);
  plan_.values.resize(count);
  std::iota(plan_.values.begin(), plan_.values.end(), 0);
  root_ = plan_.values;
  sharers_.resize(count);
  for (size_t i = 0; i < count; ++i) sharers_[i].push_back(static_cast<TensorId>(i));
}

void Planner::PlaceConstants() {
  for (size_t i = 0; i < subgraph_.tensors.size(); ++i) {
    const auto id = static_cast<TensorId>(i);
    if (subgraph_.tensors[i].is_constant()) plan_.placements[i] = {.kind = Placement::Kind::kConstant, .index = id};
  }
}

Status Planner::PlaceExternals() {
  for (size_t i = 0; i < externals_.size(); ++i) {
    const ExternalBuffer& external = externals_[i];
    for (const TensorId id : {external.input, external.output}) {
      if (id == kNone) continue;
      const bool is_input = id == external.input && std::ranges::contains(subgraph_.inputs, id);
      const bool is_output = id == external.output && std::ranges::contains(subgraph_.outputs, id);
      if (!is_input && !is_output) return Fail(ErrorCode::kGraphShape, "{}: tensor {} is neither input nor output", subgraph_.name, id);
      const Tensor& tensor = TensorAt(id);
      if (NumBytes(tensor.type, tensor.shape) != external.bytes.size()) {
        return Fail(ErrorCode::kGraphShape, "{}: {} {} {} does not fit a state of {} bytes", subgraph_.name, tensor.name,
                    NameOf(tensor.type), ToString(tensor.shape), external.bytes.size());
      }
    }
    if (external.input != kNone) {
      At(plan_.placements, external.input) = {.kind = Placement::Kind::kExternal, .index = static_cast<int32_t>(i)};
    }
  }
  return {};
}

void Planner::PlaceInArena(TensorId id, int32_t first, int32_t last) {
  const Tensor& tensor = TensorAt(id);
  At(plan_.placements, id) = {.kind = Placement::Kind::kArena, .index = static_cast<int32_t>(plan_.storages.size())};
  plan_.storages.push_back({.bytes = NumBytes(tensor.type, tensor.shape).value_or(0), .first = first, .last = last});
}

void Planner::PlaceOp(int32_t index) {
  const Op& op = OpAt(index);
  if (PlaceAsView(op)) {
    plan_.elided.push_back(index);
    return;
  }
  const TensorId output = op.outputs[0];
  if (op.kind == OpKind::kDequantize && TensorAt(op.inputs[0]).is_constant()) {
    At(plan_.placements, output) = {.kind = Placement::Kind::kDequantized, .index = op.inputs[0]};
    plan_.elided.push_back(index);
    return;
  }
  plan_.ops.push_back(index);
  if (!PlaceInOperand(op, index)) PlaceInArena(output, index, std::max(index, At(last_read_, output)));
}

// An output of the graph may share memory only with the state that it replaces: other memory changes under the caller's hands.
bool Planner::MayShare(TensorId output, const Placement& with) const {
  if (!std::ranges::contains(subgraph_.outputs, output)) return true;
  return with.kind == Placement::Kind::kExternal && with.offset == 0 && At(externals_, with.index).output == output;
}

bool Planner::PlaceAsView(const Op& op) {
  const std::optional<uint64_t> offset = ViewOffset(op);
  if (!offset) return false;
  const TensorId input = op.inputs[0];
  const TensorId output = op.outputs[0];
  Placement placement = At(plan_.placements, input);
  placement.offset += *offset;
  if (!MayShare(output, placement)) return false;
  At(plan_.placements, output) = placement;
  if (TensorAt(input).type == TensorAt(output).type && NumElements(TensorAt(input).shape) == NumElements(TensorAt(output).shape)) {
    At(plan_.values, output) = At(plan_.values, input);
  }
  At(root_, output) = At(root_, input);
  At(sharers_, At(root_, input)).push_back(output);
  if (placement.kind == Placement::Kind::kArena) {
    Storage& storage = At(plan_.storages, placement.index);
    storage.last = std::max(storage.last, At(last_read_, output));
  }
  return true;
}

// DYNAMIC_UPDATE_SLICE overwrites its operand in place when nobody can notice: every tensor in that memory has been read for the last time.
bool Planner::PlaceInOperand(const Op& op, int32_t index) {
  if (op.kind != OpKind::kDynamicUpdateSlice) return false;
  const TensorId operand = op.inputs[0];
  const TensorId output = op.outputs[0];
  const Placement placement = At(plan_.placements, operand);
  // An input keeps its value, and so does a state that the graph does not replace.
  const bool replaced = placement.kind == Placement::Kind::kExternal && At(externals_, placement.index).output != kNone;
  const bool ours = placement.kind == Placement::Kind::kArena && !std::ranges::contains(subgraph_.inputs, At(root_, operand));
  if ((!replaced && !ours) || !MayShare(output, placement)) return false;
  if (TensorAt(operand).type != TensorAt(output).type || TensorAt(operand).shape != TensorAt(output).shape) return false;
  std::vector<TensorId>& sharers = At(sharers_, At(root_, operand));
  for (const TensorId sharer : sharers) {
    const bool read_here_too = std::ranges::contains(std::span(op.inputs).subspan(1), sharer);
    if (At(last_read_, sharer) > index || read_here_too) return false;
  }
  At(plan_.placements, output) = placement;
  At(root_, output) = At(root_, operand);
  sharers.push_back(output);
  if (placement.kind == Placement::Kind::kArena) {
    Storage& storage = At(plan_.storages, placement.index);
    storage.last = std::max(storage.last, At(last_read_, output));
  }
  return true;
}

std::optional<uint64_t> Planner::ViewOffset(const Op& op) const {
  const Tensor& input = TensorAt(op.inputs[0]);
  const Tensor& output = TensorAt(op.outputs[0]);
  if (input.type != output.type || InfoOf(input.type).bits % 8 != 0) return std::nullopt;
  const bool same_size = NumElements(input.shape) == NumElements(output.shape);
  if (op.kind == OpKind::kReshape && same_size) return 0;
  if (op.kind == OpKind::kTranspose && same_size && TransposeKeepsOrder(op)) return 0;
  if (op.kind == OpKind::kSlice) return SliceOffset(op);
  return std::nullopt;
}

// The values of a begin or a permutation; nothing when it is computed by the graph or is not what TFLite prescribes (the kernel will say
// so).
std::vector<int32_t> Planner::SmallInts(TensorId id) const {
  const Tensor& tensor = TensorAt(id);
  if (!tensor.is_constant() || tensor.type != DType::kI32) return {};
  const int64_t count = NumElements(tensor.shape).value_or(0);
  if (count > static_cast<int64_t>(kMaxRank)) return {};
  std::vector<int32_t> values(static_cast<size_t>(count));
  const SharedBytes& bytes = At(graph_.buffers, tensor.buffer).bytes;
  if (!bytes->Read(0, std::as_writable_bytes(std::span(values)))) return {};
  return values;
}

bool Planner::TransposeKeepsOrder(const Op& op) const {
  const Shape& shape = TensorAt(op.inputs[0]).shape;
  const std::vector<int32_t> permutation = SmallInts(op.inputs[1]);
  if (permutation.size() != shape.size()) return false;
  int32_t previous = kNever;
  for (const int32_t dimension : permutation) {
    if (dimension < 0 || static_cast<size_t>(dimension) >= shape.size()) return false;
    if (shape[static_cast<size_t>(dimension)] == 1) continue;
    if (dimension <= previous) return false;
    previous = dimension;
  }
  return true;
}

// A slice is one piece when at most one dimension is cut and everything outside of it is a single index.
std::optional<uint64_t> Planner::SliceOffset(const Op& op) const {
  const Shape& shape = TensorAt(op.inputs[0]).shape;
  const Shape& size = TensorAt(op.outputs[0]).shape;
  const std::vector<int32_t> begin = SmallInts(op.inputs[1]);
  if (begin.size() != shape.size() || size.size() != shape.size()) return std::nullopt;
  const std::vector<int64_t> strides = DenseStrides(shape);
  bool inside = false;  // behind the first dimension that has more than one index
  int64_t offset = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (begin[i] < 0 || size[i] > shape[i] - begin[i]) return std::nullopt;
    if (inside && size[i] != shape[i]) return std::nullopt;
    inside = inside || size[i] != 1;
    offset += begin[i] * strides[i];
  }
  return static_cast<uint64_t>(offset) * static_cast<uint64_t>(InfoOf(TensorAt(op.inputs[0]).type).bits / 8);
}

Status Planner::PlanCopyBacks() {
  for (size_t i = 0; i < externals_.size(); ++i) {
    const TensorId output = externals_[i].output;
    if (output == kNone) continue;
    const Placement placement = At(plan_.placements, output);
    const bool external = placement.kind == Placement::Kind::kExternal;
    if (external && placement.index == static_cast<int32_t>(i)) continue;
    if (external) {
      return Fail(ErrorCode::kKernelUnsupported, "{}: state {} takes over the buffer of another state", subgraph_.name,
                  TensorAt(output).name);
    }
    plan_.copy_backs.push_back({.external = static_cast<int32_t>(i), .tensor = output});
  }
  return {};
}

}  // namespace

Result<Plan> MakePlan(const Graph& graph, int32_t subgraph, std::span<const ExternalBuffer> externals, PlanOptions options) {
  return Planner(graph, graph.subgraphs[static_cast<size_t>(subgraph)], externals, options).Build();
}

Result<ArenaLayout> LayOutArena(std::span<const Storage> storages) {
  std::vector<size_t> order(storages.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](size_t i) { return storages[i].bytes; });
  struct Placed {
    uint64_t begin;
    uint64_t end;
    int32_t first;
    int32_t last;
  };
  std::vector<Placed> placed;  // by begin
  ArenaLayout layout{.offsets = std::vector<uint64_t>(storages.size()), .bytes = 0};
  for (const size_t i : order) {
    const Storage& storage = storages[i];
    if (storage.bytes == 0) continue;  // kept elsewhere
    const std::optional<uint64_t> padded = CheckedAdd(storage.bytes, kTensorPadding);
    const std::optional<uint64_t> size = padded ? CheckedAlignUp(*padded, kTensorAlignment) : std::nullopt;
    if (!size) return Fail(ErrorCode::kGraphShape, "a tensor of {} bytes", storage.bytes);
    uint64_t begin = 0;
    for (const Placed& other : placed) {
      if (other.last < storage.first || storage.last < other.first) continue;
      if (begin <= other.begin && *size <= other.begin - begin) break;
      begin = std::max(begin, other.end);
    }
    const std::optional<uint64_t> end = CheckedAdd(begin, *size);
    if (!end) return Fail(ErrorCode::kGraphShape, "the tensors need more memory than can be addressed");
    const auto position = std::ranges::upper_bound(placed, begin, {}, &Placed::begin);
    placed.insert(position, {.begin = begin, .end = *end, .first = storage.first, .last = storage.last});
    layout.offsets[i] = begin;
    layout.bytes = std::max(layout.bytes, *end);
  }
  return layout;
}

}  // namespace taskpress
