// Memory of tensors: aligned to a cache line, with readable bytes behind the end (vector loops read whole vectors).
#ifndef TASKPRESS_RUNTIME_TENSOR_BUFFER_H_
#define TASKPRESS_RUNTIME_TENSOR_BUFFER_H_

#include <cstdint>
#include <memory>

#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

inline constexpr uint64_t kTensorAlignment = 64;
// Readable bytes behind every tensor that XNNPACK sees. XNN_EXTRA_BYTES is 16 (128 on one DSP).
inline constexpr uint64_t kTensorPadding = 128;

// What backs a large buffer. Huge pages are faster to stream; small ones keep what nobody wrote to out of memory.
enum class Pages : uint8_t { kHuge, kSmall };

class TensorBuffer {
 public:
  TensorBuffer() = default;
  // Uninitialised. kOutOfMemory.
  static Result<TensorBuffer> Make(uint64_t bytes, Pages pages = Pages::kHuge);

  [[nodiscard]] std::byte* data() const { return data_.get(); }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] ByteSpan bytes() const { return {data_.get(), size_}; }
  // Gives a large buffer's pages back to the system, so zeros that nobody overwrites need no memory.
  void Zero();
  // Puts bytes of a buffer with small pages that have all been written into huge pages: those of [0, end) that lie wholly in [begin - one
  // page, end). Reading them in a row is half as fast again. A hint.
  void JoinPages(uint64_t begin, uint64_t end);

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  uint64_t size_ = 0;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_TENSOR_BUFFER_H_
