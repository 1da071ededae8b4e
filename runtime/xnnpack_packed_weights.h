// Weights in the order XNNPACK's matrix kernels read them: packed once, shared by all signatures.
//
// Implements XNNPACK's xnn_weights_cache_provider. A matrix is known by where its bytes, scales and bias lie and by its shape; constants
// never move (ConstantStore), so an address is an identity.
#ifndef TASKPRESS_RUNTIME_XNNPACK_PACKED_WEIGHTS_H_
#define TASKPRESS_RUNTIME_XNNPACK_PACKED_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/tensor_buffer.h"
#include "schema/base/error.h"

struct xnn_weights_cache_provider;

namespace taskpress {

class PackedWeights {
 public:
  PackedWeights();
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  // Names the matrix that the next XNNPACK operator packs. XNNPACK's own key leaves out scales and shape; two views of the same bytes (the
  // sub-models of an elastic bundle) differ just there.
  struct Matrix {
    const void* scales = nullptr;
    int64_t in = 0;
    int64_t out = 0;
    const void* bytes = nullptr;  // where the matrix lies, when the operator is given a copy that does not stay
    auto operator<=>(const Matrix&) const = default;
  };
  xnn_weights_cache_provider* ProviderFor(const Matrix& matrix);

  // A matrix in the order of packed_matrix.h.
  struct NativeMatrix {
    const std::byte* weights = nullptr;
    int bits = 0;
    int64_t in = 0;
    int64_t out = 0;
    auto operator<=>(const NativeMatrix&) const = default;
  };
  // Its `bytes`, written by `pack` when they are asked for the first time. kOutOfMemory.
  Result<const std::byte*> Native(const NativeMatrix& matrix, uint64_t bytes, const std::function<void(std::byte*)>& pack);

  // weights [out, in] as [in, out], for kernels of our own. kOutOfMemory.
  Result<const float*> Transposed(const float* weights, int64_t out, int64_t in);

  [[nodiscard]] uint64_t bytes() const;

 private:
  struct Key {
    uint32_t seed = 0;  // identifies kernel and packing
    const void* kernel = nullptr;
    const void* bias = nullptr;
    Matrix matrix;
    auto operator<=>(const Key&) const = default;
  };
  struct Callbacks;

  std::unique_ptr<xnn_weights_cache_provider> provider_;
  Matrix matrix_;
  std::map<Key, std::byte*> packed_;
  std::map<NativeMatrix, const std::byte*> native_;
  std::map<std::pair<const float*, Matrix>, const float*> transposed_;
  std::vector<TensorBuffer> memory_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_XNNPACK_PACKED_WEIGHTS_H_
