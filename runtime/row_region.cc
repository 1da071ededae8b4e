#include "runtime/row_region.h"

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/kernels/native/row_program.h"
#include "runtime/kernels/op_shapes.h"
#include "runtime/kernels/reference/reference.h"
#include "runtime/passes/row_layout.h"
#include "runtime/plan.h"
#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_packed_weights.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// Scratch memory of a block of tokens: a good part of the L2 cache.
constexpr uint64_t kBlockBytes = 192 * 1024;

RowCode CodeOf(const OpContext& context) {
  switch (context.op.kind) {
    case OpKind::kAdd:
      return RowCode::kAdd;
    case OpKind::kSub:
      return RowCode::kSub;
    case OpKind::kMul:
      return RowCode::kMul;
    case OpKind::kMinimum:
      return RowCode::kMinimum;
    case OpKind::kMaximum:
      return RowCode::kMaximum;
    case OpKind::kSquare:
      return RowCode::kSquare;
    case OpKind::kSqrt:
      return RowCode::kSqrt;
    case OpKind::kRsqrt:
      return RowCode::kRsqrt;
    case OpKind::kTanh:
      return RowCode::kTanh;
    case OpKind::kRelu:
      return RowCode::kRelu;
    case OpKind::kGelu:
      return RowCode::kGeluTanh;
    case OpKind::kCos:
      return RowCode::kCos;
    case OpKind::kSin:
      return RowCode::kSin;
    case OpKind::kMean:
      return context.mean_of_squares ? RowCode::kMeanOfSquares : RowCode::kMean;
    case OpKind::kFullyConnected:
      return RowCode::kProduct;
    case OpKind::kSlice:
    case OpKind::kConcatenation:
    case OpKind::kCast:
    case OpKind::kSoftmax:
    case OpKind::kReshape:
    case OpKind::kTranspose:
    case OpKind::kGather:
    case OpKind::kBatchMatMul:
    case OpKind::kDynamicUpdateSlice:
    case OpKind::kEmbeddingLookup:
    case OpKind::kDequantize:
      break;
  }
  return RowCode::kCopy;
}

class RegionBuilder {
 public:
  RegionBuilder(int64_t tokens, std::span<const OpContext> ops) : tokens_(tokens), ops_(ops) {}

  Result<RowProgram> Build(std::span<const RegionCopy> copies) {
    for (const OpContext& context : ops_) {
      TRY(MakeReferenceStep(context));  // checks the shapes
      TRY(AddOp(context));
    }
    for (const RegionCopy& copy : copies) TRY(AddCopy(copy));
    JoinProducts();
    TRY(LayOutScratch());
    return std::move(program_);
  }

 private:
  static std::unexpected<Error> NotRows(const OpContext& context) { return context.Unsupported("as part of a row region"); }

  // Where `tensor` lies; its scratch memory, if it is local, gets an address at the end.
  RowOperand At(const BoundTensor& tensor, const RowStrides& strides, int64_t offset = 0) {
    RowOperand operand{.token_stride = strides.token, .row_stride = strides.row, .column_stride = strides.column};
    const auto part = parts_.find(tensor.local_storage);
    if (tensor.local_storage != kNone && part != parts_.end()) {
      operand.base = part->second.base == nullptr ? nullptr : part->second.base + offset;
      operand.slot = part->second.slot;
      operand.offset = part->second.offset + offset;
      operand.token_stride = part->second.token_stride;
    } else if (tensor.local_storage == kNone) {
      operand.base = tensor.as<float>() + offset;
    } else {
      uint64_t& bytes = slot_bytes_[tensor.local_storage];
      bytes = std::max(bytes, static_cast<uint64_t>(tensor.elements / tokens_ + tensor.local_offset) * sizeof(float));
      operand.slot = tensor.local_storage;
      operand.offset = tensor.local_offset + offset;
    }
    return operand;
  }

  Status AddOp(const OpContext& context) {
    const OpKind kind = context.op.kind;
    if (kind == OpKind::kMean || kind == OpKind::kFullyConnected) return AddRows(context);
    if (kind == OpKind::kSlice) return AddSlice(context);
    if (kind == OpKind::kConcatenation) return AddConcatenation(context);
    return AddElementwise(context);
  }

  Status AddElementwise(const OpContext& context) {
    std::vector<Shape> shapes;
    for (const BoundTensor* input : context.inputs) shapes.push_back(input->shape);
    const std::optional<RowLayout> layout = BroadcastLayout(tokens_, context.out().shape, shapes);
    if (!layout || shapes.empty()) return NotRows(context);
    RowInstruction instruction{.code = CodeOf(context), .rows = layout->rows, .columns = layout->columns};
    instruction.out = At(context.out(), layout->operands[0]);
    instruction.a = At(context.in(0), layout->operands[1]);
    if (shapes.size() > 1) instruction.b = At(context.in(1), layout->operands[2]);
    program_.instructions.push_back(instruction);
    return {};
  }

