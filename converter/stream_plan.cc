#include "converter/stream_plan.h"

#include <algorithm>
#include <utility>

#include "schema/base/hash.h"

namespace taskpress {
namespace {

// The name a person knows a buffer by: its first tensor's.
std::vector<std::string> NamesOfBuffers(const Graph& graph) {
  std::vector<std::string> names(graph.buffers.size());
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      if (tensor.buffer == kNone) continue;
      std::string& name = names[static_cast<size_t>(tensor.buffer)];
      if (name.empty()) name = tensor.name;
    }
  }
  return names;
}

uint64_t LengthOf(const ByteSource& bytes) {
  return bytes.rows() != nullptr ? static_cast<uint64_t>(bytes.rows()->num_rows()) : bytes.size();
}

std::vector<Place> Shifted(std::span<const Place> places, uint64_t offset) {
  std::vector<Place> shifted;
  for (const Place& place : places) shifted.push_back({.file = place.file, .offset = place.offset + offset});
  return shifted;
}

// Where the scales of a constant go: a slot of each root that has it, none for float types. A smaller root has those of its first rows.
std::vector<ScaleTarget> ScaleTargets(const MemberImage& image, const SharedConstant& constant, size_t first_root) {
  std::vector<ScaleTarget> targets;
  for (const SharedConstant::Use& use : constant.uses) {
    const MemberRoot& root = image.roots[use.root];
    const int32_t buffer = root.image.placements[use.placement].buffer;
    const RowSource* rows = root.graph->buffers[static_cast<size_t>(buffer)].bytes->rows();
    const int32_t quantization = QuantizationOfBuffer(*root.graph, buffer);
    const auto slot = std::ranges::find(root.image.pending_scales, quantization, &TfliteImage::ScaleSlot::quantization);
    if (rows == nullptr || slot == root.image.pending_scales.end()) continue;
    targets.push_back(
        {.root = first_root + use.root, .offset = slot->offset, .count = static_cast<uint64_t>(rows->num_rows() * rows->scales_per_row())});
  }
  return targets;
}

}  // namespace

StreamMember StreamPlan::AddMember(MemberImage image, std::span<const Place> places) {
  StreamMember member{.extents = {}, .size = image.size};
  const size_t first_root = roots_.size();
  std::vector<std::vector<std::string>> names;  // [roots][buffers]
  for (const MemberRoot& root : image.roots) names.push_back(NamesOfBuffers(*root.graph));
  const std::vector<SharedConstant> constants = SharedConstants(image);
  for (const SharedConstant& constant : constants) {
    const SharedConstant::Use& longest = constant.uses.front();
    const MemberRoot& root = image.roots[longest.root];
    const auto buffer = static_cast<size_t>(root.image.placements[longest.placement].buffer);
    member.extents.push_back(
        {.offset = constant.begin, .size = constant.end - constant.begin, .is_root = false, .index = constants_.size()});
    AddConstant({.name = names[longest.root][buffer],
                 .bytes = root.graph->buffers[buffer].bytes,
                 .places = Shifted(places, constant.begin),
                 .scales = ScaleTargets(image, constant, first_root)});
  }
  for (MemberRoot& root : image.roots) {
    member.extents.push_back({.offset = root.offset, .size = root.image.root.size(), .is_root = true, .index = roots_.size()});
    roots_.push_back({.bytes = std::move(root.image.root), .places = Shifted(places, root.offset)});
  }
  std::ranges::sort(member.extents, {}, &StreamMember::Extent::offset);
  return member;
}

void StreamPlan::AddConstant(StreamConstant constant) {
  const RowSource* rows = constant.bytes->rows();
  const void* origin = rows != nullptr ? rows->origin() : nullptr;
  const auto known = origin != nullptr ? group_of_origin_.find(origin) : group_of_origin_.end();
  if (known == group_of_origin_.end()) {
    if (origin != nullptr) group_of_origin_[origin] = groups_.size();
    groups_.push_back({.constants = {}, .rows = rows != nullptr});
  }
  StreamGroup& group = known == group_of_origin_.end() ? groups_.back() : groups_[known->second];
  group.constants.push_back(constants_.size());
  group.length = std::max(group.length, LengthOf(*constant.bytes));
  bytes_ += constant.bytes->size();
  constants_.push_back(std::move(constant));
}

void StreamPlan::Cut(uint64_t unit_bytes, const std::map<const void*, uint64_t>& positions) {
  std::ranges::stable_sort(groups_, {}, [&](const StreamGroup& group) -> uint64_t {
    const RowSource* rows = constants_[group.constants.front()].bytes->rows();
    const auto found = rows != nullptr ? positions.find(rows->origin()) : positions.end();
    return found == positions.end() ? 0 : found->second + 1;
  });
  units_ = 0;
  unit_bytes_ = 0;
  for (StreamGroup& group : groups_) {
    uint64_t each = 0;  // bytes of one row of all constants, scales included
    for (const size_t constant : group.constants) {
      const RowSource* rows = constants_[constant].bytes->rows();
      each += rows != nullptr ? rows->row_bytes() + static_cast<uint64_t>(rows->scales_per_row()) * sizeof(float) : 1;
    }
    group.step = std::max<uint64_t>(1, unit_bytes / std::max<uint64_t>(1, each));
    group.first_unit = units_;
    units_ += (group.length + group.step - 1) / group.step;
    unit_bytes_ = std::max(unit_bytes_, std::min(group.step, group.length) * each);
  }
}

const StreamGroup& StreamPlan::GroupOf(uint64_t unit) const {
  return *std::prev(std::ranges::upper_bound(groups_, unit, {}, &StreamGroup::first_unit));
}

std::vector<StreamPiece> StreamPlan::PiecesOf(uint64_t unit) const {
  const StreamGroup& group = GroupOf(unit);
  const uint64_t first = (unit - group.first_unit) * group.step;
  std::vector<StreamPiece> pieces;
  for (const size_t constant : group.constants) {
    const uint64_t length = LengthOf(*constants_[constant].bytes);
    if (first < length) pieces.push_back({.constant = constant, .first = first, .count = std::min(group.step, length - first)});
  }
  return pieces;
}

std::vector<uint64_t> StreamPlan::DoneBefore(uint64_t unit) const {
  std::vector<uint64_t> done(constants_.size());
  for (const StreamGroup& group : groups_) {
    if (unit <= group.first_unit) continue;
    const uint64_t upto = std::min(group.length, (unit - group.first_unit) * group.step);
    for (const size_t constant : group.constants) done[constant] = std::min(upto, LengthOf(*constants_[constant].bytes));
  }
  return done;
}

uint64_t BytesOf(const StreamConstant& constant, uint64_t count) {
  const RowSource* rows = constant.bytes->rows();
  return rows != nullptr ? count * rows->row_bytes() : count;
}

uint32_t MemberCrc(const StreamPlan& plan, const StreamMember& member, std::span<const uint32_t> crcs, uint64_t from) {
  uint32_t crc = 0;
  uint64_t end = from;
  for (const StreamMember::Extent& extent : member.extents) {
    if (extent.offset < from) continue;
    crc = Crc32Zeros(crc, extent.offset - end);
    const uint32_t own = extent.is_root ? Crc32(0, plan.roots()[extent.index].bytes) : crcs[extent.index];
    crc = Crc32Combine(crc, own, extent.size);
    end = extent.offset + extent.size;
  }
  return Crc32Zeros(crc, member.size - end);
}

}  // namespace taskpress
