#include "runtime/tensor_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// Weights are streamed from end to end for every token; with 4 KiB pages the page walks cost several percent.
constexpr uint64_t kHugePage = uint64_t{2} << 20;

}  // namespace

void TensorBuffer::Free::operator()(std::byte* data) const { std::free(data); }

Result<TensorBuffer> TensorBuffer::Make(uint64_t bytes) {
  const std::optional<uint64_t> padded = CheckedAdd(bytes, kTensorPadding);
  const bool huge = padded && *padded >= kHugePage;
  const uint64_t alignment = huge ? kHugePage : kTensorAlignment;
  const std::optional<uint64_t> total = padded ? CheckedAlignUp(*padded, kTensorAlignment) : std::nullopt;
  void* data = nullptr;
  if (!total || posix_memalign(&data, alignment, *total) != 0) {
    return Fail(ErrorCode::kOutOfMemory, "{} bytes of tensor memory could not be allocated", bytes);
  }
  if (huge) madvise(data, *total, MADV_HUGEPAGE);  // a hint: kernels without huge pages refuse it, and nothing is lost
  TensorBuffer buffer;
  buffer.data_.reset(static_cast<std::byte*>(data));
  buffer.size_ = bytes;
  return buffer;
}

void TensorBuffer::Zero() {
  if (size_ != 0) std::memset(data_.get(), 0, size_);
}

}  // namespace taskpress
