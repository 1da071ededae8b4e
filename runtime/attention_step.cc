#include "runtime/attention_step.h"

#include <algorithm>
#include <cstring>

#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// A single token's attention is split into parts of so many positions.
constexpr int64_t kPositionsPerPart = 512;

uint64_t FloatBytes(int64_t floats) { return AlignUp(static_cast<uint64_t>(floats) * sizeof(float) + kTensorPadding, kTensorAlignment); }

class AttentionStep final : public Step {
 public:
  AttentionStep(const AttentionGroup& group, const AttentionTensors& tensors, const MaskRanges& ranges, const ThreadPool& threads)
      : shape_{.tokens = group.tokens,
               .kv_heads = group.kv_heads,
               .group = group.group,
               .head_dim = group.head_dim,
               .seen = group.seen,
               .transposed_values = group.transposed_values},
        tensors_(tensors),
        cached_(tensors.keys->shape[2]),
        ranges_(ranges),
        threads_(threads) {
    const int64_t heads = group.kv_heads * group.group;
    operands_.queries = tensors.queries->as<float>();
    operands_.query_token_stride = group.queries_by_head ? group.head_dim : heads * group.head_dim;
    operands_.query_head_stride = group.queries_by_head ? group.tokens * group.head_dim : group.head_dim;
    operands_.out = tensors.out->out<float>();
    operands_.out_token_stride = group.out_by_head ? group.head_dim : heads * group.head_dim;
    operands_.out_head_stride = group.out_by_head ? group.tokens * group.head_dim : group.head_dim;
    operands_.mask = tensors.mask->as<float>();
  }

  [[nodiscard]] uint64_t workspace_bytes() const override {
    return ScratchBytes() * static_cast<uint64_t>(threads_.threads()) + FloatBytes(shape_.kv_heads * MaxParts() * PartialFloats(shape_));
  }
  Status Bind(std::byte* workspace) override {
    workspace_ = workspace;
    partials_ = reinterpret_cast<float*>(workspace + ScratchBytes() * static_cast<uint64_t>(threads_.threads()));
    return {};
  }

  Status Run() override {
    TRY(FindKeysAndValues());
    if (shape_.tokens == 1) {
      RunOneToken();
    } else {
      RunTokens();
    }
    return {};
  }

 private:
  [[nodiscard]] uint64_t ScratchBytes() const { return FloatBytes(AttentionScratchFloats(shape_)); }
  [[nodiscard]] int64_t MaxParts() const { return (shape_.seen + kPositionsPerPart - 1) / kPositionsPerPart; }
  [[nodiscard]] float* Scratch(int64_t worker) const {
    return reinterpret_cast<float*>(workspace_ + static_cast<uint64_t>(worker) * ScratchBytes());
  }

  // The window of a sliding layer is a piece of the cache, so its rows are read where they lie.
  Status FindKeysAndValues() {
    operands_.keys = tensors_.keys->as<float>();
    operands_.values = tensors_.values->as<float>();
    operands_.keys_stride = cached_ * shape_.head_dim;
    operands_.values_stride = cached_ * shape_.head_dim;
    operands_.value_row_stride = shape_.transposed_values ? cached_ : shape_.head_dim;
    if (tensors_.positions == nullptr) return {};
    const std::span<const int32_t> positions(tensors_.positions->as<int32_t>(), static_cast<size_t>(shape_.seen));
    bool in_order = true;
    for (size_t i = 0; i < positions.size(); ++i) {
      if (positions[i] < 0 || positions[i] >= cached_) {
        return Fail(ErrorCode::kRuntimeIndex, "GATHER {}: index {} is outside [0, {})", tensors_.keys->name, positions[i], cached_);
      }
      in_order = in_order && positions[i] == positions[0] + static_cast<int32_t>(i);
    }
    if (!in_order) {
      GatherRows(positions);
      return {};
    }
    operands_.keys += positions[0] * shape_.head_dim;
    operands_.values += positions[0] * shape_.head_dim;
    return {};
  }

  // No graph of ours has such positions: memory for them is made when they turn up.
  void GatherRows(std::span<const int32_t> positions) {
    const int64_t head = shape_.seen * shape_.head_dim;
    gathered_.resize(static_cast<size_t>(2 * shape_.kv_heads * head));
    float* to = gathered_.data();
    for (const float* from : {operands_.keys, operands_.values}) {
      for (int64_t h = 0; h < shape_.kv_heads; ++h) {
        for (const int32_t position : positions) {
          std::memcpy(to, from + (h * cached_ + position) * shape_.head_dim, static_cast<size_t>(shape_.head_dim) * sizeof(float));
          to += shape_.head_dim;
        }
      }
    }
    operands_.keys = gathered_.data();
    operands_.values = gathered_.data() + shape_.kv_heads * head;
    operands_.keys_stride = head;
    operands_.values_stride = head;
  }

  void RunOneToken() {
    const MaskRange range = ranges_.rows[0];
    const int64_t parts = (range.end - range.begin + kPositionsPerPart - 1) / kPositionsPerPart;
    const int64_t stride = PartialFloats(shape_);
    threads_.ForEachWithWorker(shape_.kv_heads * parts, [&](int64_t worker, int64_t i) {
      const auto begin = static_cast<int32_t>(range.begin + i % parts * kPositionsPerPart);
      const MaskRange part{.begin = begin, .end = std::min(range.end, begin + static_cast<int32_t>(kPositionsPerPart))};
      AttendPart(shape_, operands_, i / parts, part, Scratch(worker), partials_ + i * stride);
    });
    for (int64_t h = 0; h < shape_.kv_heads; ++h) MergeParts(shape_, operands_, h, partials_ + h * parts * stride, parts);
  }

  // Later tokens see more, so they come first.
  void RunTokens() {
    const int64_t per_block = TokensPerAttentionBlock(shape_);
    const int64_t blocks = (shape_.tokens + per_block - 1) / per_block;
    threads_.ForEachWithWorker(shape_.kv_heads * blocks, [&](int64_t worker, int64_t i) {
      const int64_t first = (blocks - 1 - i / shape_.kv_heads) * per_block;
      const int64_t count = std::min(per_block, shape_.tokens - first);
      AttendBlock(shape_, operands_, ranges_.rows, i % shape_.kv_heads, first, count, Scratch(worker));
    });
  }

  AttentionShape shape_;
  AttentionTensors tensors_;
  int64_t cached_;  // positions of the cache
  const MaskRanges& ranges_;
  const ThreadPool& threads_;
  AttentionOperands operands_;
  std::byte* workspace_ = nullptr;
  float* partials_ = nullptr;  // [kv_heads, parts, PartialFloats]
  std::vector<float> gathered_;
};

}  // namespace

StepPtr MakeMaskRanges(const AttentionGroup& group, const BoundTensor& mask, MaskRanges& ranges) {
  ranges.rows.resize(static_cast<size_t>(group.tokens));
  return MakeStep([&ranges, mask = mask.as<float>(), seen = static_cast<size_t>(group.seen)] {
    for (size_t t = 0; t < ranges.rows.size(); ++t) ranges.rows[t] = OpenRange(std::span(mask + t * seen, seen));
  });
}

StepPtr MakeAttention(const AttentionGroup& group, const AttentionTensors& tensors, const MaskRanges& ranges, const ThreadPool& threads) {
  return std::make_unique<AttentionStep>(group, tensors, ranges, threads);
}

}  // namespace taskpress