  Status AddRows(const OpContext& context) {
    const std::optional<RowLayout> layout = DenseRows(tokens_, context.in(0).shape);
    if (!layout) return NotRows(context);
    RowInstruction instruction{.code = CodeOf(context), .rows = layout->rows, .columns = layout->columns};
    instruction.a = At(context.in(0), layout->operands[0]);
    int64_t out_columns = 1;
    if (instruction.code == RowCode::kProduct) {
      out_columns = context.in(1).shape[0];
      instruction.weights = TRY(context.packed_weights->Transposed(context.in(1).as<float>(), out_columns, layout->columns));
      instruction.bias = context.has_input(2) ? context.in(2).as<float>() : nullptr;
      instruction.out_columns = out_columns;
    }
    instruction.out = At(context.out(), {.token = layout->rows * out_columns, .row = out_columns, .column = 1});
    program_.instructions.push_back(instruction);
    return {};
  }

  Status AddSlice(const OpContext& context) {
    const std::span<const int32_t> begin = TRY(ConstantInts(context, 1));
    const std::optional<SliceLayout> slice = LayoutOfSlice(tokens_, context.out().shape, context.in(0).shape, begin);
    if (!slice) return NotRows(context);
    RowInstruction instruction{.code = RowCode::kCopy, .rows = slice->layout.rows, .columns = slice->layout.columns};
    instruction.a = At(context.in(0), slice->layout.operands[1], slice->offset);
    // One piece of a token that only this region reads is read where it lies.
    if (slice->layout.rows == 1 && context.out().local_storage != kNone) {
      parts_[context.out().local_storage] = instruction.a;
      return {};
    }
    instruction.out = At(context.out(), slice->layout.operands[0]);
    program_.instructions.push_back(instruction);
    return {};
  }

  Status AddConcatenation(const OpContext& context) {
    const std::optional<RowLayout> out = DenseRows(tokens_, context.out().shape);
    if (!out) return NotRows(context);
    int64_t column = 0;
    for (const BoundTensor* input : context.inputs) {
      const int64_t columns = input->shape.back();
      RowInstruction instruction{.code = RowCode::kCopy, .rows = out->rows, .columns = columns};
      instruction.a = At(*input, {.token = out->rows * columns, .row = columns, .column = 1});
      instruction.out = At(context.out(), out->operands[0], column);
      program_.instructions.push_back(instruction);
      column += columns;
    }
    return {};
  }

  Status AddCopy(const RegionCopy& copy) {
    const int64_t columns = copy.copy->columns;
    const CodeRows rows = RowsOf(*copy.copy);
    const int64_t rows_of_token = copy.copy->rows / tokens_;
    RowInstruction instruction{.code = RowCode::kQuantize, .rows = rows_of_token, .columns = columns};
    instruction.a = At(*copy.value, {.token = rows_of_token * columns, .row = columns, .column = 1});
    instruction.codes = rows.codes;
    instruction.parameters = rows.parameters;
    program_.instructions.push_back(instruction);
    return {};
  }

  static bool Reads(const RowOperand& operand, const RowOperand& written) {
    return operand.slot != kNone && operand.slot == written.slot && operand.offset == written.offset;
  }

  // A product that only the next instruction reads, to add or subtract it, is not stored.
  void JoinProducts() {
    std::map<int32_t, int> uses;
    for (const RowInstruction& instruction : program_.instructions) {
      for (const RowOperand* operand : {&instruction.a, &instruction.b, &instruction.out}) ++uses[operand->slot];
    }
    std::vector<RowInstruction> joined;
    for (const RowInstruction& instruction : program_.instructions) {
      if (joined.empty() || !JoinProduct(joined.back(), instruction, uses)) joined.push_back(instruction);
    }
    program_.instructions = std::move(joined);
  }
  static bool JoinProduct(RowInstruction& product, const RowInstruction& sum, const std::map<int32_t, int>& uses) {
    if (product.code != RowCode::kMul || (sum.code != RowCode::kAdd && sum.code != RowCode::kSub)) return false;
    if (product.rows != sum.rows || product.columns != sum.columns || product.out.slot == kNone || uses.at(product.out.slot) != 2)
      return false;
    const bool first = Reads(sum.a, product.out);
    if (!first && !Reads(sum.b, product.out)) return false;
    const RowOperand& read = first ? sum.a : sum.b;
    const RowOperand& other = first ? sum.b : sum.a;
    if (read.column_stride != 1 || other.column_stride != 1) return false;
    if (product.a.column_stride != 1) std::swap(product.a, product.b);
    if (product.a.column_stride != 1) return false;
    product.code = sum.code == RowCode::kAdd ? RowCode::kAddProduct : first ? RowCode::kProductLess : RowCode::kSubProduct;
    product.c = other;
    product.out = sum.out;
    return true;
  }

