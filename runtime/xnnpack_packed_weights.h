// Weights in the order matrix kernels read them: packed once, shared by all signatures and, through a file, by all processes and starts.
//
// In one process a matrix is known by where its bytes, scales and bias lie: constants never move (ConstantStore), so an address is an
// identity. In the file it is known by its place in the bundle, and what lies outside the bundle's mapping (copies) by its contents.
// Implements XNNPACK's xnn_weights_cache_provider.
#ifndef TASKPRESS_RUNTIME_XNNPACK_PACKED_WEIGHTS_H_
#define TASKPRESS_RUNTIME_XNNPACK_PACKED_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/packed_weight_report.h"
#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "runtime/weight_cache_file.h"
#include "runtime/weight_source.h"
#include "schema/base/error.h"

struct xnn_weights_cache_provider;

namespace taskpress {

class PackedWeights {
 public:
  PackedWeights();
  ~PackedWeights();  // waits until the file is on the disk
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  // Before anything is packed. Pages of `source` are given back once their matrix is packed. With a path, matrices come from that file;
  // when it is not there or will not do, it is written while they are packed. Never fails: without a file weights are packed in memory, and
  // report() says why.
  void UseSource(WeightSource source, const std::filesystem::path& file, const ThreadPool& threads);
  // Reads the source's tables row by row; null without a source.
  [[nodiscard]] const SourceReader* source_reader() const { return reader_ ? &*reader_ : nullptr; }
  // True while packed matrices go to a file: then pack all that later starts may need, and Seal().
  [[nodiscard]] bool writing() const { return writer_.has_value() && !sealed_; }
  // Lets the file be finished, in the background. What is packed afterwards stays in memory.
  void Seal();

  struct Matrix {
    ByteView bytes;  // [out, in], of any type; where it lies, also when an operator is given a copy
    std::span<const float> scales = {};
    std::span<const float> bias = {};
    int64_t in = 0;
    int64_t out = 0;
  };

  // For kernels of our own: `bytes` of `matrix` in the packing called `layout`, aligned to 64, with kTensorPadding readable bytes behind
  // them. `pack` fills zeros when there are none yet. A packing that is changed needs another name, or old files would be taken for new
  // ones. Not from several threads at once. kOutOfMemory, and the errors of `pack`.
  using PackFunction = std::function<Status(ByteSpan to)>;
  Result<const std::byte*> Packed(std::string_view layout, const Matrix& matrix, uint64_t bytes, const PackFunction& pack);
  // Packed bytes that are seldom read need not stay in memory: those of a file come back when they are read.
  void Rest(ByteView packed) const;
  // weights [out, in] as [in, out].
  Result<const float*> Transposed(const float* weights, int64_t out, int64_t in);

  // Names the matrix that the next XNNPACK operator packs. XNNPACK's own key leaves out scales and shape; two views of the same bytes (the
  // sub-models of an elastic bundle) differ just there.
  xnn_weights_cache_provider* ProviderFor(const Matrix& matrix);

  [[nodiscard]] PackedWeightReport report() const;
  [[nodiscard]] uint64_t bytes() const;

 private:
  struct Key {
    std::string layout;
    const std::byte* bytes = nullptr;
    uint64_t size = 0;
    const float* scales = nullptr;
    uint64_t num_scales = 0;
    const float* bias = nullptr;
    int64_t in = 0;
    int64_t out = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Callbacks;

  static Key KeyOf(std::string_view layout, const Matrix& matrix);
  std::optional<uint64_t> OffsetInSource(ByteView bytes) const;
  // Gives back the pages of a part of the source that are in memory; they come back from the file when they are read again. Nothing
  // happens to bytes that are not the source's.
  void ForgetPages(ByteView bytes) const;
  std::string PlaceOf(ByteView bytes);
  WeightCacheKey FileKeyOf(std::string_view layout, const Matrix& matrix);
  const std::byte* Find(std::string_view layout, const Matrix& matrix, std::optional<uint64_t> bytes);
  Result<ByteSpan> Reserve(uint64_t bytes);
  const std::byte* Insert(std::string_view layout, const Matrix& matrix, const std::byte* packed);
  void StopWriting(const Error& why);

  std::unique_ptr<xnn_weights_cache_provider> provider_;
  Matrix matrix_;  // ProviderFor's
  std::map<Key, const std::byte*> packed_;
  std::vector<TensorBuffer> memory_;

  std::optional<WeightSource> source_;
  std::optional<SourceReader> reader_;
  std::filesystem::path path_;  // empty: no file
  WeightCacheFingerprint fingerprint_ = {};
  std::optional<WeightCacheFile> file_;
  std::optional<WeightCacheWriter> writer_;
  bool reserved_in_file_ = false;
  bool sealed_ = false;
  bool unavailable_ = false;
  uint64_t used_bytes_ = 0;  // of file_
  std::map<std::pair<const std::byte*, uint64_t>, std::string> digests_;
  std::string note_;
  std::jthread commit_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_XNNPACK_PACKED_WEIGHTS_H_
