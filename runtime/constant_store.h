// The constants of a model as memory that kernels can point at, shared by all signatures (and by copies of the graph: a constant is known
// by its ByteSource).
//
// Mapped constants are used in place. Copies are made, once, of what cannot be: constants computed on demand, misaligned ones, and those
// that XNNPACK reads directly, because it reads whole vectors and so past the end of the file's mapping.
#ifndef TASKPRESS_RUNTIME_CONSTANT_STORE_H_
#define TASKPRESS_RUNTIME_CONSTANT_STORE_H_

#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "schema/graph.h"

namespace taskpress {

class ConstantStore {
 public:
  // `threads` must outlive the store.
  explicit ConstantStore(const ThreadPool& threads) : threads_(&threads) {}

  struct Constant {
    const std::byte* data = nullptr;
    std::span<const float> scales;  // of a quantized constant: one, or one per row
    int32_t quantized_axis = 0;
  };
  enum class Access : uint8_t {
    kExact,   // read byte for byte
    kPadded,  // read by vector loops: kTensorPadding bytes behind the end are readable
  };

  // The constant behind `tensor` of `graph`. kTfliteReference when its size contradicts type and shape; errors of reading it.
  Result<Constant> Get(const Graph& graph, const Tensor& tensor, Access access);
  // The scales of blocks, an f16 constant, as f32. kTfliteQuantization for one that is not a positive normal number.
  Result<std::span<const float>> GetBlockScales(const Graph& graph, const Tensor& scales);
  // The f32 values of an f16 constant.
  Result<const std::byte*> GetDequantized(const Graph& graph, const Tensor& tensor);

 private:
  struct Entry {
    SharedBytes source;  // keeps the mapping alive
    TensorBuffer copy;
    std::vector<float> scales;
    TensorBuffer dequantized;
  };
  Entry& EntryOf(const SharedBytes& source);
  Status CopyRows(Entry& entry, const RowSource& rows) const;
  Result<const std::byte*> Data(Entry& entry, size_t alignment, Access access) const;
  Result<std::span<const float>> Scales(const Quantization& quantization);

  const ThreadPool* threads_;
  std::unordered_map<const ByteSource*, Entry> entries_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_CONSTANT_STORE_H_