  // Values that live at different times share scratch memory.
  Status LayOutScratch() {
    std::map<int32_t, Storage> slots;  // alive from instruction to instruction, bytes for one token
    for (size_t i = 0; i < program_.instructions.size(); ++i) {
      RowInstruction& instruction = program_.instructions[i];
      for (const RowOperand* operand : {&instruction.a, &instruction.b, &instruction.c, &instruction.out}) {
        if (operand->slot == kNone) continue;
        const auto now = static_cast<int32_t>(i);
        slots.try_emplace(operand->slot, Storage{.bytes = slot_bytes_[operand->slot], .first = now}).first->second.last = now;
      }
    }
    std::vector<int32_t> ids;
    std::vector<Storage> storages;
    for (const auto& [id, storage] : slots) {
      ids.push_back(id);
      storages.push_back(storage);
    }
    program_.tokens = tokens_;
    const uint64_t per_token = std::max<uint64_t>(1, TRY(LayOutArena(storages)).bytes);
    program_.tokens_per_block = std::clamp(static_cast<int64_t>(kBlockBytes / per_token), int64_t{1}, std::min(kTileRows, tokens_));
    for (Storage& storage : storages) storage.bytes *= static_cast<uint64_t>(program_.tokens_per_block);
    const ArenaLayout layout = TRY(LayOutArena(storages));
    program_.scratch_bytes = layout.bytes;
    std::map<int32_t, int64_t> starts;
    for (size_t i = 0; i < ids.size(); ++i) starts[ids[i]] = static_cast<int64_t>(layout.offsets[i] / sizeof(float));
    for (RowInstruction& instruction : program_.instructions) {
      for (RowOperand* operand : {&instruction.a, &instruction.b, &instruction.c, &instruction.out}) {
        if (operand->slot != kNone) operand->offset += starts[operand->slot];
      }
    }
    return {};
  }

  int64_t tokens_;
  std::span<const OpContext> ops_;
  RowProgram program_;
  std::map<int32_t, uint64_t> slot_bytes_;  // by local storage: of one token
  std::map<int32_t, RowOperand> parts_;     // by local storage: where a slice lies in what it is taken from
};

// Runs the program on tiles of tokens, a tile in blocks; every worker has scratch memory of its own. Tiles are those of the int8 copies.
class RowRegionStep final : public Step {
 public:
  RowRegionStep(RowProgram program, std::vector<QuantizedInput> copies, const ThreadPool& threads)
      : program_(std::move(program)), copies_(std::move(copies)), threads_(threads) {}

  [[nodiscard]] uint64_t workspace_bytes() const override { return ScratchStride() * static_cast<uint64_t>(Workers()); }
  Status Bind(std::byte* workspace) override {
    workspace_ = workspace;
    return {};
  }
  Status Run() override {
    threads_.ForEachWithWorker(Tiles(), [&](int64_t worker, int64_t tile) {
      auto* scratch = reinterpret_cast<float*>(workspace_ + static_cast<uint64_t>(worker) * ScratchStride());
      const int64_t begin = tile * kTileRows;
      const int64_t end = std::min(begin + kTileRows, program_.tokens);
      for (int64_t first = begin; first < end; first += program_.tokens_per_block) {
        RunRowProgram(program_, first, std::min(program_.tokens_per_block, end - first), scratch);
      }
      for (const QuantizedInput& copy : copies_) {
        const int64_t rows_of_token = copy.rows / program_.tokens;
        for (int64_t row = begin * rows_of_token; row < end * rows_of_token; row += kTileRows) PackTile(copy, row);
      }
    });
    for (const QuantizedInput& copy : copies_) FillParametersBehind(copy);
    return {};
  }

 private:
  [[nodiscard]] int64_t Tiles() const { return (program_.tokens + kTileRows - 1) / kTileRows; }
  [[nodiscard]] int64_t Workers() const { return std::min<int64_t>(threads_.threads(), Tiles()); }
  [[nodiscard]] uint64_t ScratchStride() const { return AlignUp(program_.scratch_bytes + kTensorPadding, kTensorAlignment); }

  RowProgram program_;
  std::vector<QuantizedInput> copies_;
  const ThreadPool& threads_;
  std::byte* workspace_ = nullptr;
};

}  // namespace

Result<StepPtr> MakeRowRegion(std::span<const OpContext> ops, std::span<const RegionCopy> copies, int64_t tokens,
                              const ThreadPool& threads) {
  RowProgram program = TRY(RegionBuilder(tokens, ops).Build(copies));
  std::vector<QuantizedInput> rows;
  for (const RegionCopy& copy : copies) rows.push_back(*copy.copy);
  return std::make_unique<RowRegionStep>(std::move(program), std::move(rows), threads);
}

}  // namespace taskpress
