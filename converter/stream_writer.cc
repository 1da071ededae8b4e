#include "converter/stream_writer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "quantizer/ordered_pipeline.h"
#include "schema/base/hash.h"

namespace taskpress {
namespace {

constexpr uint64_t kFlushEvery = 32 << 20;  // bytes

class Stopwatch {
 public:
  [[nodiscard]] int64_t Nanoseconds() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// What a unit makes, until it is written.
struct Slot {
  struct Made {
    StreamPiece piece;
    uint64_t packed = 0;  // offset in Slot::packed
    uint64_t size = 0;    // bytes there
    uint64_t scales = 0;  // offset in Slot::scales
    uint64_t num_scales = 0;
    uint32_t crc = 0;
  };
  std::vector<Made> made;
  std::vector<std::byte> packed;
  std::vector<float> scales;
};

class StreamWriter {
 public:
  StreamWriter(StreamPlan& plan, std::span<OutputFile> files, const StreamOptions& options, StreamState& state)
      : plan_(plan), files_(files), options_(options), state_(state) {}

  Status Run(StreamTimes& times) {
    state_.crcs.resize(plan_.constants().size());
    const uint64_t fits = options_.buffer_bytes / std::max<uint64_t>(1, plan_.unit_bytes());
    slots_.resize(std::clamp<uint64_t>(fits, 1, MostSlots()));
    // Growing would hold two of a unit's buffers for a moment, and up to twice the bytes for good.
    for (Slot& slot : slots_) slot.packed.reserve(plan_.unit_bytes());
    const Status done = RunOrdered(
        state_.units, options_.end.value_or(plan_.units()), slots_.size(), options_.work,
        [this](uint64_t unit, size_t slot) { return Make(unit, slots_[slot]); },
        [this](uint64_t unit, size_t slot) { return Write(unit, slots_[slot]); });
    times.make_s += static_cast<double>(make_ns_.load()) * 1e-9;
    times.write_s += static_cast<double>(write_ns_) * 1e-9;
    return done;
  }

 private:
  static constexpr uint64_t kUnitsAhead = 16;  // that the disk is told of

  // One unit is being written; each thread makes one and may have one that waits for its turn.
  [[nodiscard]] uint64_t MostSlots() const { return 2 * static_cast<uint64_t>(RowWorkers(kUnitsAhead, 1, options_.work)) + 1; }

  Status Make(uint64_t unit, Slot& slot) {
    const Stopwatch watch;
    Announce(unit + kUnitsAhead);
    Lay(plan_.PiecesOf(unit), slot);
    for (Slot::Made& made : slot.made) {
      const ByteSource& bytes = *plan_.constants()[made.piece.constant].bytes;
      const ByteSpan packed = ByteSpan(slot.packed).subspan(made.packed, made.size);
      const RowSource* rows = bytes.rows();
      if (const Slot::Made* weights = WeightsOf(rows, made, slot); weights != nullptr) {
        StoreBlockScales(std::span(slot.scales).subspan(weights->scales, weights->num_scales), packed);
      } else if (rows != nullptr) {
        TRY(rows->ReadRows(static_cast<int64_t>(made.piece.first), static_cast<int64_t>(made.piece.count), packed,
                           std::span(slot.scales).subspan(made.scales, made.num_scales)));
      } else {
        TRY(bytes.Read(made.piece.first, packed));
      }
      made.crc = Crc32(0, packed);
    }
    make_ns_ += watch.Nanoseconds();
    return {};
  }

  // Block scales come out of the same pass as their rows, which stand before them in a unit.
  [[nodiscard]] const Slot::Made* WeightsOf(const RowSource* scales, const Slot::Made& made, const Slot& slot) const {
    if (scales == nullptr || scales->scales_of() == nullptr) return nullptr;
    for (const Slot::Made& other : slot.made) {
      if (&other == &made) return nullptr;
      const ByteSource* source = plan_.constants()[other.piece.constant].bytes.get();
      if (source == scales->scales_of() && other.piece.first == made.piece.first && other.piece.count == made.piece.count) return &other;
    }
    return nullptr;
  }

  // Lets the disk begin with what a later unit reads. All pieces of a unit are made from the same stored rows, the longest from all of
  // them.
  void Announce(uint64_t unit) const {
    if (unit >= plan_.units()) return;
    const std::vector<StreamPiece> pieces = plan_.PiecesOf(unit);
    const StreamPiece& longest = *std::ranges::max_element(pieces, {}, &StreamPiece::count);
    const RowSource* rows = plan_.constants()[longest.constant].bytes->rows();
    if (rows != nullptr) rows->WillRead(static_cast<int64_t>(longest.first), static_cast<int64_t>(longest.count));
  }

