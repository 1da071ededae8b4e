#include "converter/member_writer.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "schema/base/hash.h"
#include "schema/bundle_sizes.h"

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
  Streamer(MemberImage image, OutputFile& file, uint64_t offset, const RowWork& work, const BytesWritten& on_bytes)
      : image_(std::move(image)), file_(file), base_(offset), work_(work), on_bytes_(on_bytes) {}

  Result<std::vector<uint32_t>> Run() {
    SizeChecksums checksums;
    for (const MemberRoot& root : image_.roots) {
      checksums.offsets.push_back(root.offset);
      checksums.root_bytes.push_back(root.image.root.size());
    }
    checksums.region_bytes = image_.size;
    uint64_t end = checksums.offsets.back() + checksums.root_bytes.back();
    for (const SharedConstant& constant : SharedConstants(image_)) {
      TRY(Zeros(end, constant.begin));
      checksums.weights = Crc32Zeros(checksums.weights, constant.begin - end);
      checksums.weights = Crc32Combine(checksums.weights, TRY(WriteConstant(constant)), constant.end - constant.begin);
      end = constant.end;
    }
    for (size_t i = 0; i < image_.roots.size(); ++i) {
      const std::vector<std::byte>& root = image_.roots[i].image.root;
      TRY(file_.WriteAt(base_ + checksums.offsets[i], root));
      Notify("", root.size());
      checksums.roots.push_back(Crc32(0, root));
      if (i > 0) TRY(Zeros(checksums.offsets[i - 1] + checksums.root_bytes[i - 1], checksums.offsets[i]));
    }
    return CombineChecksums(checksums);
  }

 private:
  Status Zeros(uint64_t begin, uint64_t end) {
    TRY(file_.WriteAt(base_ + begin, std::vector<std::byte>(end - begin)));
    Notify("", end - begin);
    return {};
  }

  void Notify(std::string_view tensor, uint64_t bytes) {
    const std::scoped_lock lock(notify_mutex_);
    if (on_bytes_) on_bytes_(tensor, bytes);
  }

  [[nodiscard]] int32_t BufferOf(const SharedConstant::Use& use) const {
    return image_.roots[use.root].image.placements[use.placement].buffer;
  }

  Result<uint32_t> WriteConstant(const SharedConstant& constant) {
    const SharedConstant::Use& longest = constant.uses.front();
    const Graph& graph = *image_.roots[longest.root].graph;
    const ByteSource& bytes = *graph.buffers[static_cast<size_t>(BufferOf(longest))].bytes;
    const std::string_view name = NameOfBuffer(graph, BufferOf(longest));
    return bytes.rows() == nullptr ? CopyBytes(bytes, constant, name) : ProduceRows(*bytes.rows(), constant, name);
  }

  Result<uint32_t> CopyBytes(const ByteSource& bytes, const SharedConstant& constant, std::string_view name) {
    std::vector<std::byte> block;
    uint32_t crc = 0;
    for (uint64_t done = 0; done < bytes.size(); done += block.size()) {
      block.resize(std::min(kCopyBlock, bytes.size() - done));
      TRY(bytes.Read(done, block));
      TRY(file_.WriteAt(base_ + constant.begin + done, block));
      crc = Crc32(crc, block);
      Notify(name, block.size());
    }
    return crc;
  }

  // Where the scales of a constant go: the slot in each root that has it, nowhere for float types.
  std::vector<std::span<float>> ScaleSlots(const SharedConstant& constant) {
    std::vector<std::span<float>> slots;
    for (const SharedConstant::Use& use : constant.uses) {
      MemberRoot& root = image_.roots[use.root];
      const int32_t quantization = QuantizationOfBuffer(*root.graph, BufferOf(use));
      const auto slot = std::ranges::find(root.image.pending_scales, quantization, &TfliteImage::ScaleSlot::quantization);
      if (quantization == kNone || slot == root.image.pending_scales.end()) continue;
      auto* scales = reinterpret_cast<float*>(root.image.root.data() + slot->offset);  // the FlatBuffer aligns it
      slots.emplace_back(scales, static_cast<size_t>(root.graph->quantizations[static_cast<size_t>(quantization)].num_scales));
    }
    return slots;
  }

  // What falls into a slot: a smaller root has the scales of its first rows only.
  static void StoreScales(std::span<const float> scales, size_t first, std::span<float> slot) {
    if (first >= slot.size()) return;
    const size_t count = std::min(scales.size(), slot.size() - first);
    std::ranges::copy(scales.first(count), slot.begin() + static_cast<ptrdiff_t>(first));
  }

  Result<uint32_t> ProduceRows(const RowSource& rows, const SharedConstant& constant, std::string_view name) {
    const std::vector<std::span<float>> slots = ScaleSlots(constant);
    std::mutex mutex;
    std::map<int64_t, std::pair<uint32_t, uint64_t>> block_crcs;  // first row -> CRC and length
    TRY(ProduceRowsParallel(rows, work_, [&](int64_t first_row, int64_t count, ByteView packed, std::span<const float> scales) -> Status {
      static_cast<void>(count);
      TRY(file_.WriteAt(base_ + constant.begin + static_cast<uint64_t>(first_row) * rows.row_bytes(), packed));
      for (const std::span<float> slot : slots) StoreScales(scales, static_cast<size_t>(first_row * rows.scales_per_row()), slot);
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

  MemberImage image_;
  OutputFile& file_;
  uint64_t base_;
  RowWork work_;
  const BytesWritten& on_bytes_;
  std::mutex notify_mutex_;
};

}  // namespace

Result<std::vector<uint32_t>> WriteMember(MemberImage image, OutputFile& file, uint64_t offset, const RowWork& work,
                                          const BytesWritten& on_bytes) {
  if (image.roots.empty()) return std::vector<uint32_t>();
  return Streamer(std::move(image), file, offset, work, on_bytes).Run();
}

Result<uint32_t> WriteMember(const Graph& graph, TfliteImage image, OutputFile& file, uint64_t offset, const RowWork& work,
                             const BytesWritten& on_bytes) {
  MemberImage member;
  member.size = image.size;
  member.roots.push_back({.graph = &graph, .image = std::move(image), .offset = 0});
  return TRY(WriteMember(std::move(member), file, offset, work, on_bytes)).front();
}

}  // namespace taskpress
