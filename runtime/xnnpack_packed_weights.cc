#include "runtime/xnnpack_packed_weights.h"

#include <xnnpack.h>

#include <limits>
#include <numeric>

namespace taskpress {

// XNNPACK calls these while an operator is created. What it calls an offset is the address here: packed matrices never move.
struct PackedWeights::Callbacks {
  static constexpr size_t kNotFound = std::numeric_limits<size_t>::max();

  static PackedWeights& Self(void* context) { return *static_cast<PackedWeights*>(context); }

  static Key KeyOf(const PackedWeights& self, const xnn_weights_cache_look_up_key& key) {
    const void* kernel = self.matrix_.bytes != nullptr ? self.matrix_.bytes : key.kernel;
    return {.seed = key.seed, .kernel = kernel, .bias = key.bias, .matrix = self.matrix_};
  }

  static size_t LookUp(void* context, const xnn_weights_cache_look_up_key* key) {
    const PackedWeights& self = Self(context);
    const auto found = self.packed_.find(KeyOf(self, *key));
    return found == self.packed_.end() ? kNotFound : reinterpret_cast<size_t>(found->second);
  }

  static void* ReserveSpace(void* context, size_t bytes) {
    Result<TensorBuffer> buffer = TensorBuffer::Make(bytes);
    if (!buffer) return nullptr;
    buffer->Zero();
    return Self(context).memory_.emplace_back(*std::move(buffer)).data();
  }

  static size_t LookUpOrInsert(void* context, const xnn_weights_cache_look_up_key* key, void* packed, size_t /*bytes*/) {
    PackedWeights& self = Self(context);
    const auto [entry, inserted] = self.packed_.try_emplace(KeyOf(self, *key), static_cast<std::byte*>(packed));
    return reinterpret_cast<size_t>(entry->second);
  }

  // XNNPACK sets an operator up only when its weights will not move any more. Ours never do, even while more are added.
  static bool IsFinalized(void* /*context*/) { return true; }
  static void* OffsetToAddress(void* /*context*/, size_t offset) { return reinterpret_cast<void*>(offset); }
  static xnn_status DeleteCache(void* /*context*/) { return xnn_status_success; }
};

PackedWeights::PackedWeights() : provider_(std::make_unique<xnn_weights_cache_provider>()) {
  *provider_ = {.context = this,
                .look_up = Callbacks::LookUp,
                .reserve_space = Callbacks::ReserveSpace,
                .look_up_or_insert = Callbacks::LookUpOrInsert,
                .is_finalized = Callbacks::IsFinalized,
                .offset_to_addr = Callbacks::OffsetToAddress,
                .delete_cache = Callbacks::DeleteCache};
}

PackedWeights::~PackedWeights() = default;

xnn_weights_cache_provider* PackedWeights::ProviderFor(const Matrix& matrix) {
  matrix_ = matrix;
  return provider_.get();
}

Result<const std::byte*> PackedWeights::Native(const NativeMatrix& matrix, uint64_t bytes, const std::function<void(std::byte*)>& pack) {
  const std::byte*& found = native_[matrix];
  if (found != nullptr) return found;
  TensorBuffer buffer = TRY(TensorBuffer::Make(bytes));
  pack(buffer.data());
  found = memory_.emplace_back(std::move(buffer)).data();
  return found;
}

Result<const float*> PackedWeights::Transposed(const float* weights, int64_t out, int64_t in) {
  const float*& found = transposed_[{weights, Matrix{.scales = nullptr, .in = in, .out = out, .bytes = nullptr}}];
  if (found != nullptr) return found;
  TensorBuffer buffer = TRY(TensorBuffer::Make(static_cast<uint64_t>(out) * static_cast<uint64_t>(in) * sizeof(float)));
  auto* to = reinterpret_cast<float*>(buffer.data());
  for (int64_t row = 0; row < out; ++row) {
    for (int64_t column = 0; column < in; ++column) to[column * out + row] = weights[row * in + column];
  }
  memory_.push_back(std::move(buffer));
  found = to;
  return found;
}

uint64_t PackedWeights::bytes() const {
  return std::accumulate(memory_.begin(), memory_.end(), uint64_t{0},
                         [](uint64_t sum, const TensorBuffer& one) { return sum + one.size(); });
}

}  // namespace taskpress