  // Gives each piece its room.
  void Lay(const std::vector<StreamPiece>& pieces, Slot& slot) const {
    slot.made.clear();
    uint64_t packed = 0;
    uint64_t scales = 0;
    for (const StreamPiece& piece : pieces) {
      const StreamConstant& constant = plan_.constants()[piece.constant];
      const RowSource* rows = constant.bytes->rows();
      Slot::Made made{.piece = piece, .packed = packed, .size = BytesOf(constant, piece.count), .scales = scales};
      if (rows != nullptr) made.num_scales = piece.count * static_cast<uint64_t>(rows->scales_per_row());
      packed += made.size;
      scales += made.num_scales;
      slot.made.push_back(made);
    }
    slot.packed.resize(packed);
    slot.scales.resize(scales);
  }

  Status Write(uint64_t unit, Slot& slot) {
    const Stopwatch watch;
    for (const Slot::Made& made : slot.made) {
      const StreamConstant& constant = plan_.constants()[made.piece.constant];
      const ByteView packed = ByteView(slot.packed).subspan(made.packed, made.size);
      const uint64_t offset = BytesOf(constant, made.piece.first);
      for (const Place& place : constant.places) TRY(files_[place.file].WriteAt(place.offset + offset, packed));
      TRY(StoreScales(constant, made, std::span<const float>(slot.scales).subspan(made.scales, made.num_scales)));
      uint32_t& crc = state_.crcs[made.piece.constant];
      crc = Crc32Combine(crc, made.crc, made.size);
      unflushed_ += made.size;
      state_.bytes += made.size;
      if (options_.on_bytes) options_.on_bytes(constant.name, made.size);
    }
    if (unflushed_ >= kFlushEvery) {
      for (OutputFile& file : files_) file.BeginFlush();
      unflushed_ = 0;
    }
    state_.units = unit + 1;
    if (options_.on_unit) TRY(options_.on_unit(state_));
    write_ns_ += watch.Nanoseconds();
    return {};
  }

  Status StoreScales(const StreamConstant& constant, const Slot::Made& made, std::span<const float> scales) {
    if (scales.empty()) return {};
    const uint64_t per_row = made.num_scales / made.piece.count;
    const uint64_t first = made.piece.first * per_row;
    for (const ScaleTarget& target : constant.scales) {
      if (first >= target.count) continue;
      const ByteView bytes = std::as_bytes(scales.first(std::min<uint64_t>(scales.size(), target.count - first)));
      const uint64_t offset = target.offset + first * sizeof(float);
      StreamRoot& root = plan_.roots()[target.root];
      std::ranges::copy(bytes, root.bytes.begin() + static_cast<ptrdiff_t>(offset));
      if (options_.scales_in_files) TRY(files_[root.places.front().file].WriteAt(root.places.front().offset + offset, bytes));
    }
    return {};
  }

  StreamPlan& plan_;
  std::span<OutputFile> files_;
  const StreamOptions& options_;
  StreamState& state_;
  std::vector<Slot> slots_;
  uint64_t unflushed_ = 0;
  std::atomic<int64_t> make_ns_ = 0;
  int64_t write_ns_ = 0;
};

}  // namespace

Status WriteStream(StreamPlan& plan, std::span<OutputFile> files, const StreamOptions& options, StreamState& state, StreamTimes& times) {
  return StreamWriter(plan, files, options, state).Run(times);
}

Status WriteRoots(const StreamPlan& plan, std::span<OutputFile> files) {
  for (const StreamRoot& root : plan.roots()) {
    for (const Place& place : root.places) TRY(files[place.file].WriteAt(place.offset, root.bytes));
  }
  return {};
}

Status RestoreScales(StreamPlan& plan, std::span<const OutputFile> files, uint64_t unit) {
  const std::vector<uint64_t> done = plan.DoneBefore(unit);
  for (size_t i = 0; i < done.size(); ++i) {
    const StreamConstant& constant = plan.constants()[i];
    const RowSource* rows = constant.bytes->rows();
    if (rows == nullptr) continue;
    const uint64_t stored = done[i] * static_cast<uint64_t>(rows->scales_per_row());
    for (const ScaleTarget& target : constant.scales) {
      StreamRoot& root = plan.roots()[target.root];
      const ByteSpan out = ByteSpan(root.bytes).subspan(target.offset, std::min(stored, target.count) * sizeof(float));
      TRY(files[root.places.front().file].ReadAt(root.places.front().offset + target.offset, out));
    }
  }
  return {};
}

}  // namespace taskpress
