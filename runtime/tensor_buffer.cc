#include "runtime/tensor_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// Weights are streamed from end to end for every token; with 4 KiB pages the page walks cost several percent.
constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kSmallPage = 4096;  // or a multiple: then madvise() refuses what is not aligned, and Zero() writes

// Replaces the pages by untouched ones, which read as zeros. Only for private anonymous memory, which malloc's is.
bool DropPages(std::byte* data, uint64_t bytes) { return madvise(data, bytes, MADV_DONTNEED) == 0; }

}  // namespace

void TensorBuffer::Free::operator()(std::byte* data) const { std::free(data); }

Result<TensorBuffer> TensorBuffer::Make(uint64_t bytes, Pages pages) {
  const std::optional<uint64_t> padded = CheckedAdd(bytes, kTensorPadding);
  const bool large = padded && *padded >= kHugePage;
  const uint64_t alignment = large ? kHugePage : kTensorAlignment;
  const std::optional<uint64_t> total = padded ? CheckedAlignUp(*padded, kTensorAlignment) : std::nullopt;
  void* data = nullptr;
  if (!total || posix_memalign(&data, alignment, *total) != 0) {
    return Fail(ErrorCode::kOutOfMemory, "{} bytes of tensor memory could not be allocated", bytes);
  }
  // A hint: kernels without huge pages refuse it, and nothing is lost.
  if (large) madvise(data, *total, pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  TensorBuffer buffer;
  buffer.data_.reset(static_cast<std::byte*>(data));
  buffer.size_ = bytes;
  return buffer;
}

void TensorBuffer::JoinPages(uint64_t begin, uint64_t end) {
#ifdef MADV_COLLAPSE
  const uint64_t first = begin / kHugePage * kHugePage;
  const uint64_t last = end / kHugePage * kHugePage;
  if (size_ < kHugePage || first >= last) return;
  madvise(data_.get() + first, last - first, MADV_HUGEPAGE);
  madvise(data_.get() + first, last - first, MADV_COLLAPSE);
#else
  static_cast<void>(begin);
  static_cast<void>(end);
#endif
}

void TensorBuffer::Zero() {
  if (size_ == 0) return;
  const uint64_t whole = size_ >= kHugePage ? size_ / kSmallPage * kSmallPage : 0;  // such buffers start at a page
  const uint64_t dropped = whole != 0 && DropPages(data_.get(), whole) ? whole : 0;
  std::memset(data_.get() + dropped, 0, size_ - dropped);
}

}  // namespace taskpress
