#include "converter/member_writer.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "schema/base/hash.h"

namespace taskpress {
namespace {

constexpr uint64_t kCopyBlock = 1 << 20;

// The name a person knows a buffer by: its first tensor's.
std::string_view NameOfBuffer(const Graph& graph, int32_t buffer) {
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      if (tensor.buffer == buffer) return tensor.name;
    }
  }
  return "";
}

class Streamer {
 public:
  Streamer(const Graph& graph, TfliteImage image, OutputFile& file, uint64_t offset, const RowWork& work, const BytesWritten& on_bytes)
      : graph_(graph), image_(std::move(image)), file_(file), base_(offset), work_(work), on_bytes_(on_bytes) {}

  Result<uint32_t> Run() {
    uint32_t crc = 0;  // of everything behind the root
    uint64_t end = image_.root.size();
    for (const TfliteImage::Placement& placement : image_.placements) {
      TRY(PadTo(placement.offset, end));
      crc = Crc32Zeros(crc, placement.offset - end);
      crc = Crc32Combine(crc, TRY(WriteConstant(placement)), placement.size);
      end = placement.offset + placement.size;
    }
    TRY(file_.WriteAt(base_, image_.root));
    Notify("", image_.root.size());
    return Crc32Combine(Crc32(0, image_.root), crc, end - image_.root.size());
  }

 private:
  Status PadTo(uint64_t offset, uint64_t end) {
    static constexpr std::array<std::byte, 64> kZeros{};
    TRY(file_.WriteAt(base_ + end, ByteView(kZeros).first(offset - end)));
    Notify("", offset - end);
    return {};
  }

  void Notify(std::string_view tensor, uint64_t bytes) {
    const std::scoped_lock lock(notify_mutex_);
    if (on_bytes_) on_bytes_(tensor, bytes);
  }

  Result<uint32_t> WriteConstant(const TfliteImage::Placement& placement) {
    const ByteSource& bytes = *graph_.buffers[static_cast<size_t>(placement.buffer)].bytes;
    const std::string_view name = NameOfBuffer(graph_, placement.buffer);
    return bytes.rows() == nullptr ? CopyBytes(bytes, placement, name) : ProduceRows(*bytes.rows(), placement, name);
  }

  Result<uint32_t> CopyBytes(const ByteSource& bytes, const TfliteImage::Placement& placement, std::string_view name) {
    std::vector<std::byte> block;
    uint32_t crc = 0;
    for (uint64_t done = 0; done < placement.size; done += block.size()) {
      block.resize(std::min(kCopyBlock, placement.size - done));
      TRY(bytes.Read(done, block));
      TRY(file_.WriteAt(base_ + placement.offset + done, block));
      crc = Crc32(crc, block);
      Notify(name, block.size());
    }
    return crc;
  }

  // Where the scales of a buffer go: the slot in the root, or nowhere for float types.
  std::span<float> ScaleSlot(const RowSource& rows, int32_t buffer) {
    const int32_t quantization = QuantizationOfBuffer(graph_, buffer);
    const auto slot = std::ranges::find(image_.pending_scales, quantization, &TfliteImage::ScaleSlot::quantization);
    if (quantization == kNone || slot == image_.pending_scales.end()) return {};
    auto* scales = reinterpret_cast<float*>(image_.root.data() + slot->offset);  // the FlatBuffer aligns it
    return {scales, static_cast<size_t>(rows.num_rows() * rows.scales_per_row())};
  }

  Result<uint32_t> ProduceRows(const RowSource& rows, const TfliteImage::Placement& placement, std::string_view name) {
    const std::span<float> slot = ScaleSlot(rows, placement.buffer);
    std::mutex mutex;
    std::map<int64_t, std::pair<uint32_t, uint64_t>> block_crcs;  // first row -> CRC and length
    TRY(ProduceRowsParallel(rows, work_, [&](int64_t first_row, int64_t count, ByteView packed, std::span<const float> scales) -> Status {
      static_cast<void>(count);
      TRY(file_.WriteAt(base_ + placement.offset + static_cast<uint64_t>(first_row) * rows.row_bytes(), packed));
      if (!slot.empty()) std::ranges::copy(scales, slot.begin() + first_row * rows.scales_per_row());
      const uint32_t crc = Crc32(0, packed);
      {
        const std::scoped_lock lock(mutex);
        block_crcs[first_row] = {crc, packed.size()};
      }
      Notify(name, packed.size());
      return {};
    }));
    uint32_t crc = 0;
    for (const auto& [first_row, block] : block_crcs) crc = Crc32Combine(crc, block.first, block.second);
    return crc;
  }

  const Graph& graph_;
  TfliteImage image_;
  OutputFile& file_;
  uint64_t base_;
  RowWork work_;
  const BytesWritten& on_bytes_;
  std::mutex notify_mutex_;
};

}  // namespace

Result<uint32_t> WriteMember(const Graph& graph, TfliteImage image, OutputFile& file, uint64_t offset, const RowWork& work,
                             const BytesWritten& on_bytes) {
  return Streamer(graph, std::move(image), file, offset, work, on_bytes).Run();
}

}  // namespace taskpress
